//! One macro for those who log with `log` and those who log with `defmt`; without either feature
//! it is nothing. For what the control plane does: the path of a packet never logs.

macro_rules! debug {
    ($($arguments:tt)*) => {{
        #[cfg(feature = "log")]
        log::debug!($($arguments)*);
        #[cfg(feature = "defmt")]
        defmt::debug!($($arguments)*);
    }};
}

pub(crate) use debug;

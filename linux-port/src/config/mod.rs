//! Configuration: from UCI text to checked types.

pub mod model;

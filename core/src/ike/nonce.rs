//! Which of two exchanges gives way when both ends have begun the same one.

/// How much of a nonce is compared: more than chance can make equal.
const COMPARED: usize = 32;

/// The lower one of the two nonces of an exchange, as far as it is compared: octet by octet
/// (RFC 7296 §2.8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lowest([u8; COMPARED]);

impl Lowest {
    pub(crate) fn of(one: &[u8], other: &[u8]) -> Lowest {
        let mut lowest = Lowest([0; COMPARED]);
        lowest.0.iter_mut().zip(one.min(other)).for_each(|(to, from)| *to = *from);
        lowest
    }
}

#[cfg(test)]
mod tests {
    use super::Lowest;

    #[test]
    fn octets_count_and_not_numbers() {
        let [low, high] = [Lowest::of(&[1; 40], &[9; 16]), Lowest::of(&[1, 2], &[2; 32])];
        assert!(low < high || high < low);
        assert_eq!(low, Lowest::of(&[9; 16], &[1; 33]));
        assert!(Lowest::of(&[0xff; 16], &[0xff; 16]) > Lowest::of(&[0xfe; 256], &[0xff; 16]));
    }
}

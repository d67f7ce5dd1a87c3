//! A generator whose numbers are the same each time.

use rand_core::{Infallible, TryCryptoRng, TryRng};

use crate::sim::SplitMix64;

/// A generator for IKE. Whoever looks at it knows all secrets.
pub struct Dice {
    random: SplitMix64,
    /// What was drawn with the length of a secret of a key exchange, if anybody looks.
    pub drawn: Option<Vec<[u8; 32]>>,
}

impl Dice {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Dice {
        Dice { random: SplitMix64::new(seed), drawn: None }
    }
}

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.random.draw() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.random.draw())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.random.draw().to_be_bytes()[..chunk.len()]);
        }
        if let (Some(drawn), Ok(bytes)) = (&mut self.drawn, (&*bytes).try_into()) {
            drawn.push(bytes);
        }
        Ok(())
    }
}

impl TryCryptoRng for Dice {}

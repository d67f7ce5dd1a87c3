//! ChaCha20-Poly1305 (RFC 8439) for 32-bit processors without vector instructions.
//!
//! RustCrypto's is written for those that have them. On the cheapest routers this project exists
//! for, most of a packet's time goes into the cipher, and this one takes a third fewer
//! instructions: see `docs/PERFORMANCE.md`. It is used on MIPS and 32-bit ARM, and tested
//! everywhere by the same vectors as, and against, RustCrypto's.
//!
//! Nothing here branches on secrets or looks anything up by them. Keys are erased when dropped.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

use crate::{Aead, BadIcv, BadKeyLength, ICV_LEN, NONCE_LEN};

/// ChaCha20-Poly1305 with a 256-bit key.
pub struct ChaCha20Poly1305(Zeroizing<[u32; 8]>);

impl ChaCha20Poly1305 {
    /// Takes a key.
    ///
    /// # Errors
    /// [`BadKeyLength`] unless `key` has 32 bytes.
    pub fn new(key: &[u8]) -> Result<ChaCha20Poly1305, BadKeyLength> {
        let key: &[u8; 32] = key.try_into().map_err(|_| BadKeyLength)?;
        Ok(ChaCha20Poly1305(Zeroizing::new(words(key))))
    }

    /// The cipher and the authenticator for one packet, which has used up the first block
    /// (RFC 8439 §2.6).
    fn start(&self, nonce: &[u8; NONCE_LEN]) -> (ChaCha20, Poly1305) {
        let mut cipher = ChaCha20::new(&self.0, nonce);
        let mut block = cipher.block();
        let authenticator = Poly1305::new(&block);
        block.zeroize();
        (cipher, authenticator)
    }
}

impl Aead for ChaCha20Poly1305 {
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LEN] {
        let (mut cipher, authenticator) = self.start(nonce);
        cipher.apply(text);
        authenticator.icv(aad, text)
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8; ICV_LEN],
    ) -> Result<(), BadIcv> {
        let (mut cipher, authenticator) = self.start(nonce);
        if !bool::from(authenticator.icv(aad, text).ct_eq(icv)) {
            return Err(BadIcv);
        }
        cipher.apply(text);
        Ok(())
    }
}

/// Little-endian words; `bytes` is four times as long.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// The state of RFC 8439 §2.3: constants, key, counter, nonce.
struct ChaCha20([u32; 16]);

impl Drop for ChaCha20 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A quarter round (§2.1) on four words of a state.
macro_rules! quarter_round {
    ($state:ident: $a:literal $b:literal $c:literal $d:literal) => {
        $state[$a] = $state[$a].wrapping_add($state[$b]);
        $state[$d] = ($state[$d] ^ $state[$a]).rotate_left(16);
        $state[$c] = $state[$c].wrapping_add($state[$d]);
        $state[$b] = ($state[$b] ^ $state[$c]).rotate_left(12);
        $state[$a] = $state[$a].wrapping_add($state[$b]);
        $state[$d] = ($state[$d] ^ $state[$a]).rotate_left(8);
        $state[$c] = $state[$c].wrapping_add($state[$d]);
        $state[$b] = ($state[$b] ^ $state[$c]).rotate_left(7);
    };
}

impl ChaCha20 {
    fn new(key: &[u32; 8], nonce: &[u8; NONCE_LEN]) -> ChaCha20 {
        let [a, b, c, d, e, f, g, h] = *key;
        let [x, y, z] = words(nonce);
        let [w0, w1, w2, w3] = words(b"expand 32-byte k");
        ChaCha20([w0, w1, w2, w3, a, b, c, d, e, f, g, h, 0, x, y, z])
    }

    /// The next 64 bytes of key stream, as words.
    #[inline(always)] // one caller is all that matters, and keeps the state in registers
    fn block(&mut self) -> [u32; 16] {
        let mut state = self.0;
        for _ in 0..10 {
            quarter_round!(state: 0 4 8 12);
            quarter_round!(state: 1 5 9 13);
            quarter_round!(state: 2 6 10 14);
            quarter_round!(state: 3 7 11 15);
            quarter_round!(state: 0 5 10 15);
            quarter_round!(state: 1 6 11 12);
            quarter_round!(state: 2 7 8 13);
            quarter_round!(state: 3 4 9 14);
        }
        for (word, start) in state.iter_mut().zip(self.0) {
            *word = word.wrapping_add(start);
        }
        // No packet is long enough for this to wrap.
        self.0[12] = self.0[12].wrapping_add(1);
        state
    }

    #[inline(never)]
    fn apply(&mut self, text: &mut [u8]) {
        let (blocks, rest) = text.as_chunks_mut::<64>();
        for block in blocks {
            for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip(self.block()) {
                *bytes = (u32::from_le_bytes(*bytes) ^ word).to_le_bytes();
            }
        }
        if !rest.is_empty() {
            for (bytes, word) in rest.chunks_mut(4).zip(self.block()) {
                for (byte, key) in bytes.iter_mut().zip(word.to_le_bytes()) {
                    *byte ^= key;
                }
            }
        }
    }
}

/// RFC 8439 §2.5, in words of 32 bits.
struct Poly1305 {
    /// At most 2^130 and a little: the uppermost word is 4 at most.
    accumulator: [u32; 5],
    /// Below 2^124, and no word above 2^28.
    r: [u32; 4],
    s: [u32; 4],
}

impl Drop for Poly1305 {
    fn drop(&mut self) {
        self.accumulator.zeroize();
        self.r.zeroize();
        self.s.zeroize();
    }
}

impl Poly1305 {
    /// Takes the one-time key from the first 32 bytes of `block`.
    fn new(block: &[u32; 16]) -> Poly1305 {
        let [r0, r1, r2, r3, s0, s1, s2, s3, ..] = *block;
        let r = [r0 & 0x0fff_ffff, r1 & 0x0fff_fffc, r2 & 0x0fff_fffc, r3 & 0x0fff_fffc];
        Poly1305 { accumulator: [0; 5], r, s: [s0, s1, s2, s3] }
    }

    /// The ICV of RFC 8439 §2.8.
    fn icv(mut self, aad: &[u8], text: &[u8]) -> [u8; ICV_LEN] {
        self.padded(aad);
        self.padded(text);
        let mut lengths = [0; 16];
        if let Some((front, back)) = lengths.split_first_chunk_mut() {
            *front = (aad.len() as u64).to_le_bytes();
            back.copy_from_slice(&(text.len() as u64).to_le_bytes());
        }
        self.blocks(&[lengths]);
        self.finish()
    }

    fn padded(&mut self, data: &[u8]) {
        let (blocks, rest) = data.as_chunks();
        self.blocks(blocks);
        if !rest.is_empty() {
            let mut last = [0; 16];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            self.blocks(&[last]);
        }
    }

    /// accumulator = (accumulator + block) * r, modulo 2^130 - 5, for each block.
    ///
    /// Words are multiplied as at school. What would go beyond 2^128 has a factor of four, since
    /// the upper words of r are multiples of four, and 2^130 is 5: so it comes back multiplied by
    /// 5/4. No sum overflows: products are below 2^61, and there are four in a column.
    #[inline(never)]
    fn blocks(&mut self, blocks: &[[u8; 16]]) {
        let [r0, r1, r2, r3] = self.r;
        let [s1, s2, s3] = [r1, r2, r3].map(|word| word + (word >> 2));
        let product = |a: u32, b: u32| u64::from(a) * u64::from(b);
        let [mut h0, mut h1, mut h2, mut h3, mut h4] = self.accumulator;
        for block in blocks {
            let [m0, m1, m2, m3] = words(block);
            let carry;
            (h0, carry) = add(h0, m0, 0);
            let (sum1, carry) = add(h1, m1, carry);
            let (sum2, carry) = add(h2, m2, carry);
            let (sum3, carry) = add(h3, m3, carry);
            (h1, h2, h3) = (sum1, sum2, sum3);
            h4 += carry + 1;

            let [z1, z2, z3, z4] = [s1, s2, s3, r0].map(|word| h4 * word);
            let x0 = product(h0, r0) + product(h1, s3) + product(h2, s2) + product(h3, s1);
            let x1 = product(h0, r1) + product(h1, r0) + product(h2, s3) + product(h3, s2);
            let x2 = product(h0, r2) + product(h1, r1) + product(h2, r0) + product(h3, s3);
            let x3 = product(h0, r3) + product(h1, r2) + product(h2, r1) + product(h3, r0);
            let (x1, x2, x3) = (x1 + u64::from(z1), x2 + u64::from(z2), x3 + u64::from(z3));

            let (y1, carry) = add(x1 as u32, high(x0), 0);
            let (y2, carry) = add(x2 as u32, high(x1) + carry, 0);
            let (y3, carry) = add(x3 as u32, high(x2) + carry, 0);
            let y4 = z4 + high(x3) + carry;

            let carry;
            (h0, carry) = add(x0 as u32, (y4 >> 2) + (y4 & !3), 0);
            let carry1;
            (h1, carry1) = add(y1, carry, 0);
            let carry2;
            (h2, carry2) = add(y2, carry1, 0);
            let carry3;
            (h3, carry3) = add(y3, carry2, 0);
            h4 = (y4 & 3) + carry3;
        }
        self.accumulator = [h0, h1, h2, h3, h4];
    }

    /// The accumulator, fully reduced, plus s.
    fn finish(self) -> [u8; ICV_LEN] {
        let [h0, h1, h2, h3, h4] = self.accumulator;
        // It is at least 2^130 - 5 if adding 5 makes it 2^130.
        let (g0, carry) = add(h0, 5, 0);
        let (g1, carry) = add(h1, 0, carry);
        let (g2, carry) = add(h2, 0, carry);
        let (g3, carry) = add(h3, 0, carry);
        let reduce = Choice::from((((h4 + carry) >> 2) & 1) as u8);
        let mut carry = 0;
        let mut icv = [0; ICV_LEN];
        let parts = [(h0, g0), (h1, g1), (h2, g2), (h3, g3)].into_iter().zip(self.s);
        for (bytes, ((h, g), s)) in icv.as_chunks_mut().0.iter_mut().zip(parts) {
            let word;
            (word, carry) = add(u32::conditional_select(&h, &g, reduce), s, carry);
            *bytes = word.to_le_bytes();
        }
        icv
    }
}

/// The upper word.
fn high(number: u64) -> u32 {
    (number >> 32) as u32
}

/// Sum and carry.
#[inline(always)]
fn add(a: u32, b: u32, carry: u32) -> (u32, u32) {
    // Words all the way: a sum of 64 bits keeps LLVM from seeing that what follows multiplies
    // words, and MIPS then takes four times as long for each product.
    let (sum, first) = a.overflowing_add(b);
    let (sum, second) = sum.overflowing_add(carry);
    (sum, u32::from(first) | u32::from(second))
}

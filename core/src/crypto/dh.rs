//! Key exchange: Curve25519 and the NIST curve P-256.
//!
//! Implements what a KE payload carries and the shared secret that comes of it, for Curve25519
//! (RFC 8031, RFC 7748) and for the 256-bit random ECP group (RFC 5903). Modular groups and
//! post-quantum key encapsulation are not here.

use curve25519_dalek::montgomery::MontgomeryPoint;
use p256::elliptic_curve::point::AffineCoordinates;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{NonZeroScalar, ProjectivePoint, PublicKey, Sec1Point};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Length of every secret here, own and shared, in bytes.
pub const SECRET_LEN: usize = 32;
/// Length of the longest public value, in bytes.
pub const MAX_PUBLIC_LEN: usize = 64;

/// The shared secret of a key exchange, `g^ir`; it is erased when dropped.
pub type SharedSecret = Zeroizing<[u8; SECRET_LEN]>;

/// The peer's public value is no public value of its group, or leads to a secret that anybody
/// could compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPublicValue;

/// The key exchange methods we speak, by their IKEv2 names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Curve25519 (31), RFC 8031.
    Curve25519,
    /// 256-bit random ECP group (19), RFC 5903.
    P256,
}

impl Group {
    /// Every group, the preferred one first.
    pub const ALL: [Group; 2] = [Group::Curve25519, Group::P256];

    /// Length of a public value in bytes: 32 or 64.
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Group::Curve25519 => 32,
            Group::P256 => 64,
        }
    }
}

/// Our half of a key exchange: a fresh secret, and the public value that goes to the peer.
///
/// A key exchange survives a forged answer ([`EphemeralKey::agree`] leaves it as it was), but it
/// serves one exchange only: whoever has the shared secret drops it, which erases it.
pub struct EphemeralKey {
    group: Group,
    secret: [u8; SECRET_LEN],
    public: [u8; MAX_PUBLIC_LEN],
}

impl EphemeralKey {
    /// Draws a secret from a cryptographic random generator, and computes its public value.
    #[must_use]
    pub fn generate(group: Group, rng: &mut (impl CryptoRng + ?Sized)) -> EphemeralKey {
        let mut key = EphemeralKey { group, secret: [0; SECRET_LEN], public: [0; MAX_PUBLIC_LEN] };
        match group {
            Group::Curve25519 => {
                rng.fill_bytes(&mut key.secret);
                let public = MontgomeryPoint::mul_base_clamped(key.secret);
                fill(&mut key.public, public.as_bytes());
            }
            Group::P256 => {
                // One number in 2^32 is not below the group's order.
                let public = loop {
                    rng.fill_bytes(&mut key.secret);
                    if let Some(scalar) = scalar(&key.secret) {
                        break ProjectivePoint::GENERATOR * **scalar;
                    }
                };
                // The point at infinity is no multiple of the generator by a scalar in its range,
                // so what follows the tag is all of x and y.
                let point = public.to_affine().to_sec1_point(false);
                fill(&mut key.public, point.as_bytes().get(1..).unwrap_or_default());
            }
        }
        key
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> Group {
        self.group
    }

    /// The public value as a KE payload carries it: [`Group::public_len`] bytes.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.public.get(..self.group.public_len()).unwrap_or_default()
    }

    /// The secret shared with whoever sent `public`, which came out of a KE payload.
    ///
    /// # Errors
    /// [`BadPublicValue`] unless it has the right length, lies on the curve (RFC 5903 §8) and
    /// takes part in the secret (RFC 7748 §6.1, RFC 8031 §5).
    pub fn agree(&self, public: &[u8]) -> Result<SharedSecret, BadPublicValue> {
        match self.group {
            Group::Curve25519 => {
                let public = public.try_into().map_err(|_| BadPublicValue)?;
                let point = Zeroizing::new(MontgomeryPoint(public).mul_clamped(self.secret));
                let secret = SharedSecret::new(point.to_bytes());
                if secret.ct_eq(&[0; SECRET_LEN]).into() { Err(BadPublicValue) } else { Ok(secret) }
            }
            Group::P256 => {
                let public: &[u8; 64] = public.try_into().map_err(|_| BadPublicValue)?;
                let public = Sec1Point::from_untagged_bytes(public.into());
                let public = PublicKey::try_from(&public).map_err(|_| BadPublicValue)?;
                let scalar = scalar(&self.secret).ok_or(BadPublicValue)?;
                let point = Zeroizing::new((public.to_projective() * **scalar).to_affine());
                // The secret is x alone (RFC 5903 §9).
                Ok(SharedSecret::new(point.x().into()))
            }
        }
    }
}

impl Drop for EphemeralKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// The big-endian number, if it is a scalar of P-256 other than zero.
fn scalar(secret: &[u8; SECRET_LEN]) -> Option<Zeroizing<NonZeroScalar>> {
    NonZeroScalar::try_from(&secret[..]).ok().map(Zeroizing::new)
}

fn fill(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

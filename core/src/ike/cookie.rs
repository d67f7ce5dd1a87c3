//! What keeps strangers from wearing us out: cookies (RFC 7296 §2.6), and a limit per source.
//!
//! A cookie shows that somebody receives what is sent to the address it claims to have; it costs us
//! no memory. Whoever has shown that may then begin so many IKE SAs a second and no more: an address
//! of IPv4, a /56 of IPv6. Both only count once strangers have begun many.
//!
//! Each source has three counters of many, which others use as well: two by its address, one by its
//! network. It is held up when all three are used up. Attackers in one network, however many, so hold
//! up only each other, and a neighbour of theirs if they are some hundred; N of them in N networks
//! hold up one newcomer in `1 / (1 - exp(-N / 256))^3`: 100 of them one in thirty. Which ones share,
//! strangers cannot know, and it changes every minute. Peers that are where they are configured to be
//! are not counted.

use core::net::IpAddr;
use core::time::Duration;

use rand_core::CryptoRng;

use super::pace::Pace;
use crate::crypto::prf::{PRF_LEN, Prf, Secret};
use crate::time::Instant;

/// Length of a cookie in bytes.
pub(crate) const COOKIE_LEN: usize = PRF_LEN;

/// For how long one cookie is given out; it is accepted as long again.
const EPOCH: Duration = Duration::from_secs(60);
/// How many counters of sources there are in each row.
const SOURCES: usize = 256;
/// Rows by address, and then one by network.
const ROWS: usize = 3;
/// How often a source may begin an IKE SA on average,
const INTERVAL: Duration = Duration::from_millis(200);
/// and how often while strangers have to give way to each other;
const SCARCE_INTERVAL: Duration = Duration::from_secs(1);
/// how many times at once.
const BURST: u32 = 10;

/// What is known about strangers, which is next to nothing.
pub(crate) struct Guard {
    prf: Prf,
    sources: [[Pace; SOURCES]; ROWS],
}

impl Guard {
    pub(crate) fn new(rng: &mut dyn CryptoRng) -> Guard {
        let mut secret = Secret::default();
        rng.fill_bytes(&mut *secret);
        Guard { prf: Prf::new(&[&secret[..]]), sources: [[Pace::FRESH; SOURCES]; ROWS] }
    }

    /// The cookie for somebody at this address.
    pub(crate) fn cookie(&self, now: Instant, stranger: &Stranger<'_>) -> [u8; COOKIE_LEN] {
        let mut address = [0; 16];
        *self.prf.compute(&stranger.parts(&mut address, &epoch(now).to_be_bytes()))
    }

    /// Whether it is a cookie that was given to this one, not long ago.
    pub(crate) fn verify(&self, now: Instant, stranger: &Stranger<'_>, cookie: &[u8]) -> bool {
        let mut address = [0; 16];
        let now = epoch(now);
        [now, now.saturating_sub(1)].into_iter().any(|epoch| {
            let epoch = epoch.to_be_bytes();
            self.prf.verify(&stranger.parts(&mut address, &epoch), cookie)
        })
    }

    /// Whether this source may begin another IKE SA now; counts it if so. `scarce`: it
    /// takes the place of somebody else's.
    pub(crate) fn allows(&mut self, now: Instant, source: IpAddr, scarce: bool) -> bool {
        let interval = if scarce { SCARCE_INTERVAL } else { INTERVAL };
        let network = network(source);
        let source = match source {
            IpAddr::V4(address) => address.to_bits().into(),
            // Whoever has IPv6 has as many addresses as it likes, but not networks.
            IpAddr::V6(_) => network,
        };
        let epoch = epoch(now).to_be_bytes();
        let hash = |of: &[u8], what: u64| self.prf.compute(&[of, &epoch, &what.to_be_bytes()]);
        let [a, b, ..] = *hash(b"source", source);
        let [c, ..] = *hash(b"network", network);
        let mut counters = self.sources.iter_mut().zip([a, b, c]);
        let counters = [(); ROWS]
            .map(|()| counters.next().and_then(|(row, at)| row.get_mut(usize::from(at) % SOURCES)));
        let mut allowed = false;
        for pace in counters.into_iter().flatten() {
            // One that is used up is not charged further: it will be somebody else's.
            if pace.permits(now, interval, BURST) {
                pace.count(now, interval);
                allowed = true;
            }
        }
        allowed
    }
}

/// The network that an address is in, as far as one attacker may have it: a /24 of IPv4, a /56 of
/// IPv6.
pub(crate) fn network(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => 1 << 63 | u64::from(address.to_bits() >> 8),
        IpAddr::V6(address) => (address.to_bits() >> 72) as u64,
    }
}

/// Somebody who wants to begin an IKE SA.
pub(crate) struct Stranger<'m> {
    pub(crate) address: IpAddr,
    /// Its SPI.
    pub(crate) spi: [u8; 8],
    /// Its nonce.
    pub(crate) nonce: &'m [u8],
}

impl Stranger<'_> {
    fn parts<'p>(&'p self, address: &'p mut [u8; 16], epoch: &'p [u8]) -> [&'p [u8]; 4] {
        let len;
        (*address, len) = octets(self.address);
        [epoch, &self.spi, address.get(..len).unwrap_or_default(), self.nonce]
    }
}

fn epoch(now: Instant) -> u64 {
    now.as_millis() / (EPOCH.as_millis() as u64)
}

/// An address, and how many of the bytes it has.
fn octets(address: IpAddr) -> ([u8; 16], usize) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 4)
        }
        IpAddr::V6(address) => (address.octets(), 16),
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::ike::tests::pair::Dice;

    fn stranger(last: u8, nonce: &[u8]) -> Stranger<'_> {
        Stranger { address: [192, 0, 2, last].into(), spi: [7; 8], nonce }
    }

    #[test]
    fn a_cookie_is_for_one_address_nonce_and_spi_and_not_for_ever() {
        let guard = Guard::new(&mut Dice(1, None));
        let (now, nonce) = (Instant::from_millis(59_000), [1; 16]);
        let cookie = guard.cookie(now, &stranger(1, &nonce));
        assert!(guard.verify(now, &stranger(1, &nonce), &cookie));
        assert!(!guard.verify(now, &stranger(2, &nonce), &cookie));
        assert!(!guard.verify(now, &stranger(1, &[2; 16]), &cookie));
        let other_spi = Stranger { spi: [8; 8], ..stranger(1, &nonce) };
        assert!(!guard.verify(now, &other_spi, &cookie));
        assert!(!guard.verify(now, &stranger(1, &nonce), &cookie[1..]));
        let at = |millis| guard.verify(Instant::from_millis(millis), &stranger(1, &nonce), &cookie);
        assert!(at(119_999) && !at(120_000));
        let another = Guard::new(&mut Dice(2, None));
        assert!(!another.verify(now, &stranger(1, &nonce), &cookie));
    }

    #[test]
    fn a_source_has_its_share_and_leaves_others_theirs() {
        let mut guard = Guard::new(&mut Dice(1, None));
        let mut allowed = |millis, last, scarce| {
            let (now, source) = (Instant::from_millis(millis), [192, 0, 2, last].into());
            (0..100).filter(|_| guard.allows(now, source, scarce)).count()
        };
        assert_eq!(allowed(0, 1, false), 11);
        assert_eq!(allowed(1000, 1, false), 5);
        assert_eq!(allowed(1000, 3, false), 11);
        assert_eq!(allowed(100_000, 1, false), 11);
        assert_eq!(allowed(110_000, 1, true), 11);
        assert_eq!(allowed(115_000, 1, true), 5);
    }

    /// Attackers, who are so many in each network, ask as often as they like for ten minutes; somebody
    /// else wants in every second.
    fn let_in(attackers: u32, of_network: u32) -> usize {
        let mut guard = Guard::new(&mut Dice(3, None));
        let mut allowed = 0;
        for second in 0..600 {
            let now = Instant::from_millis(second * 1000);
            for number in 0..attackers {
                let address = ((number / of_network) << 8) | (number % of_network);
                for _ in 0..5 {
                    let _ = guard.allows(now, Ipv4Addr::from(0x0a00_0000 | address).into(), true);
                }
            }
            let honest = [198, 51, second as u8, 1].into();
            allowed += usize::from(guard.allows(now, honest, true));
        }
        allowed
    }

    #[test]
    fn many_sources_do_not_hold_up_all_others() {
        for (attackers, of_network, at_least) in
            [(100, 1, 560), (250, 250, 590), (1000, 20, 450), (1000, 250, 580)]
        {
            let allowed = let_in(attackers, of_network);
            assert!(allowed >= at_least, "{attackers}, {of_network} in each: {allowed} of 600");
        }
    }
}

//! Many initiators at one address: the IKE endpoint of the core with a peer for each, on a real UDP
//! socket. Packets have nowhere to go.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rand_core::{Infallible, TryCryptoRng, TryRng};
use simplevpn::keys;
use simplevpn_core::crypto::Cipher;
use simplevpn_core::crypto::dh::Group;
use simplevpn_core::crypto::sign::{PrivateKey, PublicKey};
use simplevpn_core::ike::auth::{Credential, Expectation};
use simplevpn_core::ike::identity::Identity;
use simplevpn_core::ike::suite::{Pfs, Preferences};
use simplevpn_core::ike::wire::id::Id;
use simplevpn_core::ike::{
    ChildSa, Context, Encap, Ike, IkeEvent, IkePath, IkeSlot, Lifetimes, MAX_MESSAGE_LEN, Pad,
    PadEntry, Refused, SaDatabase, Settings, Target,
};
use simplevpn_core::{Path, PeerId};
use smoltcp::wire::{IpAddress, IpCidr};

use super::{INITIATORS, NET, RESPONDER};

/// How many connect at a time: so few that no responder takes them for a flood.
const AT_A_TIME: usize = 4;
/// How long all of them may take, and how long one reading of the socket.
const PATIENCE: Duration = Duration::from_secs(180);
const TICK: Duration = Duration::from_millis(20);
/// RFC 3948 §2.2.
const NON_ESP_MARKER: [u8; 4] = [0; 4];
const PORT: u16 = 4500;

/// What the initiators authenticate with.
pub(super) enum Secrets {
    Psk(Vec<u8>),
    /// Our private key, the responder's public one.
    Keys(Box<(PrivateKey, PublicKey)>),
}

/// One initiator, as both ends know it.
#[derive(Clone)]
pub(super) struct Initiator {
    pub(super) id: String,
    /// What lies behind it.
    pub(super) prefix: String,
}

/// The peers of the endpoint: each time the responder, for another initiator.
struct Peers {
    secrets: Secrets,
    responder: Identity,
    initiators: Vec<(Identity, [IpCidr; 1])>,
    remote: [IpCidr; 1],
}

impl Pad for Peers {
    fn entry(&self, peer: PeerId) -> Option<PadEntry<'_>> {
        let (local_id, local) = self.initiators.get(peer.index())?;
        let (credential, expectation) = match &self.secrets {
            Secrets::Psk(psk) => (Credential::PresharedKey(psk), Expectation::PresharedKey(psk)),
            Secrets::Keys(keys) => {
                (Credential::PrivateKey(&keys.0), Expectation::PublicKey(&keys.1))
            }
        };
        Some(PadEntry {
            local_id: Some(local_id),
            remote_id: &self.responder,
            credential,
            expectation,
            ppk: None,
            local,
            remote: &self.remote,
            encap: Encap::Auto,
            request_address: false,
            lease: None,
            pfs: Pfs::Optional,
            lifetimes: Lifetimes::default(),
        })
    }

    fn find(&self, _: &Id<'_>, _: Option<&Id<'_>>, _: IpAddr) -> Option<PeerId> {
        None // Nobody connects to us.
    }

    fn pretends_nat(&self, _: IpAddr) -> bool {
        false
    }

    fn has_ppk(&self) -> bool {
        false
    }
}

/// Packets come from nowhere.
struct NoPackets;

impl SaDatabase for NoPackets {
    fn allocate_spi(&mut self, random: u32) -> Option<u32> {
        Some(random | 0x100)
    }

    fn install_inbound(&mut self, _: &ChildSa<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn install_outbound(&mut self, _: &ChildSa<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn remove_inbound(&mut self, _: u32) {}

    fn remove_outbound(&mut self, _: PeerId, _: u32) {}

    fn set_path(&mut self, _: PeerId, _: Path) {}

    fn last_inbound(&self, _: PeerId) -> Option<simplevpn_core::Instant> {
        None
    }

    fn heard_on(&self, _: PeerId) -> Option<Path> {
        None
    }

    fn has_received(&self, _: u32) -> bool {
        false
    }
}

/// The system's randomness.
struct System;

impl TryRng for System {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.try_next_u64()? as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(keys::KEY_LEN) {
            match keys::generate() {
                Ok(random) => {
                    chunk.iter_mut().zip(random.iter()).for_each(|(to, from)| *to = *from)
                }
                Err(error) => panic!("no randomness: {error}"),
            }
        }
        Ok(())
    }
}

impl TryCryptoRng for System {}

/// The endpoint, and what it needs.
struct Endpoint {
    ike: Ike<'static>,
    peers: Peers,
    socket: UdpSocket,
    begin: Instant,
    up: usize,
}

/// Connects all initiators, each once, and leaves them connected. Runs on their machine.
///
/// # Errors
/// Why one could not, or used other algorithms than X25519 and AES-256-GCM.
pub(super) fn connect(initiators: &[Initiator], secrets: Secrets) -> Result<(), String> {
    let mut endpoint = Endpoint::new(initiators, secrets)?;
    let mut begun = 0;
    while endpoint.up < initiators.len() {
        if endpoint.begin.elapsed() > PATIENCE {
            return Err(format!("{} of {begun} are up after {PATIENCE:?}", endpoint.up));
        }
        while begun < initiators.len() && begun - endpoint.up < AT_A_TIME {
            endpoint.initiate(PeerId(begun as u32));
            begun += 1;
        }
        endpoint.turn().map_err(|error| format!("UDP: {error}"))?;
        endpoint.take_events()?;
    }
    endpoint.check()
}

impl Endpoint {
    fn new(initiators: &[Initiator], secrets: Secrets) -> Result<Endpoint, String> {
        let parsed = initiators.iter().map(|initiator| {
            let prefix = initiator.prefix.parse().map_err(|()| initiator.prefix.clone());
            Ok((identity(&initiator.id)?, [prefix?]))
        });
        let peers = Peers {
            secrets,
            responder: identity(super::RESPONDER_ID)?,
            initiators: parsed.collect::<Result<_, String>>()?,
            remote: [NET.parse().map_err(|()| NET.to_owned())?],
        };
        let socket = UdpSocket::bind((INITIATORS, PORT))
            .and_then(|socket| socket.set_read_timeout(Some(TICK)).map(|()| socket))
            .map_err(|error| format!("UDP: {error}"))?;
        let slots: Vec<IkeSlot> = (0..initiators.len() + AT_A_TIME).map(|_| None).collect();
        let settings = Settings::new(Preferences::new(true));
        let ike = Ike::new(settings, slots.into(), vec![0; 4096].into(), &mut System);
        Ok(Endpoint { ike, peers, socket, begin: Instant::now(), up: 0 })
    }

    fn now(&self) -> simplevpn_core::Instant {
        simplevpn_core::Instant::from_millis(self.begin.elapsed().as_millis() as u64)
    }

    fn call(&mut self, call: impl FnOnce(&mut Ike<'static>, &mut Context<'_>)) {
        let (mut rng, mut sad) = (System, NoPackets);
        let mut cx = Context { rng: &mut rng, pad: &self.peers, sad: &mut sad };
        call(&mut self.ike, &mut cx);
    }

    fn initiate(&mut self, peer: PeerId) {
        let (local, remote) = (INITIATORS.into(), RESPONDER.into());
        let target = Target { local, remote, ports: None, nat_ports: (PORT, PORT) };
        let now = self.now();
        self.call(|ike, cx| ike.initiate(now, cx, peer, &target));
    }

    /// Sends what there is to say, and takes one datagram, or what time brings.
    fn turn(&mut self) -> io::Result<()> {
        const HEAD: usize = NON_ESP_MARKER.len();
        let mut buffer = [0; HEAD + MAX_MESSAGE_LEN];
        buffer[..HEAD].copy_from_slice(&NON_ESP_MARKER);
        while let Some(transmit) = self.ike.poll_transmit(&mut buffer[HEAD..]) {
            self.socket.send_to(&buffer[..HEAD + transmit.len], transmit.path.remote)?;
        }
        match self.socket.recv_from(&mut buffer) {
            Ok((len, remote)) => {
                let local = SocketAddr::from((INITIATORS, PORT));
                let (now, path) = (self.now(), IkePath { local, remote, natt: true });
                if let Some(message) = buffer[..len].strip_prefix(&NON_ESP_MARKER) {
                    let mut message = message.to_vec();
                    self.call(|ike, cx| ike.handle(now, cx, &path, &mut message));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let now = self.now();
        if self.ike.poll_timeout().is_some_and(|due| due <= now) {
            self.call(|ike, cx| ike.handle_timeout(now, cx));
        }
        Ok(())
    }

    fn take_events(&mut self) -> Result<(), String> {
        while let Some(event) = self.ike.poll_event() {
            match event {
                IkeEvent::Up(_) => self.up += 1,
                IkeEvent::Failed(peer, reason) | IkeEvent::Down(peer, reason) => {
                    return Err(format!("initiator {}: {reason}", peer.index()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// All are there, with the algorithms that this is about.
    fn check(&self) -> Result<(), String> {
        for number in 0..self.peers.initiators.len() {
            let status = self.ike.status(PeerId(number as u32));
            let suite = status.and_then(|status| Some((status.suite?, status.child?)));
            let right = suite.is_some_and(|(ike, child)| {
                ike.cipher == Cipher::Aes256Gcm16
                    && ike.group == Group::Curve25519
                    && child.cipher == Cipher::Aes256Gcm16
            });
            if !right {
                return Err(format!("initiator {number} has agreed on {suite:?}"));
            }
        }
        Ok(())
    }
}

fn identity(text: &str) -> Result<Identity, String> {
    text.parse().map_err(|_| format!("{text} is no identity"))
}

/// The prefix behind an initiator, as it would be parsed.
pub(super) fn prefix(number: u32) -> String {
    let [_, _, high, low] = number.to_be_bytes();
    IpCidr::new(IpAddress::v4(10, 100 + high, low, 0), 24).to_string()
}

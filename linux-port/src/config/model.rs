//! What a checked configuration says, in types the daemon works with.

use core::net::IpAddr;
use std::path::PathBuf;

use simplevpn_core::crypto::Cipher;
use simplevpn_core::crypto::sign::PublicKey;
use simplevpn_core::ike::identity::Identity;
use smoltcp::wire::IpCidr;
use zeroize::Zeroizing;

use super::Diagnostic;
use super::diagnostic::in_order;

/// One tunnel interface and its peers: a `config interface` section with `option proto
/// 'simplevpn'` and its `config simplevpn_<name>` sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name of the interface, and of its TUN device.
    pub name: String,
    /// The seed of our Ed25519 key (RFC 8032 §5.1.5), with which peers authenticate us.
    pub private_key: Option<Secret>,
    /// Addresses of the TUN device, with host bits.
    pub addresses: Vec<IpCidr>,
    /// Whether peers with an endpoint are asked for addresses as well (RFC 7296 §2.19).
    pub virtual_addresses: bool,
    /// Name servers for peers that get their address from us (RFC 7296 §3.15.1).
    pub name_servers: Vec<IpAddr>,
    /// MTU of the TUN device in bytes; `None` is `auto`, from the path.
    pub mtu: Option<u16>,
    /// UDP port of IKE.
    pub port: u16,
    /// UDP port of UDP-encapsulated ESP and of IKE beside it (RFC 3948).
    pub nat_port: u16,
    /// How packets are led into the TUN device.
    pub steering: Steering,
    /// Mark on our own outer packets, never 0; `None`: the daemon picks one.
    pub fwmark: Option<Fwmark>,
    /// The interface our outer packets leave through, as the administrator named it (on OpenWrt
    /// netifd's name for it, e.g. `wan`); `None`: routing decides.
    pub tunlink: Option<String>,
    /// The firewall zone that OpenWrt puts the interface into.
    pub zone: Option<String>,
    /// Whether traffic for the tunnel stays inside when the tunnel is down.
    pub killswitch: bool,
    /// Where reserved sequence numbers of manual keying are kept.
    pub state_dir: PathBuf,
    /// The networks that this machine will be connected to as far as the same file says so, without
    /// host bits.
    pub connected: Vec<IpCidr>,
    /// The peers, in the order of the file, without those that are `disabled` or refused.
    pub peers: Vec<Peer>,
    /// The peers whose sections have errors, in the order of the file.
    pub refused: Vec<RefusedPeer>,
    /// Whether its sections have errors. What is closed then stays closed until they have none,
    /// since what cannot be read may be the prefix to close.
    pub flawed: bool,
}

/// A peer whose section has errors. Nothing is sent to it and nothing is accepted from it; what it
/// was to protect stays closed as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPeer {
    /// What messages call it, so that its owner finds it: the section's name in quotes, or of an
    /// anonymous section UCI's `@simplevpn_vpn0[1]`, after the description if there is one.
    pub label: String,
    /// Its `allowed_ips` that can be read, in host space. Where `option steering` or the peer's
    /// offset leaves open which addresses programs use, both the real and the offset ones.
    pub prefixes: Vec<IpCidr>,
    /// Whether the prefixes would be steered into the tunnel.
    pub routed: bool,
    /// Whether its keys would be negotiated (IKEv2).
    pub negotiated: bool,
    /// Everything that is wrong with it.
    pub errors: Vec<Diagnostic>,
}

impl RefusedPeer {
    /// What is wrong with it, in the order of the file: the first twenty errors and a count of the
    /// rest.
    #[must_use]
    pub fn reasons(&self) -> Vec<Diagnostic> {
        in_order(self.errors.clone())
    }
}

/// What a peer is recognised by, whatever its section is called and wherever it stands: its
/// authentication identity (RFC 4301 §4.4.3), or with manual keys the SPI of what we receive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerIdentity {
    /// With manual keys: the SPI of what we receive.
    Spi(u32),
    /// What IKE tells peers apart by.
    Ike {
        /// Type and data of what the peer calls itself, the default being made of its public key;
        /// `None`: its address.
        remote: Option<(u8, Vec<u8>)>,
        /// Where the peer is reached, if that is what it is recognised by.
        host: Option<String>,
        /// The same of what we call ourselves towards a peer that is recognised by its address.
        local: Option<(u8, Vec<u8>)>,
    },
}

/// `option fwmark`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fwmark {
    /// The mark.
    pub mark: u32,
    /// The bits that count, the mark's among them; `None`: all that others do not use.
    pub mask: Option<u32>,
}

/// `option steering`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// `Policy` where the kernel has policy routing, else `Route`.
    Auto,
    /// Policy routing rules and tables of our own.
    Policy,
    /// `allowed_ips` in the main table.
    Route,
    /// DNAT from real to offset addresses, for kernels without policy routing.
    Offset,
    /// The administrator does it.
    None,
}

/// A peer section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The section's name; anonymous sections are `peer1`, `peer2`, … by position.
    pub name: String,
    /// The administrator's words about the peer.
    pub description: Option<String>,
    /// Where the peer is reached; `None`: this side only answers.
    pub endpoint: Option<Endpoint>,
    /// The remote traffic selectors, in wire space. Of a peer that lists none they are the
    /// addresses that it gets from the interface's `pool`.
    pub allowed_ips: Vec<IpCidr>,
    /// Our traffic selectors, at most four; empty is any.
    pub local_ips: Vec<IpCidr>,
    /// Whether `allowed_ips` are steered into the tunnel.
    pub route_allowed_ips: bool,
    /// Raw ESP or UDP encapsulation.
    pub encap: Encap,
    /// Seconds of silence after which a keepalive is sent; `None`: never. Without an endpoint it
    /// starts once the peer was heard, as in WireGuard.
    pub persistent_keepalive: Option<u16>,
    /// Host space minus wire space of the peer's IPv4 addresses (big-endian number); 0: none.
    pub offset: u32,
    /// The same for IPv6.
    pub offset6: u128,
    /// The keys.
    pub keying: Keying,
}

impl Peer {
    /// What the peer is recognised by in another configuration.
    #[must_use]
    pub fn identity(&self) -> PeerIdentity {
        let keys = match &self.keying {
            Keying::Manual(keys) => return PeerIdentity::Spi(keys.spi_in),
            Keying::Ike(keys) => keys,
        };
        let id = |id: &Identity| (id.id_type().number(), id.data().to_vec());
        let remote = keys.remote_id.as_ref().map(id);
        let by_address = remote.is_none();
        let host = self.endpoint.as_ref().filter(|_| by_address).map(|at| at.host.to_string());
        let local = keys.local_id.as_ref().filter(|_| by_address).map(id);
        PeerIdentity::Ike { remote, host, local }
    }
}

impl core::fmt::Display for Host {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Host::Address(address) => address.fmt(f),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// `endpoint_host` with its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address or name.
    pub host: Host,
    /// IKE port.
    pub port: u16,
    /// Port of UDP-encapsulated ESP.
    pub nat_port: u16,
}

/// An endpoint's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name, to be resolved now and again.
    Name(String),
}

/// `option encap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encap {
    /// Raw ESP until the peer is heard through UDP.
    Auto,
    /// Raw ESP, protocol 50.
    Esp,
    /// ESP in UDP (RFC 3948).
    Udp,
}

/// `option keying`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keying {
    /// Keys negotiated by IKEv2 (RFC 7296).
    Ike(Box<IkeKeys>),
    /// Keys written down in the configuration: labs, and interop with `ip xfrm`.
    Manual(ManualKeys),
}

/// How a peer and we recognise each other, and who calls whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeKeys {
    /// What we call ourselves; `None`: by our address.
    pub local_id: Option<Identity>,
    /// What the peer calls itself; `None`: by its address.
    pub remote_id: Option<Identity>,
    /// What proves both.
    pub authentication: Authentication,
    /// When we call.
    pub start: Start,
}

/// What proves identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Ed25519 keys: the interface's, and this one of the peer.
    PublicKey {
        /// The peer's.
        key: Box<PublicKey>,
        /// A secret that is mixed into the keys (RFC 8784).
        ppk: Option<Ppk>,
    },
    /// A secret that both ends know.
    PresharedKey(Secret),
}

/// A postquantum preshared key (RFC 8784).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ppk {
    /// Its name, which both ends give it.
    pub id: String,
    /// The secret.
    pub key: Secret,
    /// Whether there is no connection without it.
    pub required: bool,
}

/// `option start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once, and again after a loss.
    Auto,
    /// When there is traffic.
    Traffic,
    /// Never: the peer calls.
    None,
}

/// A secret of any length; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Zeroizing<Vec<u8>>);

impl core::fmt::Debug for Secret {
    /// Nothing of it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Both SAs of a manually keyed peer.
#[derive(Clone, PartialEq, Eq)]
pub struct ManualKeys {
    /// The AEAD of both directions.
    pub cipher: Cipher,
    /// SPI of what we receive.
    pub spi_in: u32,
    /// SPI of what we send.
    pub spi_out: u32,
    /// Key and salt of what we receive, `cipher.keymat_len()` bytes.
    pub key_in: Zeroizing<Vec<u8>>,
    /// Key and salt of what we send.
    pub key_out: Zeroizing<Vec<u8>>,
    /// Extended (64-bit) sequence numbers.
    pub esn: bool,
    /// Size of the anti-replay window in packets, 32…65536.
    pub replay_window: u32,
}

impl core::fmt::Debug for ManualKeys {
    /// Everything but the keys.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ManualKeys")
            .field("cipher", &self.cipher)
            .field("spi_in", &self.spi_in)
            .field("spi_out", &self.spi_out)
            .field("esn", &self.esn)
            .field("replay_window", &self.replay_window)
            .finish_non_exhaustive()
    }
}

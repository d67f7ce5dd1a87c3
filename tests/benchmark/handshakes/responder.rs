//! The responders: our daemon, and strongSwan.

use std::path::Path;
use std::time::Duration;

use simplevpn::keys;
use simplevpn_core::crypto::sign::{PrivateKey, PublicKey};
use simplevpn_tests::lab::daemon::{KeyPair, Peer, Vpn};
use simplevpn_tests::lab::{Host, process};

use super::initiators::{Initiator, Secrets, prefix};
use super::{NET, RESPONDER_ID};
use crate::program::{End, Program};
use crate::subjects::{ask, await_that, strongswan, write};

/// How long one with many peers may take to be ready.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who answers.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Responder {
    Ours,
    StrongSwan,
}

/// How both ends prove who they are.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Authentication {
    Psk,
    Ed25519,
}

impl Authentication {
    pub(super) const ALL: [Authentication; 2] = [Authentication::Psk, Authentication::Ed25519];

    pub(super) fn name(self) -> &'static str {
        match self {
            Authentication::Psk => "preshared key",
            Authentication::Ed25519 => "Ed25519",
        }
    }
}

impl Responder {
    pub(super) const ALL: [Responder; 2] = [Responder::Ours, Responder::StrongSwan];

    pub(super) fn name(self) -> &'static str {
        match self {
            Responder::Ours => "simplevpn",
            Responder::StrongSwan => "strongSwan",
        }
    }

    /// The programs and files it cannot do without.
    pub(super) fn needs(self) -> Vec<&'static str> {
        match self {
            Responder::Ours => Vec::new(),
            Responder::StrongSwan => [&strongswan::NEEDS[..], &["openssl"]].concat(),
        }
    }

    /// Ours has a peer for each initiator; strongSwan has one connection for them all.
    pub(super) fn initiator(self, number: u32) -> Initiator {
        let id = match self {
            Responder::Ours => format!("a{number}.test"),
            Responder::StrongSwan => "a.test".into(),
        };
        Initiator { id, prefix: prefix(number) }
    }

    /// Starts it, and says what initiators have to know.
    pub(super) fn start(
        self,
        host: &Host,
        authentication: Authentication,
        initiators: &[Initiator],
    ) -> Result<(End, Secrets), String> {
        match self {
            Responder::Ours => ours(host, authentication, initiators),
            Responder::StrongSwan => theirs(host, authentication),
        }
    }
}

fn ours(
    host: &Host,
    authentication: Authentication,
    initiators: &[Initiator],
) -> Result<(End, Secrets), String> {
    let (mut vpn, option, value, secrets) = match authentication {
        Authentication::Psk => {
            let psk = key()?;
            let text = keys::encode(&*psk).to_string();
            (Vpn::new(), "preshared_key", text, Secrets::Psk(psk.to_vec()))
        }
        Authentication::Ed25519 => {
            let (responder, initiator) = (KeyPair::new(host), key()?);
            let vpn = Vpn::new().option("private_key", &responder.private);
            let text = keys::encode(keys::public_key(&initiator).as_bytes()).to_string();
            (vpn, "public_key", text, key_pair(&initiator, &responder.public)?)
        }
    };
    for (number, initiator) in initiators.iter().enumerate() {
        let peer = Peer::ike(&format!("a{number}"))
            .option(option, &value)
            .option("local_id", RESPONDER_ID)
            .option("remote_id", &initiator.id)
            .allowed(&initiator.prefix);
        vpn = vpn.peer(peer);
    }
    let mut daemon = host.launches(&vpn);
    daemon.becomes_ready(PATIENCE)?;
    Ok((End::Ours(daemon), secrets))
}

fn theirs(host: &Host, authentication: Authentication) -> Result<(End, Secrets), String> {
    let dir = host.dir();
    for part in ["private", "pubkey"] {
        let made = std::fs::create_dir_all(dir.join(part));
        made.map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    let (auth, extra, secret, secrets) = match authentication {
        Authentication::Psk => {
            let psk = key()?;
            let secret = format!("secrets {{ ike {{ secret = 0s{} }} }}\n", *keys::encode(&*psk));
            ("psk", ["", ""], secret, Secrets::Psk(psk.to_vec()))
        }
        Authentication::Ed25519 => {
            let initiator = key()?;
            let private = ask(host, "openssl genpkey -algorithm ed25519", "")? + "\n";
            let public = ask(host, "openssl pkey -pubout", &private)? + "\n";
            write(host, "private/own.pem", &private)?;
            write(host, "pubkey/own.pem", &public)?;
            write(host, "pubkey/theirs.pem", &keys::pem(&keys::public_key(&initiator)))?;
            let secrets = key_pair(&initiator, &raw_key(host, &public)?)?;
            ("pubkey", ["pubkeys = own.pem", "pubkeys = theirs.pem"], String::new(), secrets)
        }
    };
    let [own, others] = extra;
    let swanctl_conf = format!(
        "connections {{ c {{
            version = 2
            local_addrs = 192.0.2.2
            remote_addrs = %any
            proposals = aes256gcm16-prfsha256-x25519
            encap = yes
            unique = never
            local {{
                auth = {auth}
                id = {RESPONDER_ID}
                {own}
            }}
            remote {{
                auth = {auth}
                id = a.test
                {others}
            }}
            children {{ net {{
                local_ts = {NET}
                remote_ts = 10.0.0.0/8
                esp_proposals = aes256gcm16
            }} }}
        }} }}
        {secret}"
    );
    write(host, "swanctl.conf", &swanctl_conf)?;
    let end = charon(host)?;
    Ok((end, secrets))
}

/// Runs it with the configuration that is there.
fn charon(host: &Host) -> Result<End, String> {
    let dir = host.dir().display();
    let strongswan_conf = format!(
        "charon-systemd {{
            load = random nonce openssl aesni aes sha1 sha2 hmac kdf gcm chapoly drbg curve25519 \
                pem pkcs1 pkcs8 x509 pubkey kernel-libipsec kernel-netlink socket-default vici
            ikesa_table_size = 1024
            ikesa_table_segments = 16
            journal {{ default = -1 }}
            filelog {{ stderr {{ default = 0 }} }}
            plugins {{
                vici {{ socket = unix://{dir}/vici }}
                kernel-libipsec {{ allow_peer_ts = yes }}
            }}
        }}
        swanctl {{ load = pem pkcs1 pkcs8 x509 pubkey openssl curve25519 random }}
        "
    );
    let settings = write(host, "strongswan.conf", &strongswan_conf)?;
    let mut command = host.command("charon-systemd");
    command.env("STRONGSWAN_CONF", settings);
    let end = End::Theirs(Program::start(host, command)?);
    await_that(&end, "control socket", || Path::new(&format!("{dir}/vici")).exists())?;
    let environment = format!("env STRONGSWAN_CONF={dir}/strongswan.conf SWANCTL_DIR={dir}");
    let load = format!("{environment} swanctl --load-all --uri unix://{dir}/vici");
    let output = process::run(host.command(&load), "", process::PATIENCE);
    if output.success { Ok(end) } else { Err(output.stdout + &output.stderr) }
}

fn key() -> Result<keys::Key, String> {
    keys::generate().map_err(|error| format!("no randomness: {error}"))
}

/// `responder` is a public key in base64.
fn key_pair(initiator: &keys::Key, responder: &str) -> Result<Secrets, String> {
    let bytes = keys::decode(responder).map_err(|error| format!("the public key {error}"))?;
    let public = PublicKey::from_bytes(&bytes).map_err(|_| "no public key")?;
    Ok(Secrets::Keys(Box::new((PrivateKey::from_seed(initiator), public))))
}

/// The base64 of a public key's own bytes.
fn raw_key(host: &Host, pem: &str) -> Result<String, String> {
    let der = format!("openssl pkey -pubin -outform DER <<END | tail -c 32 | base64\n{pem}END\n");
    ask(host, "sh", &der)
}

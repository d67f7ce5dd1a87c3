//! The words of `swanctl.conf`: what one strongSwan end of a connection is told.

use std::fmt;

use simplevpn::keys;

/// One connection named `lab` with one child named `net`, and the secrets that go with it.
///
/// Left alone, it is as strongSwan's defaults have it, but for IKEv2 only.
#[derive(Clone, Default)]
pub struct Connection {
    options: Vec<String>,
    local: Vec<String>,
    remote: Vec<String>,
    child: Vec<String>,
    secrets: Vec<String>,
    pools: Vec<String>,
    files: Vec<(String, String)>,
}

impl Connection {
    /// From one of our addresses to one of theirs; `%any` is whoever comes.
    #[must_use]
    pub fn between(local: &str, remote: &str) -> Connection {
        Connection::default()
            .option("version", "2")
            .option("local_addrs", local)
            .option("remote_addrs", remote)
    }

    /// Traffic selectors of the child, ours and theirs; several are separated by commas.
    #[must_use]
    pub fn protects(self, local_ts: &str, remote_ts: &str) -> Connection {
        self.child("local_ts", local_ts).child("remote_ts", remote_ts)
    }

    /// Both ends authenticate by one preshared key, a text.
    #[must_use]
    pub fn psk(self, local_id: &str, remote_id: &str, secret: &str) -> Connection {
        self.local("auth", "psk")
            .local("id", local_id)
            .remote("auth", "psk")
            .remote("id", remote_id)
            .secret("ike", remote_id, secret)
    }

    /// Both ends authenticate by raw Ed25519 keys: ours as the base64 text of the seed, theirs as
    /// a PEM text. Neither end has an `id`.
    #[must_use]
    pub fn raw_keys(mut self, private: &str, their_public_pem: &str) -> Connection {
        let own = keys::decode(private).unwrap_or_else(|wrong| panic!("a key that {wrong}"));
        self.files.push(("private/own.pem".into(), pkcs8_pem(&own)));
        self.files.push(("pubkey/own.pem".into(), spki_pem(&keys::public_key(&own))));
        self.files.push(("pubkey/theirs.pem".into(), their_public_pem.into()));
        self.local("auth", "pubkey")
            .local("pubkeys", "own.pem")
            .remote("auth", "pubkey")
            .remote("pubkeys", "theirs.pem")
    }

    /// A postquantum preshared key (RFC 8784) in hexadecimal, which both ends must have.
    #[must_use]
    pub fn ppk(self, id: &str, secret: &str) -> Connection {
        self.option("ppk_id", id).option("ppk_required", "yes").secret("ppk", id, secret)
    }

    /// Hands out virtual addresses of this prefix.
    #[must_use]
    pub fn pool(mut self, prefix: &str) -> Connection {
        self.pools.push(format!("lab {{\naddrs = {prefix}\n}}"));
        self.option("pools", "lab")
    }

    /// A setting of the connection.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Connection {
        self.options.push(setting(name, value));
        self
    }

    /// A setting of how this end authenticates.
    #[must_use]
    pub fn local(mut self, name: &str, value: &str) -> Connection {
        self.local.push(setting(name, value));
        self
    }

    /// A setting of how the other end has to authenticate.
    #[must_use]
    pub fn remote(mut self, name: &str, value: &str) -> Connection {
        self.remote.push(setting(name, value));
        self
    }

    /// A setting of the child.
    #[must_use]
    pub fn child(mut self, name: &str, value: &str) -> Connection {
        self.child.push(setting(name, value));
        self
    }

    fn secret(mut self, kind: &str, id: &str, secret: &str) -> Connection {
        self.secrets.push(format!("{kind}-lab {{\nid = \"{id}\"\nsecret = {secret}\n}}"));
        self
    }

    /// The files that swanctl looks for beside its configuration.
    pub(super) fn files(&self) -> &[(String, String)] {
        &self.files
    }
}

fn setting(name: &str, value: &str) -> String {
    format!("{name} = {value}")
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |settings: &[String]| settings.join("\n");
        writeln!(f, "connections {{\nlab {{\n{}", lines(&self.options))?;
        writeln!(f, "local {{\n{}\n}}", lines(&self.local))?;
        writeln!(f, "remote {{\n{}\n}}", lines(&self.remote))?;
        writeln!(f, "children {{\nnet {{\n{}\n}}\n}}\n}}\n}}", lines(&self.child))?;
        writeln!(f, "secrets {{\n{}\n}}", lines(&self.secrets))?;
        writeln!(f, "pools {{\n{}\n}}", lines(&self.pools))
    }
}

/// An Ed25519 seed as RFC 8410 §7 has it in PEM.
fn pkcs8_pem(seed: &[u8; 32]) -> String {
    const PREFIX: [u8; 16] =
        [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    pem("PRIVATE KEY", &[&PREFIX[..], seed].concat())
}

/// An Ed25519 public key as RFC 8410 §4 has it, a SubjectPublicKeyInfo, in PEM.
#[must_use]
pub fn spki_pem(public: &[u8; 32]) -> String {
    const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    pem("PUBLIC KEY", &[&PREFIX[..], public].concat())
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            (0..3).fold(0, |bits, n| bits << 8 | group.get(n).map_or(0, |&b| usize::from(b)));
        for n in 0..4 {
            let digit = DIGITS.get(bits >> (18 - 6 * n) & 63).map_or('?', |&d| char::from(d));
            text.push(if n <= group.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{base64, spki_pem};

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
    }

    /// RFC 8410 §10.1.
    #[test]
    fn a_public_key_as_rfc_8410_prints_it() {
        let key = simplevpn::keys::decode("Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").unwrap();
        let text = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        assert!(spki_pem(&key).contains(text), "{}", spki_pem(&key));
    }
}

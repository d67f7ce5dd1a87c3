//! The words of `swanctl.conf`: what one strongSwan end of a connection is told.

use std::fmt;

use crate::lab::Host;

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
    /// All of the above, as somebody wrote it.
    text: String,
}

impl Connection {
    /// A whole `swanctl.conf`, which has one child named `net`. Its keys lie where it looks for
    /// them.
    #[must_use]
    pub fn written(text: &str) -> Connection {
        Connection { text: text.into(), ..Connection::default() }
    }

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

    /// Both ends authenticate by raw Ed25519 keys. Neither end has an `id`.
    #[must_use]
    pub fn raw_keys(mut self, own: &KeyFiles, their_public_pem: &str) -> Connection {
        self.files = vec![
            ("private/own.pem".into(), own.private_pem.clone()),
            ("pubkey/own.pem".into(), own.public_pem.clone()),
            ("pubkey/theirs.pem".into(), their_public_pem.into()),
        ];
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
        set(&mut self.options, name, value);
        self
    }

    /// A setting of how this end authenticates.
    #[must_use]
    pub fn local(mut self, name: &str, value: &str) -> Connection {
        set(&mut self.local, name, value);
        self
    }

    /// A setting of how the other end has to authenticate.
    #[must_use]
    pub fn remote(mut self, name: &str, value: &str) -> Connection {
        set(&mut self.remote, name, value);
        self
    }

    /// A setting of the child.
    #[must_use]
    pub fn child(mut self, name: &str, value: &str) -> Connection {
        set(&mut self.child, name, value);
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

/// An Ed25519 key pair as OpenSSL makes and prints it.
#[derive(Clone)]
pub struct KeyFiles {
    private_pem: String,
    public_pem: String,
    /// The 32 bytes of the public key in base64, as `option public_key` takes them.
    pub public: String,
}

impl KeyFiles {
    /// A new key, made on a machine of the lab.
    ///
    /// # Panics
    /// When OpenSSL cannot.
    #[must_use]
    pub fn new(host: &Host) -> KeyFiles {
        let private_pem = host.run("openssl genpkey -algorithm ed25519");
        let public_pem = host.feed("openssl pkey -pubout", &private_pem);
        let script = format!(
            "openssl pkey -pubin -outform DER <<END | tail -c 32 | base64\n{public_pem}END\n"
        );
        let public = host.feed("sh", &script).trim().to_owned();
        KeyFiles { private_pem, public_pem, public }
    }
}

/// A later value replaces an earlier one.
fn set(settings: &mut Vec<String>, name: &str, value: &str) {
    settings.retain(|setting| !setting.starts_with(&format!("{name} = ")));
    settings.push(format!("{name} = {value}"));
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.text.is_empty() {
            return f.write_str(&self.text);
        }
        let lines = |settings: &[String]| settings.join("\n");
        writeln!(f, "connections {{\nlab {{\n{}", lines(&self.options))?;
        writeln!(f, "local {{\n{}\n}}", lines(&self.local))?;
        writeln!(f, "remote {{\n{}\n}}", lines(&self.remote))?;
        writeln!(f, "children {{\nnet {{\n{}\n}}\n}}\n}}\n}}", lines(&self.child))?;
        writeln!(f, "secrets {{\n{}\n}}", lines(&self.secrets))?;
        writeln!(f, "pools {{\n{}\n}}", lines(&self.pools))
    }
}

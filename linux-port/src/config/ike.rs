//! `keying 'ike'`: how a peer and we recognise each other.
//!
//! A public key authenticates the peer and the interface's private key us; a preshared key beside
//! it is mixed into the keys (RFC 8784). A preshared key alone authenticates both. Secrets have to
//! be such that nobody guesses them, since who once talked to an end can try as many as he likes.

use simplevpn_core::crypto::sign::PublicKey;
use simplevpn_core::ike::identity::Identity;

use super::diagnostic::Report;
use super::model::{Authentication, IkeKeys, Ppk, Secret, Start};
use super::options::{Options, Value};
use super::value;
use crate::keys;

/// Name of a postquantum preshared key that the configuration gives none.
const PPK_ID: &str = "simplevpn";
/// The longest name of one, in bytes.
const MAX_PPK_ID: usize = 64;

/// Our own key.
pub(super) enum Own {
    /// There is none.
    Missing,
    /// What was written is none, and was complained about.
    Wrong,
    /// Its public half.
    Key(PublicKey),
}

/// Options of manual keying, which nothing would look at.
const MANUAL_ONLY: [&str; 7] =
    ["cipher", "spi_in", "spi_out", "key_in", "key_out", "esn", "replay_window"];

/// Reads the interface's `private_key` or `private_key_file`.
pub(super) fn private_key(options: &Options<'_, '_>, report: &mut Report) -> (Option<Secret>, Own) {
    let mut public = None;
    let names = ["private_key", "private_key_file"];
    let secret = inline_or_file(options, names, report, &mut |text| {
        let key = keys::decode(text).map_err(|wrong| wrong.to_string())?;
        public = Some(keys::public_key(&key));
        Ok(Secret(key.to_vec().into()))
    });
    let given = names.iter().any(|name| options.one(name).is_some());
    let own = match public {
        Some(key) => Own::Key(key),
        None if given => Own::Wrong,
        None => Own::Missing,
    };
    (secret, own)
}

/// Reads the options of a peer; `None` if they are not complete. The line is that of what tells
/// the peer from others.
pub(super) fn read(
    options: &Options<'_, '_>,
    own: &Own,
    report: &mut Report,
) -> Option<(IkeKeys, usize)> {
    for name in MANUAL_ONLY {
        options.refuse(name, "needs option keying 'manual'; add it, or remove this", report);
    }
    let given = |name: &str| options.one(name).is_some();
    let own_id = options.get("local_id", report, identity);
    let remote_id = options.get("remote_id", report, identity);
    let start = start(options, report);
    let secret = preshared_key(options, report);
    let has_secret = given("preshared_key") || given("preshared_key_file");
    if !has_secret {
        let why = "needs preshared_key, which it is about; add it, or remove this";
        ["preshared_key_weak", "ppk_id", "ppk_required"]
            .iter()
            .for_each(|name| options.refuse(name, why, report));
    }
    let (local_id, default_remote_id, authentication) = if let Some(value) =
        options.one("public_key")
    {
        let default_id = own_identity(own, value, report);
        let ppk = ppk(options, secret, report);
        let key = options.get("public_key", report, |text| public_key(text, own))?;
        let id = Identity::of_key(&key);
        (own_id.or(default_id), Some(id), Authentication::PublicKey { key: Box::new(key), ppk })
    } else if has_secret {
        let why = "needs public_key beside preshared_key, which authenticates without; remove it";
        ["ppk_id", "ppk_required"].iter().for_each(|name| options.refuse(name, why, report));
        if !given("remote_id") && !given("endpoint_host") {
            let message = "peer without public_key, endpoint_host and remote_id; add remote_id, \
                           by which it is recognised";
            report.error(options.line(), message);
        }
        (own_id, None, Authentication::PresharedKey(secret?))
    } else {
        let message = "peer without public_key; add what 'simplevpn pubkey' prints at the peer, \
                       or a preshared_key that both have";
        report.error(options.line(), message);
        return None;
    };
    let told_by = options.one("remote_id").or_else(|| options.one("public_key"));
    let line = told_by.map_or(options.line(), |value| value.line);
    let remote_id = remote_id.or(default_remote_id);
    Some((IkeKeys { local_id, remote_id, authentication, start }, line))
}

fn identity(text: &str) -> Result<Identity, String> {
    text.parse::<Identity>().map_err(|wrong| wrong.to_string())
}

fn own_identity(own: &Own, public_key: Value<'_>, report: &mut Report) -> Option<Identity> {
    match own {
        Own::Key(key) => Some(Identity::of_key(key)),
        Own::Wrong => None,
        Own::Missing => {
            let message = "public_key, but the interface has no private_key for the peer to know \
                           us by; add what 'simplevpn genkey' prints to it";
            report.error(public_key.line, message);
            None
        }
    }
}

fn public_key(text: &str, own: &Own) -> Result<PublicKey, String> {
    let bytes =
        keys::decode(text).map_err(|wrong| wrong.to_string().replace("genkey", "pubkey"))?;
    let key = PublicKey::from_bytes(&bytes).map_err(|_| {
        "is no public key; copy it as 'simplevpn pubkey' prints it at the peer".to_owned()
    })?;
    match own {
        Own::Key(own) if *own == key => {
            Err("is this interface's own; write what 'simplevpn pubkey' prints at the peer"
                .to_owned())
        }
        _ => Ok(key),
    }
}

fn start(options: &Options<'_, '_>, report: &mut Report) -> Start {
    let choices = [("auto", Start::Auto), ("traffic", Start::Traffic), ("none", Start::None)];
    let start = options.get("start", report, |text| value::choice(text, &choices));
    if options.one("endpoint_host").is_some() {
        return start.unwrap_or(Start::Auto);
    }
    if start.is_some_and(|start| start != Start::None) {
        let why = "needs endpoint_host, where the peer is called; add it, or remove this";
        options.refuse("start", why, report);
    }
    Start::None
}

/// The preshared key beside a public key.
fn ppk(options: &Options<'_, '_>, secret: Option<Secret>, report: &mut Report) -> Option<Ppk> {
    let id = options.get("ppk_id", report, |text| match text.len() <= MAX_PPK_ID {
        true => Ok(text.to_owned()),
        false => Err(format!("is longer than {MAX_PPK_ID} bytes; write a shorter name")),
    });
    let required = options.get("ppk_required", report, value::boolean).unwrap_or(true);
    Some(Ppk { id: id.unwrap_or_else(|| PPK_ID.to_owned()), key: secret?, required })
}

fn preshared_key(options: &Options<'_, '_>, report: &mut Report) -> Option<Secret> {
    let weak = options.get("preshared_key_weak", report, value::boolean) == Some(true);
    let names = ["preshared_key", "preshared_key_file"];
    inline_or_file(options, names, report, &mut |text| keys::secret(text, weak).map(Secret))
}

/// What a key's text means, which stands in an option or in the file that another names.
fn inline_or_file(
    options: &Options<'_, '_>,
    [inline, file]: [&str; 2],
    report: &mut Report,
    read: &mut dyn FnMut(&str) -> Result<Secret, String>,
) -> Option<Secret> {
    if options.one(inline).is_some() {
        options.refuse(file, &format!("beside {inline}; keep one of them"), report);
        return options.secret(inline, report, read);
    }
    options.get(file, report, |text| {
        let path = value::absolute_path(text)?;
        read(&keys::read_file(&path)?)
    })
}

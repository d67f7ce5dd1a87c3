//! strongSwan with ESP in user space (its plugin kernel-libipsec), which always encapsulates it in
//! UDP; keys by IKEv2.

use std::path::Path;

use simplevpn_tests::lab::Host;
use simplevpn_tests::lab::sites::Sites;

use super::{ask, await_that, write};
use crate::program::{End, Program};

/// What it cannot do without.
pub(crate) const NEEDS: [&str; 5] = [
    "swanctl",
    "charon-systemd",
    "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so",
    "/usr/lib/ipsec/plugins/libstrongswan-chapoly.so",
    "/usr/lib/ipsec/plugins/libstrongswan-openssl.so",
];

const SECRET: &str = "of this laboratory only";

/// Starts it on both gateways, and then the exchange of keys.
pub(crate) fn start(sites: &Sites, cipher: &str) -> Result<Vec<End>, String> {
    let ends = vec![
        run(&sites.a, cipher, ["192.0.2.1", "192.0.2.2"], ["10.1.0.0/24", "10.2.0.0/24"])?,
        run(&sites.b, cipher, ["192.0.2.2", "192.0.2.1"], ["10.2.0.0/24", "10.1.0.0/24"])?,
    ];
    swanctl(&sites.a, "--initiate --child net --timeout 8")?;
    Ok(ends)
}

/// `addresses` and `prefixes`: here, there.
fn run(at: &Host, cipher: &str, addresses: [&str; 2], prefixes: [&str; 2]) -> Result<End, String> {
    let ([here, there], [local, remote]) = (addresses, prefixes);
    let socket = at.dir().join("vici");
    // openssl before gcm: without it AES-GCM is ten times slower.
    let strongswan = format!(
        "charon-systemd {{
            load = random nonce openssl aesni aes sha1 sha2 hmac kdf gcm chapoly xcbc cmac drbg \
                curve25519 pem pkcs1 pkcs8 x509 pubkey kernel-libipsec kernel-netlink \
                socket-default vici updown
            install_virtual_ip = no
            plugins {{
                vici {{ socket = unix://{} }}
                kernel-libipsec {{ allow_peer_ts = no }}
            }}
        }}
        swanctl {{ load = pem pkcs1 pkcs8 x509 pubkey openssl random }}
        ",
        socket.display()
    );
    let swanctl_conf = format!(
        "connections {{ c {{
            version = 2
            local_addrs = {here}
            remote_addrs = {there}
            proposals = aes256-sha256-x25519
            encap = yes
            local {{
                auth = psk
                id = {here}
            }}
            remote {{
                auth = psk
                id = {there}
            }}
            children {{ net {{
                local_ts = {local}
                remote_ts = {remote}
                esp_proposals = {cipher}
                mode = tunnel
            }} }}
        }} }}
        secrets {{ ike-1 {{
            id-a = {here}
            id-b = {there}
            secret = \"{SECRET}\"
        }} }}
        "
    );
    let settings = write(at, "strongswan.conf", &strongswan)?;
    write(at, "swanctl.conf", &swanctl_conf)?;
    let mut command = at.command("charon-systemd");
    command.env("STRONGSWAN_CONF", settings);
    let end = End::Theirs(Program::start(at, command)?);
    await_that(&end, "control socket", || Path::new(&socket).exists())?;
    swanctl(at, &format!("--load-all --file {}", at.dir().join("swanctl.conf").display()))?;
    Ok(end)
}

fn swanctl(at: &Host, words: &str) -> Result<String, String> {
    let dir = at.dir().display();
    let environment = format!("env STRONGSWAN_CONF={dir}/strongswan.conf SWANCTL_DIR={dir}");
    ask(at, &format!("{environment} swanctl {words} --uri unix://{dir}/vici"), "")
}

//! What a good configuration becomes, and reading it from a file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use simplevpn::config::model::{Encap, Fwmark, Host, Keying, Steering};
use simplevpn::config::{self, Diagnostic};
use simplevpn_core::crypto::Cipher;

const EVERYTHING: &str = r#"package network

config interface 'loopback'
	option device 'lo'
	option proto 'static'

config interface 'vpn0'
	option proto 'simplevpn'
	list addresses '10.77.0.2/24'
	list addresses 'fd77::2/64'
	option mtu '1400'
	option nat_port '4501'
	option steering 'policy'
	option killswitch '0'
	option fwmark '0x1234'
	option tunlink 'wan'
	option state_dir '/var/lib/simplevpn'
	option metric '10'

config simplevpn_vpn0 'office'
	option description 'the owner'\''s office'
	option endpoint_host 'vpn.example.net'
	option endpoint_nat_port '4502'
	list allowed_ips '192.168.1.0/24'
	list allowed_ips 'fd01::/48'
	list local_ips '0.0.0.0/0'
	list local_ips '::/0'
	option route_allowed_ips '0'
	option encap 'udp'
	option persistent_keepalive '25'
	option offset '0.0.100.0'
	option offset6 '0:0:100::'
	option keying 'manual'
	option cipher 'aes128gcm16'
	option spi_in '0x1001'
	option spi_out '8193'
	option key_in '000102030405060708090a0b0c0d0e0f10111213'
	option key_out '0xF00102030405060708090A0B0C0D0E0F10111213'
	option esn '0'
	option replay_window '64'

config simplevpn_vpn0
	list allowed_ips '10.3.0.7'
	option persistent_keepalive '0'
	option keying 'manual'
	option spi_in '0x1002'
	option spi_out '0x2002'
	option key_in '010102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223'
	option key_out '020102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223'

config simplevpn_vpn0 'off'
	option disabled '1'

config route
	option interface 'lan'
	option target '10.9.0.0/16'
"#;

fn texts(prefixes: &[smoltcp::wire::IpCidr]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

#[test]
fn every_option_arrives() {
    let loaded = config::parse("f", EVERYTHING).unwrap();
    assert_eq!(loaded.warnings, []);
    let [interface] = &loaded.interfaces[..] else { panic!("{:?}", loaded.interfaces) };
    assert_eq!(interface.name, "vpn0");
    assert_eq!(texts(&interface.addresses), ["10.77.0.2/24", "fd77::2/64"]);
    assert_eq!(interface.mtu, Some(1400));
    assert_eq!((interface.port, interface.nat_port), (500, 4501));
    assert_eq!(interface.steering, Steering::Policy);
    assert!(!interface.killswitch);
    assert_eq!(interface.fwmark, Some(Fwmark { mark: 0x1234, mask: None }));
    assert_eq!(interface.tunlink.as_deref(), Some("wan"));
    assert_eq!(interface.state_dir, Path::new("/var/lib/simplevpn"));
    let [office, other] = &interface.peers[..] else { panic!("{:?}", interface.peers) };

    assert_eq!(office.name, "office");
    assert_eq!(office.description.as_deref(), Some("the owner's office"));
    let endpoint = office.endpoint.as_ref().unwrap();
    assert_eq!(endpoint.host, Host::Name("vpn.example.net".to_owned()));
    assert_eq!((endpoint.port, endpoint.nat_port), (500, 4502));
    assert_eq!(texts(&office.allowed_ips), ["192.168.1.0/24", "fd01::/48"]);
    assert_eq!(texts(&office.local_ips), ["0.0.0.0/0", "::/0"]);
    assert!(!office.route_allowed_ips);
    assert_eq!(office.encap, Encap::Udp);
    assert_eq!(office.persistent_keepalive, Some(25));
    assert_eq!((office.offset, office.offset6), (100 << 8, 0x100 << 80));
    let hosts = office.allowed_ips.iter().map(|wire| config::host_prefix(office, *wire));
    assert_eq!(texts(&hosts.collect::<Vec<_>>()), ["192.168.101.0/24", "fd01:0:100::/48"]);
    let Keying::Manual(keys) = &office.keying;
    assert_eq!(keys.cipher, Cipher::Aes128Gcm16);
    assert_eq!((keys.spi_in, keys.spi_out), (0x1001, 0x2001));
    assert_eq!((keys.key_in[0], keys.key_in[19], keys.key_in.len()), (0, 0x13, 20));
    assert_eq!((keys.key_out[0], keys.key_out[19]), (0xf0, 0x13));
    assert!(!keys.esn);
    assert_eq!(keys.replay_window, 64);

    assert_eq!(other.name, "peer2");
    assert_eq!(other.endpoint, None);
    assert_eq!(texts(&other.allowed_ips), ["10.3.0.7/32"]);
    assert_eq!(other.local_ips, []);
    assert!(other.route_allowed_ips);
    assert_eq!(other.encap, Encap::Auto);
    assert_eq!(other.persistent_keepalive, None);
    assert_eq!((other.offset, other.offset6), (0, 0));
    let Keying::Manual(keys) = &other.keying;
    assert_eq!(keys.cipher, Cipher::ChaCha20Poly1305);
    assert!(keys.esn);
    assert_eq!(keys.replay_window, 2048);
}

#[test]
fn defaults_of_an_interface() {
    let text: String = EVERYTHING
        .lines()
        .filter(|line| {
            !["mtu", "nat_port", "steering", "killswitch", "fwmark", "tunlink", "state_dir"]
                .iter()
                .any(|name| line.contains(&format!("option {name} ")))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let interface = &config::parse("f", &text).unwrap().interfaces[0];
    assert_eq!(interface.mtu, None);
    assert_eq!((interface.port, interface.nat_port), (500, 4500));
    assert_eq!(interface.steering, Steering::Auto);
    assert!(interface.killswitch);
    assert_eq!((interface.fwmark, interface.tunlink.as_deref()), (None, None));
    assert_eq!(interface.state_dir, Path::new("/etc/simplevpn"));
}

/// A file of this test, with these bytes and permissions.
fn file(name: &str, bytes: &[u8], mode: u32) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn shown(diagnostics: &[Diagnostic], path: &Path) -> Vec<String> {
    let path = path.display().to_string();
    diagnostics.iter().map(|d| d.to_string().replace(&path, "F")).collect()
}

#[test]
fn a_file_that_others_can_read_is_warned_about() {
    let path = file("private.conf", EVERYTHING.as_bytes(), 0o600);
    assert_eq!(config::load(&path, None).unwrap().warnings, []);
    let path = file("public.conf", EVERYTHING.as_bytes(), 0o644);
    assert_eq!(
        shown(&config::load(&path, None).unwrap().warnings, &path),
        ["F: holds keys and other users can read it; run chmod 600 F"]
    );
}

#[test]
fn files_that_are_no_configuration() {
    let missing = Path::new(env!("CARGO_TARGET_TMPDIR")).join("missing.conf");
    assert_eq!(
        shown(&config::load(&missing, None).unwrap_err(), &missing),
        ["F: cannot be read: No such file or directory (os error 2)"]
    );
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    assert_eq!(
        shown(&config::load(directory, None).unwrap_err(), directory),
        ["F: cannot be read: Is a directory (os error 21)"]
    );
    let latin = file("latin.conf", b"config a\n# caf\xe9\n", 0o600);
    assert_eq!(
        shown(&config::load(&latin, None).unwrap_err(), &latin),
        ["F:2: not UTF-8 text; save the file as UTF-8"]
    );
    let endless = Path::new("/dev/zero");
    assert_eq!(
        shown(&config::load(endless, None).unwrap_err(), endless),
        ["F: larger than 16777216 bytes; this is not a configuration"]
    );
}

#[test]
fn a_key_file_is_the_owners_alone() {
    let key = b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
    let with = |path: &Path| {
        let option = format!("\toption private_key_file '{}'\n\toption metric", path.display());
        EVERYTHING.replace("\toption metric", &option)
    };
    let private = file("private.key", key, 0o600);
    let loaded = config::parse("f", &with(&private)).unwrap();
    assert_eq!(
        shown(&loaded.warnings, &private),
        ["f:18: private_key_file is not used with keying 'manual'"]
    );
    for (name, bytes, mode, message) in [
        ("public.key", &key[..], 0o644, "can be read by other users; run chmod 600 on it"),
        ("group.key", &key[..], 0o640, "can be read by other users; run chmod 600 on it"),
        ("empty.key", b"\n", 0o600, "holds no key; give it what 'simplevpn genkey' prints"),
        (
            "short.key",
            b"AAEC",
            0o600,
            "has 4 characters; a key has 44, as 'simplevpn genkey' prints it",
        ),
    ] {
        let path = file(name, bytes, mode);
        let errors = config::parse("f", &with(&path)).unwrap_err();
        assert!(errors[0].message.ends_with(message), "{errors:?}");
        assert_eq!((errors.len(), errors[0].line), (1, 18));
    }
}

/// Ten thousand peers; a check that compared each with each would take minutes here.
#[test]
fn many_peers_load_quickly() {
    let mut text = "config interface 'vpn0'\n\toption proto 'simplevpn'\n".to_owned();
    for n in 0..10_000u32 {
        let (high, low) = (n / 250, n % 250);
        text += &format!(
            "config simplevpn_vpn0 'p{n}'\n\tlist allowed_ips '10.{high}.{low}.0/24'\n\
             \tlist allowed_ips 'fd00:{n:x}::/32'\n\toption keying 'manual'\n\
             \toption spi_in '{spi}'\n\toption spi_out '{spi}'\n\
             \toption key_in '{:064x}00000000'\n\toption key_out '{:064x}00000000'\n",
            2 * n,
            2 * n + 1,
            spi = 1000 + n
        );
    }
    let start = Instant::now();
    let loaded = config::parse("f", &text).unwrap();
    assert_eq!(loaded.interfaces[0].peers.len(), 10_000);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    println!("10,000 peers: {:?}", start.elapsed());
}

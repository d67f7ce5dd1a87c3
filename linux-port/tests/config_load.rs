//! What a good configuration becomes, and reading it from a file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use simplevpn::config::model::{
    Authentication, Encap, Fwmark, Host, IkeKeys, Keying, Peer, Start, Steering,
};
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
    let Keying::Manual(keys) = &office.keying else { panic!("{:?}", office.keying) };
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
    let Keying::Manual(keys) = &other.keying else { panic!("{:?}", other.keying) };
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
        ["f:18: private_key_file is not used: no peer has a public_key"]
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

const IKE: &str = "\
config interface 'vpn0'
	option proto 'simplevpn'
	option private_key 'nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A='
	list addresses '10.77.0.1/24'
	list addresses 'auto'
	option port '501'
	list pool '10.77.0.0/24'
	list pool 'fd77::/64'

config simplevpn_vpn0 'office'
	option public_key 'PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw='
	option preshared_key '8l7HAG6pdgyC0ecvMKdaEmCCF3vDTUMVYfQoHqOBKHM='
	option ppk_id 'quantum'
	option ppk_required '0'
	option endpoint_host 'vpn.example.net'
	option endpoint_port '502'
	list allowed_ips '10.1.0.0/16'
	option local_id 'me.example.net'
	option remote_id 'office.example.net'
	option start 'traffic'

config simplevpn_vpn0 'phone'
	option public_key '/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU='

config simplevpn_vpn0 'old'
	option preshared_key 'open sesame'
	option preshared_key_weak '1'
	option endpoint_host '192.0.2.7'
	list allowed_ips '10.3.0.0/16'
";

fn ike_keys(peer: &Peer) -> &IkeKeys {
    let Keying::Ike(keys) = &peer.keying else { panic!("{:?}", peer.keying) };
    keys
}

#[test]
fn keys_are_negotiated_unless_they_are_written_down() {
    let loaded = config::parse("f", IKE).unwrap();
    assert_eq!(loaded.warnings, []);
    let interface = &loaded.interfaces[0];
    assert_eq!(interface.port, 501);
    assert_eq!(texts(&interface.addresses), ["10.77.0.1/24"]);
    assert!(interface.virtual_addresses);
    assert_eq!(interface.private_key.as_ref().unwrap().0[..2], [0x9d, 0x61]);
    let [office, phone, old] = &interface.peers[..] else { panic!("{:?}", interface.peers) };

    assert_eq!(office.endpoint.as_ref().unwrap().port, 502);
    let keys = ike_keys(office);
    assert_eq!(keys.local_id, Some("me.example.net".parse().unwrap()));
    assert_eq!(keys.remote_id, Some("office.example.net".parse().unwrap()));
    assert_eq!(keys.start, Start::Traffic);
    let Authentication::PublicKey { key, ppk: Some(ppk) } = &keys.authentication else {
        panic!("{keys:?}")
    };
    assert_eq!(key.as_bytes()[..2], [0x3d, 0x40]);
    assert_eq!((&*ppk.id, ppk.required), ("quantum", false));
    assert_eq!((ppk.key.0.len(), ppk.key.0[0]), (32, 0xf2));

    // The SHA-1 of the DER SubjectPublicKeyInfo, as `openssl pkey -pubin -outform DER | sha1sum`.
    let keys = ike_keys(phone);
    assert_eq!(
        keys.local_id.as_ref().unwrap().to_string(),
        "@#a566be19840173413a61048350eff23e8fe22266"
    );
    assert_eq!(
        keys.remote_id.as_ref().unwrap().to_string(),
        "@#ad0130b12b48629bb9adea921ffed29a42f0ade6"
    );
    assert_eq!(keys.start, Start::None);
    assert!(matches!(keys.authentication, Authentication::PublicKey { ppk: None, .. }));

    let keys = ike_keys(old);
    assert_eq!((&keys.local_id, &keys.remote_id), (&None, &None));
    assert_eq!(keys.start, Start::Auto);
    let Authentication::PresharedKey(secret) = &keys.authentication else { panic!("{keys:?}") };
    assert_eq!(secret.0[..], *b"open sesame");
    let shown = format!("{interface:?}");
    assert!(!shown.contains("157, 97") && !shown.contains("111, 112"), "{shown}");
}

#[test]
fn a_preshared_key_beside_a_public_key_is_required_unless_said_otherwise() {
    let text = IKE.replace("\toption ppk_id 'quantum'\n\toption ppk_required '0'\n", "");
    let interface = &config::parse("f", &text).unwrap().interfaces[0];
    let keys = ike_keys(&interface.peers[0]);
    let Authentication::PublicKey { ppk: Some(ppk), .. } = &keys.authentication else {
        panic!("{keys:?}")
    };
    assert_eq!((&*ppk.id, ppk.required), ("simplevpn", true));
}

#[test]
fn peers_without_prefixes_keep_their_address_from_the_pool() {
    let addresses = |text: &str, name: &str| {
        let interface = config::parse("f", text).unwrap().interfaces.remove(0);
        let peer = interface.peers.iter().find(|peer| peer.name == name).unwrap();
        peer.allowed_ips.clone()
    };
    let phone = addresses(IKE, "phone");
    let [v4, v6] = &phone[..] else { panic!("{phone:?}") };
    assert!(v4.to_string().starts_with("10.77.0.") && v4.prefix_len() == 32, "{v4}");
    assert!(v6.to_string().starts_with("fd77::") && v6.prefix_len() == 128, "{v6}");

    let tablet = "config simplevpn_vpn0 'tablet'\n\toption remote_id 'tablet'\n\
                  \toption preshared_key '8l7HAG6pdgyC0ecvMKdaEmCCF3vDTUMVYfQoHqOBKHM='\n";
    let (before, after) = IKE.split_at(IKE.find("config simplevpn_vpn0 'phone'").unwrap());
    let more = format!("{before}{tablet}{after}");
    assert_eq!(addresses(&more, "phone"), phone);
    assert_ne!(addresses(&more, "tablet"), phone);

    // Not one that another peer lists, nor ours.
    let claimed = IKE.replace("'10.1.0.0/16'", &format!("'{v4}'"));
    assert_ne!(addresses(&claimed, "phone")[0], *v4);
    let ours = IKE.replace("10.77.0.1/24", &format!("{}/24", v4.address()));
    assert_ne!(addresses(&ours, "phone")[0], *v4);
}

//! IKE by the binary of a big-endian router, under an emulator (see `router.rs`), with one of ours
//! and with strongSwan.

use simplevpn_tests::lab::daemon::{KeyPair, Peer, Vpn};
use simplevpn_tests::lab::processor::Processor;

use crate::ike::{Caller, PROMPT, SITE_A, SITE_B, Story, says, sites};
use crate::topology::assert_secret;

///  client -- big-endian router == b -- server, either of which calls
#[test]
fn big_endian_mips_and_one_of_ours() {
    for router_calls in [true, false] {
        let (_lab, sites) = sites();
        sites.a.is_a(Processor::Mips24Kc);
        let (at_a, at_b) = (KeyPair::new(&sites.a), KeyPair::new(&sites.b));
        let to_b = Peer::ike("b").option("public_key", &at_b.public).allowed(SITE_B);
        let to_a = Peer::ike("a").option("public_key", &at_a.public).allowed(SITE_A);
        let (to_b, to_a) =
            if router_calls { (to_b.at("192.0.2.2"), to_a) } else { (to_b, to_a.at("192.0.2.1")) };
        let b = sites.b.starts(&Vpn::new().option("private_key", &at_b.private).peer(to_a));
        let a = sites.a.starts(&Vpn::new().option("private_key", &at_a.private).peer(to_b));
        let wire = sites.b.capture("wan");
        assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}\n{}", a.show(), b.show());
        for address in ["10.2.0.2", "fd02::2"] {
            sites.client.assert_uses(&sites.server, address);
        }
        assert_secret(&wire.finish());
        // The router has no instructions for AES, whatever this machine has: that decides, for IKE
        // and ESP, and when keys are replaced by either.
        let ciphers = ["ike: chacha20poly1305, ", "cipher: chacha20poly1305"];
        for rekeying in [None, Some(&a), Some(&b)] {
            if let Some(end) = rekeying {
                end.rekeys();
                std::thread::sleep(std::time::Duration::from_secs(2));
            }
            for (end, words) in [&a, &b].into_iter().zip([ciphers; 2]) {
                words.into_iter().for_each(|words| says(end, words));
            }
        }
    }
}

///  client -- big-endian router == strongSwan b, which takes what the router prefers of all it has
#[test]
fn big_endian_mips_calls_and_strongswan_takes_its_first_proposal() {
    let (_lab, sites) = sites();
    sites.a.is_a(Processor::Mips24Kc);
    let all = "aes256gcm16-aes128gcm16-chacha20poly1305";
    let story = Story::psk(Caller::Us);
    let story = story.proposals(&format!("{all}-prfsha256-x25519"), all);
    let ends = story.connects(&sites);
    let sa = ends.swan.sa();
    let ciphers = [sa.value("encr-alg"), sa.child("encr-alg")];
    assert_eq!(ciphers, ["CHACHA20_POLY1305"; 2]);
}

///  client -- big-endian router == strongSwan b -- server, with either cipher and group
#[test]
fn big_endian_mips_and_strongswan() {
    for (caller, ike, esp) in [
        (Caller::Us, "chacha20poly1305-prfsha256-x25519", "chacha20poly1305"),
        (Caller::Them, "aes256gcm16-prfsha256-ecp256", "aes256gcm16"),
    ] {
        let (_lab, sites) = sites();
        sites.a.is_a(Processor::Mips24Kc);
        let story = Story::keys(caller, &sites).proposals(ike, esp);
        let _ends = story.connects(&sites);
        sites.client.assert_uses(&sites.server, "10.2.0.2");
        sites.server.assert_uses(&sites.client, "10.1.0.2");
    }
}

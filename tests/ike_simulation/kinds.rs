//! Ways to be authenticated, and algorithms.

use simplevpn_core::crypto::Cipher;
use simplevpn_core::crypto::dh::Group;
use simplevpn_core::ike::Encap;
use simplevpn_core::ike::suite::Pfs;
use simplevpn_tests::ike::Net;

/// Connects and replaces all keys from both ends.
fn lives(net: &mut Net) {
    net.pass(2000);
    for at in [0, 1] {
        net.rekey_child(at, 1 - at);
        net.pass(10_000);
        net.rekey_ike(at, 1 - at);
        net.pass(10_000);
        net.rekey_child(1 - at, at);
        net.pass(10_000);
    }
    net.check_settled();
}

#[test]
fn public_keys_and_preshared_keys() {
    lives(&mut Net::pair(1));
    lives(&mut Net::psk_pair(1));
}

#[test]
fn a_postquantum_preshared_key_is_mixed_in_for_good() {
    for required in [false, true] {
        let mut net = Net::pair(1);
        for at in [0, 1] {
            net.peer_mut(at, 1 - at).ppk = Some((b"name".into(), vec![7; 32], required));
        }
        lives(&mut net);
        assert!(net.status(0, 1).unwrap().ppk && net.status(1, 0).unwrap().ppk);
    }
}

#[test]
fn every_algorithm() {
    for cipher in Cipher::ALL {
        for group in Group::ALL {
            for (pfs, encap) in [(Pfs::Never, Encap::Esp), (Pfs::Required, Encap::Udp)] {
                let mut net = Net::pair(1);
                for at in [0, 1] {
                    let preferences = &mut net.nodes[at].settings.preferences;
                    preferences.ciphers.clear();
                    preferences.ciphers.push(cipher).unwrap();
                    preferences.groups.clear();
                    preferences.groups.push(group).unwrap();
                    let peer = net.peer_mut(at, 1 - at);
                    (peer.pfs, peer.encap) = (pfs, encap);
                    net.nodes[at].restart();
                }
                lives(&mut net);
                let status = net.status(0, 1).unwrap();
                assert_eq!(status.suite.unwrap().group, group);
                assert_eq!(status.child.unwrap().cipher, cipher);
            }
        }
    }
}

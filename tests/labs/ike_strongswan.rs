//! IKE with strongSwan, either end beginning: who the ends are, and what they agree on.
//!
//! ```text
//!   client -- a simplevpn ======== ESP in UDP ======== strongSwan b -- server
//!   10.1.0.2    192.0.2.1                               192.0.2.2    10.2.0.2
//! ```

use simplevpn_tests::lab::ip;

use crate::ike::{Caller, Ends, OTHER_PSK, PSK, Story, in_swanctl, sites};
use crate::topology::{Sites, assert_secret};

/// Everything arrives, both ways, and nobody on the wire can read it.
fn works(story: &Story, sites: &Sites) -> Ends {
    let wire = sites.a.capture("wan");
    let ends = story.connects(sites);
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    sites.server.assert_uses(&sites.client, "10.1.0.2");
    let seen = wire.finish();
    assert_secret(&seen);
    seen.assert_none("around the tunnel", |frame| frame.concerns(ip("10.2.0.2")));
    ends
}

///  a (a.test, preshared key) == b (b.test, the same), with all that strongSwan proposes by itself
#[test]
fn a_preshared_key() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let ends = works(&Story::psk(caller), &sites);
        let sa = ends.swan.sa();
        assert_eq!(sa.value("remote-id"), "a.test");
        assert_eq!(sa.child("mode"), "TUNNEL");
        ends.we_say("up");
    }
}

///  a (Ed25519) == b (Ed25519), each of which knows the other's public key and no name
///
/// strongSwan takes the SHA-1 of a public key for the identity of who has it: that we call
/// ourselves the same is what this proves.
#[test]
fn raw_public_keys_without_identities() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let ends = works(&Story::keys(caller, &sites), &sites);
        let remote_id = ends.swan.sa().value("remote-id");
        assert_eq!(remote_id.matches(':').count(), 19, "a key id of 20 bytes: {remote_id}");
    }
}

///  a (Ed25519, mail address) == b (Ed25519, domain name)
#[test]
fn raw_public_keys_with_identities() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let story = Story::keys(caller, &sites)
            .ours("local_id", "a@lab.test")
            .ours("remote_id", "b.lab.test")
            .theirs(|connection| connection.local("id", "b.lab.test").remote("id", "a@lab.test"));
        let ends = works(&story, &sites);
        assert_eq!(ends.swan.sa().value("remote-id"), "a@lab.test");
    }
}

///  a == b, which takes only one suite: both ciphers, both groups, keys of either length
#[test]
fn every_suite() {
    let suites = [
        (
            "chacha20poly1305-prfsha256-x25519",
            "chacha20poly1305",
            "CHACHA20_POLY1305",
            "CURVE_25519",
        ),
        ("aes256gcm16-prfsha256-ecp256", "aes256gcm16", "AES_GCM_16", "ECP_256"),
        ("aes128gcm16-prfsha256-x25519", "aes128gcm16", "AES_GCM_16", "CURVE_25519"),
        ("chacha20poly1305-prfsha256-ecp256", "aes128gcm16", "AES_GCM_16", "ECP_256"),
    ];
    let (_lab, sites) = sites();
    for (ike, esp, cipher, group) in suites {
        for caller in Caller::BOTH {
            let ends = Story::psk(caller).proposals(ike, esp).connects(&sites);
            sites.client.assert_uses(&sites.server, "10.2.0.2");
            let sa = ends.swan.sa();
            assert_eq!(sa.value("dh-group"), group, "{ike} {caller:?}");
            assert_eq!(sa.child("encr-alg"), cipher, "{esp} {caller:?}");
        }
    }
}

///  a, whose first guess is X25519 == b, which wants P-256
///  a, which has no P-384 == b, whose first guess is that
#[test]
fn a_wrong_guess_of_the_group_is_corrected() {
    let (_lab, sites) = sites();
    for (caller, proposal) in [
        (Caller::Us, "aes128gcm16-prfsha256-ecp256"),
        (Caller::Them, "aes128gcm16-prfsha256-ecp384-ecp256"),
    ] {
        let ends = Story::psk(caller).proposals(proposal, "aes128gcm16").connects(&sites);
        assert_eq!(ends.swan.sa().value("dh-group"), "ECP_256");
        // The one that guessed wrong is told so, whichever it is.
        assert!(ends.swan.log().contains("N(INVAL_KE)"), "{caller:?}: the guess was right");
    }
}

///  a, which protects anything == b, which protects 10.2.0.0/24 for 10.1.0.0/24
#[test]
fn selectors_are_narrowed_to_what_both_want() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let story = Story::psk(caller).theirs(|c| c.protects("10.2.0.0/28", "10.1.0.0/16"));
        let ends = story.connects(&sites);
        let sa = ends.swan.sa();
        assert_eq!(sa.child("local-ts"), "[10.2.0.0/28]");
        sites.client.assert_uses(&sites.server, "10.2.0.2");
    }
}

///  a, with a postquantum preshared key == b, with the same
#[test]
fn a_postquantum_preshared_key() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let story = Story::keys(caller, &sites)
            .ours("preshared_key", PSK)
            .ours("ppk_id", "quantum.test")
            .theirs(|connection| connection.ppk("quantum.test", &in_swanctl(PSK)));
        let ends = works(&story, &sites);
        assert!(ends.swan.log().contains("using PPK"), "{caller:?}");
    }
}

///  a, with a postquantum preshared key == b, with another one, or with none
#[test]
fn without_the_postquantum_preshared_key_nothing_is_sent() {
    for caller in Caller::BOTH {
        for theirs in [Some(OTHER_PSK), None] {
            let (_lab, sites) = sites();
            let story = Story::keys(caller, &sites)
                .ours("preshared_key", PSK)
                .ours("ppk_id", "quantum.test")
                .theirs(|connection| match theirs {
                    Some(psk) => connection.ppk("quantum.test", &in_swanctl(psk)),
                    None => connection,
                });
            let ends = fails(&story, &sites);
            ends.we_say(if theirs.is_some() { "authentication failed" } else { "postquantum" });
        }
    }
}

/// Both ends start, and the client does not reach the server.
fn fails(story: &Story, sites: &Sites) -> Ends {
    let wire = sites.a.capture("wan");
    let (ends, _) = story.begins(&sites.a, &sites.b);
    assert_eq!(sites.client.ping_sized(ip("10.2.0.2"), 56, 2).right, 0, "{:?}", story.caller);
    wire.finish().assert_none("in the clear", |frame| frame.concerns(ip("10.2.0.2")));
    ends
}

///  a (a.test, preshared key) == b (b.test, another one)
#[test]
fn a_wrong_preshared_key_is_called_that() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let ends = fails(&Story::psk(caller).ours("preshared_key", OTHER_PSK), &sites);
        ends.we_say("authentication failed");
        assert_eq!(ends.swan.sas().len(), 0);
    }
}

///  a, which expects another key of b's == b
///  a == b, which expects another key of a's
#[test]
fn a_wrong_public_key_is_called_that() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let (mut story, stranger) = (Story::keys(caller, &sites), Story::keys(caller, &sites));
        story.peer = stranger.peer.clone();
        // Who is recognised by the hash of its key is, with another key, somebody else.
        let ends = fails(&story, &sites);
        match caller {
            Caller::Us => ends.we_say("authentication failed"),
            Caller::Them => ends.we_log("their identity is that of no configured peer"),
        }
        drop(ends);

        // With names, it is the signature that is wrong.
        let named = story
            .ours("local_id", "a.test")
            .ours("remote_id", "b.test")
            .theirs(|connection| connection.local("id", "b.test").remote("id", "a.test"));
        let ends = fails(&named, &sites);
        ends.we_say("authentication failed: their key is not the configured one");
        drop(ends);

        let mut story = Story::keys(caller, &sites);
        story.connection = stranger.connection;
        let ends = fails(&story, &sites);
        match caller {
            Caller::Us => ends.we_say("authentication failed"),
            Caller::Them => ends.we_log("their identity is that of no configured peer"),
        }
    }
}

///  a == b, which calls itself something else than a expects
#[test]
fn a_wrong_identity_is_called_that() {
    let (_lab, sites) = sites();
    let story = Story::psk(Caller::Us).ours("remote_id", "c.test");
    let ends = fails(&story, &sites);
    ends.we_say("authentication failed");
}

///  a == b, which has no cipher in common with it for IKE
#[test]
fn no_common_proposal_is_called_that() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let story = Story::psk(caller).proposals("aes128-sha256-modp2048", "aes128gcm16");
        let ends = fails(&story, &sites);
        match caller {
            Caller::Us => ends.we_say("proposal refused"),
            // Who it is would come later.
            Caller::Them => ends.we_log("192.0.2.2 tried to connect: proposal refused"),
        }
    }
}

///  a == b, which has no cipher in common with it for ESP
#[test]
fn no_common_proposal_for_esp_is_called_that() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let story = Story::psk(caller).proposals("aes128gcm16-prfsha256-x25519", "aes128-sha256");
        fails(&story, &sites).we_say("proposal refused");
    }
}

///  a, which protects 10.2.0.0/24 == b, which protects 10.3.0.0/24
#[test]
fn no_common_selector_is_called_that() {
    for caller in Caller::BOTH {
        let (_lab, sites) = sites();
        let story = Story::psk(caller).theirs(|c| c.protects("10.3.0.0/24", "10.1.0.0/24"));
        let ends = fails(&story, &sites);
        ends.we_say("selectors refused");
    }
}

///  a == b, which takes the characters of a text for the key, as phones and clouds do
#[test]
fn a_preshared_key_that_is_a_text() {
    let (_lab, sites) = sites();
    let made = sites.a.simplevpn_says("genpsk --text").stdout.trim().to_owned();
    // What `genpsk` prints, its characters taken for the key.
    for (caller, secret) in [(Caller::Us, &*made), (Caller::Them, &*made), (Caller::Us, PSK)] {
        let text = format!("\"{secret}\"");
        let story = Story::psk(caller)
            .ours("preshared_key", &format!("text:{secret}"))
            .theirs(|c| c.psk("b.test", "a.test", &text));
        let _ends = story.connects(&sites);
    }
}

//! Many prefixes at either end, and databases that have no room for them.

use smoltcp::wire::IpCidr;

use super::*;

fn prefixes(count: u32, of: impl Fn(u32) -> std::string::String) -> Vec<IpCidr> {
    (0..count).map(|number| of(number).parse().unwrap()).collect()
}

fn v4(count: u32, net: u32) -> Vec<IpCidr> {
    prefixes(count, |number| std::format!("10.{net}.{number}.0/24"))
}

/// Both have connected, and then each has replaced keys: how many ranges of Alice and of Bob are
/// protected.
fn agreed(pair: &mut Pair, by_alice: bool) -> [usize; 2] {
    if by_alice {
        pair.connect();
    } else {
        pair.initiate_from_bob();
        pair.settle();
    }
    let ranges = |pair: &Pair| {
        pair.assert_up();
        let sa = pair.alice.sad.outbound.as_ref().unwrap();
        [sa.local.len(), sa.remote.len()]
    };
    let agreed = ranges(pair);
    for by_alice in [true, false] {
        let now = pair.now;
        let end = if by_alice { &mut pair.alice } else { &mut pair.bob };
        end.call(|ike, cx| ike.rekey_child(now, cx, PEER));
        pair.advance(SECOND * 200);
        assert_eq!(ranges(pair), agreed, "by alice: {by_alice}");
    }
    agreed
}

#[test]
fn each_end_may_have_thirty_two_prefixes() {
    for (of_alice, of_bob) in [(1, 5), (5, 12), (1, 32), (32, 32)] {
        for by_alice in [true, false] {
            let mut pair = Pair::psk();
            (pair.alice.pad.local, pair.bob.pad.local) = (vec![], vec![]);
            pair.alice.pad.remote = v4(of_bob, 2);
            pair.bob.pad.remote = v4(of_alice, 1);
            let expected = [of_alice, of_bob].map(|count| count as usize);
            assert_eq!(agreed(&mut pair, by_alice), expected, "by alice: {by_alice}");
        }
    }
}

#[test]
fn more_than_fit_are_narrowed_and_not_refused() {
    for by_alice in [true, false] {
        let mut pair = Pair::psk();
        (pair.alice.pad.local, pair.bob.pad.local) = (vec![], vec![]);
        pair.alice.pad.remote = prefixes(32, |number| std::format!("fd02:{number}::/32"));
        pair.bob.pad.remote = prefixes(32, |number| std::format!("fd01:{number}::/32"));
        assert_eq!(agreed(&mut pair, by_alice), [18, 18]);
    }
}

#[test]
fn a_database_narrows_to_what_it_has_room_for() {
    for by_alice in [true, false] {
        for owner in [true, false] {
            let mut pair = Pair::psk();
            (pair.alice.pad.local, pair.bob.pad.local) = (vec![], vec![]);
            pair.alice.pad.remote = v4(5, 2);
            pair.bob.pad.remote = v4(1, 1);
            // As responder it agrees on less; as initiator it keeps to less.
            let end = if owner { &mut pair.bob } else { &mut pair.alice };
            end.sad.most_ranges = Some(4);
            if by_alice {
                pair.initiate();
            } else {
                pair.initiate_from_bob();
            }
            pair.settle();
            for end in [&pair.alice, &pair.bob] {
                assert_eq!(end.events, [IkeEvent::Up(PEER)]);
            }
            let end = if owner { &pair.bob } else { &pair.alice };
            let sa = end.sad.outbound.as_ref().unwrap();
            assert_eq!(if owner { sa.local.len() } else { sa.remote.len() }, 4);
        }
    }
}

//! What is left of secrets on the stack.
//!
//! Keys erase themselves where they end. But to move a value is to copy it, and what curve arithmetic
//! spills nobody owns: below the top of the stack there is more of them than anywhere else, until
//! something else happens to lie there. So the stack is overwritten after what made or used secrets,
//! as far down as an exchange goes.

use zeroize::Zeroize;

/// How much is overwritten, in words: as much as the deepest exchange needs, which is the one that puts
/// an IKE SA in the place of another.
const WORDS: usize = 6144;

/// Overwrites what callees of the caller have left on the stack.
#[inline(never)]
pub(crate) fn erase_stack() {
    let mut left = [0_u64; WORDS];
    left.zeroize();
    core::hint::black_box(&mut left);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::string::String;
    use std::vec::Vec;
    use std::{fs, vec};

    use crate::ike::tests::pair::{PEER, Pair};
    use crate::ike::tests::sa;

    /// All that lies below the caller on its stack.
    #[inline(never)]
    fn dead_stack() -> Vec<u8> {
        let here = 0_u8;
        let here = core::ptr::from_ref(&here).addr() as u64;
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let bounds = |line: &str| -> Option<(u64, u64)> {
            let (first, rest) = line.split_once('-')?;
            let hex = |text: &str| u64::from_str_radix(text, 16).ok();
            Some((hex(first)?, hex(rest.split_once(' ')?.0)?))
        };
        let stack =
            maps.lines().filter_map(bounds).find(|(first, end)| (*first..*end).contains(&here));
        let (first, _) = stack.unwrap();
        let mut bytes = vec![0; (here - first) as usize];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, first).unwrap();
        bytes
    }

    fn contains(bytes: &[u8], secret: &[u8]) -> bool {
        bytes.windows(secret.len()).any(|window| window == secret)
    }

    /// Which keys of both ends lie there.
    fn left(pair: &Pair, when: &str) -> Vec<String> {
        let stack = dead_stack();
        let mut left = Vec::new();
        for end in [&pair.alice, &pair.bob] {
            let keys = sa(end).link.keys.as_ref().unwrap();
            let secrets = &keys.secrets;
            let named = [
                ("SK_ei", keys.sk_ei.key()),
                ("SK_er", keys.sk_er.key()),
                ("SK_d", &secrets.sk_d[..]),
                ("SK_pi", &secrets.sk_pi[..]),
                ("SK_pr", &secrets.sk_pr[..]),
            ];
            let named = named.iter().filter(|(_, secret)| contains(&stack, secret));
            left.extend(named.map(|(name, _)| std::format!("{name} {when}")));
        }
        left
    }

    #[test]
    fn no_key_is_left_on_the_stack() {
        let mut pair = Pair::keys();
        pair.connect();
        let mut all = left(&pair, "after connecting");
        let now = pair.now;
        pair.alice.call(|ike, cx| ike.rekey_child(now, cx, PEER));
        pair.collect();
        pair.settle();
        all.extend(left(&pair, "after new keys of ESP"));
        pair.alice.call(|ike, cx| ike.rekey(now, cx, PEER));
        pair.collect();
        pair.settle();
        all.extend(left(&pair, "after new keys of IKE"));
        assert!(all.is_empty(), "{all:?}");
    }
}

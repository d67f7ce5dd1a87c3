//! Sequence numbers across restarts: never one twice, whatever happens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use simplevpn::config::model::ManualKeys;
use simplevpn::sequence_state::{BLOCK, Claimed, MARK_PACKETS, PairId, SequenceState};
use simplevpn_core::Instant;
use simplevpn_core::crypto::Cipher;
use zeroize::Zeroizing;

/// An empty directory on a real file system.
fn fresh(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sequence").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

fn keys(n: u8) -> ManualKeys {
    ManualKeys {
        cipher: Cipher::ChaCha20Poly1305,
        spi_in: 0x1000 + u32::from(n),
        spi_out: 0x2000 + u32::from(n),
        key_in: Zeroizing::new(vec![2 * n; 36]),
        key_out: Zeroizing::new(vec![2 * n + 1; 36]),
        esn: true,
        replay_window: 2048,
    }
}

fn open(dir: &Path) -> SequenceState {
    SequenceState::open(dir).unwrap()
}

fn claim(state: &mut SequenceState, keys: &ManualKeys) -> Claimed {
    state.claim(&[keys]).unwrap()[0]
}

fn refusal(dir: &Path) -> String {
    let error = match SequenceState::open(dir).and_then(|mut state| state.claim(&[&keys(1)])) {
        Ok(claimed) => panic!("accepted: {claimed:?}"),
        Err(error) => error.to_string(),
    };
    error.replace(&dir.display().to_string(), "DIR")
}

/// Ticks at `now` until the writer has answered.
fn extended(state: &mut SequenceState, now: u64) -> Option<(PairId, u64)> {
    state.tick(Instant::from_millis(now));
    for _ in 0..500 {
        if let Some(extended) = state.poll_extended() {
            return Some(extended);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

#[test]
fn a_new_key_starts_at_one_with_a_block() {
    let mut state = open(&fresh("new"));
    let claimed = claim(&mut state, &keys(1));
    assert_eq!((claimed.outbound.start, claimed.outbound.end), (1, 1 + BLOCK));
    assert_eq!(claimed.inbound_mark, 0);
}

#[test]
fn after_a_crash_no_number_is_handed_out_again() {
    let dir = fresh("crash");
    let mut last_end = 1;
    for used in [0, 1, 1000, BLOCK - 1] {
        let mut state = open(&dir);
        let claimed = claim(&mut state, &keys(1));
        assert!(claimed.outbound.start >= last_end);
        assert_eq!(claimed.outbound.end - claimed.outbound.start, BLOCK);
        last_end = claimed.outbound.end;
        state.record(claimed.id, claimed.outbound.start + used, 0);
        // Dropped without release: whatever was used of the block counts as used up.
    }
}

#[test]
fn after_a_clean_end_it_goes_on_exactly_where_it_was() {
    let dir = fresh("clean");
    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    state.release(claimed.id, 1234, 5678);
    state.close().unwrap();
    let claimed = claim(&mut open(&dir), &keys(1));
    assert_eq!((claimed.outbound.start, claimed.inbound_mark), (1234, 5678));
}

#[test]
fn a_closed_pair_that_was_not_released_keeps_its_reservation_and_saves_its_mark() {
    let dir = fresh("unreleased");
    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    state.record(claimed.id, 10, 20);
    state.close().unwrap();
    let claimed = claim(&mut open(&dir), &keys(1));
    assert_eq!((claimed.outbound.start, claimed.inbound_mark), (1 + BLOCK, 20));
}

#[test]
fn released_and_claimed_again_it_repeats_nothing() {
    let dir = fresh("again");
    let mut state = open(&dir);
    let mut next = 1;
    for _ in 0..20 {
        let claimed = claim(&mut state, &keys(1));
        assert_eq!(claimed.outbound.start, next);
        next += BLOCK / 2 + 7;
        state.record(claimed.id, next, 0);
        // An extension may be on its way to the disk when the release overtakes the tick.
        state.tick(Instant::ZERO);
        state.release(claimed.id, next, 0);
    }
    drop(state);
    assert_eq!(claim(&mut open(&dir), &keys(1)).outbound.start, next);
}

#[test]
fn the_next_block_is_reserved_when_half_is_used() {
    let dir = fresh("extend");
    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    state.record(claimed.id, BLOCK / 2, 0);
    state.tick(Instant::ZERO);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(state.poll_extended(), None, "less than half was used");
    state.record(claimed.id, 1 + BLOCK / 2, 0);
    assert_eq!(extended(&mut state, 1000), Some((claimed.id, 1 + 2 * BLOCK)));
    state.tick(Instant::from_millis(2000));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(state.poll_extended(), None, "extended once");
    drop(state);
    assert_eq!(claim(&mut open(&dir), &keys(1)).outbound.start, 1 + 2 * BLOCK);
}

#[test]
fn without_esn_numbers_end_at_2_to_the_32() {
    let dir = fresh("exhausted");
    let short = ManualKeys { esn: false, ..keys(1) };
    let near = (1 << 32) - 5;
    let mut state = open(&dir);
    let claimed = claim(&mut state, &short);
    state.release(claimed.id, near, 0);
    let claimed = claim(&mut state, &short);
    assert_eq!((claimed.outbound.start, claimed.outbound.end), (near, 1 << 32));
    state.record(claimed.id, 1 << 32, 0);
    state.tick(Instant::ZERO);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(state.poll_extended(), None, "there is nothing to extend to");
    state.release(claimed.id, 1 << 32, 0);
    let error = state.claim(&[&short]).unwrap_err().to_string();
    assert!(
        error.ends_with("the sequence numbers of spi_out 0x2001 are used up; give it a new key"),
        "{error}"
    );
    // The key goes on with ESN, whose numbers are far from used up.
    assert_eq!(claim(&mut state, &keys(1)).outbound.start, 1 << 32);
}

/// The mark on disk, as a crash now would leave it.
fn mark_after_crash(dir: &Path, crashed: SequenceState) -> u64 {
    drop(crashed);
    claim(&mut open(dir), &keys(1)).inbound_mark
}

#[test]
fn the_inbound_mark_is_written_once_a_minute() {
    let dir = fresh("mark_time");
    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    state.tick(Instant::ZERO);
    state.record(claimed.id, 1, 100);
    state.tick(Instant::from_millis(59_999));
    assert_eq!(mark_after_crash(&dir, state), 0);

    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    state.tick(Instant::ZERO);
    state.record(claimed.id, 1, 100);
    state.tick(Instant::from_millis(60_000));
    assert_eq!(mark_after_crash(&dir, state), 100);
}

#[test]
fn the_inbound_mark_is_written_after_many_packets_but_not_at_once() {
    let dir = fresh("mark_packets");
    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    state.tick(Instant::ZERO);
    state.record(claimed.id, 1, MARK_PACKETS);
    state.tick(Instant::from_millis(999));
    assert_eq!(mark_after_crash(&dir, state), 0);

    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    state.tick(Instant::ZERO);
    state.record(claimed.id, 1, MARK_PACKETS);
    state.tick(Instant::from_millis(1000));
    assert_eq!(mark_after_crash(&dir, state), MARK_PACKETS);
}

#[test]
fn the_esn_high_half_survives() {
    let dir = fresh("esn");
    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    state.release(claimed.id, 3 << 32, (5 << 32) + 9);
    state.close().unwrap();
    let claimed = claim(&mut open(&dir), &keys(1));
    assert_eq!((claimed.outbound.start, claimed.inbound_mark), (3 << 32, (5 << 32) + 9));
}

#[test]
fn numbers_belong_to_the_key_not_to_its_salt_or_spi() {
    let dir = fresh("key");
    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    state.release(claimed.id, 777, 888);
    let mut renamed = keys(1);
    renamed.spi_in = 0x9001;
    renamed.spi_out = 0x9002;
    *renamed.key_in.last_mut().unwrap() ^= 1;
    *renamed.key_out.last_mut().unwrap() ^= 1;
    let claimed = claim(&mut state, &renamed);
    assert_eq!((claimed.outbound.start, claimed.inbound_mark), (777, 888));
    assert_eq!(claim(&mut state, &keys(2)).outbound.start, 1);
}

#[test]
fn a_key_in_use_cannot_be_claimed_again() {
    let dir = fresh("twice");
    let mut state = open(&dir);
    let first = claim(&mut state, &keys(1));
    let message = "the key of spi_out 0x2001 is in use by another peer or another simplevpn; give each SA its own key";
    assert!(state.claim(&[&keys(1)]).unwrap_err().to_string().ends_with(message));
    let mut other = open(&dir);
    assert!(other.claim(&[&keys(2), &keys(1)]).unwrap_err().to_string().ends_with(message));
    // What the failed claim had locked is free again, and other keys share the directory.
    let second = claim(&mut other, &keys(2));
    let third = claim(&mut state, &keys(3));
    state.release(first.id, 11, 0);
    state.release(third.id, 33, 0);
    other.release(second.id, 22, 0);
    state.close().unwrap();
    other.close().unwrap();
    let mut state = open(&dir);
    let starts: Vec<_> = state
        .claim(&[&keys(1), &keys(2), &keys(3)])
        .unwrap()
        .iter()
        .map(|c| c.outbound.start)
        .collect();
    assert_eq!(starts, [11, 22, 33]);
}

#[test]
fn a_damaged_file_is_refused_instead_of_starting_over() {
    let dir = fresh("damaged");
    claim(&mut open(&dir), &keys(1));
    let file = dir.join("sequence-numbers");
    let good = std::fs::read(&file).unwrap();
    let message = "state_dir 'DIR': sequence-numbers is damaged; numbers may have been used that are not in it: change the keys of every peer, then remove it";
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    for bad in [&b""[..], &good[..good.len() - 1], &good[..good.len() / 2], &flipped, b"\xff\xfe"] {
        std::fs::write(&file, bad).unwrap();
        assert_eq!(refusal(&dir), message);
        assert_eq!(std::fs::read(&file).unwrap(), bad, "left as it was");
    }
    std::fs::write(&file, &good).unwrap();
    assert_eq!(claim(&mut open(&dir), &keys(1)).outbound.start, 1 + BLOCK);
}

#[test]
fn what_a_crash_leaves_of_a_new_file_does_no_harm() {
    let dir = fresh("leftover");
    claim(&mut open(&dir), &keys(1));
    std::fs::write(dir.join("sequence-numbers.new"), b"half a fi").unwrap();
    assert_eq!(claim(&mut open(&dir), &keys(1)).outbound.start, 1 + BLOCK);
}

#[test]
fn directories_that_cannot_hold_the_state() {
    let dir = fresh("unsuitable");
    let missing = dir.join("missing");
    assert_eq!(refusal(&missing), "state_dir 'DIR': is missing; run mkdir -p -m 700 DIR");
    let file = dir.join("file");
    std::fs::write(&file, b"").unwrap();
    assert_eq!(refusal(&file), "state_dir 'DIR': cannot be opened: Not a directory (os error 20)");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(refusal(&dir), "state_dir 'DIR': other users can write to it; run chmod 700 DIR");
    assert!(refusal(Path::new("/proc/self")).starts_with("state_dir 'DIR': cannot be written: "));
}

#[test]
fn memory_is_no_place_for_the_state() {
    let dir = Path::new("/dev/shm").join(format!("simplevpn-test-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let message = refusal(&dir);
    std::fs::remove_dir(&dir).unwrap();
    assert_eq!(
        message,
        "state_dir 'DIR': is on tmpfs, which a restart erases; name a directory on a disk or flash"
    );
}

#[test]
fn the_file_does_not_tell_the_key() {
    let dir = fresh("secret");
    claim(&mut open(&dir), &keys(0x30));
    let text = std::fs::read_to_string(dir.join("sequence-numbers")).unwrap();
    assert!(!text.contains("6060606060") && !text.contains("6161616161"), "{text}");
    let mode = std::fs::metadata(dir.join("sequence-numbers")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// What the child of [`killed_at_any_moment_nothing_is_repeated`] does; by itself, nothing.
#[test]
fn child_that_sends_until_it_is_killed() {
    let Some(dir) = std::env::var_os("SEQUENCE_STATE_CHILD") else { return };
    let mut state = open(Path::new(&dir));
    let claimed = claim(&mut state, &keys(1));
    let (mut next, mut end) = (claimed.outbound.start, claimed.outbound.end);
    for now in 0.. {
        println!("\nused {next} {}", next + BLOCK / 4);
        next += BLOCK / 4;
        state.record(claimed.id, next, 0);
        while next + BLOCK / 4 > end {
            state.tick(Instant::from_millis(now));
            if let Some((_, extended)) = state.poll_extended() {
                end = extended;
            }
        }
    }
}

#[test]
fn killed_at_any_moment_nothing_is_repeated() {
    let dir = fresh("killed");
    let mut highest = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_sends_until_it_is_killed", "--nocapture"])
            .env("SEQUENCE_STATE_CHILD", &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut ranges = 0;
        for line in lines {
            let Some(range) = line.strip_prefix("used ") else { continue };
            // The kill may have cut the last line.
            let Some((start, end)) = range.split_once(' ') else { continue };
            let (Ok(start), Ok(end)) = (start.parse::<u64>(), end.parse::<u64>()) else { continue };
            assert!(start >= highest, "{start} after {highest}");
            highest = highest.max(end);
            ranges += 1;
            if ranges == 3 + round {
                assert!(SequenceState::open(&dir).unwrap().claim(&[&keys(1)]).is_err(), "in use");
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(ranges >= 3 + round);
    }
    assert!(claim(&mut open(&dir), &keys(1)).outbound.start >= highest);
}

/// A thousand peers start with one write.
#[test]
fn many_keys_are_claimed_at_once() {
    let dir = fresh("many");
    let all: Vec<ManualKeys> = (0..1000u32)
        .map(|n| {
            let mut keys = keys(1);
            keys.key_in[..4].copy_from_slice(&n.to_be_bytes());
            keys.key_out[..4].copy_from_slice(&n.to_be_bytes());
            keys
        })
        .collect();
    let all: Vec<&ManualKeys> = all.iter().collect();
    let start = std::time::Instant::now();
    let mut state = open(&dir);
    let claimed = state.claim(&all).unwrap();
    assert!(claimed.iter().all(|c| c.outbound.start == 1));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    println!("1000 peers: {:?}", start.elapsed());
    let mut other = open(&dir);
    assert!(all.iter().all(|keys| other.claim(&[keys]).is_err()), "each is locked");
    drop((state, other));
    assert!(open(&dir).claim(&all).unwrap().iter().all(|c| c.outbound.start == 1 + BLOCK));
}

#[test]
fn a_failed_write_extends_nothing_and_is_tried_again() {
    let dir = fresh("failed");
    let mut state = open(&dir);
    let claimed = claim(&mut state, &keys(1));
    let file = dir.join("sequence-numbers");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"damaged").unwrap();
    state.record(claimed.id, BLOCK, 50);
    assert_eq!(extended(&mut state, 0), None);
    std::fs::write(&file, good).unwrap();
    assert_eq!(extended(&mut state, 1000), Some((claimed.id, 1 + 2 * BLOCK)));
    drop(state);
    let claimed = claim(&mut open(&dir), &keys(1));
    assert_eq!((claimed.outbound.start, claimed.inbound_mark), (1 + 2 * BLOCK, 50));
}

//! Sequence numbers that outlive the process: what makes manual keys tolerable.
//!
//! RFC 8221 §3 and RFC 4106 §2 forbid counter-mode AEADs with manual keys, because a restart would
//! repeat sequence numbers, and with them nonces. So manual keying keeps state on disk. IKE, which
//! makes new keys at every start, needs none of this and is the way to run a tunnel for real.
//!
//! **Outbound: never a number twice.** Numbers are reserved ahead, [`BLOCK`] at a time; a number
//! is used only after the reservation that covers it is on disk (fsync of the file and of its
//! directory). After a crash the rest of the block is skipped. A clean end gives it back, since
//! without ESN there are only 4096 blocks. The next block is reserved by a thread of its own when
//! half of the last is used: sending never waits for a disk.
//!
//! **Inbound: the mark runs behind.** Stored is the highest number accepted so far; after a
//! restart everything up to it is refused. A mark that ran ahead, as outbound, would refuse all
//! replays, but also everything genuine up to it: a block of 2^16 is eighteen hours of silence
//! from a peer that sends one packet a second, and it is longest for whoever sends least, since
//! TCP falls silent when nothing arrives. No receiver may cut itself off like that, and
//! manual keying has no way to ask the peer where it is. So the mark is exact after a clean end,
//! and after a crash it is late by at most [`MARK_INTERVAL`] of traffic, or [`MARK_PACKETS`]
//! packets if those took longer than [`MARK_PAUSE`]. What was accepted in that time can be
//! replayed once by someone who recorded it. RFC 4303 §3.4.3 offers no replay protection at all
//! with manual keys; this bounds the damage without wearing out a router's flash, at one small
//! write a minute. Packets before the mark that were only delayed are refused: one window at most.
//!
//! **The ESN high half** (RFC 4303 Appendix A2) comes out right as long as the peer sent fewer
//! than 2^32 minus the window since the mark was written, our time off the air included.
//!
//! What is not here: which numbers a packet gets (`simplevpn_core`), and protection against
//! someone who deletes or restores the state file: then, the keys have to be changed.

mod store;
mod thread;

use core::fmt;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use simplevpn_core::Instant;
use simplevpn_core::crypto::SALT_LEN;

use crate::config::model::ManualKeys;
use crate::sorted::{self, SortedMap};
use store::{Direction, RecordId, Records, Store};
use thread::Thread;

/// How many outbound numbers are reserved at a time.
pub const BLOCK: u64 = 1 << 20;
/// The inbound mark is written at the latest after this time, if it changed.
pub const MARK_INTERVAL: Duration = Duration::from_secs(60);
/// The inbound mark is written after this many packets …
pub const MARK_PACKETS: u64 = 1 << 16;
/// … but not more often than this.
pub const MARK_PAUSE: Duration = Duration::from_secs(1);

/// Why there is no state to rely on. Nothing may be sent then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateError {
    dir: PathBuf,
    what: String,
}

impl StateError {
    fn new(dir: &Path, what: impl Into<String>) -> Self {
        Self { dir: dir.to_owned(), what: what.into() }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state_dir '{}': {}", self.dir.display(), self.what)
    }
}

impl std::error::Error for StateError {}

/// Outbound sequence numbers that may be used: `start` up to, but not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// The first number to use; at least 1.
    pub start: u64,
    /// The first number that must not be used.
    pub end: u64,
}

/// Names the two SAs of a peer here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairId(u32);

/// What a peer's SAs start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Names the pair from now on.
    pub id: PairId,
    /// Numbers for the outbound SA, on disk already.
    pub outbound: Reservation,
    /// Inbound numbers up to this one were seen and are to be refused; 0: none.
    pub inbound_mark: u64,
}

/// The state of all manually keyed peers whose `state_dir` is the same.
#[derive(Debug)]
pub struct SequenceState {
    writer: Writer,
    pairs: SortedMap<PairId, Pair>,
    next_id: u32,
    extended: Vec<(PairId, u64)>,
    marks_written: Option<Instant>,
    /// The last write's error; logged once while it stays the same.
    failed: Option<StateError>,
}

#[derive(Debug)]
struct Pair {
    outbound: RecordId,
    inbound: RecordId,
    /// End of what is on disk, and the most it can become.
    end: u64,
    limit: u64,
    /// First number not used yet, as far as we were told.
    next: u64,
    /// Highest number accepted, as far as we were told, and the one on disk.
    mark: u64,
    written_mark: u64,
}

impl SequenceState {
    /// Opens the state in `dir` and starts the thread that writes it. To be called after the
    /// process has set its signal mask, which the thread inherits.
    ///
    /// # Errors
    /// If `dir` is missing, not a directory, cannot be written, can be written by others, or lies
    /// in memory, where a power cut would erase it.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let writer = Writer::start(Store::open(dir)?)
            .map_err(|error| StateError::new(dir, format!("cannot start its thread: {error}")))?;
        Ok(Self {
            writer,
            pairs: SortedMap::new(),
            next_id: 0,
            extended: Vec::new(),
            marks_written: None,
            failed: None,
        })
    }

    /// Reserves the first block for each of `keys`, in the same order, in one write. Waits for
    /// the disk: for start and reload.
    ///
    /// # Errors
    /// If a key is in use by another process or a second time by this one, if its numbers are
    /// used up, or if the state is damaged or cannot be written. Then none of `keys` is claimed.
    pub fn claim(&mut self, keys: &[&ManualKeys]) -> Result<Vec<Claimed>, StateError> {
        // What was released just now has to be on disk before it can be claimed again.
        self.flush();
        let mut locked = Vec::new();
        let claimed = self.claim_all(keys, &mut locked);
        if claimed.is_err() {
            locked.into_iter().for_each(|record| self.writer.shared.store.unlock(record));
        }
        claimed
    }

    fn claim_all(
        &mut self,
        keys: &[&ManualKeys],
        locked: &mut Vec<RecordId>,
    ) -> Result<Vec<Claimed>, StateError> {
        let store = &self.writer.shared.store;
        let mut new: Vec<Pair> = keys.iter().map(|keys| Pair::of(keys)).collect();
        // Every record of ours by its turn: whoever comes second cannot have it.
        let all = self.pairs.values().chain(&new);
        let all = sorted::set(all.flat_map(|pair| [pair.outbound, pair.inbound]).zip(0_usize..));
        let mut turn = 2 * self.pairs.len();
        for (pair, keys) in new.iter().zip(keys) {
            for (record, spi) in [(pair.outbound, keys.spi_out), (pair.inbound, keys.spi_in)] {
                let before = all.partition_point(|other| *other < (record, turn));
                let ours = before > 0 && all[before - 1].0 == record;
                if ours || !store.lock(record)? {
                    let what = format!(
                        "the key of {} {spi:#x} is in use by another peer or another simplevpn; \
                         give each SA its own key",
                        record.direction.option(),
                    );
                    return Err(store.error(what));
                }
                locked.push(record);
                turn += 1;
            }
        }
        store.update(&mut |records| {
            for (pair, keys) in new.iter_mut().zip(keys) {
                pair.resume(records).ok_or_else(|| {
                    let spi = keys.spi_out;
                    format!(
                        "the sequence numbers of spi_out {spi:#x} are used up; give it a new key"
                    )
                })?;
            }
            let numbers = |pair: &Pair| [(pair.outbound, pair.end), (pair.inbound, pair.mark)];
            records.extend(new.iter().flat_map(numbers));
            Ok(())
        })?;
        Ok(new.into_iter().map(|pair| self.add(pair)).collect())
    }

    fn add(&mut self, pair: Pair) -> Claimed {
        let id = PairId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        let outbound = Reservation { start: pair.next, end: pair.end };
        let inbound_mark = pair.mark;
        self.pairs.insert(id, pair);
        Claimed { id, outbound, inbound_mark }
    }

    /// Notes how far a pair has come: the next outbound number to be used, and the highest inbound
    /// number accepted. Only remembers; to be called before [`SequenceState::tick`].
    pub fn record(&mut self, id: PairId, next_outbound: u64, highest_inbound: u64) {
        if let Some(pair) = self.pairs.get_mut(&id) {
            pair.next = pair.next.max(next_outbound);
            pair.mark = pair.mark.max(highest_inbound);
        }
    }

    /// Has written what is due, without waiting: to be called about once a second, and more often
    /// where [`BLOCK`] / 2 packets take less than a few seconds.
    ///
    /// A failure is logged, and what was due is tried again at the next tick. A pair whose
    /// reservation cannot be extended stops sending at its end.
    pub fn tick(&mut self, now: Instant) {
        self.collect(false);
        if self.writer.outstanding > 0 {
            return;
        }
        // After a failure everything is overdue.
        let marks_due = self.marks_due(now) || self.failed.is_some();
        let mut job = Job::default();
        for (id, pair) in self.pairs.iter() {
            if pair.end.saturating_sub(pair.next) <= BLOCK / 2 && pair.end < pair.limit {
                let end = pair.end.saturating_add(BLOCK).min(pair.limit);
                job.updates.push(Update { pair: *id, record: pair.outbound, value: end });
            }
        }
        if marks_due || !job.updates.is_empty() {
            self.marks_written = Some(now);
            job.updates.extend(self.marks());
        }
        if !job.updates.is_empty() {
            self.writer.send(job);
        }
    }

    /// The marks that are not written yet.
    fn marks(&self) -> impl Iterator<Item = Update> {
        let changed = self.pairs.iter().filter(|(_, pair)| pair.mark > pair.written_mark);
        changed.map(|(id, pair)| Update { pair: *id, record: pair.inbound, value: pair.mark })
    }

    fn marks_due(&mut self, now: Instant) -> bool {
        let since = now.saturating_since(*self.marks_written.get_or_insert(now));
        let many = |pair: &Pair| pair.mark.saturating_sub(pair.written_mark) >= MARK_PACKETS;
        since >= MARK_INTERVAL || (since >= MARK_PAUSE && self.pairs.values().any(many))
    }

    /// The next pair whose reservation was extended, and its new end. Never waits.
    pub fn poll_extended(&mut self) -> Option<(PairId, u64)> {
        self.collect(false);
        (!self.extended.is_empty()).then(|| self.extended.remove(0))
    }

    /// Ends a pair: `next_outbound` is the first number that was not used, and none will be after
    /// this; `highest_inbound` as in [`SequenceState::record`]. Written in the background.
    pub fn release(&mut self, id: PairId, next_outbound: u64, highest_inbound: u64) {
        self.record(id, next_outbound, highest_inbound);
        let Some(pair) = self.pairs.remove(&id) else { return };
        self.extended.retain(|(extended, _)| *extended != id);
        let updates = vec![
            Update { pair: id, record: pair.outbound, value: pair.next },
            Update { pair: id, record: pair.inbound, value: pair.mark },
        ];
        self.writer.send(Job { updates, unlock: vec![pair.outbound, pair.inbound] });
    }

    /// Writes everything and waits for it. Pairs that were not released keep their reservation,
    /// as after a crash.
    ///
    /// # Errors
    /// If something could not be written; after that, numbers are skipped but never repeated.
    pub fn close(mut self) -> Result<(), StateError> {
        self.failed = None;
        let updates: Vec<Update> = self.marks().collect();
        if !updates.is_empty() {
            self.writer.send(Job { updates, unlock: Vec::new() });
        }
        self.flush();
        self.failed.take().map_or(Ok(()), Err)
    }

    fn flush(&mut self) {
        self.collect(true);
    }

    /// Takes what the writer has done; with `wait`, everything it was given.
    fn collect(&mut self, wait: bool) {
        loop {
            let all = self.writer.receive(wait);
            if all.is_empty() {
                return;
            }
            for Done { jobs, result } in all {
                match result {
                    Ok(()) => {
                        self.failed = None;
                        jobs.iter().for_each(|job| self.written(job));
                    }
                    Err(error) => {
                        if self.failed.as_ref() != Some(&error) {
                            log::error!("{error}");
                        }
                        self.failed = Some(error);
                    }
                }
            }
        }
    }

    fn written(&mut self, job: &Job) {
        for update in &job.updates {
            let Some(pair) = self.pairs.get_mut(&update.pair) else { continue };
            match update.record.direction {
                Direction::In => pair.written_mark = update.value,
                Direction::Out => {
                    pair.end = update.value;
                    self.extended.push((update.pair, update.value));
                }
            }
        }
    }
}

impl Pair {
    fn of(keys: &ManualKeys) -> Self {
        // Numbers belong to the key: with another salt it is still the same key.
        let key = |keymat: &[u8]| {
            let key = keymat.get(..keymat.len().saturating_sub(SALT_LEN));
            key.unwrap_or_default().to_vec()
        };
        let key_out = zeroize::Zeroizing::new(key(&keys.key_out));
        let key_in = zeroize::Zeroizing::new(key(&keys.key_in));
        Self {
            outbound: RecordId::of(Direction::Out, &key_out),
            inbound: RecordId::of(Direction::In, &key_in),
            end: 0,
            // RFC 4303 §3.3.3: without ESN the number must not cycle past 2^32 - 1.
            limit: if keys.esn { u64::MAX } else { 1 << 32 },
            next: 1,
            mark: 0,
            written_mark: 0,
        }
    }

    /// Goes on where `records` end, with a block of numbers; `None` if they are used up.
    fn resume(&mut self, records: &Records) -> Option<()> {
        let start = records.get(&self.outbound).copied().unwrap_or(1).max(1);
        if start >= self.limit {
            return None;
        }
        self.next = start;
        self.end = start.saturating_add(BLOCK).min(self.limit);
        self.mark = records.get(&self.inbound).copied().unwrap_or(0);
        self.written_mark = self.mark;
        Some(())
    }
}

/// A record's new value.
#[derive(Debug)]
struct Update {
    pair: PairId,
    record: RecordId,
    value: u64,
}

/// What is to be written, and the records that nobody uses after it.
#[derive(Debug, Default)]
struct Job {
    updates: Vec<Update>,
    unlock: Vec<RecordId>,
}

/// What was written at once, and how that went.
#[derive(Debug)]
struct Done {
    jobs: Vec<Job>,
    result: Result<(), StateError>,
}

/// What goes to the thread and what comes back.
#[derive(Debug, Default)]
struct Exchange {
    jobs: Vec<Job>,
    done: Vec<Done>,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    exchange: Mutex<Exchange>,
    /// Something in `exchange` has changed.
    changed: Condvar,
}

impl Shared {
    fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'e>(&self, exchange: MutexGuard<'e, Exchange>) -> MutexGuard<'e, Exchange> {
        self.changed.wait(exchange).unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, jobs: Vec<Job>) -> Done {
        let result = self.store.update(&mut |records| {
            let updates = jobs.iter().flat_map(|job| &job.updates);
            records.extend(updates.map(|update| (update.record, update.value)));
            Ok(())
        });
        jobs.iter().flat_map(|job| &job.unlock).for_each(|record| self.store.unlock(*record));
        Done { jobs, result }
    }

    /// Writes what comes, until everything is written and nothing comes any more.
    fn work(&self) {
        let mut exchange = self.exchange();
        loop {
            // What has piled up is one write: a thousand peers end at once.
            let jobs = core::mem::take(&mut exchange.jobs);
            if !jobs.is_empty() {
                drop(exchange);
                let done = self.write(jobs);
                exchange = self.exchange();
                exchange.done.push(done);
                self.changed.notify_all();
            } else if exchange.closed {
                return;
            } else {
                exchange = self.wait(exchange);
            }
        }
    }
}

/// The thread that waits for the disk, so that nobody else has to. While it is busy, it alone uses
/// the store.
#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    /// Jobs that are not done yet.
    outstanding: usize,
    thread: Option<Thread>,
}

impl Writer {
    fn start(store: Store) -> std::io::Result<Self> {
        let (exchange, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { store, exchange, changed });
        let its = Arc::clone(&shared);
        let thread = Some(Thread::start(move || its.work())?);
        Ok(Self { shared, outstanding: 0, thread })
    }

    fn send(&mut self, job: Job) {
        self.outstanding += 1;
        self.shared.exchange().jobs.push(job);
        self.shared.changed.notify_all();
    }

    /// What was done since the last call; with `wait`, not before something is. Empty if nothing
    /// is outstanding.
    fn receive(&mut self, wait: bool) -> Vec<Done> {
        let mut exchange = self.shared.exchange();
        while wait && self.outstanding > 0 && exchange.done.is_empty() {
            exchange = self.shared.wait(exchange);
        }
        let done = core::mem::take(&mut exchange.done);
        self.outstanding -= done.iter().map(|done| done.jobs.len()).sum::<usize>();
        done
    }
}

impl Drop for Writer {
    /// Waits for what is being written: the locks have to be free when this returns.
    fn drop(&mut self) {
        self.shared.exchange().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

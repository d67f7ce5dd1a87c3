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

use core::fmt;
use core::iter::once;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use simplevpn_core::Instant;
use simplevpn_core::crypto::SALT_LEN;

use crate::config::model::ManualKeys;
use store::{Direction, RecordId, Store};

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
    store: Arc<Store>,
    writer: Writer,
    pairs: BTreeMap<PairId, Pair>,
    /// The records of `pairs`.
    in_use: BTreeSet<RecordId>,
    next_id: u32,
    extended: VecDeque<(PairId, u64)>,
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
        let store = Arc::new(Store::open(dir)?);
        let writer = Writer::start(Arc::clone(&store))
            .map_err(|error| StateError::new(dir, format!("cannot start its thread: {error}")))?;
        Ok(Self {
            store,
            writer,
            pairs: BTreeMap::new(),
            in_use: BTreeSet::new(),
            next_id: 0,
            extended: VecDeque::new(),
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
        let mut locked = BTreeSet::new();
        let claimed = self.claim_all(keys, &mut locked);
        if claimed.is_err() {
            locked.into_iter().for_each(|record| self.store.unlock(record));
        }
        claimed
    }

    fn claim_all(
        &mut self,
        keys: &[&ManualKeys],
        locked: &mut BTreeSet<RecordId>,
    ) -> Result<Vec<Claimed>, StateError> {
        let mut pairs = Vec::with_capacity(keys.len());
        for keys in keys {
            let pair = Pair::of(keys);
            for record in [pair.outbound, pair.inbound] {
                let ours = self.in_use.contains(&record) || locked.contains(&record);
                if ours || !self.store.lock(record)? {
                    let what = format!(
                        "the key of {} {:#x} is in use by another peer or another simplevpn; give \
                         each SA its own key",
                        record.direction.option(),
                        if record.direction == Direction::In { keys.spi_in } else { keys.spi_out }
                    );
                    return Err(self.store.error(what));
                }
                locked.insert(record);
            }
            pairs.push((pair, keys.spi_out));
        }
        self.store.update(|records| {
            for (pair, spi) in &mut pairs {
                let start = records.get(&pair.outbound).copied().unwrap_or(1).max(1);
                if start >= pair.limit {
                    return Err(format!(
                        "the sequence numbers of spi_out {spi:#x} are used up; give it a new key"
                    ));
                }
                pair.next = start;
                pair.end = start.saturating_add(BLOCK).min(pair.limit);
                pair.mark = records.get(&pair.inbound).copied().unwrap_or(0);
                pair.written_mark = pair.mark;
                records.insert(pair.outbound, pair.end);
                records.insert(pair.inbound, pair.mark);
            }
            Ok(())
        })?;
        Ok(pairs.into_iter().map(|(pair, _)| self.add(pair)).collect())
    }

    fn add(&mut self, pair: Pair) -> Claimed {
        let id = PairId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        let outbound = Reservation { start: pair.next, end: pair.end };
        let inbound_mark = pair.mark;
        self.in_use.extend([pair.outbound, pair.inbound]);
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
        for (id, pair) in &self.pairs {
            if pair.end.saturating_sub(pair.next) <= BLOCK / 2 && pair.end < pair.limit {
                let end = pair.end.saturating_add(BLOCK).min(pair.limit);
                job.updates.push(Update { pair: *id, record: pair.outbound, value: end });
            }
        }
        if marks_due || !job.updates.is_empty() {
            self.marks_written = Some(now);
            for (id, pair) in self.pairs.iter().filter(|(_, pair)| pair.mark > pair.written_mark) {
                job.updates.push(Update { pair: *id, record: pair.inbound, value: pair.mark });
            }
        }
        if !job.updates.is_empty() {
            self.writer.send(job);
        }
    }

    fn marks_due(&mut self, now: Instant) -> bool {
        let since = now.saturating_since(*self.marks_written.get_or_insert(now));
        let many = |pair: &Pair| pair.mark.saturating_sub(pair.written_mark) >= MARK_PACKETS;
        since >= MARK_INTERVAL || (since >= MARK_PAUSE && self.pairs.values().any(many))
    }

    /// The next pair whose reservation was extended, and its new end. Never waits.
    pub fn poll_extended(&mut self) -> Option<(PairId, u64)> {
        self.collect(false);
        self.extended.pop_front()
    }

    /// Ends a pair: `next_outbound` is the first number that was not used, and none will be after
    /// this; `highest_inbound` as in [`SequenceState::record`]. Written in the background.
    pub fn release(&mut self, id: PairId, next_outbound: u64, highest_inbound: u64) {
        self.record(id, next_outbound, highest_inbound);
        let Some(pair) = self.pairs.remove(&id) else { return };
        self.in_use.remove(&pair.outbound);
        self.in_use.remove(&pair.inbound);
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
        let marks = self.pairs.iter().filter(|(_, pair)| pair.mark > pair.written_mark);
        let updates: Vec<_> = marks
            .map(|(id, pair)| Update { pair: *id, record: pair.inbound, value: pair.mark })
            .collect();
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
        while let Some(done) = self.writer.receive(wait) {
            match done.result {
                Ok(()) => {
                    self.failed = None;
                    self.written(&done.job);
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

    fn written(&mut self, job: &Job) {
        for update in &job.updates {
            let Some(pair) = self.pairs.get_mut(&update.pair) else { continue };
            match update.record.direction {
                Direction::In => pair.written_mark = update.value,
                Direction::Out => {
                    pair.end = update.value;
                    self.extended.push_back((update.pair, update.value));
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

#[derive(Debug)]
struct Done {
    job: Job,
    result: Result<(), StateError>,
}

/// The thread that waits for the disk, so that nobody else has to.
#[derive(Debug)]
struct Writer {
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    outstanding: usize,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(store: Arc<Store>) -> std::io::Result<Self> {
        let (jobs, to_do) = channel::<Job>();
        let (finished, done) = channel();
        let thread =
            std::thread::Builder::new().name("sequence-state".to_owned()).spawn(move || {
                while let Ok(first) = to_do.recv() {
                    // What has piled up is one write: a thousand peers end at once.
                    let jobs: Vec<Job> = once(first).chain(to_do.try_iter()).collect();
                    let updates = jobs.iter().flat_map(|job| &job.updates);
                    let result = store.update(|records| {
                        records.extend(updates.map(|u| (u.record, u.value)));
                        Ok(())
                    });
                    for job in jobs {
                        job.unlock.iter().for_each(|record| store.unlock(*record));
                        if finished.send(Done { job, result: result.clone() }).is_err() {
                            return;
                        }
                    }
                }
            })?;
        Ok(Self { jobs: Some(jobs), done, outstanding: 0, thread: Some(thread) })
    }

    fn send(&mut self, job: Job) {
        if self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok()) {
            self.outstanding += 1;
        }
    }

    /// What was done next; `None` if nothing is outstanding or, without `wait`, not ready.
    fn receive(&mut self, wait: bool) -> Option<Done> {
        if self.outstanding == 0 {
            return None;
        }
        let done = match self.done.try_recv() {
            Err(TryRecvError::Empty) if wait => self.done.recv().ok(),
            other => other.ok(),
        }?;
        self.outstanding -= 1;
        Some(done)
    }
}

impl Drop for Writer {
    /// Waits for what is being written: the locks have to be free when this returns.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already, and there is nothing left to save.
            let _ = thread.join();
        }
    }
}

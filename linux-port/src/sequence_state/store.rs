//! The file behind the state: its format, its locks, and writing it so that a power cut at any
//! moment leaves the old one or the new one.
//!
//! `sequence-numbers` is text: a header, one line `out HASH NUMBER` or `in HASH NUMBER` for each
//! key, and a check line. `lock` is locked while that file is replaced, and a byte of one of the
//! `lock-N` for each key in use, so that several processes can share the directory but never a key.
//! None of them is ever written. The kernel looks through all locks of a file for each new one:
//! twenty thousand in one file took six seconds.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::statfs::statfs;
use sha2::{Digest, Sha256};

use super::StateError;
use crate::sorted::SortedMap;

const FILE: &str = "sequence-numbers";
const NEW_FILE: &str = "sequence-numbers.new";
const LOCK_FILE: &str = "lock";
const HEADER: &str = "simplevpn sequence numbers 1";
/// Files between which the locks of keys are divided; a few keys open a few of them.
const KEY_LOCK_FILES: usize = 32;
/// Room for a hundred thousand keys.
const MAX_FILE: u64 = 16 * 1024 * 1024;

const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;
const OVERLAYFS: u32 = 0x794c_7630;

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    In,
    Out,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }

    /// The option that names the SA of this direction.
    pub(super) fn option(self) -> &'static str {
        match self {
            Direction::In => "spi_in",
            Direction::Out => "spi_out",
        }
    }
}

/// Bytes of a key's hash that name it.
const HASH: usize = 16;

/// Names a key without telling it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordId {
    pub(super) direction: Direction,
    hash: [u8; HASH],
}

impl RecordId {
    pub(super) fn of(direction: Direction, key: &[u8]) -> Self {
        let hash = Sha256::new()
            .chain_update("simplevpn sequence numbers ")
            .chain_update(direction.name())
            .chain_update(key)
            .finalize();
        Self { direction, hash: hash.first_chunk().copied().unwrap_or_default() }
    }

    /// The lock file and the byte of it that stand for this record. Within 31 bits, since `off_t`
    /// may have no more; two keys of two processes that meet there are refused, not confused.
    fn lock_place(self) -> (usize, libc::off_t) {
        let file = usize::from(self.hash.first().copied().unwrap_or_default()) % KEY_LOCK_FILES;
        let last = self.hash.last_chunk().copied().unwrap_or_default();
        (file, (u32::from_be_bytes(last) & 0x7fff_ffff) as libc::off_t)
    }
}

/// The number of each key: outbound the first that is not reserved, inbound the mark.
pub(super) type Records = SortedMap<RecordId, u64>;

/// The directory. Its locks exclude other processes, not other threads of this one: only one at a
/// time may use it.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    dir_file: File,
    lock_file: File,
    /// Opened when a key needs one.
    key_locks: [OnceLock<File>; KEY_LOCK_FILES],
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self, StateError> {
        let error = |what: String| StateError::new(dir, what);
        let dir_file =
            OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir).map_err(
                |cause| match cause.kind() {
                    ErrorKind::NotFound => {
                        error(format!("is missing; run mkdir -p -m 700 {}", dir.display()))
                    }
                    _ => error(format!("cannot be opened: {cause}")),
                },
            )?;
        let metadata =
            dir_file.metadata().map_err(|cause| error(format!("cannot be read: {cause}")))?;
        if metadata.mode() & 0o022 != 0 {
            return Err(error(format!(
                "other users can write to it; run chmod 700 {}",
                dir.display()
            )));
        }
        if let Some(kind) = memory_file_system(dir, &metadata) {
            return Err(error(format!(
                "is on {kind}, which a restart erases; name a directory on a disk or flash"
            )));
        }
        let lock_file = open_lock(&dir.join(LOCK_FILE))
            .map_err(|cause| error(format!("cannot be written: {cause}")))?;
        let key_locks = [const { OnceLock::new() }; KEY_LOCK_FILES];
        Ok(Self { dir: dir.to_owned(), dir_file, lock_file, key_locks })
    }

    pub(super) fn error(&self, what: impl Into<String>) -> StateError {
        StateError::new(&self.dir, what)
    }

    fn cannot_lock(&self, cause: Errno) -> StateError {
        self.error(format!("cannot be locked: {}", std::io::Error::from(cause)))
    }

    /// Takes a record for this process; `false`: another has it.
    pub(super) fn lock(&self, record: RecordId) -> Result<bool, StateError> {
        let (number, byte) = record.lock_place();
        match fcntl(self.key_lock(number)?, FcntlArg::F_OFD_SETLK(&byte_lock(libc::F_WRLCK, byte)))
        {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(cause) => Err(self.cannot_lock(cause)),
        }
    }

    /// Gives a record back.
    pub(super) fn unlock(&self, record: RecordId) {
        let (number, byte) = record.lock_place();
        let Some(file) = self.key_locks[number].get() else { return };
        // Unlocking what is locked cannot fail, and a lock that stayed would end with the process.
        let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&byte_lock(libc::F_UNLCK, byte)));
    }

    fn key_lock(&self, number: usize) -> Result<&File, StateError> {
        let cell = &self.key_locks[number];
        if let Some(file) = cell.get() {
            return Ok(file);
        }
        let name = format!("{LOCK_FILE}-{number}");
        let file = open_lock(&self.dir.join(&name))
            .map_err(|cause| self.error(format!("{name} cannot be opened: {cause}")))?;
        Ok(cell.get_or_init(|| file))
    }

    /// Changes the records and returns when the change is on disk.
    pub(super) fn update(
        &self,
        change: &mut dyn FnMut(&mut Records) -> Result<(), String>,
    ) -> Result<(), StateError> {
        let cannot_lock = |cause| self.cannot_lock(cause);
        fcntl(&self.lock_file, FcntlArg::F_OFD_SETLKW(&byte_lock(libc::F_WRLCK, 0)))
            .map_err(cannot_lock)?;
        let result = self.replace(change);
        fcntl(&self.lock_file, FcntlArg::F_OFD_SETLKW(&byte_lock(libc::F_UNLCK, 0)))
            .map_err(cannot_lock)?;
        result
    }

    fn replace(
        &self,
        change: &mut dyn FnMut(&mut Records) -> Result<(), String>,
    ) -> Result<(), StateError> {
        let mut records = self.read()?;
        change(&mut records).map_err(|what| self.error(what))?;
        let cannot = |cause| self.error(format!("cannot be written: {cause}"));
        self.write(&records).map_err(cannot)
    }

    fn read(&self) -> Result<Records, StateError> {
        let path = self.dir.join(FILE);
        let damaged = |what: String| {
            self.error(format!(
                "{FILE} {what}; numbers may have been used that are not in it: change the keys of \
                 every peer, then remove it"
            ))
        };
        let mut text = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text)) {
            Ok(_) => parse(&text).ok_or_else(|| damaged("is damaged".to_owned())),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(Records::new()),
            Err(cause) => Err(damaged(format!("cannot be read: {cause}"))),
        }
    }

    fn write(&self, records: &Records) -> std::io::Result<()> {
        let new = self.dir.join(NEW_FILE);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&new)?;
        file.write_all(format(records).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, self.dir.join(FILE))?;
        self.dir_file.sync_all()
    }
}

/// Opens a file that is only there to be locked.
fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// A lock of the kind `kind` on one byte.
fn byte_lock(kind: libc::c_int, byte: libc::off_t) -> libc::flock {
    // SAFETY: flock is plain integers, for which all zeros is a value; some targets have padding
    // fields that cannot be named here.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).unwrap_or_default();
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
    lock.l_start = byte;
    lock.l_len = 1;
    lock
}

fn format(records: &Records) -> String {
    let mut text = format!("{HEADER}\n");
    for (record, number) in records.iter() {
        text.push_str(record.direction.name());
        text.push(' ');
        for byte in record.hash {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        let _ = writeln!(text, " {number}");
    }
    let check = check(text.as_bytes());
    let _ = writeln!(text, "check {check:016x}");
    text
}

/// The records of a file that is exactly as [`format`] writes it.
fn parse(text: &[u8]) -> Option<Records> {
    let text = core::str::from_utf8(text).ok()?;
    let body = text.strip_prefix(HEADER)?.strip_prefix('\n')?;
    let (lines, _check) = body.rsplit_once("check ")?;
    let mut records = Vec::new();
    for line in lines.lines() {
        let mut words = line.split(' ');
        let direction = match words.next()? {
            "in" => Direction::In,
            "out" => Direction::Out,
            _ => return None,
        };
        let hash = parse_hash(words.next()?)?;
        let number = words.next()?.parse().ok()?;
        records.push((RecordId { direction, hash }, number));
    }
    let records = records.into_iter().collect();
    // Whatever is not canonical (order, spelling, check) does not come back the same.
    (format(&records) == text).then_some(records)
}

/// The hash that is written in these hexadecimal digits.
fn parse_hash(digits: &str) -> Option<[u8; HASH]> {
    let mut hash = [0; HASH];
    for (byte, two) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(two).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// Tells a file that was cut short or changed by accident from a whole one.
fn check(text: &[u8]) -> u64 {
    let hash = Sha256::digest(text);
    u64::from_be_bytes(hash.first_chunk().copied().unwrap_or_default())
}

/// The file system's name if it lies in memory.
fn memory_file_system(dir: &Path, metadata: &std::fs::Metadata) -> Option<&'static str> {
    match magic(dir)? {
        // On OpenWrt the upper layer is in memory until the flash is ready.
        OVERLAYFS => memory_name(magic(&upper_layer(metadata.dev())?)?),
        magic => memory_name(magic),
    }
}

/// The file system's magic number (linux/magic.h).
fn magic(path: &Path) -> Option<u32> {
    // Magics have 32 bits; the kernel's field is wider on some machines and signed on some.
    Some(statfs(path).ok()?.filesystem_type().0 as u32)
}

fn memory_name(magic: u32) -> Option<&'static str> {
    match magic {
        TMPFS => Some("tmpfs"),
        RAMFS => Some("ramfs"),
        _ => None,
    }
}

/// The upper directory of the overlay that is mounted as device `dev`.
fn upper_layer(dev: u64) -> Option<PathBuf> {
    let device = format!("{}:{}", libc::major(dev), libc::minor(dev));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&*device))?;
    let options = mount.rsplit(' ').next()?;
    options.split(',').find_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Records {
        [(RecordId::of(Direction::Out, b"a"), 1 << 20), (RecordId::of(Direction::In, b"a"), 7)]
            .into_iter()
            .collect()
    }

    #[test]
    fn what_was_written_is_read_back() {
        for records in [records(), Records::new()] {
            assert_eq!(parse(format(&records).as_bytes()), Some(records));
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_damaged() {
        let text = format(&records());
        for len in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..len]), None, "cut at {len}");
        }
    }

    #[test]
    fn a_file_with_any_byte_changed_is_damaged() {
        let text = format(&records());
        for position in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[position] ^= 1;
            assert_eq!(parse(&changed), None, "changed at {position}");
        }
    }

    #[test]
    fn a_record_tells_key_and_direction_apart() {
        let ids = [
            RecordId::of(Direction::In, b"a"),
            RecordId::of(Direction::Out, b"a"),
            RecordId::of(Direction::In, b"b"),
        ];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(0u8.., 0..300)) {
            proptest::prop_assert_eq!(parse(&bytes), None);
        }
    }
}

//! Machines of another architecture: their `simplevpn` is what routers get, run by qemu's
//! user-mode emulation.
//!
//! Only the program is emulated. Its system calls are those of this machine's kernel, which is why
//! they meet real TUN devices, sockets and routes. What qemu 7.2 translates wrongly or not at all:
//! - `SO_MARK` is refused, and policy rules, too: no steering by policy
//! - of another byte order, questions about routes get no answer: the MTU of the first link and
//!   preferred sources are not known from there
//! - of another byte order, the numbers inside control messages (`IP_TOS`, `IPV6_TCLASS`, …) stay
//!   in that of this machine, and so does the `errno` of what ICMP told
//! - other netlink families than routing do not exist: a flushed firewall goes unnoticed
//!
//! Times are those of an emulator on this machine, not of a router.

use std::path::{Path, PathBuf};

use super::Host;

/// A processor that `simplevpn` is built for and that an emulator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// Big-endian MIPS32 release 2 without floating point: ath79, most routers of 2010 to 2018.
    Mips24Kc,
    /// The same in little endian: ramips.
    Mipsel24Kc,
    /// ARMv5 without floating point: kirkwood and older.
    Arm926,
    /// ARMv7 with floating point, in Thumb-2: ipq40xx, mvebu, sunxi.
    CortexA7,
}

impl Processor {
    /// All of them.
    pub const ALL: [Processor; 4] =
        [Processor::Mips24Kc, Processor::Mipsel24Kc, Processor::Arm926, Processor::CortexA7];

    /// What `openwrt/cross` calls its binary.
    pub fn target(self) -> &'static str {
        match self {
            Processor::Mips24Kc => "mips",
            Processor::Mipsel24Kc => "mipsel",
            Processor::Arm926 => "armv5te",
            Processor::CortexA7 => "armv7hf",
        }
    }

    fn emulator(self) -> &'static str {
        match self {
            Processor::Mips24Kc => "qemu-mips-static -cpu 24Kc",
            Processor::Mipsel24Kc => "qemu-mipsel-static -cpu 24Kc",
            Processor::Arm926 => "qemu-arm-static -cpu arm926",
            Processor::CortexA7 => "qemu-arm-static -cpu cortex-a7",
        }
    }

    /// The words that run this processor's `simplevpn`.
    ///
    /// # Panics
    /// When it was not built.
    pub(super) fn simplevpn(self) -> String {
        let target = self.target();
        let program = built(target).unwrap_or_else(|| {
            panic!("no simplevpn for {target}: run `openwrt/cross {target}` first")
        });
        format!("{} {}", self.emulator(), program.display())
    }
}

impl Host {
    /// From now on this machine's `simplevpn` is that of a router with this processor.
    ///
    /// # Panics
    /// When called twice, or when that program was not built.
    pub fn is_a(&self, processor: Processor) -> &Host {
        self.becomes(processor.simplevpn());
        self
    }
}

/// A router's binary where `openwrt/cross` puts it.
fn built(target: &str) -> Option<PathBuf> {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/openwrt/bin");
    let program = bin.join(target).join("simplevpn").canonicalize().ok()?;
    program.is_file().then_some(program)
}

//! A machine with an older kernel: the system calls that ask for what came with later ones are
//! refused as that kernel would, by a seccomp filter.
//!
//! What is missing then: super-packets of UDP on TUN devices (`TUN_F_USO4`, `TUN_F_USO6`, Linux
//! 6.2), and `UDP_GRO` (5.0) and `UDP_SEGMENT` (4.18) on sockets.

use std::io;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};

/// Where `struct seccomp_data` has the number of the system call.
const NUMBER: u32 = 0;
/// Where it has the lower half of the second and of the third argument, on little-endian machines.
const SECOND: u32 = 24;
const THIRD: u32 = 32;
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUN_F_USO: u32 = 0x20 | 0x40;

const fn load(at: u32) -> sock_filter {
    sock_filter { code: (BPF_LD | BPF_W | BPF_ABS) as u16, jt: 0, jf: 0, k: at }
}

/// Goes on `yes` or `no` instructions later.
const fn jump(how: u32, k: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | how | BPF_K) as u16, jt: yes, jf: no, k }
}

const fn end(verdict: u32) -> sock_filter {
    sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: verdict }
}

static FILTER: [sock_filter; 15] = [
    load(NUMBER),
    jump(BPF_JEQ, libc::SYS_ioctl as u32, 1, 0),
    jump(BPF_JEQ, libc::SYS_setsockopt as u32, 4, 9),
    load(SECOND),
    jump(BPF_JEQ, TUNSETOFFLOAD, 0, 7),
    load(THIRD),
    jump(BPF_JSET, TUN_F_USO, 6, 5),
    load(SECOND),
    jump(BPF_JEQ, libc::IPPROTO_UDP as u32, 0, 3),
    load(THIRD),
    jump(BPF_JEQ, libc::UDP_GRO as u32, 3, 0),
    jump(BPF_JEQ, libc::UDP_SEGMENT as u32, 2, 0),
    end(SECCOMP_RET_ALLOW),
    end(SECCOMP_RET_ERRNO | libc::EINVAL as u32),
    end(SECCOMP_RET_ERRNO | libc::ENOPROTOOPT as u32),
];

/// Makes this process, and what it starts, meet such a kernel. Makes one system call and allocates
/// nothing.
pub(super) fn pretend() -> io::Result<()> {
    let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `program` and the instructions that it points to, which are static.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! How many frames of a sender come as far as a host's network stack.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use anyhow::{Context, Result};
use nix::{errno::Errno, sys::socket::SockProtocol};

use super::{Host, tap::packet_socket};

/// A packet socket that only counts: frames whose link-layer source ends in two given bytes, after XDP has judged them.
#[derive(Debug)]
pub struct Witness {
    socket: OwnedFd,
}

impl Witness {
    /// Begins to count what arrives on the host's interface `name`.
    pub fn new(host: &Host, name: &str, source: [u8; 2]) -> Result<Self> {
        let socket = packet_socket(host, name, SockProtocol::EthAll.into())?;
        // Load the half word at 10; equal: take the frame; otherwise leave it.
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut steps = [
            step(0x28, 0, 0, 10),
            step(0x15, 0, 1, u32::from(u16::from_be_bytes(source))),
            step(0x06, 0, 0, 1),
            step(0x06, 0, 0, 0),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: the option takes a program, whose steps outlive the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                ptr::from_ref(&program).cast(),
                size_of_val(&program) as libc::socklen_t,
            )
        };
        Errno::result(result).context("cannot filter a packet socket")?;
        let witness = Self { socket };
        // What came before the filter.
        witness.seen()?;
        Ok(witness)
    }

    /// How many frames came since the last call. Those for which the socket's buffer had no room are counted, too.
    pub fn seen(&self) -> Result<u64> {
        // `struct tpacket_stats`: frames, and how many of them were dropped.
        let mut counts = [0_u32; 2];
        let mut length = size_of_val(&counts) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, which `counts` has.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                counts.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        Errno::result(result).context("cannot read a packet socket's statistics")?;
        Ok(u64::from(counts[0]))
    }
}

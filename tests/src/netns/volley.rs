//! Very many frames, as fast as they can be sent.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use anyhow::{Context, Result};
use nix::{errno::Errno, sys::socket::SockProtocol};

use super::{Host, tap::packet_socket};

/// A packet socket that hands frames to its interface without a queue in between.
#[derive(Debug)]
pub struct Volley {
    socket: OwnedFd,
}

impl Volley {
    /// Opens the socket on the host's interface `name`.
    pub fn new(host: &Host, name: &str) -> Result<Self> {
        let socket = packet_socket(host, name, None::<SockProtocol>)?;
        let on: libc::c_int = 1;
        // SAFETY: the option takes an integer, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                ptr::from_ref(&on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        Errno::result(result).context("cannot leave the queue out")?;
        Ok(Self { socket })
    }

    /// Sends each frame once. `refused` is told the index of each that the interface did not take.
    pub fn send(&self, frames: &[impl AsRef<[u8]>], mut refused: impl FnMut(usize)) -> Result<()> {
        let bytes = frames.iter().map(AsRef::as_ref);
        let mut parts: Vec<libc::iovec> = bytes
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let message = |part: &mut libc::iovec| {
            // SAFETY: a message of zeroes has no address and no control data.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (part, 1);
            message
        };
        let mut messages: Vec<libc::mmsghdr> = parts.iter_mut().map(message).collect();
        let mut done = 0;
        while done < messages.len() {
            let left = &mut messages[done..];
            // SAFETY: the messages point to `parts` and these to `frames`, which outlive the call; it reads the frames only.
            let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), left.as_mut_ptr(), left.len() as u32, 0) };
            match usize::try_from(sent) {
                Ok(sent) => done += sent,
                Err(_) if Errno::last() == Errno::ENOBUFS => {}
                Err(_) => return Err(io::Error::last_os_error()).context("cannot send frames"),
            }
            // The first one that is refused ends the call: it was tried, and is not tried again.
            if done < messages.len() {
                refused(done);
                done += 1;
            }
        }
        Ok(())
    }
}

//! Whole frames on an interface: what a wire would see.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

use super::Host;

/// A packet socket on one interface. It sends frames as they are, and sees those that arrive after XDP has judged them.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
}

impl Tap {
    /// Opens a packet socket on the host's interface `name`.
    pub fn new(host: &Host, name: &str) -> Result<Self> {
        Ok(Self { socket: packet_socket(host, name, SockProtocol::EthAll.into())? })
    }

    /// Marks the frames sent from now on (`skb->mark`, as `SO_MARK` does).
    pub fn mark(&self, mark: u32) -> Result<()> {
        setsockopt(&self.socket, sockopt::Mark, &mark).context("cannot mark a socket")
    }

    /// Sends one frame. One that the interface's own egress program drops counts as sent.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            // What the kernel says of a drop at TC.
            Ok(_) | Err(Errno::ENOBUFS) => Ok(()),
            Err(error) => Err(error).context("cannot send a frame"),
        }
    }

    /// The next frame that `wanted` accepts; `None` when there is none within `patience`.
    pub fn receive(&self, patience: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + patience;
        let mut buffer = vec![0; 65_536];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // Zero would mean: wait for ever.
            let left = TimeVal::microseconds(i64::try_from(left.as_micros())?.max(1));
            setsockopt(&self.socket, sockopt::ReceiveTimeout, &left)?;
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EAGAIN) => return Ok(None),
                result => result?,
            };
            if wanted(&buffer[..length]) {
                return Ok(Some(buffer[..length].to_vec()));
            }
        }
    }
}

/// A packet socket on the host's interface `name`. Without a protocol it only sends.
pub(super) fn packet_socket(host: &Host, name: &str, protocol: Option<SockProtocol>) -> Result<OwnedFd> {
    let open = || -> Result<OwnedFd> {
        let address = getifaddrs()?
            .filter(|entry| entry.interface_name == name)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .context("no such interface")?;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(socket)
    };
    host.run(open)?.with_context(|| format!("cannot open a packet socket on {name}"))
}

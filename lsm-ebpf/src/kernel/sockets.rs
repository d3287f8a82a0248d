//! Sockets and messages.

#[allow(clippy::wildcard_imports, reason = "the offsets' names")]
use ringfence_abi::host::layout::*;

use super::{load, member_address, peek_member};

/// A `struct socket`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Socket(pub *const u8);

/// A `struct sock`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Sock(pub *const u8);

impl Socket {
    #[inline(always)]
    pub fn kind(self) -> u32 {
        u32::from(load::<u16>(self.0, SOCKET_TYPE))
    }
    #[inline(always)]
    pub fn sock(self) -> Option<Sock> {
        let sock: *const u8 = load(self.0, SOCKET_SK);
        // Newer verifiers insist.
        if sock.is_null() { None } else { Some(Sock(sock)) }
    }
}

impl Sock {
    #[inline(always)]
    pub fn family(self) -> u32 {
        u32::from(load::<u16>(self.0, SOCK_FAMILY))
    }
    #[inline(always)]
    pub fn kind(self) -> u32 {
        u32::from(load::<u16>(self.0, SOCK_TYPE))
    }
    #[inline(always)]
    pub fn protocol(self) -> u32 {
        u32::from(load::<u16>(self.0, SOCK_PROTOCOL))
    }
    /// The peer's IPv4 address and port, in network order.
    #[inline(always)]
    pub fn peer4(self) -> (u32, u16) {
        (load(self.0, SOCK_PEER4), load(self.0, SOCK_PEER_PORT))
    }
    /// Address of the peer's IPv6 address.
    #[inline(always)]
    pub fn peer6(self) -> u64 {
        member_address(self.0 as u64, SOCK_PEER6)
    }
    /// The own IPv4 address in network order, and the port in the machine's.
    #[inline(always)]
    pub fn local4(self) -> (u32, u16) {
        (load(self.0, SOCK_LOCAL4), load(self.0, SOCK_LOCAL_PORT))
    }
    /// Address of the own IPv6 address.
    #[inline(always)]
    pub fn local6(self) -> u64 {
        member_address(self.0 as u64, SOCK_LOCAL6)
    }
    /// Address of the sock a Unix socket is connected to; 0: none.
    #[inline(always)]
    pub fn unix_peer(self) -> u64 {
        peek_member(self.0 as u64, UNIX_PEER).unwrap_or(0)
    }
}

/// Address and length of the address a message goes to; 0: none.
#[inline(always)]
pub fn message_name(message: *const u8) -> (u64, u32) {
    (load(message, MESSAGE_NAME), load(message, MESSAGE_NAME_LEN))
}

//! Sockets of the network families.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::chain::{PORT_ABSENT, PORT_UNKNOWN};
use ringfence_abi::host::{
    SMALL_UNKNOWN,
    field::{FAMILY, PORT, PROTO, TYPE},
    line,
    op::{BIND, CONNECT, LISTEN, SEND, SOCKET},
};
use ringfence_engine::host::access::Address;

use super::unix;
use crate::{
    call::{Call, bit, judged},
    kernel::{Sock, Socket, argument, message_name, peek},
    report,
};

pub const AF_UNSPEC: u32 = 0;
pub const AF_UNIX: u32 = 1;
pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;

/// `SCTP_SOCKOPT_BINDX_ADD` and its kin that set addresses of one's own.
const SCTP_BINDS: [u32; 3] = [100, 101, 6];

/// Sets family, type and protocol.
#[inline(always)]
pub fn kind(call: Call, family: u32, kind: u32, protocol: u32) -> Option<()> {
    let (classes, access) = (call.classes(), &mut call.frame.scratch().access);
    let small = |value: u32| if value > 255 { SMALL_UNKNOWN } else { value };
    classes.direct::<FAMILY>(access, small(family))?;
    classes.direct::<TYPE>(access, small(kind))?;
    classes.direct::<PROTO>(access, small(protocol))
}

#[inline(always)]
pub fn kind_of(call: Call, sock: Sock) -> Option<()> {
    kind(call, sock.family(), sock.kind(), sock.protocol())
}

/// Sets address and port.
#[inline(always)]
fn address(call: Call, address: Address, port: u32) -> Option<()> {
    let (classes, access) = (call.classes(), &mut call.frame.scratch().access);
    classes.address(access, address)?;
    classes.direct::<PORT>(access, port)
}

/// An IPv6 address; IPv4 mapped into it is that.
#[inline(always)]
fn v6(words: [u64; 2]) -> Address {
    let [high, low] = words.map(u64::from_be);
    if high == 0 && low >> 32 == 0xffff { Address::V4(low << 32) } else { Address::V6([high, low]) }
}

/// Sets address and port of a `sockaddr`; `family` is what is meant where it says none.
#[inline(always)]
fn sockaddr(call: Call, at: u64, len: u32, family: u32) -> Option<()> {
    let said = if len < 2 { None } else { peek::<u16>(at) };
    let said = said.map_or(u32::MAX, u32::from);
    let family = if said == AF_UNSPEC { family } else { said };
    match family {
        AF_INET if len >= 8 => {
            if let (Some(port), Some(word)) = (peek::<u16>(at + 2), peek::<u32>(at + 4)) {
                let word = u64::from(u32::from_be(word)) << 32;
                return address(call, Address::V4(word), u32::from(u16::from_be(port)));
            }
        }
        AF_INET6 if len >= 24 => {
            if let (Some(port), Some(words)) = (peek::<u16>(at + 2), peek::<[u64; 2]>(at + 8)) {
                return address(call, v6(words), u32::from(u16::from_be(port)));
            }
        }
        // Disconnects, or of a family without such addresses.
        AF_INET | AF_INET6 | u32::MAX => {}
        _ => return address(call, Address::Absent, PORT_ABSENT),
    }
    report::unknown(line::ADDRESS);
    address(call, Address::Unknown, PORT_UNKNOWN)
}

/// socket, socketpair.
#[lsm(hook = "socket_create")]
fn h_socket_create(ctx: LsmContext) -> i32 {
    let (family, form, protocol, kernel): (u32, u32, u32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    if kernel != 0 {
        return 0;
    }
    judged(bit(SOCKET), |call| {
        kind(call, family, form & 0xf, protocol)?;
        call.ask(bit(SOCKET))
    })
}

/// bind; of a Unix socket to a path it is seen as `inode_mknod`.
#[lsm(hook = "socket_bind")]
fn h_socket_bind(ctx: LsmContext) -> i32 {
    let (socket, at, len): (_, u64, u32) = (Socket(argument(&ctx, 0)), ctx.arg(1), ctx.arg(2));
    judged(bit(BIND), |call| {
        let sock = socket.sock()?;
        let family = sock.family();
        kind(call, family, socket.kind(), sock.protocol())?;
        if family == AF_UNIX {
            if !unix::is_abstract(at, len) {
                return Some(true);
            }
            unix::abstract_name(call, at + 2, len - 2);
            return call.ask(bit(BIND));
        }
        sockaddr(call, at, len, family)?;
        call.ask(bit(BIND))
    })
}

/// connect; Unix sockets are seen as `unix_stream_connect` and `unix_may_send`.
#[lsm(hook = "socket_connect")]
fn h_socket_connect(ctx: LsmContext) -> i32 {
    let (socket, at, len): (_, u64, u32) = (Socket(argument(&ctx, 0)), ctx.arg(1), ctx.arg(2));
    judged(bit(CONNECT), |call| {
        let sock = socket.sock()?;
        let family = sock.family();
        if family == AF_UNIX {
            return Some(true);
        }
        kind(call, family, socket.kind(), sock.protocol())?;
        sockaddr(call, at, len, AF_UNSPEC)?;
        call.ask(bit(CONNECT))
    })
}

/// `sctp_connectx`, `sctp_bindx` and what ASCONF brings; of several addresses the first is judged.
#[lsm(hook = "sctp_bind_connect")]
fn h_sctp_bind_connect(ctx: LsmContext) -> i32 {
    let (sock, option, at, len): (_, u32, u64, u32) = (Sock(argument(&ctx, 0)), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    judged(bit(BIND) | bit(CONNECT), |call| {
        kind_of(call, sock)?;
        sockaddr(call, at, len, sock.family())?;
        let binds = option == SCTP_BINDS[0] || option == SCTP_BINDS[1] || option == SCTP_BINDS[2];
        call.ask(if binds { bit(BIND) } else { bit(CONNECT) })
    })
}

/// listen, at the address the socket is bound to.
#[lsm(hook = "socket_listen")]
fn h_socket_listen(ctx: LsmContext) -> i32 {
    let socket = Socket(argument(&ctx, 0));
    judged(bit(LISTEN), |call| {
        let sock = socket.sock()?;
        let family = sock.family();
        kind(call, family, socket.kind(), sock.protocol())?;
        if family == AF_INET || family == AF_INET6 {
            let (word, port) = sock.local4();
            let own = if family == AF_INET {
                Address::V4(u64::from(u32::from_be(word)) << 32)
            } else {
                peek(sock.local6()).map_or(Address::Unknown, v6)
            };
            address(call, own, u32::from(port))?;
        }
        call.ask(bit(LISTEN))
    })
}

/// send, sendto, sendmsg, write; with an address it is also asked as a connection is: TCP fast open makes one.
#[lsm(hook = "socket_sendmsg")]
fn h_socket_sendmsg(ctx: LsmContext) -> i32 {
    let (socket, message) = (Socket(argument(&ctx, 0)), argument(&ctx, 1));
    judged(bit(SEND) | bit(CONNECT), |call| {
        let sock = socket.sock()?;
        let family = sock.family();
        kind(call, family, socket.kind(), sock.protocol())?;
        if family == AF_UNIX {
            // Datagrams are seen as `unix_may_send`.
            if socket.kind() == 2 {
                return Some(true);
            }
            unix::place_of(call, sock.unix_peer());
            return call.ask(bit(SEND));
        }
        let (at, len) = message_name(message);
        if at != 0 && len != 0 {
            sockaddr(call, at, len, family)?;
            return call.ask(bit(SEND) | bit(CONNECT));
        }
        if family == AF_INET || family == AF_INET6 {
            let (word, port) = sock.peer4();
            let peer = if family == AF_INET {
                Address::V4(u64::from(u32::from_be(word)) << 32)
            } else {
                peek(sock.peer6()).map_or(Address::Unknown, v6)
            };
            address(call, peer, u32::from(u16::from_be(port)))?;
        }
        call.ask(bit(SEND))
    })
}

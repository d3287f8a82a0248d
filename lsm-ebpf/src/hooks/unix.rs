//! Unix sockets, by the path or the abstract name they are bound to.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::{
    layout::{ADDRESS_LEN, ADDRESS_NAME, UNIX_ADDRESS, UNIX_DENTRY},
    line,
    op::{CONNECT, SEND},
};
use ringfence_engine::{host::automaton::Walk, ro::read};

use super::sockets::kind_of;
use crate::{
    arena::opaque,
    call::{Call, bit, judged},
    kernel::{Sock, Socket, argument, copy, member_address, peek, peek_member},
    maps::HOST,
    path,
    repeat::repeat,
    scratch::HEAD,
    walk,
};

/// Longest name in a `sockaddr_un`.
const MAX_NAME: u32 = 108;

/// Whether an address is an abstract name.
#[inline(always)]
pub fn is_abstract(at: u64, len: u32) -> bool {
    len > 2 && peek::<u8>(at + 2) == Some(0)
}

/// Sets what the call is about: an abstract name, `len` bytes with the leading zero.
#[inline(always)]
pub fn abstract_name(call: Call, at: u64, len: u32) {
    let frame = &call.frame;
    let len = opaque(u64::from(len.wrapping_sub(1)));
    let scratch = frame.scratch();
    scratch.progress.line = line::ADDRESS;
    if len < u64::from(MAX_NAME)
        && copy((&raw mut scratch.path).cast::<u8>().wrapping_add(HEAD as usize), len as u32, at + 1)
        && let Some(walk) = Walk::start(&HOST.paths, frame.tables(), read(&HOST.paths.abstract_name))
    {
        scratch.progress.walk = walk;
        scratch.progress.hashing = 0;
        scratch.progress.entries = 0;
        scratch.progress.depth = 0;
        scratch.progress.folds = u32::MAX;
        scratch.progress.position = HEAD;
        scratch.progress.line = 0;
        if len > 0 {
            repeat!(len as u32, path::step, &raw const *frame);
        }
        if frame.scratch().progress.line == 0 && path::end_component(frame).is_none() {
            frame.scratch().progress.line = line::MEMORY;
        }
    }
    walk::settle(frame, 0, false);
}

/// Sets what the call is about: the socket at an address.
#[inline(always)]
pub fn place_of(call: Call, sock: u64) {
    let frame = &call.frame;
    if sock == 0 {
        return;
    }
    let dentry = peek_member::<u64>(sock, UNIX_DENTRY).unwrap_or(0);
    if dentry != 0 {
        walk::locate_address(frame, dentry, 0);
        return;
    }
    let address = peek_member::<u64>(sock, UNIX_ADDRESS).unwrap_or(0);
    // One that was never bound has none.
    if address != 0 {
        let len = peek_member::<u32>(address, ADDRESS_LEN).unwrap_or(0);
        let name = member_address(address, ADDRESS_NAME);
        if is_abstract(name, len) {
            abstract_name(call, name + 2, len - 2);
        }
    }
}

/// connect to a stream or packet socket.
#[lsm(hook = "unix_stream_connect")]
fn h_unix_stream_connect(ctx: LsmContext) -> i32 {
    let (own, other) = (Sock(argument(&ctx, 0)), argument(&ctx, 1));
    judged(bit(CONNECT), |call| {
        kind_of(call, own)?;
        place_of(call, other as u64);
        call.ask(bit(CONNECT))
    })
}

/// connect to a datagram socket, and every datagram.
#[lsm(hook = "unix_may_send")]
fn h_unix_may_send(ctx: LsmContext) -> i32 {
    let (own, other) = (Socket(argument(&ctx, 0)), Socket(argument(&ctx, 1)));
    judged(bit(SEND) | bit(CONNECT), |call| {
        kind_of(call, own.sock()?)?;
        place_of(call, other.sock()?.0 as u64);
        call.ask(bit(SEND) | bit(CONNECT))
    })
}

//! Steps on sockets. An address is `192.0.2.1:80`, `[2001:db8::1]:80`, `unix:/path`, or `unix:@name` (abstract).

use std::{
    io::{IoSlice, IoSliceMut},
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{
    Actor, Operands, OrErrno as _,
    raw::{self, Arg},
    wait,
};

/// Does a step of this family.
pub fn step(actor: &mut Actor, word: &str, operands: &Operands) -> Option<Result<()>> {
    Some(match word {
        // FAMILY TYPE PROTOCOL, numbers
        "socket" => socket(operands).map(|socket| actor.keep(socket)),
        "socket-pair" => socket_pair(operands),
        // KIND ADDRESS: a new socket of that kind (`tcp`, `udp`, `stream`, `datagram`)
        "connect" => with(actor, operands, |socket, address| Ok(connected(socket.connect(address))?)),
        "bind-socket" => with(actor, operands, |socket, address| socket.bind(address).or_errno()),
        "listen" => with(actor, operands, |socket, address| {
            socket.bind(address).or_errno()?;
            socket.listen(1).or_errno()
        }),
        "send" => with(actor, operands, |socket, address| {
            Ok(connected(socket.send_to_with_flags(b"x", address, libc::MSG_NOSIGNAL).map(drop))?)
        }),
        "send-message" => with(actor, operands, |socket, address| {
            let message = [IoSlice::new(b"x")];
            let header = socket2::MsgHdr::new().with_addr(address).with_buffers(&message);
            Ok(connected(socket.sendmsg(&header, libc::MSG_NOSIGNAL).map(drop))?)
        }),
        "fast-open" => with(actor, operands, |socket, address| {
            let flags = libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            Ok(connected(socket.send_to_with_flags(b"x", address, flags).map(drop))?)
        }),
        // KIND ADDRESS OTHER: connected to the first, disconnected, connected to the other
        "reconnect" => reconnect(actor, operands),
        // Sends over the socket used last.
        "send-more" => actor.last().and_then(send_more),
        // ADDRESS: listens, gives the descriptor opened last to whoever connects, until told to end.
        "pass-descriptor" => pass(actor, operands),
        // ADDRESS
        "receive-descriptor" => receive(operands).map(|file| actor.keep(file)),
        _ => return None,
    })
}

/// Whether a port that nobody listens at answered, that is whether the call was let through.
fn connected(result: std::io::Result<()>) -> Result<(), Errno> {
    match result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))) {
        Err(Errno::ECONNREFUSED | Errno::EINPROGRESS) => Ok(()),
        other => other,
    }
}

fn socket(operands: &Operands) -> Result<OwnedFd> {
    let numbers = [operands.number(0)?, operands.number(1)?, operands.number(2)?];
    raw::open(libc::SYS_socket, &mut numbers.map(Arg::Int))
}

/// The descriptors stay open: nothing refers to them.
fn socket_pair(operands: &Operands) -> Result<()> {
    let [family, kind, protocol] = [operands.number(0)?, operands.number(1)?, operands.number(2)?].map(Arg::Int);
    raw::call(libc::SYS_socketpair, &mut [family, kind, protocol, Arg::Out(&mut [0; 8])]).map(drop)
}

fn with(actor: &mut Actor, operands: &Operands, action: impl FnOnce(&Socket, &SockAddr) -> Result<()>) -> Result<()> {
    let (socket, address) = new(operands.get(0)?, operands.get(1)?)?;
    action(&socket, &address)?;
    actor.keep(socket);
    Ok(())
}

/// A socket for an address.
pub fn new(kind: &str, address: &str) -> Result<(Socket, SockAddr)> {
    let address = parse(address)?;
    let (kind, protocol) = match kind {
        "tcp" => (Type::STREAM, Some(Protocol::TCP)),
        "udp" => (Type::DGRAM, Some(Protocol::UDP)),
        "stream" => (Type::STREAM, None),
        _ => (Type::DGRAM, None),
    };
    let domain = if address.is_unix() { Domain::UNIX } else { address.domain() };
    Ok((Socket::new(domain, kind, protocol).or_errno()?, address))
}

fn parse(text: &str) -> Result<SockAddr> {
    match text.strip_prefix("unix:") {
        None => Ok(text.parse::<SocketAddr>().with_context(|| format!("`{text}` is no address"))?.into()),
        Some(name) => Ok(match name.strip_prefix('@') {
            None => SockAddr::unix(name).or_errno()?,
            Some(name) => SockAddr::unix(format!("\0{name}")).or_errno()?,
        }),
    }
}

fn reconnect(actor: &mut Actor, operands: &Operands) -> Result<()> {
    let (socket, first) = new(operands.get(0)?, operands.get(1)?)?;
    let second = parse(operands.get(2)?)?;
    connected(socket.connect(&first)).context("cannot connect to the first").map_err(|error| unfinished(&error))?;
    // AF_UNSPEC takes the association back.
    let mut arguments = [Arg::Int(socket.as_raw_fd().into()), Arg::In(&[0; 16]), Arg::Int(16)];
    raw::call(libc::SYS_connect, &mut arguments).map_err(|error| unfinished(&error))?;
    connected(socket.connect(&second))?;
    actor.keep(socket);
    Ok(())
}

/// An error that is not the outcome: without its number.
fn unfinished(error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

fn send_more(socket: std::os::fd::BorrowedFd<'_>) -> Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL;
    match nix::sys::socket::send(socket.as_raw_fd(), b"x", flags) {
        // The answer to an earlier packet.
        Ok(_) | Err(Errno::ECONNREFUSED) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn pass(actor: &Actor, operands: &Operands) -> Result<()> {
    let listener = UnixListener::bind(operands.get(0)?).or_errno()?;
    println!("waiting");
    let (stream, _) = listener.accept().or_errno()?;
    let descriptors = [actor.last()?.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<UnixAddr>(stream.as_raw_fd(), &[IoSlice::new(b"x")], &control, MsgFlags::empty(), None)?;
    wait()
}

fn receive(operands: &Operands) -> Result<OwnedFd> {
    let stream = UnixStream::connect(operands.get(0)?).or_errno()?;
    let mut byte = [0; 1];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::empty())?;
    ensure!(message.bytes == 1, "nothing came");
    // A descriptor that a hook refused is left out (`MSG_CTRUNC`, here ENOBUFS), and the message comes without it.
    let received = message.cmsgs().ok().and_then(|mut controls| {
        controls.find_map(|control| match control {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        })
    });
    received.map(raw::adopt).ok_or_else(|| Errno::EACCES.into())
}

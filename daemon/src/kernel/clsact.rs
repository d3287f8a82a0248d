//! Attaching before kernel 6.6: filters of a clsact qdisc.
//!
//! A filter cannot be pinned. It is known to be ours by its handle together with the id of its program, which is one
//! of the pinned dispatchers; both are read back from the kernel before anything is removed. The qdisc stays: others
//! may use it, and without filters it does nothing.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use nix::{
    net::if_::if_nameindex,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

use super::{
    attach::{Device, Direction},
    error::{Context as _, Result},
};

/// Before all filters that leave the choice to the kernel.
const PRIORITY: u16 = 1;
/// "RF", and a number.
const HANDLE: u32 = 0x5246_0001;

const RTM_DELTFILTER: u16 = 45;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const HEADER: usize = 16;
const TC_MESSAGE: usize = 20;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;

/// A filter: what the kernel calls it, and the program it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filter {
    handle: u32,
    info: u32,
    program: u32,
}

/// Attaches the program that is pinned at `pin` and has the id `program`, unless it is. A program of `formers` gives way
/// to it in one step.
pub fn attach(
    device: Device<'_>,
    direction: Direction,
    pin: &Path,
    program: u32,
    formers: impl Fn(u32) -> bool,
) -> Result<()> {
    let what = || format!("cannot attach to {} at clsact", device.name);
    let ours = |filter: &Filter| filter.handle == HANDLE && filter.program == program;
    let side = match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    };
    match qdisc_add_clsact(device.name) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        result => result.map_err(io::Error::other).context(what)?,
    }
    let present = filters(device.index, direction).context(what)?;
    if present.iter().any(ours) {
        return Ok(());
    }
    let replaces = present.iter().any(|filter| filter.handle == HANDLE && formers(filter.program));
    let options = NlOptions { priority: PRIORITY, handle: TcHandle::from(HANDLE), classid: None };
    let attached = SchedClassifier::from_pin(pin).and_then(|mut classifier| {
        let id = if replaces {
            let NlOptions { priority, handle, classid } = options;
            let theirs = SchedClassifierLink::attached(device.name, side, priority, handle, classid);
            classifier.attach_to_link(theirs.map_err(TcError::IoError)?)?
        } else {
            classifier.attach_with_options(device.name, side, TcAttachOptions::Netlink(options))?
        };
        // aya detaches what is dropped; this outlives the process.
        std::mem::forget(classifier.take_link(id)?);
        Ok::<(), ProgramError>(())
    });
    attached.map_err(io::Error::other).context(what)
}

/// Detaches the filters that run a program of ours under our handle.
pub fn detach(ifindex: u32, direction: Direction, owns: impl Fn(u32) -> bool) -> Result<()> {
    let what = || format!("cannot detach from device {ifindex} at clsact");
    let found = match filters(ifindex, direction) {
        // The device is gone, and its filters with it; or it has no such qdisc.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) => Vec::new(),
        result => result.context(what)?,
    };
    for filter in found.iter().filter(|filter| filter.handle == HANDLE && owns(filter.program)) {
        delete(ifindex, direction, filter).context(what)?;
    }
    Ok(())
}

/// The devices that have such filters.
pub fn devices(owns: impl Fn(u32) -> bool) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for interface in &if_nameindex().context(|| "cannot list the devices".to_owned())? {
        let index = interface.index();
        let on = |direction| filters(index, direction).unwrap_or_default();
        let mut all = on(Direction::Ingress).into_iter().chain(on(Direction::Egress));
        if all.any(|filter| filter.handle == HANDLE && owns(filter.program)) {
            found.push(index);
        }
    }
    Ok(found)
}

/// All filters of one side of the clsact qdisc.
fn filters(ifindex: u32, direction: Direction) -> io::Result<Vec<Filter>> {
    let socket = request(RTM_GETTFILTER, DUMP, ifindex, direction, &Filter { handle: 0, info: 0, program: 0 })?;
    let mut found = Vec::new();
    loop {
        let mut buffer = vec![0; 65_536];
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return error(body).map(|()| found),
                RTM_NEWTFILTER => found.extend(filter(body)),
                _ => {}
            }
            rest = next;
        }
    }
}

fn delete(ifindex: u32, direction: Direction, filter: &Filter) -> io::Result<()> {
    let socket = request(RTM_DELTFILTER, ACK, ifindex, direction, filter)?;
    let mut buffer = vec![0; 4096];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    match message(&buffer[..length]) {
        Some((NLMSG_ERROR, body, _)) => error(body),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Sends a `tcmsg`.
fn request(kind: u16, flags: u16, ifindex: u32, direction: Direction, filter: &Filter) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let parent: u32 = match direction {
        Direction::Ingress => 0xffff_fff2,
        Direction::Egress => 0xffff_fff3,
    };
    let mut bytes = Vec::with_capacity(HEADER + TC_MESSAGE);
    bytes.extend(((HEADER + TC_MESSAGE) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    // Sequence number, port, family with padding.
    bytes.extend([0; 12]);
    for field in [ifindex, filter.handle, parent, filter.info] {
        bytes.extend(field.to_ne_bytes());
    }
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    Ok(socket)
}

/// The first netlink message of `bytes`: its type, its body, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let body = bytes.get(HEADER..length)?;
    Some((u16_at(bytes, 4)?, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// A filter message's handle, priority with protocol, and program.
fn filter(body: &[u8]) -> Option<Filter> {
    let options = attribute(body.get(TC_MESSAGE..)?, TCA_OPTIONS)?;
    let program = u32_at(attribute(options, TCA_BPF_ID)?, 0)?;
    Some(Filter { handle: u32_at(body, 8)?, info: u32_at(body, 16)?, program })
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = u16_at(bytes, 0)? as usize;
        let value = bytes.get(4..length)?;
        // The top bits say "nested" and "network order".
        if u16_at(bytes, 2)? & 0x3fff == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn error(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

//! Steps by `io_uring`, in the kernel's own worker threads: `uring-` before the word, as far as they are here.

use std::{ffi::CString, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;

use crate::{Actor, Operands, raw, sockets};

/// Does a step of this family.
pub fn step(actor: &mut Actor, word: &str, operands: &Operands) -> Option<Result<()>> {
    Some(match word {
        "uring-open" => open(operands).map(|descriptor| actor.keep(raw::adopt(descriptor))),
        "uring-rename" => (|| {
            let (from, to) = (CString::new(operands.get(0)?)?, CString::new(operands.get(1)?)?);
            let here = types::Fd(libc::AT_FDCWD);
            submit(&opcode::RenameAt::new(here, from.as_ptr(), here, to.as_ptr()).build()).map(drop)
        })(),
        "uring-unlink" => (|| {
            let path = CString::new(operands.get(0)?)?;
            submit(&opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build()).map(drop)
        })(),
        "uring-connect" => connect(actor, operands),
        _ => return None,
    })
}

fn open(operands: &Operands) -> Result<i32> {
    let path = CString::new(operands.get(0)?)?;
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).flags(libc::O_RDONLY);
    submit(&entry.build())
}

fn connect(actor: &mut Actor, operands: &Operands) -> Result<()> {
    let (socket, address) = sockets::new(operands.get(0)?, operands.get(1)?)?;
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len());
    submit(&entry.build())?;
    actor.keep(socket);
    Ok(())
}

/// Hands one request over and waits for its result.
fn submit(entry: &squeue::Entry) -> Result<i32> {
    let mut ring = IoUring::new(1)?;
    // ASYNC: by a worker, also where it could be done at once.
    let entry = entry.clone().flags(squeue::Flags::ASYNC);
    raw::push(&mut ring, &entry)?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().context("the ring gave no result")?.result();
    if result < 0 { Err(Errno::from_raw(-result).into()) } else { Ok(result) }
}

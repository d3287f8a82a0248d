//! Steps that execute and map.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Result, bail};
use nix::{
    fcntl::AtFlags,
    sys::{
        memfd::{MFdFlags, memfd_create},
        wait::{WaitStatus, waitpid},
    },
};

use crate::{Actor, Operands, OrErrno as _, raw};

/// Does a step of this family.
pub fn step(actor: &mut Actor, word: &str, operands: &Operands) -> Option<Result<()>> {
    const READ: i32 = libc::PROT_READ;
    const EXEC: i32 = libc::PROT_READ | libc::PROT_EXEC;
    let map = |actor: &Actor, first, flags, then| raw::map(actor.last()?.as_raw_fd(), first, flags, then);
    Some(match word {
        // PROGRAM [ARGUMENT]...: the steps that are left are its further arguments.
        "exec" => exec(actor, operands),
        // The descriptor opened last, likewise.
        "exec-fd" => exec_descriptor(actor, AtFlags::AT_EMPTY_PATH),
        "map-exec" => map(actor, EXEC, libc::MAP_PRIVATE, None),
        "map-exec-shared" => map(actor, EXEC, libc::MAP_SHARED, None),
        "map-read" => map(actor, READ, libc::MAP_PRIVATE, None),
        "protect-exec" => map(actor, READ, libc::MAP_PRIVATE, Some(EXEC)),
        "map-anonymous-exec" => raw::map(-1, EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None),
        // FILE: a file without a name that holds the same.
        "memfd" => memfd(operands).map(|file| actor.keep(file)),
        // What is left is done by a child, while this process waits.
        "fork" => fork(actor),
        // What is left is done by a child whose parent has ended.
        "orphan" => orphan(),
        // What is left is done by another thread.
        "thread" => thread(actor),
        // TARGET COPY
        "copy" => (|| fs::copy(operands.get(0)?, operands.get(1)?).or_errno().map(drop))(),
        _ => return None,
    })
}

fn arguments(actor: &mut Actor, first: Vec<String>) -> Result<Vec<CString>> {
    let all = first.into_iter().chain(actor.steps.drain(..));
    all.map(|argument| Ok(CString::new(argument)?)).collect()
}

fn environment() -> Result<Vec<CString>> {
    use std::os::unix::ffi::OsStrExt as _;
    let pairs = std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    pairs.map(|pair| Ok(CString::new(pair)?)).collect()
}

fn exec(actor: &mut Actor, operands: &Operands) -> Result<()> {
    let program = CString::new(operands.get(0)?)?;
    let arguments = arguments(actor, operands.0.clone())?;
    match nix::unistd::execve(&program, &arguments, &environment()?)? {}
}

fn exec_descriptor(actor: &mut Actor, flags: AtFlags) -> Result<()> {
    let arguments = arguments(actor, vec!["descriptor".to_owned()])?;
    match nix::unistd::execveat(actor.last()?, c"", &arguments, &environment()?, flags)? {}
}

fn memfd(operands: &Operands) -> Result<OwnedFd> {
    let program = fs::read(operands.get(0)?).or_errno()?;
    let file = memfd_create("nameless", MFdFlags::empty())?;
    let mut rest = program.as_slice();
    while !rest.is_empty() {
        rest = &rest[nix::unistd::write(&file, rest)?..];
    }
    Ok(file)
}

fn fork(actor: &mut Actor) -> Result<()> {
    let Some(child) = raw::fork()? else { return Ok(()) };
    match waitpid(child, None)? {
        // The child has said how it went.
        WaitStatus::Exited(_, code) => std::process::exit(code),
        other => bail!("the child ended: {other:?}, before {:?}", actor.steps),
    }
}

fn orphan() -> Result<()> {
    let parent = nix::unistd::getpid();
    // Whoever reads our output waits for the child, which holds it open.
    if raw::fork()?.is_some() {
        std::process::exit(0);
    }
    while nix::unistd::getppid() == parent {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}

fn thread(actor: &mut Actor) -> Result<()> {
    let mut other = std::mem::take(actor);
    let line = std::thread::spawn(move || other.run()).join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    println!("{line}");
    std::process::exit(0);
}

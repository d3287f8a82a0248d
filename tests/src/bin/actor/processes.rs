//! Steps on other processes.

use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};

use crate::{
    Actor, Operands, OrErrno as _,
    raw::{self, Arg},
    wait,
};

/// Does a step of this family.
pub fn step(actor: &mut Actor, word: &str, operands: &Operands) -> Option<Result<()>> {
    let process = || Ok(Pid::from_raw(operands.number(0)?));
    Some(match word {
        "wait" => wait(),
        // MILLISECONDS
        "sleep" => operands.number(0).map(|time| thread::sleep(Duration::from_millis(time))),
        // PID
        "trace" => process().and_then(|process| {
            ptrace::attach(process)?;
            waitpid(process, None)?;
            Ok(ptrace::detach(process, None)?)
        }),
        "seize" => process().and_then(|process| Ok(ptrace::seize(process, ptrace::Options::empty())?)),
        "trace-me" => ptrace::traceme().map_err(Into::into),
        "write-memory" => write_memory(operands),
        "read-memory" => read_memory(operands),
        "write-vm" => vm(operands, libc::SYS_process_vm_writev),
        "read-vm" => vm(operands, libc::SYS_process_vm_readv),
        "read-exe" => {
            operands.get(0).and_then(|process| fs::read_link(format!("/proc/{process}/exe")).or_errno().map(drop))
        }
        // 0: does nothing but ask whether it may.
        "kill" => process().and_then(|process| Ok(kill(process, Signal::SIGCONT)?)),
        "kill-thread" => operands.number(0).and_then(|process| {
            let signal = Arg::Int(libc::SIGCONT.into());
            raw::call(libc::SYS_tgkill, &mut [Arg::Int(process), Arg::Int(process), signal]).map(drop)
        }),
        "kill-descriptor" => kill_by_descriptor(operands),
        "kill-queue" => kill_queue(operands),
        // PID: a descriptor of that process.
        "get-descriptor" => get_descriptor(operands).map(|descriptor| actor.keep(descriptor)),
        _ => return None,
    })
}

/// A word of memory that can be written in every process: on its stack.
fn place(process: &str) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).or_errno()?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).context("no stack")?;
    let (start, _) = stack.split_once('-').context("no address")?;
    Ok(u64::from_str_radix(start, 16)?)
}

/// Found by this process' own rights before the attempt: where the memory lies.
fn write_memory(operands: &Operands) -> Result<()> {
    let process = operands.get(0)?;
    let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{process}/mem")).or_errno()?;
    memory.write_at(&[0], place(process)?).or_errno().map(drop)
}

fn read_memory(operands: &Operands) -> Result<()> {
    let process = operands.get(0)?;
    let memory = File::open(format!("/proc/{process}/mem")).or_errno()?;
    memory.read_at(&mut [0], place(process)?).or_errno().map(drop)
}

fn vm(operands: &Operands, call: libc::c_long) -> Result<()> {
    let process: i64 = operands.number(0)?;
    let local = [0_u8; 1];
    let vector = |address: u64| [address.to_ne_bytes(), 1_u64.to_ne_bytes()].concat();
    // An address that is not mapped there: EFAULT says that the call was let through.
    let (here, there) = (vector(local.as_ptr() as u64), vector(8));
    let mut arguments = [Arg::Int(process), Arg::In(&here), Arg::Int(1), Arg::In(&there), Arg::Int(1), Arg::Int(0)];
    match raw::call(call, &mut arguments) {
        Err(error) if error.downcast_ref() == Some(&nix::errno::Errno::EFAULT) => Ok(()),
        other => other.map(drop),
    }
}

/// `rt_sigqueueinfo` with a `siginfo` that says it comes from a process (`SI_QUEUE`, the third word).
fn kill_queue(operands: &Operands) -> Result<()> {
    let (process, signal) = (operands.number(0)?, libc::SIGCONT);
    let mut info = [0_u8; 128];
    info[..4].copy_from_slice(&signal.to_ne_bytes());
    info[8..12].copy_from_slice(&(-1_i32).to_ne_bytes());
    let mut arguments = [Arg::Int(process), Arg::Int(signal.into()), Arg::In(&info)];
    raw::call(libc::SYS_rt_sigqueueinfo, &mut arguments).map(drop)
}

fn get_descriptor(operands: &Operands) -> Result<OwnedFd> {
    let process = raw::open(libc::SYS_pidfd_open, &mut [Arg::Int(operands.number(0)?), Arg::Int(0)])?;
    raw::open(libc::SYS_pidfd_getfd, &mut [Arg::Int(process.as_raw_fd().into()), Arg::Int(1), Arg::Int(0)])
}

fn kill_by_descriptor(operands: &Operands) -> Result<()> {
    let descriptor = raw::open(libc::SYS_pidfd_open, &mut [Arg::Int(operands.number(0)?), Arg::Int(0)])?;
    let mut arguments =
        [Arg::Int(descriptor.as_raw_fd().into()), Arg::Int(libc::SIGCONT.into()), Arg::Int(0), Arg::Int(0)];
    raw::call(libc::SYS_pidfd_send_signal, &mut arguments).map(drop)
}

//! Steps that ask for something of the kernel itself. What they hand over is nonsense: a call that is let through ends
//! with the error that says so, which counts as done.

use std::{fs::File, io::Write as _, os::fd::AsRawFd as _};

use anyhow::{Result, anyhow};
use nix::{
    errno::Errno,
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{SigSet, Signal},
    },
    time::{ClockId, clock_gettime, clock_settime},
};

use crate::{
    Actor, Operands, OrErrno as _,
    raw::{self, Arg},
};

/// No pointer.
const NULL: Arg<'static> = Arg::Int(0);

/// Does a step of this family.
pub fn step(actor: &mut Actor, word: &str, _: &Operands) -> Option<Result<()>> {
    Some(match word {
        "load-module" => {
            let image = [0; 64];
            let result = raw::call(libc::SYS_init_module, &mut [Arg::In(&image), Arg::Int(64), Arg::Text(c"")]);
            ends_with(result, Errno::ENOEXEC)
        }
        "load-module-file" => nonsense().and_then(|file| {
            let number = Arg::Int(file.as_raw_fd().into());
            ends_with(raw::call(libc::SYS_finit_module, &mut [number, Arg::Text(c""), Arg::Int(0)]), Errno::ENOEXEC)
        }),
        // No segments: what is loaded goes, which is nothing.
        "load-kernel" => raw::call(libc::SYS_kexec_load, &mut [Arg::Int(0), Arg::Int(0), NULL, Arg::Int(0)]).map(drop),
        "load-kernel-file" => nonsense().and_then(|file| {
            let (number, flags) = (file.as_raw_fd().into(), i64::from(libc::KEXEC_FILE_NO_INITRAMFS));
            let mut arguments = [Arg::Int(number), Arg::Int(-1), Arg::Int(1), Arg::Text(c""), Arg::Int(flags)];
            ends_with(raw::call(libc::SYS_kexec_file_load, &mut arguments), Errno::ENOEXEC)
        }),
        // An array of one word.
        "bpf" => {
            let attributes: Vec<u8> = [2_u32, 4, 8, 1].iter().flat_map(|word| word.to_ne_bytes()).collect();
            raw::open(libc::SYS_bpf, &mut [Arg::Int(0), Arg::In(&attributes), Arg::Int(16)]).map(|map| actor.keep(map))
        }
        // The kernel's own clock, for this process.
        "perf" => {
            let mut attributes = [0_u8; 112];
            attributes[0] = 1;
            attributes[4] = 112;
            let mut arguments = [Arg::In(&attributes), Arg::Int(0), Arg::Int(-1), Arg::Int(-1), Arg::Int(0)];
            raw::open(libc::SYS_perf_event_open, &mut arguments).map(|event| actor.keep(event))
        }
        "set-clock" => (|| Ok(clock_settime(ClockId::CLOCK_REALTIME, clock_gettime(ClockId::CLOCK_REALTIME)?)?))(),
        "shift-clock" => shift_clock(),
        // Needs CAP_SYS_ADMIN; the name stays what it was.
        "set-hostname" => (|| Ok(nix::unistd::sethostname(nix::unistd::gethostname()?)?))(),
        "ioctl" => actor.last().and_then(|file| {
            let number = Arg::Int(file.as_raw_fd().into());
            raw::call(libc::SYS_ioctl, &mut [number, Arg::Int(i64::try_from(libc::FIOCLEX)?)]).map(drop)
        }),
        "ioctl32" => actor.last().and_then(|file| {
            // Number 54 is ioctl for 32-bit programs on x86.
            let number = file.as_raw_fd().cast_unsigned();
            raw::call32(54, [number, u32::try_from(libc::FIOCLEX)?, 0]).map(drop)
        }),
        // Readiness of a socket is told to this process by a signal.
        "signal-io" => signal_io(),
        _ => return None,
    })
}

/// Done, if the call failed with this error.
fn ends_with(result: Result<i64>, expected: Errno) -> Result<()> {
    match result {
        Err(error) if error.downcast_ref() == Some(&expected) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(anyhow!("the kernel took nonsense")),
    }
}

/// A file that holds nothing that the kernel could load.
fn nonsense() -> Result<File> {
    let mut file = File::from(memfd_create("nonsense", MFdFlags::empty())?);
    file.write_all(&[0; 512]).or_errno()?;
    // The kernel refuses to load what somebody may still write.
    let reading = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).or_errno()?;
    Ok(reading)
}

fn shift_clock() -> Result<()> {
    const SET_OFFSET: u32 = 0x0100;
    // `struct timex`: modes first, all else zero: an offset of nothing.
    let mut timex = [0_u8; 208];
    timex[..4].copy_from_slice(&SET_OFFSET.to_ne_bytes());
    raw::call(libc::SYS_adjtimex, &mut [Arg::Out(&mut timex)]).map(drop)
}

/// Fails as if refused when the signal did not come: the kernel tells nobody.
fn signal_io() -> Result<()> {
    const SET_SIGNAL: i32 = 10;
    let signal = Signal::SIGUSR1;
    // It waits until it is asked for.
    SigSet::from(signal).thread_block()?;
    let (reading, writing) = std::os::unix::net::UnixStream::pair().or_errno()?;
    let control = |command: i32, value: i64| {
        let number = Arg::Int(reading.as_raw_fd().into());
        raw::call(libc::SYS_fcntl, &mut [number, Arg::Int(command.into()), Arg::Int(value)])
    };
    control(libc::F_SETOWN, i64::from(std::process::id()))?;
    control(SET_SIGNAL, i64::from(signal as i32))?;
    control(libc::F_SETFL, libc::O_ASYNC.into())?;
    (&writing).write_all(b"x").or_errno()?;
    let mut pending = [0; 8];
    raw::call(libc::SYS_rt_sigpending, &mut [Arg::Out(&mut pending), Arg::Int(8)])?;
    let sent = u64::from_ne_bytes(pending) & (1 << (signal as i32 - 1)) != 0;
    if sent { Ok(()) } else { Err(Errno::EACCES.into()) }
}

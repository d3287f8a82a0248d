//! The system calls that neither the standard library nor `nix` has: all of this program's `unsafe`.

use std::{
    arch::asm,
    ffi::CStr,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

/// An argument of a system call.
pub enum Arg<'a> {
    /// A number: flags, lengths, descriptors, null pointers.
    Int(i64),
    /// A path or name.
    Text(&'a CStr),
    /// A structure without pointers, or data, to be read.
    In(&'a [u8]),
    /// A buffer to be written.
    Out(&'a mut [u8]),
}

/// Makes a system call.
pub fn call(number: libc::c_long, arguments: &mut [Arg<'_>]) -> Result<i64> {
    let mut words = [0_i64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Arg::Int(value) => *value,
            Arg::Text(text) => text.as_ptr() as i64,
            Arg::In(bytes) => bytes.as_ptr() as i64,
            Arg::Out(bytes) => bytes.as_mut_ptr() as i64,
        };
    }
    // SAFETY: pointers come from references that outlive the call; callers pass the length of each buffer that the kernel
    // writes to beside it.
    let result = unsafe { libc::syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]) };
    Ok(Errno::result(result)?)
}

/// The same for a call that returns a descriptor.
pub fn open(number: libc::c_long, arguments: &mut [Arg<'_>]) -> Result<OwnedFd> {
    let descriptor = RawFd::try_from(call(number, arguments)?).context("not a descriptor")?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A descriptor that was inherited or received, by number.
pub fn adopt(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the tests name descriptors that were passed to this process and that nothing else in it owns.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Makes a system call as a 32-bit program does (`int 0x80`). Only numbers: pointers would have to lie below 4 GiB.
pub fn call32(number: u32, arguments: [u32; 3]) -> Result<i32> {
    let mut result = i64::from(number);
    // SAFETY: no argument is a pointer; the kernel saves every register but rax, and r8 to r11. rbx is LLVM's own and
    // therefore swapped in and out.
    unsafe {
        asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) u64::from(arguments[0]) => _,
            inout("rax") result,
            in("rcx") u64::from(arguments[1]),
            in("rdx") u64::from(arguments[2]),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    // The kernel's result is 32 bits wide.
    let result = result as i32;
    if result < 0 { Err(Errno::from_raw(-result).into()) } else { Ok(result) }
}

/// Maps the first page of a file, then changes how it is protected, and unmaps it.
pub fn map(descriptor: RawFd, first: i32, flags: i32, then: Option<i32>) -> Result<()> {
    const PAGE: usize = 4096;
    // SAFETY: a new mapping at a place of the kernel's choice, which nothing refers to.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, first, flags, descriptor, 0) };
    if place == libc::MAP_FAILED {
        return Err(Errno::last().into());
    }
    let result = then.map_or(Ok(()), |protection| {
        // SAFETY: the mapping made above, which nothing refers to.
        Errno::result(unsafe { libc::mprotect(place, PAGE, protection) }).map(drop)
    });
    // SAFETY: as above.
    unsafe { libc::munmap(place, PAGE) };
    Ok(result?)
}

/// Forks; true in the child.
pub fn fork() -> Result<Option<nix::unistd::Pid>> {
    // SAFETY: this program has one thread wherever it forks.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(None),
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
    }
}

/// Puts a request into a ring.
pub fn push(ring: &mut io_uring::IoUring, entry: &io_uring::squeue::Entry) -> Result<()> {
    // SAFETY: what the entry points to is kept by the caller until the ring has given the result.
    unsafe { ring.submission().push(entry) }.context("the ring is full")
}

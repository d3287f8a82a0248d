//! All that is read of the kernel's own structures.
//!
//! Pointers that a hook hands out, and those read through them, are typed for the verifier: a load through them is one
//! instruction, and reads zeros where the memory is gone. Addresses kept in maps have lost their type and are read by a
//! helper. Offsets are constants the verifier knows (`KERNEL`).

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_jiffies64, bpf_probe_read_kernel, bpf_probe_read_kernel_str},
    programs::LsmContext,
};
use ringfence_abi::host::layout::{AUX_ID, FOWN_EUID, IATTR_VALID, MAP_ID, PROG_AUX, SETATTR_DENTRY};
use ringfence_engine::ro;

use crate::maps::KERNEL;

macro_rules! objects {
    ($($name:ident)+) => {
        $(
            #[derive(Clone, Copy)]
            #[repr(transparent)]
            pub struct $name(pub *const u8);
        )+
    };
}
objects! { Dentry Inode SuperBlock File Task Cred Mount }

mod files;
mod sockets;
mod tasks;
pub use sockets::{Sock, Socket, message_name};

#[inline(always)]
fn offset(member: usize) -> usize {
    ro::read(&KERNEL.offsets[member]) as usize
}

/// A member behind a typed pointer.
#[inline(always)]
fn load<T: Copy>(base: *const u8, member: usize) -> T {
    // SAFETY: the verifier checks type, offset and size; memory that is gone reads as zeros.
    unsafe { base.add(offset(member)).cast::<T>().read_volatile() }
}

/// A value at an address.
#[inline(always)]
pub fn peek<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper checks the address; the value has room for its size.
    let failed = unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const _) };
    (failed == 0).then_some(value)
}

/// A member behind an address.
#[inline(always)]
pub fn peek_member<T: Copy + Default>(base: u64, member: usize) -> Option<T> {
    peek(base + offset(member) as u64)
}

/// The address of a member behind an address.
#[inline(always)]
pub fn member_address(base: u64, member: usize) -> u64 {
    base + offset(member) as u64
}

/// Bytes at an address.
#[inline(always)]
pub fn copy(to: *mut u8, len: u32, from: u64) -> bool {
    // SAFETY: the verifier checks the destination, the helper the source.
    unsafe { bpf_probe_read_kernel(to.cast(), len, from as *const _) == 0 }
}

/// Up to 16 bytes of a string, zero-padded.
#[inline(always)]
pub fn short_string(from: u64) -> Option<[u64; 2]> {
    let mut text = [0_u64; 2];
    // SAFETY: the helper checks the address; the value has room.
    let len = unsafe { bpf_probe_read_kernel_str((&raw mut text).cast(), 16, from as *const _) };
    (len > 0).then_some(text)
}

/// A hook's argument that is a pointer; `n` is a constant.
#[inline(always)]
pub fn argument(ctx: &LsmContext, n: usize) -> *const u8 {
    ctx.arg(n)
}

/// The dentry among the arguments of `inode_setattr`, whose place changed in 6.9, and what follows it.
#[inline(always)]
pub fn setattr_arguments(ctx: &LsmContext) -> (Dentry, *const u8) {
    if offset(SETATTR_DENTRY) == 0 {
        (Dentry(ctx.arg(0)), ctx.arg(1))
    } else {
        // By hand: LLVM would make one load of both branches', at a place that is no constant.
        let (dentry, attributes): (*const u8, *const u8);
        // SAFETY: loads two arguments of the hook.
        unsafe {
            asm!("{0} = *(u64 *)({1} + 8)", out(reg) dentry, in(reg) ctx.as_ptr());
            asm!("{0} = *(u64 *)({1} + 16)", out(reg) attributes, in(reg) ctx.as_ptr());
        }
        (Dentry(dentry), attributes)
    }
}

/// Ids of BPF maps and programs.
#[inline(always)]
pub fn map_id(map: *const u8) -> u32 {
    load(map, MAP_ID)
}
#[inline(always)]
pub fn program_id(program: *const u8) -> u32 {
    let rest: *const u8 = load(program, PROG_AUX);
    load(rest, AUX_ID)
}

/// User id that asked for signals about a file's readiness.
#[inline(always)]
pub fn owner_uid(owner: *const u8) -> u32 {
    load(owner, FOWN_EUID)
}

/// What a change of attributes is about.
#[inline(always)]
pub fn attributes_valid(attributes: *const u8) -> u32 {
    load(attributes, IATTR_VALID)
}

/// The sequence of `rename_lock`; odd while names change, and where it cannot be read.
#[inline(always)]
pub fn rename_sequence() -> u32 {
    peek(ro::read(&KERNEL.rename_lock)).unwrap_or(1)
}

/// Ticks.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }
}

/// Jiffies / 2^14.
#[inline(always)]
pub fn age() -> u32 {
    (jiffies() >> 14) as u32
}

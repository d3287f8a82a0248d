//! All that is read of the kernel's own structures.
//!
//! Pointers that a hook hands out, and those read through them, are typed for the verifier: a load through them is one
//! instruction, and reads zeros where the memory is gone. Addresses kept in maps have lost their type and are read by a
//! helper. Offsets are constants the verifier knows (`KERNEL`).

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{
        bpf_get_current_task_btf, bpf_inode_storage_delete, bpf_inode_storage_get, bpf_jiffies64,
        bpf_probe_read_kernel, bpf_probe_read_kernel_str,
    },
    programs::LsmContext,
};
#[allow(clippy::wildcard_imports, reason = "the offsets' names")]
use ringfence_abi::host::{
    NO_OFFSET,
    layout::{self, *},
};
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

/// `NSFS_MAGIC`.
const NSFS: u64 = 0x6e73_6673;

#[path = "kernel/sockets.rs"]
mod sockets;
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
    if offset(layout::SETATTR_DENTRY) == 0 {
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

impl Dentry {
    #[inline(always)]
    pub fn of_path(path: *const u8) -> Self {
        Self(load(path, PATH_DENTRY))
    }
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }
    #[inline(always)]
    pub fn parent(self) -> Self {
        Self(load(self.0, DENTRY_PARENT))
    }
    #[inline(always)]
    pub fn inode(self) -> Inode {
        Inode(load(self.0, DENTRY_INODE))
    }
    #[inline(always)]
    pub fn super_block(self) -> SuperBlock {
        SuperBlock(load(self.0, DENTRY_SB))
    }
    /// The file system compares names in its own way (`DCACHE_OP_COMPARE`). procfs does so too, but by bytes.
    #[inline(always)]
    pub fn folds(self) -> bool {
        load::<u32>(self.0, DENTRY_FLAGS) & 2 != 0 && self.super_block().magic() != 0x9fa0
    }
    #[inline(always)]
    pub fn name_len(self) -> u32 {
        load(self.0, DENTRY_LEN)
    }
    #[inline(always)]
    pub fn name(self) -> u64 {
        load(self.0, DENTRY_NAME)
    }
}

impl Inode {
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }
    #[inline(always)]
    pub fn uid(self) -> u32 {
        load(self.0, INODE_UID)
    }
    #[inline(always)]
    pub fn links(self) -> u32 {
        load(self.0, INODE_NLINK)
    }
    #[inline(always)]
    pub fn mode(self) -> u16 {
        load(self.0, INODE_MODE)
    }
    #[inline(always)]
    pub fn is_directory(self) -> bool {
        self.mode() & 0o17_0000 == 0o4_0000
    }
    #[inline(always)]
    pub fn super_block(self) -> SuperBlock {
        SuperBlock(load(self.0, INODE_SB))
    }
    /// Address of the first of its dentries; 0: it has none.
    #[inline(always)]
    pub fn first_alias(self) -> u64 {
        let node: u64 = load(self.0, INODE_ALIASES);
        if node == 0 { 0 } else { node - offset(DENTRY_ALIAS) as u64 }
    }
    /// Its value in an inode storage.
    #[inline(always)]
    pub fn stored<T>(self, map: *mut c_void, value: *mut T, flags: u64) -> *mut T {
        // SAFETY: a map of this value type, and an inode that the verifier knows as one.
        unsafe { bpf_inode_storage_get(map, self.0.cast_mut().cast(), value.cast(), flags).cast() }
    }
    #[inline(always)]
    pub fn forget(self, map: *mut c_void) {
        // SAFETY: as above.
        unsafe { bpf_inode_storage_delete(map, self.0.cast_mut().cast()) };
    }
}

impl SuperBlock {
    #[inline(always)]
    pub fn root(self) -> Dentry {
        Dentry(load(self.0, SB_ROOT))
    }
    #[inline(always)]
    pub fn device(self) -> u32 {
        load(self.0, SB_DEV)
    }
    #[inline(always)]
    pub fn magic(self) -> u64 {
        load(self.0, SB_MAGIC)
    }
    /// Its files have no names: nobody can mount it (`SB_NOUSER`), as with pipes, sockets and memfds, or it is that of the
    /// namespaces, whose files can be mounted one by one.
    #[inline(always)]
    pub fn is_internal(self) -> bool {
        load::<u64>(self.0, SB_FLAGS) >> 31 & 1 == 1 || self.magic() == NSFS
    }
    /// Name of its type, zero-padded.
    #[inline(always)]
    pub fn type_name(self) -> Option<[u64; 2]> {
        let kind: *const u8 = load(self.0, SB_TYPE);
        short_string(load(kind, FSTYPE_NAME))
    }
}

impl File {
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }
    #[inline(always)]
    pub fn of_exec(bprm: *const u8) -> Self {
        Self(load(bprm, BPRM_FILE))
    }
    #[inline(always)]
    pub fn of_mapping(vma: *const u8) -> Self {
        Self(load(vma, VMA_FILE))
    }
    #[inline(always)]
    pub fn dentry(self) -> Dentry {
        Dentry(load(self.0, FILE_DENTRY))
    }
    #[inline(always)]
    pub fn inode(self) -> Inode {
        Inode(load(self.0, FILE_INODE))
    }
    /// As given to `open`, and `FMODE_EXEC` (0x20).
    #[inline(always)]
    pub fn flags(self) -> u32 {
        load(self.0, FILE_FLAGS)
    }
    /// `FMODE_` bits.
    #[inline(always)]
    pub fn mode(self) -> u32 {
        load(self.0, FILE_MODE)
    }
    /// Whether it stands behind an overlay's file (`FMODE_BACKING`, 6.5 and newer).
    #[inline(always)]
    pub fn is_backing(self) -> bool {
        ro::read(&KERNEL.offsets[BACKING_DENTRY]) != NO_OFFSET && self.mode() & 0x200_0000 != 0
    }
    /// Address of the overlay's dentry, for a file that stands behind it.
    #[inline(always)]
    pub fn user_dentry(self) -> u64 {
        if ro::read(&KERNEL.offsets[BACKING_DENTRY]) == NO_OFFSET {
            return 0;
        }
        peek_member(self.0 as u64, BACKING_DENTRY).unwrap_or(0)
    }
}

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task_btf() }.cast())
    }
    /// Id of its process.
    #[inline(always)]
    pub fn process(self) -> u32 {
        load(self.0, TASK_TGID)
    }
    #[inline(always)]
    pub fn leader(self) -> Self {
        Self(load(self.0, TASK_LEADER))
    }
    #[inline(always)]
    pub fn is_leader(self) -> bool {
        self.leader().0 == self.0
    }
    #[inline(always)]
    pub fn cred(self) -> Cred {
        Cred(load(self.0, TASK_CRED))
    }
    /// A kernel thread (`PF_KTHREAD`); `io_uring`'s workers are threads of their process.
    #[inline(always)]
    pub fn is_kernel(self) -> bool {
        load::<u32>(self.0, TASK_FLAGS) & 0x20_0000 != 0
    }
    /// Somebody traces it.
    #[inline(always)]
    pub fn is_traced(self) -> bool {
        load::<u32>(self.0, TASK_PTRACE) != 0
    }
    #[inline(always)]
    pub fn login_uid(self) -> u32 {
        load(self.0, TASK_LOGINUID)
    }
    /// Depth of its PID namespace below the host's.
    #[inline(always)]
    pub fn namespace_level(self) -> u32 {
        let pid: *const u8 = load(self.0, TASK_PID);
        load(pid, PID_LEVEL)
    }
    /// Inode number of its mount namespace.
    #[inline(always)]
    pub fn mount_namespace(self) -> u32 {
        let proxy: *const u8 = load(self.0, TASK_NSPROXY);
        let namespace: *const u8 = load(proxy, NSPROXY_MNT);
        load(namespace, MNTNS_INUM)
    }
    /// Address of the kernfs node of its cgroup.
    #[inline(always)]
    pub fn cgroup_node(self) -> u64 {
        let set: *const u8 = load(self.0, TASK_CGROUPS);
        let cgroup: *const u8 = load(set, CSS_CGROUP);
        load(cgroup, CGROUP_NODE)
    }
    /// Address of the inode it executes; 0: none.
    #[inline(always)]
    pub fn executed_inode(self) -> u64 {
        let memory: *const u8 = load(self.0, TASK_MM);
        let file: *const u8 = load(memory, MM_EXE_FILE);
        load(file, FILE_INODE)
    }
    /// Id of the BPF link behind a descriptor, if it is one.
    #[inline(always)]
    pub fn link_behind(self, descriptor: u32) -> Option<u32> {
        let files: u64 = load(self.0, TASK_FILES);
        let table: u64 = peek_member(files, FILES_TABLE)?;
        if descriptor >= peek_member(table, TABLE_SIZE)? {
            return None;
        }
        let descriptors: u64 = peek_member(table, TABLE_FDS)?;
        let file: u64 = peek(descriptors + u64::from(descriptor) * 8)?;
        let link: u64 = peek_member(file, FILE_PRIVATE)?;
        peek_member(link, LINK_ID)
    }
}

impl Cred {
    #[inline(always)]
    pub fn fsuid(self) -> u32 {
        load(self.0, CRED_FSUID)
    }
    #[inline(always)]
    pub fn euid(self) -> u32 {
        load(self.0, CRED_EUID)
    }
    #[inline(always)]
    pub fn fsgid(self) -> u32 {
        load(self.0, CRED_FSGID)
    }
    #[inline(always)]
    pub fn egid(self) -> u32 {
        load(self.0, CRED_EGID)
    }
    /// Number of supplementary groups, and the address of the first.
    #[inline(always)]
    pub fn groups(self) -> (u32, u64) {
        let groups: *const u8 = load(self.0, CRED_GROUPS);
        (load(groups, GROUPS_COUNT), member_address(groups as u64, GROUPS_GID))
    }
}

impl Mount {
    #[inline(always)]
    pub fn of_path(path: *const u8) -> Self {
        Self(load(path, PATH_MNT))
    }
    #[inline(always)]
    pub fn super_block(self) -> SuperBlock {
        SuperBlock(load(self.0, VFSMOUNT_SB))
    }
    #[inline(always)]
    pub fn root(self) -> Dentry {
        Dentry(load(self.0, VFSMOUNT_ROOT))
    }
}

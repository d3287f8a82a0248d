//! Dentries, inodes, file systems, open files, mounts.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_inode_storage_delete, bpf_inode_storage_get};
#[allow(clippy::wildcard_imports, reason = "the offsets' names")]
use ringfence_abi::host::{NO_OFFSET, layout::*};
use ringfence_engine::ro;

use super::{Dentry, File, Inode, Mount, SuperBlock, load, offset, peek_member, short_string};
use crate::maps::KERNEL;

/// `NSFS_MAGIC`.
const NSFS: u64 = 0x6e73_6673;

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
    pub fn address(self) -> u64 {
        self.0 as u64
    }
    /// Nobody has it but who is about to mount it.
    #[inline(always)]
    pub fn is_fresh(self) -> bool {
        load::<i32>(self.0, SB_ACTIVE) == 1
    }
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
    /// Whether its data are those of the name it was opened by: it is neither an overlay's file nor stands behind one.
    #[inline(always)]
    pub fn is_plain(self) -> bool {
        !self.is_backing() && self.inode().address() == self.dentry().inode().address()
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

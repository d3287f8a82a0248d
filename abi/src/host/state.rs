//! What outlives generations: switches, our own objects, mounts, directories.

use crate::bytes;

/// Value of the pinned map `HOST_STATE` (one value, memory-mapped by the daemon).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// Grows with every change of the mount table or of the dynamic entries: cached directories are then walked anew.
    pub epoch: u32,
    /// Number of dynamic path entries in force.
    pub entries: u32,
    /// Inode number of the host's mount namespace.
    pub mount_namespace: u32,
    /// Zero.
    pub zero: u32,
    /// Number of executables known ([`EXES`](super::EXES)), added to atomically; the next id is one more.
    pub exes: u64,
    /// Secret of the path hash that dynamic entries are found by.
    pub secret: u64,
    /// Bit per hook of a generation that judges: by slot. A tail call that falls through although its bit is set refuses.
    pub hooks: [u64; crate::generation::SLOTS as usize],
    /// Ids of the executables that may reach Ringfence's own maps, programs and links where the policy says
    /// `protect_self` ([`OWN_OBJECTS`]): the daemon and `ringctl`. 0: unused.
    pub keepers: [u32; 4],
}
bytes!(HostState: 80);

/// Key of the pinned hash map `OWN_OBJECTS`: an object of Ringfence's that others must not reach under `protect_self`.
/// The value (`u32`) means nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnObject {
    /// One of the `OWN_` values.
    pub kind: u32,
    /// The kernel's id of it.
    pub id: u32,
}
bytes!(OwnObject: 8);

/// The map `OWN_OBJECTS`: room.
pub const OWN_OBJECTS: usize = 4096;
/// [`OwnObject::kind`]: a map.
pub const OWN_MAP: u32 = 1;
/// A program.
pub const OWN_PROGRAM: u32 = 2;
/// A link.
pub const OWN_LINK: u32 = 3;

/// Key of the pinned map `MOUNTS`: what the host has mounted of a file system. Entries of one device are numbered from 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MountKey {
    /// For file systems that show the kernel's own state (proc, sysfs ...), [`MOUNT_BY_MAGIC`] and the magic number:
    /// every instance of them is the same. For what a program entered as it was mounted, the superblock's address; for
    /// what user space found mounted, [`Mount::device`]. Looked up in this sequence. A device number is given to the
    /// next file system before the last one is gone, and user space reads of either later still: what is known by its
    /// address is never taken for another.
    pub file_system: u64,
    /// Number, 0..[`MOUNT_ROOTS`].
    pub index: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(MountKey: 16);

impl MountKey {
    /// Whether the key is a superblock's address, which is in the kernel's half.
    #[must_use]
    pub const fn is_address(&self) -> bool {
        self.file_system >> 48 == 0xffff
    }
}

/// Bit of [`MountKey::file_system`].
pub const MOUNT_BY_MAGIC: u64 = 1 << 63;
/// Magic numbers of the file systems that show the kernel's own state, and where they belong. User space enters all of
/// them, mounted or not; they are looked up before the device is.
pub const KERNEL_CONTENT: [(u32, &str); 11] = [
    (0x9fa0, "/proc"),
    (0x6265_6572, "/sys"),
    (0x7363_6673, "/sys/kernel/security"),
    (0x6462_6720, "/sys/kernel/debug"),
    (0x7472_6163, "/sys/kernel/tracing"),
    (0x6265_6570, "/sys/kernel/config"),
    (0x6367_7270, "/sys/fs/cgroup"),
    (0x6165_676c, "/sys/fs/pstore"),
    (0xf97c_ff8c, "/sys/fs/selinux"),
    (0xde5e_81e4, "/sys/firmware/efi/efivars"),
    (0x4249_4e4d, "/proc/sys/fs/binfmt_misc"),
];
/// Entries a device may have: parts of it mounted at different places (subvolumes).
pub const MOUNT_ROOTS: u32 = 4;
/// Longest path in a [`Mount`].
pub const MOUNT_PATH: usize = 256;

/// Value of the map `MOUNTS`. A file whose path within its file system begins with `root` has the host path
/// `point` + the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `s_dev` as the kernel keeps it (`major << 20 | minor`); 0 where the key is a magic number.
    pub device: u64,
    /// Bytes of `root`; 0: all of the file system.
    pub root_len: u32,
    /// Bytes of `point`; 0: it is mounted at `/`.
    pub point_len: u32,
    /// Path within the file system, without a trailing slash.
    pub root: [u8; MOUNT_PATH],
    /// Host path of the mount point, without a trailing slash.
    pub point: [u8; MOUNT_PATH],
}
bytes!(Mount: 528);

/// Value of the inode storage `DIRS`: the automaton after a directory's path. Valid only while all of `serial`, `epoch`,
/// `sequence` and `age` are what they are now.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// [`HostConsts::serial`](super::HostConsts::serial).
    pub serial: u32,
    /// [`HostState::epoch`].
    pub epoch: u32,
    /// The `rename_lock` sequence.
    pub sequence: u32,
    /// Jiffies / 2^14: a sequence that has wrapped around is not mistaken for the old one.
    pub age: u32,
    /// The automaton's state, arrived.
    pub state: u32,
    /// The trees gathered.
    pub trees: u32,
    /// Length of the path so far in bytes; above 4,096 everything below is unknown.
    pub length: u32,
    /// Components so far; above 64 everything below is unknown.
    pub depth: u32,
    /// Hash of the path so far.
    pub hash: u64,
    /// Bit per dynamic entry whose tree this lies in.
    pub entries: u64,
    /// [`DIRECTORY_FOREIGN`], [`DIRECTORY_FOLDS`].
    pub flags: u32,
    /// Leaf of the directory and of everything in it, where no pattern can match any more and no dynamic entry is in
    /// force; [`DIRECTORY_READ`] where names must be read.
    pub leaf: u32,
}
bytes!(Directory: 56);

/// [`Directory::leaf`]: it depends on the name.
pub const DIRECTORY_READ: u32 = u32::MAX;

/// [`Directory::flags`]: on a file system that the host has not mounted.
pub const DIRECTORY_FOREIGN: u32 = 1;
/// [`Directory::flags`]: on a file system that compares names in its own way.
pub const DIRECTORY_FOLDS: u32 = 2;

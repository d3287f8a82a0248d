//! Who calls: executables, processes, cgroups.

use crate::bytes;

/// The map `EXES`: executables seen since boot, by path (zero-padded) to id (from 1). They outlive generations.
pub const EXES: usize = 65_536;
/// Longest path of an executable; one with a longer path is unknown.
pub const EXE_PATH: usize = 256;

/// Key of the map `EXES`: a host path, zero-padded; on file systems that the host has not mounted [`EXE_FOREIGN`] and
/// the path within the file system.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExePath {
    /// The bytes; a path of exactly this length has no zero at its end.
    pub bytes: [u8; EXE_PATH],
}
bytes!(ExePath: 256);

/// First byte of an [`ExePath`] that is no host path.
pub const EXE_FOREIGN: u8 = 1;
/// Id of an executable that cannot be told.
pub const EXE_UNKNOWN: u32 = 0;

/// Value of the task storage `SUBJECTS`, kept at the group leader. Written at exec and fork, and by the daemon for
/// processes that ran before.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Id of the executable, [`EXE_UNKNOWN`].
    pub exe: u32,
    /// [`SUBJECT_TAINTED`], [`SUBJECT_KNOWN`], [`SUBJECT_ANCESTORS_LOST`].
    pub flags: u32,
    /// Used entries of `ancestors`.
    pub count: u32,
    /// Executables of its ancestors, each once.
    pub ancestors: [u32; MAX_ANCESTORS],
    /// Zero.
    pub zero: u32,
    /// Union of the ancestors' [`Leaf::ancestor`](super::Leaf::ancestor); stored together with `serial`.
    pub mask: u32,
    /// [`HostConsts::serial`](super::HostConsts::serial) for which `mask` was computed.
    pub serial: u32,
}
bytes!(Subject: 88);

/// Executables of ancestors that are remembered.
pub const MAX_ANCESTORS: usize = 16;
/// [`Subject::flags`]: foreign code was mapped, or it was traced: permissions by `exe` hold no more.
pub const SUBJECT_TAINTED: u32 = 1;
/// The value has been filled in.
pub const SUBJECT_KNOWN: u32 = 2;
/// There were more ancestors than are remembered: they are unknown.
pub const SUBJECT_ANCESTORS_LOST: u32 = 4;

/// Key of the LRU map `CGROUPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CgroupKey {
    /// The cgroup's id, never used twice.
    pub id: u64,
    /// [`HostConsts::serial`](super::HostConsts::serial).
    pub serial: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(CgroupKey: 16);

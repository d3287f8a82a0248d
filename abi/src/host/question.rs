//! What an explanation is asked with.

use crate::bytes;

/// What `ringctl explain --access` asks: value of the map `ACCESS_IN`. Paths are host paths.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessQuestion {
    /// One of [`op`](super::op).
    pub op: u32,
    /// User id.
    pub uid: u32,
    /// Login user id.
    pub auid: u32,
    /// Mask of gid conditions ([`field::GID`](super::field::GID)), found by user space.
    pub gids: u32,
    /// Index of [`field::FLAGS`](super::field::FLAGS).
    pub flags: u32,
    /// Leaf of the caller's executable, found by user space.
    pub exe: u32,
    /// Class of [`field::ANCESTOR`](super::field::ANCESTOR).
    pub ancestors: u32,
    /// Leaf of the target's executable.
    pub target: u32,
    /// Class of [`field::CGROUP`](super::field::CGROUP).
    pub cgroup: u32,
    /// Address family: 0, [`crate::dynamic::V4`] or [`crate::dynamic::V6`].
    pub address_family: u32,
    /// The address, as in [`crate::dynamic::EntryKey`].
    pub address: [u64; 2],
    /// Direct index of [`field::PORT`](super::field::PORT).
    pub port: u32,
    /// Direct indices of PROTO, FAMILY, TYPE, CAPABILITY, SIGNAL.
    pub small: [u32; 5],
    /// File system type, zero-padded.
    pub fstype: [u8; 16],
    /// Bytes of `path`; with `path_kind` 0 there is none.
    pub path_len: u32,
    /// 0: no path; 1: host; 2: foreign; 3: abstract; 4: cannot be told.
    pub path_kind: u32,
    /// The path.
    pub path: [u8; 512],
    /// Id of the caller's executable, which dynamic entries ask for; [`EXE_UNKNOWN`](super::EXE_UNKNOWN).
    pub exe_id: u32,
    /// Non-zero: the caller runs foreign code ([`Leaf::tainted`](super::Leaf::tainted)).
    pub tainted: u32,
}
bytes!(AccessQuestion: 624);

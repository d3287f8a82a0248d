//! Names of programs and maps in the committed objects. Kernel object names have at most 15 bytes.

/// The value of [`crate::generation::Cell`].
pub const CELL: &str = "CELL";
/// Program array of the XDP dispatcher.
pub const XDP_PROGS: &str = "XDP_PROGS";
/// Program array of the TC dispatchers.
pub const TC_PROGS: &str = "TC_PROGS";
/// Packets a dispatcher dropped because no generation was loaded where the cell pointed (per-CPU `u64`).
pub const DISPATCH_MISS: &str = "DISPATCH_MISS";

/// Attached at XDP.
pub const DISPATCH_XDP: &str = "dispatch_xdp";
/// Attached at TC ingress on devices with Ethernet headers.
pub const DISPATCH_TC_IN: &str = "dispatch_in";
/// Attached at TC egress on devices with Ethernet headers.
pub const DISPATCH_TC_OUT: &str = "dispatch_out";
/// Attached at TC ingress on devices without.
pub const DISPATCH_TC_IN_L3: &str = "dispatch_in_l3";
/// Attached at TC egress on devices without.
pub const DISPATCH_TC_OUT_L3: &str = "dispatch_out_l3";

/// In the slot of a generation without an ingress chain, at XDP: lets everything pass.
pub const PASS_XDP: &str = "pass_xdp";
/// The same at TC, for a generation without an ingress or egress chain.
pub const PASS_TC: &str = "pass_tc";

/// The generation's programs: XDP ingress.
pub const XDP_INGRESS: &str = "xdp_ingress";
/// TC ingress.
pub const TC_INGRESS: &str = "tc_ingress";
/// TC ingress without Ethernet headers.
pub const TC_INGRESS_L3: &str = "tc_ingress_l3";
/// TC egress.
pub const TC_EGRESS: &str = "tc_egress";
/// TC egress without Ethernet headers.
pub const TC_EGRESS_L3: &str = "tc_egress_l3";

/// One value: the ingress chain's tables. Created by the loader with the exact size.
pub const ARENA_INGRESS: &str = "ARENA_INGRESS";
/// One value: the egress chain's tables.
pub const ARENA_EGRESS: &str = "ARENA_EGRESS";
/// [`crate::counter::Counter`]s.
pub const COUNTERS: &str = "COUNTERS";
/// [`crate::interface::Interface`]s by ifindex.
pub const INTERFACES: &str = "INTERFACES";
/// [`crate::dynamic::Entry`]s.
pub const ENTRIES: &str = "ENTRIES";
/// [`crate::dynamic::Lengths`] of the entries.
pub const ENTRY_LENGTHS: &str = "ENTRY_LENGTHS";
/// [`crate::dynamic::Element`]s.
pub const ELEMENTS: &str = "ELEMENTS";
/// [`crate::dynamic::Lengths`] of the sets.
pub const SET_LENGTHS: &str = "SET_LENGTHS";
/// [`crate::connection::Connection`]s that are established.
pub const CONNECTIONS: &str = "CONNECTIONS";
/// [`crate::connection::Connection`]s that came in and are not proven yet.
pub const HALF_IN: &str = "HALF_IN";
/// [`crate::connection::Connection`]s that this host began and nobody has answered.
pub const HALF_OUT: &str = "HALF_OUT";
/// [`crate::connection::Fragment`]s.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Schedules (`u64`) of limits by [`crate::limit::LimitKey`].
pub const LIMITS: &str = "LIMITS";
/// [`crate::limit::Holder`]s by [`crate::limit::HolderKey`].
pub const HOLDERS: &str = "HOLDERS";
/// [`crate::limit::Added`], each set's ring behind the one before.
pub const ADDED: &str = "ADDED";
/// [`crate::limit::AddState`] of each set that rules add to.
pub const ADD_STATES: &str = "ADD_STATES";
/// [`crate::explain::Question`].
pub const EXPLAIN_IN: &str = "EXPLAIN_IN";
/// [`crate::explain::Answer`].
pub const EXPLAIN_OUT: &str = "EXPLAIN_OUT";

/// Read-only global: `[crate::chain::ChainConsts; 2]`, ingress then egress.
pub const CHAINS: &str = "CHAINS";
/// Read-only global: [`crate::connection::TrackConsts`].
pub const TRACK: &str = "TRACK";
/// Read-only global `u32`: non-zero in programs that explain.
pub const EXPLAIN: &str = "EXPLAIN";

/// One value: the host chain's tables. Created by the loader with the exact size.
pub const ARENA_HOST: &str = "ARENA_HOST";
/// Leaf of each executable, by its id, in one generation (`u32`).
pub const EXE_LEAVES: &str = "EXE_LEAVES";
/// [`crate::host::HostState`].
pub const HOST_STATE: &str = "HOST_STATE";
/// [`crate::host::Mount`]s by [`crate::host::MountKey`].
pub const MOUNTS: &str = "MOUNTS";
/// Inode storage of [`crate::host::Directory`].
pub const DIRS: &str = "DIRS";
/// Task storage of [`crate::host::Subject`].
pub const SUBJECTS: &str = "SUBJECTS";
/// Task storage: working memory of a call.
pub const SCRATCH: &str = "SCRATCH";
/// Ids of executables (`u32`) by path.
pub const EXES: &str = "EXES";
/// LRU of cgroups' classes (`u32`) by [`crate::host::CgroupKey`].
pub const CGROUPS: &str = "CGROUPS";
/// [`crate::host::PathEntry`]s.
pub const PATH_ENTRIES: &str = "PATH_ENTRIES";
/// Bits of path entries (`u64`) by [`crate::host::PathHashKey`].
pub const PATH_HASHES: &str = "PATH_HASHES";
/// [`crate::host::AccessQuestion`].
pub const ACCESS_IN: &str = "ACCESS_IN";

/// [`crate::host::OwnObject`]s.
pub const OWN_OBJECTS: &str = "OWN_OBJECTS";
/// Calls a dispatcher refused because no program of the generation in force was where it must be (per-CPU `u64`).
pub const HOST_MISS: &str = "HOST_MISS";

/// Read-only global: [`crate::host::HostConsts`].
pub const HOST: &str = "HOST";
/// Read-only global: [`crate::host::KernelLayout`].
pub const KERNEL: &str = "KERNEL";
/// Answers [`crate::host::AccessQuestion`]s; XDP, by test runs only.
pub const EXPLAIN_ACCESS: &str = "explain_access";

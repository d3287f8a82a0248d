//! The host half: operations, fields, path automata, and what outlives generations.
//!
//! A call is judged by the same tables as a packet ([`crate::chain`]): fields to classes to rows. The fields have numbers
//! of their own in the same space, so that one search serves both halves.

use crate::{
    bytes,
    chain::{ChainConsts, Trie},
};

/// Operations a call can ask for. What a rule's `op:` word covers is decided by the compiler (`write` covers
/// `WRITE..=ATTR`, `exec` also `MAP_EXEC`); the kernel asks for one of these at a time.
pub mod op {
    /// Reading a file's data, listing a directory.
    pub const READ: u32 = 0;
    /// Writing or truncating a file's data.
    pub const WRITE: u32 = 1;
    /// Writing at a file's end only.
    pub const APPEND: u32 = 2;
    /// A new name: file, directory, node, symbolic link.
    pub const CREATE: u32 = 3;
    /// Removing a name.
    pub const DELETE: u32 = 4;
    /// Either name of a rename.
    pub const RENAME: u32 = 5;
    /// Either name of a hard link.
    pub const LINK: u32 = 6;
    /// Mode, owner, times, extended attributes, ACLs.
    pub const ATTR: u32 = 7;
    /// Executing a program, its script or its interpreter.
    pub const EXEC: u32 = 8;
    /// Mapping a file executable.
    pub const MAP_EXEC: u32 = 9;
    /// Mounting, at the mount point.
    pub const MOUNT: u32 = 10;
    /// Unmounting.
    pub const UMOUNT: u32 = 11;
    /// Connecting a socket, or sending to an address without having connected.
    pub const CONNECT: u32 = 12;
    /// Binding a socket.
    pub const BIND: u32 = 13;
    /// Listening.
    pub const LISTEN: u32 = 14;
    /// Sending.
    pub const SEND: u32 = 15;
    /// Making a socket.
    pub const SOCKET: u32 = 16;
    /// Loading a kernel module.
    pub const MODULE_LOAD: u32 = 17;
    /// Loading another kernel.
    pub const KEXEC: u32 = 18;
    /// Attaching to another process, or writing its memory.
    pub const PTRACE: u32 = 19;
    /// The `bpf` system call.
    pub const BPF: u32 = 20;
    /// The `perf_event_open` system call.
    pub const PERF: u32 = 21;
    /// A new user namespace.
    pub const USERNS: u32 = 22;
    /// Use of a capability.
    pub const CAPABILITY: u32 = 23;
    /// Changing the user ids.
    pub const SETUID: u32 = 24;
    /// Changing the group ids.
    pub const SETGID: u32 = 25;
    /// Sending a signal.
    pub const SIGNAL: u32 = 26;
    /// An ioctl.
    pub const IOCTL: u32 = 27;
    /// Setting the clock.
    pub const SETTIME: u32 = 28;
    /// How many there are.
    pub const COUNT: u32 = 29;
    /// Their names in the language, by number.
    pub const NAMES: [&str; COUNT as usize] = [
        "read",
        "write",
        "append",
        "create",
        "delete",
        "rename",
        "link",
        "attr",
        "exec",
        "map_exec",
        "mount",
        "umount",
        "connect",
        "bind",
        "listen",
        "send",
        "socket",
        "module_load",
        "kexec",
        "ptrace",
        "bpf",
        "perf",
        "userns",
        "capability",
        "setuid",
        "setgid",
        "signal",
        "ioctl",
        "settime",
    ];
}

/// Numbers of the host half's fields. The search asks them in the sequence of [`crate::chain::ORDER`], so the numbers
/// are chosen such that the telling ones come first: operation, path, executable, user.
pub mod field {
    /// Operation; direct index, one of [`super::op`].
    pub const OP: usize = 4;
    /// Object's path; the class is [`super::Leaf::path`].
    pub const PATH: usize = 3;
    /// Caller's executable; [`super::Leaf::exe`], or [`super::Leaf::tainted`].
    pub const EXE: usize = 9;
    /// User id (fsuid for files, euid otherwise); class by trie [`super::TRIE_UID`].
    pub const UID: usize = 5;
    /// Unit and cgroup; the class is the leaf's `path` of the automaton [`super::HostConsts::cgroups`].
    pub const CGROUP: usize = 6;
    /// Owner, anonymous, container; direct index, see [`super::FLAGS_OWNER`].
    pub const FLAGS: usize = 7;
    /// Group ids: the class is a mask, see [`super::HostConsts::gid`].
    pub const GID: usize = 2;
    /// Login user id; class by trie [`super::TRIE_AUID`].
    pub const AUID: usize = 8;
    /// Executable of the process acted on; [`super::Leaf::target`].
    pub const TARGET: usize = 10;
    /// Address of a socket call; class by tries [`super::TRIE_ADDR4`] and [`super::TRIE_ADDR6`].
    pub const ADDR: usize = 0;
    /// Port of a socket call; direct index as [`crate::chain::DPORT`].
    pub const PORT: usize = 1;
    /// Ancestors' executables: the class is the union of [`super::Leaf::ancestor`] masks.
    pub const ANCESTOR: usize = 11;
    /// File system type: its name, zero-padded to 16 bytes, read as a big-endian number through [`super::TRIE_FSTYPE`].
    pub const FSTYPE: usize = 12;
    /// Socket protocol; direct index 0..=255, [`super::SMALL_ABSENT`].
    pub const PROTO: usize = 13;
    /// Socket family (`AF_`); direct index as above.
    pub const FAMILY: usize = 14;
    /// Socket type (`SOCK_`); direct index as above.
    pub const TYPE: usize = 15;
    /// Capability number; direct index as above.
    pub const CAPABILITY: usize = 16;
    /// Signal number; direct index as above.
    pub const SIGNAL: usize = 17;
    /// How many there are.
    pub const COUNT: usize = 18;
}

/// Index into [`ChainConsts::tries`] in a host chain.
pub const TRIE_ADDR4: usize = 0;
/// IPv6 addresses.
pub const TRIE_ADDR6: usize = 1;
/// User ids, left-aligned as IPv4 addresses are.
pub const TRIE_UID: usize = 2;
/// File system types, as IPv6 addresses are.
pub const TRIE_FSTYPE: usize = 3;
/// Login user ids; `unset` is `u32::MAX`.
pub const TRIE_AUID: usize = 4;

/// Direct index of [`field::PROTO`], [`field::FAMILY`], [`field::TYPE`], [`field::CAPABILITY`] and [`field::SIGNAL`]
/// for a call without one.
pub const SMALL_ABSENT: u32 = 256;
/// The value cannot be told.
pub const SMALL_UNKNOWN: u32 = 257;
/// Size of their direct tables.
pub const SMALL_SPACE: u32 = 258;

/// Direct index of [`field::FLAGS`]: `owner * FLAGS_OWNER + anonymous * FLAGS_ANONYMOUS + container`, each one of the
/// `TRI_` values.
pub const FLAGS_OWNER: u32 = 16;
/// See [`FLAGS_OWNER`].
pub const FLAGS_ANONYMOUS: u32 = 4;
/// Size of the direct table.
pub const FLAGS_SPACE: u32 = 64;
/// The call has no such property (no file).
pub const TRI_ABSENT: u32 = 0;
/// It is false.
pub const TRI_NO: u32 = 1;
/// It is true.
pub const TRI_YES: u32 = 2;
/// It cannot be told.
pub const TRI_UNKNOWN: u32 = 3;

/// Conditions on group ids, and on ancestors, that one policy may have: one bit each of a mask, which is the class.
pub const MASK_CONDITIONS: usize = 8;
/// Class of [`field::GID`] and [`field::ANCESTOR`] when they cannot be told.
pub const MASK_UNKNOWN: u32 = 256;
/// Number of their classes.
pub const MASK_CLASSES: u32 = 257;

/// Direct index of [`field::OP`] is below this.
pub const OP_SPACE: u32 = 32;

/// Leaf of an object without a path: class 0 in every field.
pub const LEAF_ABSENT: u32 = 0;
/// Leaf of an object whose path cannot be told.
pub const LEAF_UNKNOWN: u32 = 1;

/// What a whole path means to each field that can ask for one. Index 0 is [`LEAF_ABSENT`], 1 is [`LEAF_UNKNOWN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// Class of [`field::PATH`] (or [`field::CGROUP`], in that automaton).
    pub path: u32,
    /// Class of [`field::EXE`] for a process that runs this file.
    pub exe: u32,
    /// The same for one that is tainted: no permission by `exe` holds any more.
    pub tainted: u32,
    /// Class of [`field::TARGET`].
    pub target: u32,
    /// Bit `i`: condition `i` on ancestors holds; [`MASK_UNKNOWN`] in [`LEAF_UNKNOWN`], where a union with it is that.
    pub ancestor: u32,
    /// [`LEAF_TRUSTED`].
    pub flags: u32,
}
bytes!(Leaf: 24);

/// [`Leaf::flags`]: mapping this file executable does not taint (it lies in a trusted tree).
pub const LEAF_TRUSTED: u32 = 1;

/// What a path automaton's state means at the end of a component, by the number in the state's last column. Number 0
/// is all zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateInfo {
    /// Which patterns `BASE/**` begin here: second half of a key of [`Automaton::combine`]; 0: none.
    pub tree: u32,
    /// Which patterns without a tail end here: second half of a key of [`Automaton::finish`]; 0: none.
    pub exact: u32,
    /// What can still be reached below: second half of a key of [`Automaton::below`]; 0: nothing that matters.
    pub reach: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(StateInfo: 16);

/// A hash table in the arena: `mask + 1` [`PairEntry`]s, open addressing. The place of `(a, b)` is
/// `(key * PAIR_MULTIPLIER >> 32) & mask` with `key = a << 32 | b`, then the next ones, at most [`PAIR_PROBES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Offset of the entries.
    pub offset: u32,
    /// Number of entries less one; a power of two less one.
    pub mask: u32,
}
bytes!(Pairs: 8);

/// Multiplier of [`Pairs`]' hash (2^64 divided by the golden ratio).
pub const PAIR_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Entries that are looked at; the compiler makes the table large enough.
pub const PAIR_PROBES: u32 = 8;
/// [`PairEntry::key`] of an unused entry.
pub const PAIR_FREE: u64 = u64::MAX;

/// An entry of [`Pairs`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairEntry {
    /// `a << 32 | b`.
    pub key: u64,
    /// What the pair stands for.
    pub value: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(PairEntry: 16);

/// A path automaton in the arena, read forward.
///
/// Its input is a *kind* (the start state) and then the path's bytes: `/a/b`, nothing for the root. A state is a number
/// of `u32`s from [`Automaton::rows`]; the next state for byte `x` is the word at `state + classes[x]`. State 0 is dead and
/// leads to itself. *Arriving* means the end of a component (and the start itself): [`StateInfo::tree`], if not 0, is
/// added to the *trees* gathered so far (0 at first) by [`Automaton::combine`]. The path's leaf is
/// `finish(trees, exact)`, or, where `exact` is 0, the word `trees` of [`Automaton::tree_leaves`].
///
/// A pair that has no entry cannot occur; whoever misses one takes [`LEAF_UNKNOWN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Automaton {
    /// Offset of 256 bytes: the column of each byte.
    pub classes: u32,
    /// Offset of the rows.
    pub rows: u32,
    /// Column of the state's [`StateInfo`] number.
    pub info: u32,
    /// Offset of the [`StateInfo`]s.
    pub infos: u32,
    /// `(trees, tree) -> trees`.
    pub combine: Pairs,
    /// `(trees, exact) -> leaf`.
    pub finish: Pairs,
    /// `(leaf, reach) -> leaf`: the leaf of a directory that is moved or mounted over, with all that lies below.
    pub below: Pairs,
    /// Offset of the leaf (`u32`) of each `trees`.
    pub tree_leaves: u32,
    /// Offset of the [`Leaf`]s.
    pub leaves: u32,
    /// Start for paths of the host's mounts (and for cgroup paths).
    pub host: u32,
    /// Start for paths on file systems the host has not mounted: only patterns that begin with `**/` live.
    pub foreign: u32,
    /// Start for abstract socket names, without the leading `@`.
    pub abstract_name: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(Automaton: 64);

/// The read-only constants of a host chain: global `HOST`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostConsts {
    /// Tables, with the host half's field numbers; the arena is the map `ARENA_HOST`.
    pub chain: ChainConsts,
    /// Group ids, left-aligned; the trie's classes are masks of gid conditions.
    pub gid: Trie,
    /// Paths of objects and executables.
    pub paths: Automaton,
    /// Paths of cgroups below the cgroup2 mount.
    pub cgroups: Automaton,
    /// Bit per [`op`]: some rule, or the default, may refuse or count it.
    pub ops: u32,
    /// Differs in every generation loaded since boot, never 0: caches carry it. Written by the loader.
    pub serial: u32,
    /// Class of [`field::ADDR`] for an address that cannot be read.
    pub address_unknown: u32,
    /// Class of [`field::FSTYPE`] for a file system whose type cannot be told.
    pub fstype_unknown: u32,
    /// Non-zero: the policy says `protect_self`.
    pub protect_self: u32,
    /// `KEEPS_` bits: what must be kept up for it. Written by the loader.
    pub keeps: u32,
    /// Offset of the *quick* words, which spare most calls a search: row `class of PATH`, column `class of OP`, 0 for a
    /// field that no rule reads. A word is 0 where the other fields must be looked at, else [`QUICK`] with the line that
    /// decides and, at [`QUICK_VERDICT`], its verdict.
    pub quick: u32,
    /// Columns of a row; 0: there are no quick words.
    pub quick_columns: u32,
    /// Class of each field for a call of which nothing is known yet: that of *absent*. Aligned to eight bytes.
    pub absent: [u32; field::COUNT],
}
bytes!(HostConsts: 856);

/// A quick word: whatever else is known of a call, this decides.
pub const QUICK: u32 = 1 << 31;
/// Shift of the verdict in a quick word; below it is the line.
pub const QUICK_VERDICT: u32 = 24;

/// Where the running kernel keeps what the programs read: read-only global `KERNEL`, resolved in its BTF (and, for
/// `rename_lock`, kallsyms). Offsets are in bytes; [`NO_OFFSET`] where this kernel has no such member.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// Address of the `rename_lock` sequence (`u32`).
    pub rename_lock: u64,
    /// Offsets, by [`layout`] index.
    pub offsets: [u32; layout::COUNT],
}
bytes!(KernelLayout: 392);

/// [`KernelLayout::offsets`]: the kernel has no such member.
pub const NO_OFFSET: u32 = u32::MAX;

/// Indices of [`KernelLayout::offsets`].
pub mod layout {
    /// How many there is room for.
    pub const COUNT: usize = 96;

    macro_rules! members {
        ($($name:ident = ($structure:literal, $member:literal);)+) => {
            #[repr(usize)]
            #[allow(clippy::upper_case_acronyms, non_camel_case_types, reason = "only numbers the constants below")]
            enum Index { $($name),+ }
            $(
                #[doc = concat!("`", $structure, "`: `", $member, "`.")]
                pub const $name: usize = Index::$name as usize;
            )+
            /// Structure and member path of each offset in use, by index. Two names with `|` between: the first that
            /// exists.
            pub const MEMBERS: [(&str, &str); [$($member),+].len()] = [$(($structure, $member)),+];
        };
    }

    members! {
        DENTRY_PARENT = ("dentry", "d_parent");
        DENTRY_NAME = ("dentry", "d_name.name");
        DENTRY_LEN = ("dentry", "d_name.len");
        DENTRY_INODE = ("dentry", "d_inode");
        DENTRY_SB = ("dentry", "d_sb");
        DENTRY_FLAGS = ("dentry", "d_flags");
        DENTRY_ALIAS = ("dentry", "d_u.d_alias");
        DENTRY_SEQ = ("dentry", "d_seq");
        FILE_DENTRY = ("file", "f_path.dentry");
        FILE_INODE = ("file", "f_inode");
        FILE_FLAGS = ("file", "f_flags");
        FILE_MODE = ("file", "f_mode");
        FILE_PRIVATE = ("file", "private_data");
        BACKING_DENTRY = ("backing_file", "user_path.dentry");
        INODE_SB = ("inode", "i_sb");
        INODE_MODE = ("inode", "i_mode");
        INODE_UID = ("inode", "i_uid");
        INODE_NLINK = ("inode", "__i_nlink|i_nlink");
        INODE_ALIASES = ("inode", "i_dentry.first");
        IATTR_VALID = ("iattr", "ia_valid");
        SB_ROOT = ("super_block", "s_root");
        SB_DEV = ("super_block", "s_dev");
        SB_MAGIC = ("super_block", "s_magic");
        SB_FLAGS = ("super_block", "s_flags");
        SB_TYPE = ("super_block", "s_type");
        FSTYPE_NAME = ("file_system_type", "name");
        PATH_DENTRY = ("path", "dentry");
        PATH_MNT = ("path", "mnt");
        VFSMOUNT_SB = ("vfsmount", "mnt_sb");
        VFSMOUNT_ROOT = ("vfsmount", "mnt_root");
        BPRM_FILE = ("linux_binprm", "file");
        VMA_FILE = ("vm_area_struct", "vm_file");
        TASK_CRED = ("task_struct", "cred");
        TASK_TGID = ("task_struct", "tgid");
        TASK_LEADER = ("task_struct", "group_leader");
        TASK_MM = ("task_struct", "mm");
        TASK_NSPROXY = ("task_struct", "nsproxy");
        TASK_CGROUPS = ("task_struct", "cgroups");
        TASK_LOGINUID = ("task_struct", "loginuid");
        TASK_PID = ("task_struct", "thread_pid");
        TASK_FLAGS = ("task_struct", "flags");
        TASK_PTRACE = ("task_struct", "ptrace");
        TASK_FILES = ("task_struct", "files");
        MM_EXE_FILE = ("mm_struct", "exe_file");
        CRED_FSUID = ("cred", "fsuid");
        CRED_EUID = ("cred", "euid");
        CRED_FSGID = ("cred", "fsgid");
        CRED_EGID = ("cred", "egid");
        CRED_GROUPS = ("cred", "group_info");
        GROUPS_COUNT = ("group_info", "ngroups");
        GROUPS_GID = ("group_info", "gid");
        FOWN_EUID = ("fown_struct", "euid");
        NSPROXY_MNT = ("nsproxy", "mnt_ns");
        MNTNS_INUM = ("mnt_namespace", "ns.inum");
        PID_LEVEL = ("pid", "level");
        CSS_CGROUP = ("css_set", "dfl_cgrp");
        CGROUP_NODE = ("cgroup", "kn");
        NODE_PARENT = ("kernfs_node", "__parent|parent");
        NODE_NAME = ("kernfs_node", "name");
        FILES_TABLE = ("files_struct", "fdt");
        TABLE_FDS = ("fdtable", "fd");
        TABLE_SIZE = ("fdtable", "max_fds");
        SOCKET_SK = ("socket", "sk");
        SOCKET_TYPE = ("socket", "type");
        SOCK_FAMILY = ("sock", "__sk_common.skc_family");
        SOCK_PEER4 = ("sock", "__sk_common.skc_daddr");
        SOCK_PEER6 = ("sock", "__sk_common.skc_v6_daddr");
        SOCK_PEER_PORT = ("sock", "__sk_common.skc_dport");
        SOCK_LOCAL4 = ("sock", "__sk_common.skc_rcv_saddr");
        SOCK_LOCAL6 = ("sock", "__sk_common.skc_v6_rcv_saddr");
        SOCK_LOCAL_PORT = ("sock", "__sk_common.skc_num");
        SOCK_PROTOCOL = ("sock", "sk_protocol");
        SOCK_TYPE = ("sock", "sk_type");
        UNIX_PEER = ("unix_sock", "peer");
        UNIX_DENTRY = ("unix_sock", "path.dentry");
        UNIX_ADDRESS = ("unix_sock", "addr");
        ADDRESS_LEN = ("unix_address", "len");
        ADDRESS_NAME = ("unix_address", "name");
        MESSAGE_NAME = ("msghdr", "msg_name");
        MESSAGE_NAME_LEN = ("msghdr", "msg_namelen");
        MAP_ID = ("bpf_map", "id");
        PROG_AUX = ("bpf_prog", "aux");
        AUX_ID = ("bpf_prog_aux", "id");
        LINK_ID = ("bpf_link", "id");
    }

    /// Arguments of hooks whose place differs between kernels: hook, and the structure that the first such argument
    /// points to. Its position is at index [`MEMBERS`]`.len()` + the index here.
    pub const ARGUMENTS: [(&str, &str); 1] = [("inode_setattr", "dentry")];
    /// Position of the dentry among `inode_setattr`'s arguments: 0, since Linux 6.3 1.
    pub const SETATTR_DENTRY: usize = MEMBERS.len();

    const _: () = assert!(MEMBERS.len() + ARGUMENTS.len() <= COUNT);
}

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
    /// Number of executables known ([`EXES`]), added to atomically; the next id is one more.
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
    /// `s_dev` as the kernel keeps it (`major << 20 | minor`); for file systems that show the kernel's own state
    /// (proc, sysfs ...), [`MOUNT_BY_MAGIC`] and the magic number: every instance of them is the same.
    pub device: u64,
    /// Number, 0..[`MOUNT_ROOTS`].
    pub index: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(MountKey: 16);

/// Bit of [`MountKey::device`].
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
    /// Bytes of `root`; 0: all of the file system.
    pub root_len: u32,
    /// Bytes of `point`; 0: it is mounted at `/`.
    pub point_len: u32,
    /// Path within the file system, without a trailing slash.
    pub root: [u8; MOUNT_PATH],
    /// Host path of the mount point, without a trailing slash.
    pub point: [u8; MOUNT_PATH],
}
bytes!(Mount: 520);

/// Value of the inode storage `DIRS`: the automaton after a directory's path. Valid only while all of `serial`, `epoch`,
/// `sequence` and `age` are what they are now.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// [`HostConsts::serial`].
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
    /// Zero.
    pub zero: u32,
}
bytes!(Directory: 56);

/// [`Directory::flags`]: on a file system that the host has not mounted.
pub const DIRECTORY_FOREIGN: u32 = 1;
/// [`Directory::flags`]: on a file system that compares names in its own way.
pub const DIRECTORY_FOLDS: u32 = 2;

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
    /// Union of the ancestors' [`Leaf::ancestor`]; stored together with `serial`.
    pub mask: u32,
    /// [`HostConsts::serial`] for which `mask` was computed.
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
    /// [`HostConsts::serial`].
    pub serial: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(CgroupKey: 16);

/// Dynamic path entries at most: their numbers are bits of a word.
pub const MAX_PATH_ENTRIES: u32 = 64;

/// Value of the pinned array `PATH_ENTRIES` (`ringctl deny PATH`), by entry number. `id` 0: unused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathEntry {
    /// Grows with every `deny` and `allow`, over both halves.
    pub id: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME` from which it no longer matches; 0: never expires.
    pub expires: u64,
    /// Calls it decided, added atomically by the programs.
    pub hits: u64,
    /// Bit per [`op`].
    pub ops: u32,
    /// [`crate::verdict::ACCEPT`] or [`crate::verdict::DROP`].
    pub verdict: u32,
    /// User id; [`ANY`]: every.
    pub uid: u32,
    /// Executable's id; [`ANY`]: every.
    pub exe: u32,
}
bytes!(PathEntry: 40);

/// [`PathEntry::uid`] and [`PathEntry::exe`]: any.
pub const ANY: u32 = u32::MAX;

/// Key of the pinned map `PATH_HASHES`, whose value (`u64`) has the bits of the entries for that path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathHashKey {
    /// [`hash_byte`] over the host path, from [`HostState::secret`].
    pub hash: u64,
    /// One of the `PATH_` values.
    pub tree: u64,
}
bytes!(PathHashKey: 16);

/// [`PathHashKey::tree`]: the path itself.
pub const PATH_ITSELF: u64 = 0;
/// The path and all below it.
pub const PATH_TREE: u64 = 1;
/// A directory that the entry's path lies below: moving it, or mounting over it, touches that.
pub const PATH_ABOVE: u64 = 2;

/// One step of the hash by which dynamic path entries are found. Keyed by a secret: who cannot read that cannot make
/// another path that is taken for an allowed one.
#[inline(always)]
#[must_use]
pub const fn hash_byte(hash: u64, byte: u8) -> u64 {
    let mixed = (hash ^ byte as u64).wrapping_mul(0x9fb2_1c65_1e98_df25);
    mixed ^ mixed >> 32
}

/// Names of the host chain's built-in counters in the places that packets use for the floor and for malformed frames
/// ([`crate::counter::FLOOR`], [`crate::counter::MALFORMED`]): why a path, a subject or a call was unknown, or was let
/// through before any rule.
pub mod line {
    use crate::counter::{FLOOR, MALFORMED};

    /// Let through because the caller is PID 1.
    pub const INIT: u32 = FLOOR;
    /// More than 64 components.
    pub const DEPTH: u32 = FLOOR + 1;
    /// More than 4,096 bytes.
    pub const LENGTH: u32 = FLOOR + 2;
    /// A file system that is not in the mount table, asked for from the host's mount namespace.
    pub const SUPERBLOCK: u32 = FLOOR + 3;
    /// The walk did not end at the file system's root.
    pub const DISCONNECTED: u32 = FLOOR + 4;
    /// Names changed during the walk, three times.
    pub const TORN: u32 = FLOOR + 5;
    /// A name that the file system compares in its own way against a pattern that does not fold.
    pub const FOLDED: u32 = FLOOR + 6;
    /// Working memory or kernel memory could not be had.
    pub const MEMORY: u32 = MALFORMED;
    /// The caller's executable or its ancestors.
    pub const SUBJECT: u32 = MALFORMED + 1;
    /// The caller's cgroup.
    pub const CGROUP: u32 = MALFORMED + 2;
    /// A socket address that cannot be read.
    pub const ADDRESS: u32 = MALFORMED + 3;
    /// No program of the generation in force where its slot must have one: refused.
    pub const DISPATCH: u32 = MALFORMED + 4;
    /// Refused because it reaches Ringfence itself (`protect_self`).
    pub const PROTECTED: u32 = MALFORMED + 5;
    /// Their names, from [`FLOOR`] on.
    pub const NAMES: [&str; 13] = [
        "init",
        "unknown/depth",
        "unknown/length",
        "unknown/superblock",
        "unknown/disconnected",
        "unknown/torn",
        "unknown/folded",
        "unknown/memory",
        "unknown/subject",
        "unknown/cgroup",
        "unknown/address",
        "dispatch",
        "protected",
    ];
    /// What each of them says in listings: why something was unknown is only counted, the rules decide.
    pub const VERBS: [&str; NAMES.len()] = [
        "allow", "count", "count", "count", "count", "count", "count", "count", "count", "count", "count", "deny",
        "deny",
    ];
}

/// What `ringctl explain --access` asks: value of the map `ACCESS_IN`. Paths are host paths.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessQuestion {
    /// One of [`op`].
    pub op: u32,
    /// User id.
    pub uid: u32,
    /// Login user id.
    pub auid: u32,
    /// Mask of gid conditions ([`field::GID`]), found by user space.
    pub gids: u32,
    /// Index of [`field::FLAGS`].
    pub flags: u32,
    /// Leaf of the caller's executable, found by user space.
    pub exe: u32,
    /// Class of [`field::ANCESTOR`].
    pub ancestors: u32,
    /// Leaf of the target's executable.
    pub target: u32,
    /// Class of [`field::CGROUP`].
    pub cgroup: u32,
    /// Address family: 0, [`crate::dynamic::V4`] or [`crate::dynamic::V6`].
    pub address_family: u32,
    /// The address, as in [`crate::dynamic::EntryKey`].
    pub address: [u64; 2],
    /// Direct index of [`field::PORT`].
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
    /// Id of the caller's executable, which dynamic entries ask for; [`EXE_UNKNOWN`].
    pub exe_id: u32,
    /// Non-zero: the caller runs foreign code ([`Leaf::tainted`]).
    pub tainted: u32,
}
bytes!(AccessQuestion: 624);

/// A hook of the security module interface that the host half can attach to.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Its name: the kernel's function is `bpf_lsm_NAME`, our programs `d_NAME` (dispatcher) and `h_NAME` (a generation's).
    pub name: &'static str,
    /// Name of its program array, `SLOTS` entries: kernels from 6.12 on want one array a hook.
    pub array: &'static str,
    /// Attached for a generation that may refuse or count one of these ([`op`] bits) ...
    pub ops: u32,
    /// ... or that needs this kept up ([`KEEPS_SUBJECTS`], [`KEEPS_MOUNTS`], [`KEEPS_SELF`]).
    pub keeps: u32,
}

/// [`Hook::keeps`]: executables and ancestors of processes.
pub const KEEPS_SUBJECTS: u32 = 1;
/// The mount table, for policies with paths.
pub const KEEPS_MOUNTS: u32 = 2;
/// Ringfence's own maps, programs and links, for policies that say `protect_self`.
pub const KEEPS_SELF: u32 = 4;

const fn bit(op: u32) -> u32 {
    1 << op
}

const fn hook(name: &'static str, array: &'static str, ops: u32, keeps: u32) -> Hook {
    Hook { name, array, ops, keeps }
}

/// Every hook in use; the index is its bit in [`HostState::hooks`]. One that the running kernel lacks is left out and
/// shown in the status.
pub const HOOKS: [Hook; 56] = {
    #[allow(clippy::wildcard_imports, reason = "every operation is named below")]
    use op::*;
    const DATA: u32 = bit(READ) | bit(WRITE) | bit(APPEND);
    const EXECS: u32 = bit(EXEC) | bit(MAP_EXEC);
    // A new name is also refused where the old one protected the object.
    const NAMES: u32 = DATA | EXECS | bit(ATTR);
    const MOVES: u32 = NAMES | bit(CREATE) | bit(DELETE) | bit(RENAME) | bit(LINK);
    const SENDS: u32 = bit(SEND) | bit(CONNECT);
    const MOUNTS: u32 = bit(MOUNT) | MOVES;
    [
        hook("file_open", "P_file_open", DATA, 0),
        hook("file_receive", "P_file_receive", DATA, 0),
        hook("file_truncate", "P_file_trunc", bit(WRITE), 0),
        hook("path_truncate", "P_path_trunc", bit(WRITE), 0),
        hook("inode_create", "P_create", bit(CREATE), 0),
        hook("inode_mkdir", "P_mkdir", bit(CREATE), 0),
        // A Unix socket is bound to a path by making it.
        hook("inode_mknod", "P_mknod", bit(CREATE) | bit(BIND), 0),
        hook("inode_symlink", "P_symlink", bit(CREATE), 0),
        hook("inode_unlink", "P_unlink", bit(DELETE), 0),
        hook("inode_rmdir", "P_rmdir", bit(DELETE), 0),
        hook("inode_rename", "P_rename", MOVES, 0),
        hook("inode_link", "P_link", MOVES, 0),
        hook("inode_setattr", "P_setattr", bit(ATTR) | bit(WRITE), 0),
        hook("inode_setxattr", "P_setxattr", bit(ATTR), 0),
        hook("inode_removexattr", "P_rmxattr", bit(ATTR), 0),
        hook("inode_set_acl", "P_setacl", bit(ATTR), 0),
        hook("inode_remove_acl", "P_rmacl", bit(ATTR), 0),
        hook("bprm_check_security", "P_exec", bit(EXEC), KEEPS_SUBJECTS),
        hook("bprm_committed_creds", "P_committed", 0, KEEPS_SUBJECTS),
        hook("task_alloc", "P_task_alloc", 0, KEEPS_SUBJECTS),
        hook("mmap_file", "P_mmap", EXECS, KEEPS_SUBJECTS),
        hook("mmap_backing_file", "P_mmap_back", EXECS, KEEPS_SUBJECTS),
        hook("file_mprotect", "P_mprotect", EXECS, KEEPS_SUBJECTS),
        hook("sb_mount", "P_sb_mount", MOUNTS, KEEPS_MOUNTS),
        hook("sb_kern_mount", "P_sb_kern", 0, KEEPS_MOUNTS),
        hook("sb_free_security", "P_sb_free", 0, KEEPS_MOUNTS),
        hook("move_mount", "P_move_mount", MOUNTS, KEEPS_MOUNTS),
        hook("sb_remount", "P_remount", bit(MOUNT), 0),
        hook("sb_pivotroot", "P_pivot", bit(MOUNT), 0),
        hook("sb_umount", "P_umount", bit(UMOUNT), 0),
        hook("socket_create", "P_sock_create", bit(SOCKET), 0),
        hook("socket_bind", "P_bind", bit(BIND), 0),
        hook("socket_connect", "P_connect", bit(CONNECT), 0),
        hook("sctp_bind_connect", "P_sctp", bit(BIND) | bit(CONNECT), 0),
        hook("socket_listen", "P_listen", bit(LISTEN), 0),
        hook("socket_sendmsg", "P_sendmsg", SENDS, 0),
        hook("unix_stream_connect", "P_unix_conn", bit(CONNECT), 0),
        hook("unix_may_send", "P_unix_send", SENDS, 0),
        hook("kernel_read_file", "P_read_file", bit(MODULE_LOAD) | bit(KEXEC), 0),
        hook("kernel_load_data", "P_load_data", bit(MODULE_LOAD) | bit(KEXEC), 0),
        hook("ptrace_access_check", "P_ptrace", bit(PTRACE), KEEPS_SUBJECTS),
        hook("ptrace_traceme", "P_traceme", bit(PTRACE), KEEPS_SUBJECTS),
        hook("bpf", "P_bpf", bit(BPF), KEEPS_SELF),
        hook("bpf_map", "P_bpf_map", 0, KEEPS_SELF),
        hook("bpf_prog", "P_bpf_prog", 0, KEEPS_SELF),
        hook("perf_event_open", "P_perf", bit(PERF), 0),
        hook("userns_create", "P_userns", bit(USERNS), 0),
        hook("capable", "P_capable", bit(CAPABILITY) | bit(SETTIME), 0),
        hook("task_fix_setuid", "P_setuid", bit(SETUID), 0),
        hook("task_fix_setgid", "P_setgid", bit(SETGID), 0),
        hook("task_fix_setgroups", "P_setgroups", bit(SETGID), 0),
        hook("task_kill", "P_kill", bit(SIGNAL), 0),
        hook("file_send_sigiotask", "P_sigio", bit(SIGNAL), 0),
        hook("file_ioctl", "P_ioctl", bit(IOCTL), 0),
        hook("file_ioctl_compat", "P_ioctl32", bit(IOCTL), 0),
        hook("settime", "P_settime", bit(SETTIME), 0),
    ]
};

/// Where `connect` and `bind` are judged on kernels that give no security hooks: programs at a cgroup, `d_NAME` and
/// `h_NAME` as above. Their bits in [`HostState::hooks`] follow those of [`HOOKS`].
pub const CGROUP_HOOKS: [Hook; 6] = [
    hook("cg_connect4", "C_connect4", bit(op::CONNECT), 0),
    hook("cg_connect6", "C_connect6", bit(op::CONNECT), 0),
    hook("cg_sendmsg4", "C_sendmsg4", bit(op::CONNECT), 0),
    hook("cg_sendmsg6", "C_sendmsg6", bit(op::CONNECT), 0),
    hook("cg_bind4", "C_bind4", bit(op::BIND), 0),
    hook("cg_bind6", "C_bind6", bit(op::BIND), 0),
];

const _: () = assert!(HOOKS.len() + CGROUP_HOOKS.len() <= 64, "a hook is a bit of a word");

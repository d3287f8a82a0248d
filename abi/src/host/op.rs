//! Operations a call can ask for. What a rule's `op:` word covers is decided by the compiler (`write` covers
//! `WRITE..=ATTR`, `exec` also `MAP_EXEC`); the kernel asks for one of these at a time.

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

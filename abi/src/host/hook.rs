//! The hooks, and the operations each is needed for.

use super::op;

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

/// Every hook in use; the index is its bit in `HostState::hooks`. One that the running kernel lacks is left out and
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
/// `h_NAME` as above. Their bits in [`HostState::hooks`](super::HostState::hooks) follow those of [`HOOKS`].
pub const CGROUP_HOOKS: [Hook; 6] = [
    hook("cg_connect4", "C_connect4", bit(op::CONNECT), 0),
    hook("cg_connect6", "C_connect6", bit(op::CONNECT), 0),
    hook("cg_sendmsg4", "C_sendmsg4", bit(op::CONNECT), 0),
    hook("cg_sendmsg6", "C_sendmsg6", bit(op::CONNECT), 0),
    hook("cg_bind4", "C_bind4", bit(op::BIND), 0),
    hook("cg_bind6", "C_bind6", bit(op::BIND), 0),
];

const _: () = assert!(HOOKS.len() + CGROUP_HOOKS.len() <= 64, "a hook is a bit of a word");

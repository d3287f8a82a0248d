//! Indices of [`KernelLayout::offsets`](super::KernelLayout::offsets).

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
    SB_ACTIVE = ("super_block", "s_active.counter");
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

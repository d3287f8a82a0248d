//! Tasks and their credentials.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
#[allow(clippy::wildcard_imports, reason = "the offsets' names")]
use ringfence_abi::host::layout::*;

use super::{Cred, Task, load, member_address, peek, peek_member};

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task_btf() }.cast())
    }
    /// PID 1, which is never refused.
    #[inline(always)]
    pub fn is_init(self) -> bool {
        load::<u32>(self.0, TASK_TGID) == 1
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

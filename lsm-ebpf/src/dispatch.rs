//! What is attached to security hooks: programs that never change, and hand each call to the generation in force.
//!
//! Each reads the cell's word once and tail-calls the program of the slot it names. Where that slot must have a program
//! for this hook and has none, the call is refused and counted; otherwise the generation does not judge here.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{lsm, map},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::LsmContext,
};
use ringfence_abi::{
    generation::{Cell, CellWord, SLOTS},
    host::{HOOKS, HostState},
};

#[map]
static CELL: Array<Cell> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static HOST_STATE: Array<HostState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Calls refused because no program was where it must be.
#[map]
static HOST_MISS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// `EACCES` as hooks return it.
const REFUSED: i32 = -13;

/// The number of a hook: its bit in [`HostState::hooks`].
const fn number(name: &str) -> u32 {
    let mut number = 0;
    while !same(HOOKS[number].name.as_bytes(), name.as_bytes()) {
        number += 1;
    }
    number as u32
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A dispatcher and its program array for each hook; newer kernels want one array a hook.
macro_rules! dispatchers {
    ($($hook:literal $program:ident $array:ident;)+) => {
        $(
            #[map]
            #[allow(non_upper_case_globals, reason = "named after the hook")]
            static $array: ProgramArray = ProgramArray::with_max_entries(SLOTS, 0);

            #[lsm(hook = $hook)]
            fn $program(ctx: LsmContext) -> i32 {
                dispatch(&ctx, &$array, const { number($hook) })
            }

            const _: () = assert!(same(HOOKS[number($hook) as usize].array.as_bytes(), stringify!($array).as_bytes()));
        )+
        const _: () = assert!([$($hook),+].len() == HOOKS.len(), "every hook has a dispatcher");
    };
}

dispatchers! {
    "file_open" d_file_open P_file_open;
    "file_receive" d_file_receive P_file_receive;
    "file_truncate" d_file_truncate P_file_trunc;
    "path_truncate" d_path_truncate P_path_trunc;
    "inode_create" d_inode_create P_create;
    "inode_mkdir" d_inode_mkdir P_mkdir;
    "inode_mknod" d_inode_mknod P_mknod;
    "inode_symlink" d_inode_symlink P_symlink;
    "inode_unlink" d_inode_unlink P_unlink;
    "inode_rmdir" d_inode_rmdir P_rmdir;
    "inode_rename" d_inode_rename P_rename;
    "inode_link" d_inode_link P_link;
    "inode_setattr" d_inode_setattr P_setattr;
    "inode_setxattr" d_inode_setxattr P_setxattr;
    "inode_removexattr" d_inode_removexattr P_rmxattr;
    "inode_set_acl" d_inode_set_acl P_setacl;
    "inode_remove_acl" d_inode_remove_acl P_rmacl;
    "bprm_check_security" d_bprm_check_security P_exec;
    "bprm_committed_creds" d_bprm_committed_creds P_committed;
    "task_alloc" d_task_alloc P_task_alloc;
    "mmap_file" d_mmap_file P_mmap;
    "mmap_backing_file" d_mmap_backing_file P_mmap_back;
    "file_mprotect" d_file_mprotect P_mprotect;
    "sb_mount" d_sb_mount P_sb_mount;
    "sb_kern_mount" d_sb_kern_mount P_sb_kern;
    "sb_free_security" d_sb_free_security P_sb_free;
    "move_mount" d_move_mount P_move_mount;
    "sb_remount" d_sb_remount P_remount;
    "sb_pivotroot" d_sb_pivotroot P_pivot;
    "sb_umount" d_sb_umount P_umount;
    "socket_create" d_socket_create P_sock_create;
    "socket_bind" d_socket_bind P_bind;
    "socket_connect" d_socket_connect P_connect;
    "sctp_bind_connect" d_sctp_bind_connect P_sctp;
    "socket_listen" d_socket_listen P_listen;
    "socket_sendmsg" d_socket_sendmsg P_sendmsg;
    "unix_stream_connect" d_unix_stream_connect P_unix_conn;
    "unix_may_send" d_unix_may_send P_unix_send;
    "kernel_read_file" d_kernel_read_file P_read_file;
    "kernel_load_data" d_kernel_load_data P_load_data;
    "ptrace_access_check" d_ptrace_access_check P_ptrace;
    "ptrace_traceme" d_ptrace_traceme P_traceme;
    "bpf" d_bpf P_bpf;
    "bpf_map" d_bpf_map P_bpf_map;
    "bpf_prog" d_bpf_prog P_bpf_prog;
    "perf_event_open" d_perf_event_open P_perf;
    "userns_create" d_userns_create P_userns;
    "capable" d_capable P_capable;
    "task_fix_setuid" d_task_fix_setuid P_setuid;
    "task_fix_setgid" d_task_fix_setgid P_setgid;
    "task_fix_setgroups" d_task_fix_setgroups P_setgroups;
    "task_kill" d_task_kill P_kill;
    "file_send_sigiotask" d_file_send_sigiotask P_sigio;
    "file_ioctl" d_file_ioctl P_ioctl;
    "file_ioctl_compat" d_file_ioctl_compat P_ioctl32;
    "settime" d_settime P_settime;
}

#[inline(always)]
fn dispatch(ctx: &LsmContext, programs: &ProgramArray, hook: u32) -> i32 {
    let Some(cell) = CELL.get_ptr(0) else { return 0 };
    // SAFETY: the map's only value; user space stores the word atomically, and an aligned load does not tear.
    let word = CellWord::unpack(unsafe { (&raw const (*cell).word).read_volatile() });
    let slot = u32::from(if word.deadline == 0 { word.current } else { word.slot(now()) });
    // SAFETY: no destructor is pending here, and the array holds programs for this hook only.
    unsafe { programs.tail_call(ctx, slot) };
    let Some(state) = HOST_STATE.get_ptr(0) else { return 0 };
    // LLVM may otherwise compare another copy of it than the one that is used.
    let mut slot = u64::from(slot);
    // SAFETY: copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) slot) };
    // No generation at all lies beyond the slots.
    if slot >= u64::from(SLOTS) {
        return 0;
    }
    // SAFETY: within the map's only value, as just compared; an aligned load does not tear.
    let judged = unsafe { (&raw const (*state).hooks[slot as usize]).read_volatile() };
    // SAFETY: the helper has no preconditions.
    if judged >> hook & 1 == 0 || unsafe { bpf_get_current_pid_tgid() } >> 32 == 1 {
        return 0;
    }
    if let Some(missed) = HOST_MISS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value; a count lost to preemption refuses the call all the same.
        unsafe { *missed += 1 };
    }
    REFUSED
}

/// Seconds of `CLOCK_BOOTTIME`.
#[inline(always)]
fn now() -> u32 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_ktime_get_boot_ns() } / 1_000_000_000) as u32
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The helpers above are for programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

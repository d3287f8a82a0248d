//! Executing, and what becomes of a process' executable.

use core::ffi::c_void;

use aya_ebpf::{bindings::BPF_NOEXIST, macros::lsm, programs::LsmContext};
use ringfence_abi::host::{
    DIRECTORY_FOREIGN, EXE_FOREIGN, EXE_PATH, EXE_UNKNOWN, EXES as EXES_COUNT, KEEPS_SUBJECTS, MAX_ANCESTORS,
    SUBJECT_ANCESTORS_LOST, SUBJECT_KNOWN, SUBJECT_TAINTED, Subject, op::EXEC,
};
use ringfence_engine::ro::read;

use crate::{
    arena::opaque,
    call::{bit, judged},
    kernel::{File, Task, argument, copy},
    maps::{EXE_LEAVES, EXES, HOST, SUBJECTS, scratch},
    repeat::repeat,
    report,
    scratch::{Frame, TOP},
    subject::known,
    walk::{self, Wish},
};

const CLONE_THREAD: u64 = 0x1_0000;

/// execve, execveat; once for each of script and interpreters.
#[lsm(hook = "bprm_check_security")]
fn h_bprm_check_security(ctx: LsmContext) -> i32 {
    let task = Task::current();
    if read(&HOST.keeps) & KEEPS_SUBJECTS != 0
        && !task.is_leader()
        && let Some(subject) = known(task.leader())
        && let Some(own) = SUBJECTS.get_or_create(task)
    {
        // A thread that executes becomes the leader.
        // SAFETY: two values of the map.
        unsafe { *own = *subject };
    }
    let file = File::of_exec(argument(&ctx, 0));
    judged(bit(EXEC), |call| if call.file(file)? { call.ask(bit(EXEC)) } else { Some(true) })
}

/// A process has become what it executes: of a script that is the interpreter.
#[lsm(hook = "bprm_committed_creds")]
fn h_bprm_committed_creds(ctx: LsmContext) -> i32 {
    let task = Task::current();
    if read(&HOST.keeps) & KEEPS_SUBJECTS == 0 {
        return 0;
    }
    let Some(subject) = SUBJECTS.get_or_create(task) else { return 0 };
    // SAFETY: a value of the map.
    let subject = unsafe { &mut *subject };
    let mut flags = SUBJECT_KNOWN | subject.flags & SUBJECT_ANCESTORS_LOST;
    if subject.flags & SUBJECT_KNOWN == 0 {
        flags |= SUBJECT_ANCESTORS_LOST;
    }
    // Whoever traces it still does.
    if task.is_traced() {
        flags |= SUBJECT_TAINTED;
    }
    subject.exe = EXE_UNKNOWN;
    subject.flags = flags;
    let Some(frame) = Frame::new(scratch(task)) else { return 0 };
    subject.exe = identify(&frame, File::of_exec(argument(&ctx, 0))).unwrap_or(EXE_UNKNOWN);
    0
}

/// The id of an executable; a new one if it has none yet.
#[inline(always)]
fn identify(frame: &Frame, file: File) -> Option<u32> {
    let dentry = file.dentry();
    frame.scratch().climb.at = TOP;
    frame.scratch().progress.line = 1;
    walk::locate(frame, dentry, 0, Wish { below: false, text: true });
    let scratch = frame.scratch();
    if scratch.progress.line != 0 {
        return None;
    }
    let leaf = scratch.places[0].leaf;
    // SAFETY: 256 bytes in words; one by one, because a call of `memset` is a loop of its own.
    let words = unsafe { &mut *(&raw mut scratch.key).cast::<[u64; EXE_PATH / 8]>() };
    for word in words {
        // SAFETY: a reference is valid for writes.
        unsafe { core::ptr::write_volatile(word, 0) };
    }
    let foreign = scratch.directory.flags & DIRECTORY_FOREIGN != 0;
    let at = opaque(u64::from(scratch.climb.at));
    if at > u64::from(TOP) {
        return None;
    }
    let mut to = (&raw mut scratch.key).cast::<u8>();
    let mut room = EXE_PATH as u64;
    if foreign {
        scratch.key.bytes[0] = EXE_FOREIGN;
        to = to.wrapping_add(1);
        room -= 1;
    }
    let length = opaque(u64::from(TOP + 1 + dentry.name_len()) - at);
    if length == 0 || length > room {
        return None;
    }
    let from = (&raw const scratch.path).cast::<u8>().wrapping_add(at as usize);
    // The verifier wants to see once more that it is no negative number.
    if !copy(to, (opaque(length) & 0x1ff) as u32, from as u64) {
        return None;
    }
    let id = id_of_key(frame)?;
    if let Some(entry) = EXE_LEAVES.get_ptr_mut(id) {
        // SAFETY: a value of the map; whoever else writes it writes the same.
        unsafe { entry.write_volatile(leaf) };
    }
    Some(id)
}

#[inline(always)]
fn id_of_key(frame: &Frame) -> Option<u32> {
    let key = &frame.scratch().key;
    // SAFETY: the value is never changed.
    if let Some(id) = unsafe { EXES.get(key) } {
        return Some(*id);
    }
    let count = &raw mut unsafe { &mut *frame.state() }.exes;
    let last = report::fetch_add(count, 1);
    if last >= EXES_COUNT as u64 - 1 {
        return None;
    }
    let id = last as u32 + 1;
    if EXES.insert(key, id, u64::from(BPF_NOEXIST)).is_ok() {
        return Some(id);
    }
    // Somebody else was first.
    // SAFETY: as above.
    unsafe { EXES.get(key) }.copied()
}

/// fork, clone: the child runs what its parent runs, and has it as an ancestor.
#[lsm(hook = "task_alloc")]
fn h_task_alloc(ctx: LsmContext) -> i32 {
    let (child, flags) = (Task(argument(&ctx, 0)), ctx.arg::<u64>(1));
    if flags & CLONE_THREAD != 0 || read(&HOST.keeps) & KEEPS_SUBJECTS == 0 {
        return 0;
    }
    let parent = Task::current();
    if parent.is_kernel() {
        if let Some(subject) = SUBJECTS.get_or_create(child) {
            // SAFETY: a value of the map.
            unsafe { (*subject).flags = SUBJECT_KNOWN };
        }
        return 0;
    }
    let Some(from) = known(parent.leader()) else { return 0 };
    let Some(to) = SUBJECTS.get_or_create(child) else { return 0 };
    // SAFETY: two values of the map.
    unsafe {
        *to = *from;
        // The mask was that of fewer ancestors.
        (*to).serial = 0;
    }
    let inheritance = Inheritance { subject: to };
    repeat!(MAX_ANCESTORS as u32 + 1, inherit, &raw const inheritance);
    0
}

#[repr(C)]
struct Inheritance {
    subject: *mut Subject,
}

/// Enters the executable among the ancestors, once.
unsafe extern "C" fn inherit(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `h_task_alloc` waits for the loop; a value of the map.
    let subject = unsafe { &mut *(*context.cast::<Inheritance>()).subject };
    let index = opaque(u64::from(index));
    if index >= MAX_ANCESTORS as u64 {
        subject.flags |= SUBJECT_ANCESTORS_LOST;
        return 1;
    }
    if index < u64::from(subject.count) {
        return i64::from(subject.ancestors[index as usize] == subject.exe);
    }
    subject.ancestors[index as usize] = subject.exe;
    subject.count = index as u32 + 1;
    1
}

//! A call on its way through a hook: what is common to all of them.

use core::ffi::c_void;

use ringfence_abi::{
    host::{
        FLAGS_ANONYMOUS, FLAGS_OWNER, HostConsts, LEAF_ABSENT, TRI_ABSENT, TRI_NO, TRI_YES,
        field::{COUNT, FLAGS, FSTYPE},
        line, op,
    },
    verdict::DROP,
};
use ringfence_engine::{
    bits::lowest,
    host::access::{Access, Classifier},
    ro::read,
    search::Outcome,
};

use crate::{
    arena::Arena,
    judge::{any_entries, judge},
    kernel::{Dentry, File, Inode, SuperBlock, Task},
    maps::{HOST, scratch, scratch_of_cpu, state},
    mounts,
    repeat::repeat,
    report,
    scratch::Frame,
    subject::{self, CALLER_KNOWN},
    walk::{self, Wish},
};

/// `EACCES` as hooks return it; where the kernel makes something else of it, `docs/host-operations.md` says so.
const REFUSED: i32 = -13;

/// The bit of an operation.
pub const fn bit(op: u32) -> u32 {
    1 << op
}

const _: () =
    assert!(COUNT % 2 == 0 && size_of::<Access>() >= COUNT * 4 && core::mem::offset_of!(HostConsts, absent) % 8 == 0);

/// Operations that are about a file: they go by the file system ids.
const OF_FILES: u32 = (bit(op::MOUNT) << 1) - 1 | bit(op::UMOUNT) | bit(op::IOCTL) | bit(op::MODULE_LOAD);

/// A call that is judged.
#[derive(Clone, Copy)]
pub struct Call {
    pub frame: Frame,
}

/// Judges a call that may ask for some of `ops`; `judge` says what it is about and what it asks. What the hook returns.
#[inline(always)]
pub fn judged(ops: u32, judge: impl FnOnce(Call) -> Option<bool>) -> i32 {
    if is_asked(ops) { judged_always(ops, judge) } else { 0 }
}

/// The same where something is kept up, whether or not anything may be refused.
#[inline(always)]
pub fn judged_always(ops: u32, judge: impl FnOnce(Call) -> Option<bool>) -> i32 {
    let task = Task::current();
    let Some(frame) = Frame::new(scratch(task)) else { return refuse(line::MEMORY) };
    let call = Call { frame };
    let begun = call.absent().map(|()| subject::begin(&call.frame, task, ops & OF_FILES != 0));
    answer(begun.and_then(|()| judge(call)))
}

/// The same in a hook that runs with interrupts off, in whatever thread: `file_send_sigiotask`.
#[inline(always)]
pub fn judged_anywhere(ops: u32, judge: impl FnOnce(Call) -> Option<bool>) -> i32 {
    if !is_asked(ops) {
        return 0;
    }
    let Some(frame) = Frame::new(scratch_of_cpu()) else { return refuse(line::MEMORY) };
    let call = Call { frame };
    answer(call.absent().and_then(|()| judge(call)))
}

/// What the hook returns; `None`: the tables contradict themselves.
#[inline(always)]
fn answer(allowed: Option<bool>) -> i32 {
    match allowed {
        Some(true) => 0,
        Some(false) => verdict(),
        None => refuse(Outcome::TABLES.line),
    }
}

/// Whether anything may be refused or counted here.
#[inline(always)]
pub fn is_asked(ops: u32) -> bool {
    read(&HOST.ops) & ops != 0 || state().is_some_and(any_entries)
}

/// Refuses, counted by a line of its own.
#[inline(always)]
pub fn refuse(line: u32) -> i32 {
    report::count(line);
    verdict()
}

/// What a refusal is, in the mode that is in force.
#[inline(always)]
fn verdict() -> i32 {
    if report::enforcing() && !Task::current().is_init() { REFUSED } else { 0 }
}

impl Call {
    #[inline(always)]
    pub fn classes(&self) -> Classifier<'_, Arena> {
        Classifier { host: &HOST, tables: self.frame.tables() }
    }

    /// Nothing is known of the call but what follows.
    #[inline(always)]
    pub fn absent(&self) -> Option<()> {
        let scratch = self.frame.scratch();
        scratch.quiet = 0;
        scratch.refused = 0;
        scratch.questions = [0; 2];
        scratch.caller = CALLER_KNOWN;
        scratch.entry.id = 0;
        scratch.places[0].leaf = LEAF_ABSENT;
        scratch.places[0].entries = 0;
        let (from, to) = ((&raw const HOST.absent).cast::<u64>(), (&raw mut scratch.access).cast::<u64>());
        let mut pair = 0;
        while pair < COUNT / 2 {
            // SAFETY: both are aligned to eight bytes and at least `COUNT` words long; volatile as `ro::read` is.
            unsafe { to.add(pair).write(from.add(pair).read_volatile()) };
            pair += 1;
        }
        self.flags(TRI_ABSENT, TRI_ABSENT)
    }

    /// Sets owner and namelessness; the container is the current task's.
    #[inline(always)]
    pub fn flags(&self, owner: u32, anonymous: u32) -> Option<()> {
        if !self.classes().reads(FLAGS) {
            return Some(());
        }
        let container = if Task::current().namespace_level() > 0 { TRI_YES } else { TRI_NO };
        let index = owner * FLAGS_OWNER + anonymous * FLAGS_ANONYMOUS + container;
        self.classes().direct::<FLAGS>(&mut self.frame.scratch().access, index)
    }

    /// Sets what rules read of an inode; `None` for a name that is about to be made: it will be the caller's.
    #[inline(always)]
    pub fn inode(&self, inode: Option<Inode>) -> Option<()> {
        if !self.classes().reads(FLAGS) {
            return Some(());
        }
        let Some(inode) = inode else { return self.flags(TRI_YES, TRI_NO) };
        let owner = if inode.uid() == self.frame.scratch().uid { TRI_YES } else { TRI_NO };
        let nameless = inode.links() == 0 || inode.super_block().is_internal();
        self.flags(owner, if nameless { TRI_YES } else { TRI_NO })
    }

    /// Sets the file system's type.
    #[inline(always)]
    pub fn file_system(&self, super_block: SuperBlock) -> Option<()> {
        if self.classes().reads(FSTYPE) {
            self.classes().fstype(&mut self.frame.scratch().access, super_block.type_name())?;
        }
        Some(())
    }

    /// Sets what the call is about: an existing file by its name.
    #[inline(always)]
    pub fn dentry(&self, dentry: Dentry, wish: Wish) -> Option<()> {
        self.inode(Some(dentry.inode()))?;
        self.file_system(dentry.super_block())?;
        walk::locate(&self.frame, dentry, 0, wish);
        Some(())
    }

    /// The same for a name that is about to be made.
    #[inline(always)]
    pub fn new_name(&self, dentry: Dentry) -> Option<()> {
        self.inode(None)?;
        self.file_system(dentry.super_block())?;
        walk::locate(&self.frame, dentry, 0, Wish::ITSELF);
        Some(())
    }

    /// Sets what the call is about: an open file. `Some(false)`: it has been judged already, as the overlay's file that
    /// it stands behind.
    #[inline(always)]
    pub fn file(&self, file: File) -> Option<bool> {
        let (inode, dentry) = (file.inode(), file.dentry());
        if file.is_backing() {
            // 6.5 and newer: the file is opened by its own name, after the overlay's.
            let outer = file.user_dentry();
            if outer != 0 && mounts::is_known_by_address(outer) {
                return Some(false);
            }
        } else if inode.address() != dentry.inode().address() && !inode.is_null() {
            // Before that: under the overlay's name, with the inode alone showing what is opened.
            if mounts::is_known(dentry.super_block()) {
                return Some(false);
            }
            self.inode(Some(inode))?;
            self.file_system(inode.super_block())?;
            walk::locate_alias(&self.frame, inode, 0);
            return Some(true);
        }
        self.inode(Some(inode))?;
        self.file_system(dentry.super_block())?;
        walk::locate(&self.frame, dentry, 0, Wish::ITSELF);
        Some(true)
    }

    /// Asks for each of `ops` at the first place; `true`: none is refused.
    #[inline(always)]
    pub fn ask(&self, ops: u32) -> Option<bool> {
        self.ask_both(ops, 0)
    }

    /// Asks for operations at the first place and at the second.
    #[inline(always)]
    pub fn ask_both(&self, first: u32, second: u32) -> Option<bool> {
        let scratch = self.frame.scratch();
        if second == 0 && first & (first - 1) == 0 {
            return Some(judge(&self.frame, lowest(u64::from(first)), 0).is_ok());
        }
        scratch.questions = [first, second];
        repeat!(2 * op::COUNT, question, &raw const self.frame);
        Some(self.frame.scratch().refused == 0)
    }

    /// Whether an operation is refused at a place: only then is it counted.
    #[inline(always)]
    pub fn is_protected(&self, op: u32, number: usize) -> bool {
        let scratch = self.frame.scratch();
        scratch.quiet = 1;
        let answer = judge(&self.frame, op, number);
        scratch.quiet = 0;
        if let Err(line) = answer {
            report::decided(self.frame.scratch().entry.id, Outcome { line, verdict: u32::from(DROP) });
        }
        answer.is_err()
    }

    /// A new name must not allow what the old one refuses. `true`: it does not.
    #[inline(always)]
    pub fn keeps_protection(&self) -> Option<bool> {
        repeat!(PROTECTIONS.len() as u32, protection, &raw const self.frame);
        Some(self.frame.scratch().refused == 0)
    }
}

unsafe extern "C" fn question(_: u32, context: *mut c_void) -> i64 {
    let frame = Frame::of(context);
    let scratch = frame.scratch();
    let second = scratch.questions[0] == 0;
    let questions = if second { scratch.questions[1] } else { scratch.questions[0] };
    if questions == 0 {
        return 1;
    }
    let rest = questions & (questions - 1);
    if second {
        scratch.questions[1] = rest;
    } else {
        scratch.questions[0] = rest;
    }
    // By its own number, so that the place is a constant to the verifier.
    let op = lowest(u64::from(questions));
    let answer = if second { judge(frame, op, 1) } else { judge(frame, op, 0) };
    if answer.is_err() {
        frame.scratch().refused = 1;
        return 1;
    }
    0
}

/// What a name protects an object from.
const PROTECTIONS: [u32; 3] = [op::READ, op::WRITE, op::EXEC];

unsafe extern "C" fn protection(index: u32, context: *mut c_void) -> i64 {
    let frame = Frame::of(context);
    let op = match index {
        0 => op::READ,
        1 => op::WRITE,
        _ => op::EXEC,
    };
    frame.scratch().quiet = 1;
    let old = judge(frame, op, 0);
    let new = judge(frame, op, 1);
    frame.scratch().quiet = 0;
    if let (Err(line), Ok(())) = (old, new) {
        report::decided(frame.scratch().entry.id, Outcome { line, verdict: u32::from(DROP) });
        frame.scratch().refused = 1;
        return 1;
    }
    0
}

//! A call on a socket, as classes, and its judgement.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_current_task, bpf_ktime_get_coarse_ns, bpf_probe_read_kernel},
    programs::SockAddrContext,
};
use ringfence_abi::{
    chain::MAX_POSITIONS,
    counter::UNKNOWN,
    host::{
        FLAGS_ANONYMOUS, FLAGS_OWNER, LEAF_ABSENT, LEAF_UNKNOWN, Leaf, MASK_UNKNOWN, NO_OFFSET, SMALL_ABSENT,
        TRI_ABSENT, TRI_NO, TRI_UNKNOWN, TRI_YES,
        field::{ANCESTOR, AUID, CAPABILITY, CGROUP, EXE, FAMILY, FLAGS, GID, OP, PORT, PROTO, SIGNAL, TYPE},
        layout, line,
    },
};
use ringfence_engine::{
    Tables as _,
    host::access::{Access, Address, Classifier},
    ro::read,
    search::{Narrow, Outcome, Search, Sink, Step, narrow, passes as lets_through},
};

use crate::{
    arena::Arena,
    maps::{CELL, COUNTERS, HOST, KERNEL, SOCK_SCRATCH, Scratch},
    repeat::repeat,
};

/// Family of the address that is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Judges a call. Whether it goes on.
#[inline(always)]
pub fn passes(ctx: &SockAddrContext, op: u32, family: Family) -> bool {
    let outcome = judge(ctx, op, family);
    let init = !lets_through(outcome) && ctx.tgid() == 1;
    count(if init { line::INIT } else { outcome.line });
    lets_through(outcome) || init || read(&HOST.chain.audit) != 0 || audit_cell()
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, op: u32, family: Family) -> Outcome {
    let Some(arena) = Arena::get() else { return Outcome::TABLES };
    let mut access = Access::default();
    if classify(ctx, &arena, op, family, &mut access).is_none() {
        return Outcome::TABLES;
    }
    let chain = &HOST.chain;
    if read(&chain.blocks) == 0 {
        match narrow(chain, &arena, &access) {
            Narrow::Done(outcome) => return outcome,
            Narrow::Walk(word) => {
                let Some(scratch) = scratch(ctx) else { return Outcome::TABLES };
                // SAFETY: this socket's own memory, under the socket's lock.
                unsafe { (*scratch).search.resume(word) };
                walk(scratch, arena)
            }
        }
    } else {
        let Some(scratch) = scratch(ctx) else { return Outcome::TABLES };
        // SAFETY: as above.
        let search: &mut Search = unsafe { &mut (*scratch).search };
        if search.start(chain, &arena, &access).is_none() {
            return Outcome::TABLES;
        }
        walk(scratch, arena)
    }
}

/// `None`: the tables contradict themselves.
#[inline(always)]
fn classify(ctx: &SockAddrContext, arena: &Arena, op: u32, family: Family, access: &mut Access) -> Option<()> {
    let fields = Classifier { host: &HOST, tables: arena };
    let task = Task::current();
    fields.direct::<OP>(access, op)?;
    fields.path(access, LEAF_ABSENT)?;
    fields.target(access, LEAF_ABSENT)?;
    fields.no_fstype(access);
    fields.direct::<CAPABILITY>(access, SMALL_ABSENT)?;
    fields.direct::<SIGNAL>(access, SMALL_ABSENT)?;

    let asked = Asked::of(ctx, family);
    fields.address(access, asked.address)?;
    fields.direct::<PORT>(access, asked.port())?;
    fields.direct::<PROTO>(access, asked.protocol & 0xff)?;
    fields.direct::<FAMILY>(access, asked.family & 0xff)?;
    fields.direct::<TYPE>(access, asked.kind & 0xff)?;

    fields.uid(access, task.euid().unwrap_or(ctx.uid()))?;
    if fields.reads(AUID) {
        fields.auid(access, task.login_uid().unwrap_or(u32::MAX))?;
    }
    let container = match task.namespace_level() {
        Some(0) => TRI_NO,
        Some(_) => TRI_YES,
        None => TRI_UNKNOWN,
    };
    fields.direct::<FLAGS>(access, TRI_ABSENT * (FLAGS_OWNER + FLAGS_ANONYMOUS) + container)?;

    // What would take a walk through the kernel's structures.
    let mut unknown = false;
    if fields.reads(EXE) {
        fields.exe(access, LEAF_UNKNOWN, false)?;
        unknown = true;
    }
    if fields.reads(ANCESTOR) {
        fields.class::<ANCESTOR>(access, MASK_UNKNOWN);
        unknown = true;
    }
    if fields.reads(GID) {
        fields.class::<GID>(access, MASK_UNKNOWN);
        unknown = true;
    }
    if fields.reads(CGROUP) {
        let leaf = read(&HOST.cgroups.leaves) + LEAF_UNKNOWN * size_of::<Leaf>() as u32;
        fields.class::<CGROUP>(access, arena.u32(leaf)?);
        unknown = true;
    }
    if unknown {
        count(UNKNOWN);
    }
    Some(())
}

/// The socket, and the address that is asked for.
struct Asked {
    address: Address,
    port: u32,
    family: u32,
    kind: u32,
    protocol: u32,
}

impl Asked {
    #[inline(always)]
    fn of(ctx: &SockAddrContext, family: Family) -> Self {
        let at: *const bpf_sock_addr = ctx.sock_addr;
        macro_rules! member {
            ($($member:tt)+) => {
                // SAFETY: the kernel's own context; the verifier wants each member read by itself and whole.
                unsafe { (&raw const (*at).$($member)+).read_volatile() }
            };
        }
        // Only the family's own member may be read.
        let address = if family == Family::V4 {
            v4(member!(user_ip4))
        } else {
            v6([member!(user_ip6[0]), member!(user_ip6[1]), member!(user_ip6[2]), member!(user_ip6[3])])
        };
        Self {
            address,
            port: member!(user_port),
            family: member!(family),
            kind: member!(type_),
            protocol: member!(protocol),
        }
    }

    /// Host order.
    #[inline(always)]
    fn port(&self) -> u32 {
        u32::from(u16::from_be(self.port as u16))
    }
}

#[inline(always)]
fn v4(address: u32) -> Address {
    Address::V4(u64::from(u32::from_be(address)) << 32)
}

#[inline(always)]
fn v6([a, b, c, d]: [u32; 4]) -> Address {
    if a == 0 && b == 0 && c == 0xffff_u32.to_be() {
        return v4(d);
    }
    let word = |high: u32, low: u32| u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low));
    Address::V6([word(a, b), word(c, d)])
}

/// The calling thread.
#[derive(Clone, Copy)]
struct Task(u64);

impl Task {
    #[inline(always)]
    fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task() })
    }

    /// The user id it acts by; the helper of the kernel tells the real one.
    #[inline(always)]
    fn euid(self) -> Option<u32> {
        peek(peek(self.0, layout::TASK_CRED)?, layout::CRED_EUID)
    }

    #[inline(always)]
    fn login_uid(self) -> Option<u32> {
        peek(self.0, layout::TASK_LOGINUID)
    }

    /// Depth of its PID namespace below the host's.
    #[inline(always)]
    fn namespace_level(self) -> Option<u32> {
        peek(peek(self.0, layout::TASK_PID)?, layout::PID_LEVEL)
    }
}

/// A member of a structure of the kernel's.
#[inline(always)]
fn peek<T: Copy + Default>(base: u64, member: usize) -> Option<T> {
    let offset = read(&KERNEL.offsets[member]);
    if offset == NO_OFFSET {
        return None;
    }
    let (mut value, address) = (T::default(), base + u64::from(offset));
    // SAFETY: the helper checks the address; the value has room for its size.
    let failed = unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const _) };
    (failed == 0).then_some(value)
}

#[inline(always)]
fn scratch(ctx: &SockAddrContext) -> Option<*mut Scratch> {
    // SAFETY: the context's own socket.
    let scratch = unsafe { SOCK_SCRATCH.get_or_insert_ptr_mut(ctx, None) };
    (!scratch.is_null()).then_some(scratch)
}

/// What the callback gets: on the stack, constant for the length of the loop.
#[repr(C)]
struct Frame {
    scratch: *mut Scratch,
    arena: Arena,
}

/// Every step enters a word or takes a position, or finds a block empty.
const STEPS: u32 = 2 * MAX_POSITIONS as u32;

#[inline(always)]
fn walk(scratch: *mut Scratch, arena: Arena) -> Outcome {
    // SAFETY: this socket's own memory, under the socket's lock.
    unsafe { (*scratch).outcome = Outcome::TABLES };
    let mut frame = Frame { scratch, arena };
    repeat!(STEPS, step, &raw mut frame);
    // SAFETY: as above.
    unsafe { (*scratch).outcome }
}

unsafe extern "C" fn step(_: u32, frame: *mut c_void) -> i64 {
    // SAFETY: `walk` passes a frame that outlives its loop.
    let frame = unsafe { &*frame.cast::<Frame>() };
    // SAFETY: this socket's own memory, under the socket's lock; `walk` waits for the loop.
    let scratch = unsafe { &mut *frame.scratch };
    match scratch.search.step(&HOST.chain, &frame.arena, &mut Counted) {
        Step::More => 0,
        Step::Done(outcome) => {
            scratch.outcome = outcome;
            1
        }
    }
}

/// Counts the rules that let evaluation go on.
struct Counted;

impl Sink for Counted {
    // Limits are about packets.
    #[inline(always)]
    fn admits(&mut self, _: u32) -> Option<bool> {
        Some(true)
    }

    #[inline(always)]
    fn continued(&mut self, line: u32) {
        count(line);
    }
}

/// Counts a call, by an index within the chain.
#[inline(always)]
fn count(line: u32) {
    let Some(counter) = COUNTERS.get_ptr_mut(read(&HOST.chain.counter_base) + line) else { return };
    // SAFETY: a map value of this CPU; who preempts the program counts in it too, hence atomically. (`core` has no
    // `fetch_add` on this target.)
    unsafe {
        let packets = &raw mut (*counter).packets;
        asm!("lock *(u64*)({0} + 0) += {1}", in(reg) packets, in(reg) 1_u64);
        (&raw mut (*counter).last_hit).write_volatile(bpf_ktime_get_coarse_ns());
    }
}

/// Whether `ringctl mode audit` is in force.
#[inline(always)]
fn audit_cell() -> bool {
    // SAFETY: the map's only value; the byte is stored together with its word.
    CELL.get_ptr(0).is_some_and(|cell| unsafe { (&raw const (*cell).word).read_volatile() } >> 16 & 0xff != 0)
}

//! Answers what the policy says of an access that nobody makes, by a test run.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use ringfence_abi::{
    dynamic::{V4, V6},
    host::{
        AccessQuestion, LEAF_UNKNOWN, PATH_TREE,
        field::{ANCESTOR, CAPABILITY, CGROUP, FAMILY, FLAGS, GID, PORT, PROTO, SIGNAL, TYPE},
        line,
    },
};
use ringfence_engine::{
    host::{access::Address, automaton::Walk},
    ro::read,
};

use crate::{
    arena::opaque,
    call::Call,
    judge::judge,
    maps::{ACCESS_IN, HOST, scratch_of_cpu},
    path,
    repeat::repeat,
    scratch::{Frame, HEAD},
    walk,
};

/// Kinds of [`AccessQuestion::path_kind`].
const HOST_PATH: u32 = 1;
const FOREIGN_PATH: u32 = 2;
const ABSTRACT_NAME: u32 = 3;

#[xdp]
fn explain_access(_: XdpContext) -> u32 {
    let (Some(frame), Some(question)) = (Frame::new(scratch_of_cpu()), ACCESS_IN.get(0)) else { return XDP_ABORTED };
    let call = Call { frame };
    if answer(call, question).is_some() { XDP_PASS } else { XDP_ABORTED }
}

#[inline(always)]
fn answer(call: Call, question: &AccessQuestion) -> Option<()> {
    call.absent()?;
    let scratch = call.frame.scratch();
    scratch.uid = question.uid;
    scratch.exe = question.exe_id;
    let (classes, access) = (call.classes(), &mut scratch.access);
    classes.uid(access, question.uid)?;
    classes.auid(access, question.auid)?;
    classes.class::<GID>(access, question.gids);
    classes.class::<ANCESTOR>(access, question.ancestors);
    classes.class::<CGROUP>(access, question.cgroup);
    classes.direct::<FLAGS>(access, question.flags)?;
    classes.exe(access, question.exe, question.tainted != 0)?;
    classes.target(access, question.target)?;
    classes.direct::<PORT>(access, question.port)?;
    classes.direct::<PROTO>(access, question.small[0])?;
    classes.direct::<FAMILY>(access, question.small[1])?;
    classes.direct::<TYPE>(access, question.small[2])?;
    classes.direct::<CAPABILITY>(access, question.small[3])?;
    classes.direct::<SIGNAL>(access, question.small[4])?;
    let address = if question.address_family == u32::from(V4) {
        Address::V4(question.address[0])
    } else if question.address_family == u32::from(V6) {
        Address::V6(question.address)
    } else {
        Address::Absent
    };
    classes.address(access, address)?;
    if question.fstype[0] != 0 {
        classes.fstype(access, Some(bytes_of(&question.fstype)))?;
    }
    place(call, question)?;
    let _ = judge(&call.frame, question.op, 0);
    Some(())
}

#[inline(always)]
fn bytes_of(name: &[u8; 16]) -> [u64; 2] {
    // SAFETY: 16 bytes are two words, however aligned.
    unsafe { core::ptr::from_ref(name).cast::<[u64; 2]>().read_unaligned() }
}

/// Finds the path's place.
#[inline(always)]
fn place(call: Call, question: &AccessQuestion) -> Option<()> {
    let scratch = call.frame.scratch();
    let start = match question.path_kind {
        HOST_PATH => read(&HOST.paths.host),
        FOREIGN_PATH => read(&HOST.paths.foreign),
        ABSTRACT_NAME => read(&HOST.paths.abstract_name),
        0 => return Some(()),
        _ => {
            scratch.places[0].leaf = LEAF_UNKNOWN;
            return Some(());
        }
    };
    let state = call.frame.state();
    // SAFETY: the map's only value; aligned loads do not tear.
    unsafe {
        scratch.progress.hashing = (&raw const (*state).entries).read_volatile();
        scratch.progress.hash = (&raw const (*state).secret).read_volatile();
    }
    scratch.progress.walk = Walk::start(&HOST.paths, call.frame.tables(), start)?;
    scratch.progress.line = 0;
    scratch.progress.depth = 0;
    scratch.progress.entries = 0;
    scratch.progress.folds = u32::MAX;
    if scratch.progress.hashing != 0 {
        scratch.progress.entries = path::entries(scratch.progress.hash, PATH_TREE);
    }
    scratch.progress.position = HEAD;
    let length = question.path_len;
    if length > question.path.len() as u32 {
        return None;
    }
    if length > 0 {
        repeat!(length, copy, &raw const call.frame);
        repeat!(length, path::step, &raw const call.frame);
        if call.frame.scratch().progress.line == 0 && path::end_component(&call.frame).is_none() {
            call.frame.scratch().progress.line = line::MEMORY;
        }
    }
    walk::settle(&call.frame, 0, false);
    Some(())
}

/// Copies a byte of the question's path.
unsafe extern "C" fn copy(index: u32, context: *mut c_void) -> i64 {
    let scratch = Frame::of(context).scratch();
    let Some(question) = ACCESS_IN.get(0) else { return 1 };
    let index = opaque(u64::from(index)) as usize;
    if index >= question.path.len() {
        return 1;
    }
    scratch.path[HEAD as usize + index] = question.path[index];
    0
}

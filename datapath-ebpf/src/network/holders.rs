//! Limits of connections: each counted one holds a place, which is free again once the connection is over.
//!
//! Nobody gives a place back, so nobody can forget to: whoever looks for one looks whether its holder still lives.

use core::{arch::asm, ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_for_each_map_elem, bpf_get_prandom_u32};
use ringfence_abi::{
    connection::{Connection, FLAG_REFUSED, KILLED, Key, TCP_CLOSED},
    limit::{Holder, HolderKey, LimitKey, PROBES, TAKEN},
};

use crate::{
    limit::{exchange, may_sweep},
    maps::{CELL, CONNECTIONS, HOLDERS, scratch},
    repeat::repeat,
};

/// The search for a place.
#[repr(C)]
pub struct Places {
    pub key: HolderKey,
    /// The next place.
    next: u32,
    most: u32,
    pub now: u64,
    /// 1: there is a free one.
    found: u64,
    /// Who wants it; `created` 0: nobody.
    pub holder: Holder,
}

/// Whether there is a free place.
#[inline(always)]
pub fn vacant(whose: &LimitKey, most: u32, now: u64) -> bool {
    let Some(scratch) = scratch() else { return false };
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let places = unsafe { &mut (*scratch).places };
    places.holder.created = 0;
    places.start(whose, most, now);
    repeat!(PROBES, probe);
    places.found != 0
}

impl Places {
    /// Begins at any place: where there are more than are looked at, the free ones are found by and by.
    #[inline(always)]
    pub fn start(&mut self, whose: &LimitKey, most: u32, now: u64) {
        self.key.whose = *whose;
        self.key.zero = 0;
        self.most = most;
        // SAFETY: the helper has no preconditions.
        self.next = unsafe { bpf_get_prandom_u32() };
        self.now = now;
        self.found = 0;
    }

    /// Looks at the next place; whether it was free, and is taken if somebody wants it.
    #[inline(always)]
    pub fn try_next(&mut self) -> bool {
        if self.most == 0 {
            return false;
        }
        self.key.place = self.next % self.most;
        self.next = self.key.place + 1;
        let Some(found) = HOLDERS.get_ptr_mut(&self.key) else {
            return self.holder.created == 0 || self.enter();
        };
        let Some(was) = over(found, self.now) else { return false };
        if self.holder.created == 0 {
            return true;
        }
        // SAFETY: a map's value; while it says `TAKEN` nobody else writes it.
        unsafe {
            if !exchange(&raw mut (*found).created, was, TAKEN) {
                return false;
            }
            (*found).key = self.holder.key;
            (&raw mut (*found).created).write_volatile(self.holder.created);
        }
        true
    }

    /// Takes a place that nobody ever had.
    #[inline(always)]
    fn enter(&mut self) -> bool {
        // 1: only if another CPU has not taken it meanwhile.
        if HOLDERS.insert(&self.key, &self.holder, 1).is_ok() {
            return true;
        }
        sweep(self.now);
        HOLDERS.insert(&self.key, &self.holder, 1).is_ok()
    }
}

unsafe extern "C" fn probe(index: u32, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else { return 1 };
    // SAFETY: this CPU's own memory; `vacant` waits for the loop.
    let places = unsafe { &mut (*scratch).places };
    if index >= places.most {
        return 1;
    }
    if places.try_next() {
        places.found = 1;
        return 1;
    }
    0
}

/// When the holder's connection began, if it is over.
#[inline(always)]
fn over(holder: *mut Holder, now: u64) -> Option<u64> {
    // SAFETY: a map's value; the key may be half written only while `created` says so.
    let (created, key) = unsafe { ((&raw const (*holder).created).read_volatile(), &(*holder).key) };
    if created == TAKEN {
        return None;
    }
    // SAFETY: read at once; a connection that goes meanwhile makes a stale answer, not a wrong access.
    let lives = unsafe { CONNECTIONS.get(key) }.is_some_and(|one: &Connection| {
        let goes_on = one.state != TCP_CLOSED && one.state != KILLED && one.flags & FLAG_REFUSED == 0;
        one.created == created && one.expires > now && goes_on
    });
    (!lives).then_some(created)
}

/// Takes places out whose connections are over.
#[inline(always)]
fn sweep(now: u64) {
    let Some(cell) = CELL.get_ptr_mut(0) else { return };
    // SAFETY: the map's only value.
    if !may_sweep(unsafe { &raw mut (*cell).holders_swept }, now) {
        return;
    }
    let callback: *mut c_void;
    // SAFETY: loads an address, right here for the reason given at `repeat!`.
    unsafe { asm!("{0} = {1} ll", out(reg) callback, sym leave) };
    // SAFETY: the callback has the signature that the helper calls (5.13), and ignores its context.
    unsafe { bpf_for_each_map_elem(ptr::from_ref(&HOLDERS).cast_mut().cast(), callback, ptr::null_mut(), 0) };
}

unsafe extern "C" fn leave(_: *mut c_void, key: *mut HolderKey, holder: *mut Holder, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else { return 1 };
    // SAFETY: this CPU's own memory; the kernel gives an element of the map.
    unsafe {
        let now = (*scratch).places.now;
        if let Some(was) = over(holder, now)
            && exchange(&raw mut (*holder).created, was, TAKEN)
        {
            let _: Result<(), i32> = HOLDERS.remove(&*key);
        }
    }
    0
}

/// Says who wants a place.
#[inline(always)]
pub fn holder(places: &mut Places, key: &Key, created: u64) {
    places.holder.key = *key;
    places.holder.created = created;
}

//! SYN cookies for what rules with `protect: syn-flood` accept.
//!
//! The cookies are the kernel's own, so it makes the connection when the acknowledgement comes, and what it accepts without
//! us it accepts with us. It gives them where `net.ipv4.tcp_syncookies` says so: 1, once the listener's queue of half-open
//! connections is full; 2, always. Where it gives none, the segment goes on as if there were no protection.

use core::ptr::null_mut;

use aya_ebpf::{
    bindings::{bpf_sock, tcphdr},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie, bpf_tcp_gen_syncookie,
    },
    macros::map,
    maps::Array,
};
use ringfence_abi::{
    chain::{IP_FRAGMENT, PROTO_ICMP, PROTO_TCP},
    counter::{COOKIE_FAILED, COOKIE_INVALID, COOKIE_SENT},
};
use ringfence_engine::{
    answer::{ACK, FIN, Kind, RST, SYN, SYN_ACK_HEADER, Way},
    fields::{FAMILY_V4, Fields},
};

use crate::reply::{Reply, Work, at, bounded, link_header, work};

/// How long after the last cookie an acknowledgement may carry one, nanoseconds: a cookie is good for two minutes.
const GOOD: u64 = 130_000_000_000;
/// `TCP_LISTEN`.
const LISTEN: u32 = 10;
/// Of this network namespace.
const HERE: u64 = u64::MAX;

/// When the last cookie was given; only roughly the last, where CPUs write at once.
#[map]
static LAST_COOKIE: Array<u64> = Array::with_max_entries(1, 0);

/// What the helpers read: headers and addresses of the segment.
#[repr(C)]
pub struct Read {
    ip: [u8; 40],
    tcp: [u8; 60],
    /// `struct bpf_sock_tuple`: addresses, then ports.
    tuple: [u8; 36],
}

/// Looks at an accepted segment. `None`: it goes on; otherwise the line to be counted, and with [`COOKIE_SENT`] it is the
/// answer now, else to be dropped.
#[inline(always)]
pub fn guard<P: Reply>(packet: &mut P, fields: &Fields, l3: bool) -> Option<u32> {
    if fields.proto < PROTO_TCP || fields.proto >= PROTO_ICMP || fields.ip & IP_FRAGMENT != 0 {
        return None;
    }
    let flags = (fields.proto - PROTO_TCP) as u8 & (SYN | ACK | RST | FIN);
    let opens = flags == SYN;
    if !opens && flags & (SYN | RST | ACK) != ACK {
        return None;
    }
    if !opens && !recently() {
        return None;
    }
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let work = unsafe { &mut *work()? };
    let header = load(packet, fields, &mut work.read)?;
    let ip = if fields.family == FAMILY_V4 { 20 } else { 40 };
    if opens {
        // The kernel's own program answers no station but the one that asks; nor may this one.
        if !l3 && !link_header::<P, false>(packet, fields, work) {
            return None;
        }
        let cookie = ask(packet, fields, &mut work.read, |sock, read| {
            // SAFETY: a socket that is held, and memory as long as is said.
            unsafe { bpf_tcp_gen_syncookie(sock.cast(), read.ip.as_mut_ptr().cast(), ip, tcp(read), header) }
        })?;
        return (cookie > 0).then(|| send(packet, fields, l3, work, cookie as u64));
    }
    let checked = ask(packet, fields, &mut work.read, |sock, read| {
        // SAFETY: as above.
        unsafe { bpf_tcp_check_syncookie(sock.cast(), read.ip.as_mut_ptr().cast(), ip, tcp(read), header) }
    })?;
    // Another error says that the kernel gives no cookies.
    (checked == -2).then_some(COOKIE_INVALID)
}

#[inline(always)]
fn tcp(read: &mut Read) -> *mut tcphdr {
    read.tcp.as_mut_ptr().cast()
}

/// Copies the headers; the length of the TCP header.
#[inline(always)]
fn load<P: Reply>(packet: &P, fields: &Fields, read: &mut Read) -> Option<u32> {
    let v4 = fields.family == FAMILY_V4;
    let ip = read.ip.as_mut_ptr();
    if !packet.load(fields.network, ip, 20) || !packet.load(fields.transport, tcp(read).cast(), 20) {
        return None;
    }
    let (addresses, length) = if v4 { (12, 8) } else { (8, 32) };
    if !v4 && !packet.load(fields.network, ip, 40) {
        return None;
    }
    if !packet.load(fields.network + addresses, read.tuple.as_mut_ptr(), length)
        || !packet.load(fields.transport, read.tuple[length as usize..].as_mut_ptr(), 4)
    {
        return None;
    }
    let header = bounded::<60>(u32::from(read.tcp[12] >> 4) * 4)?;
    packet.load(fields.transport, tcp(read).cast(), header).then_some(header)
}

/// Asks about the socket that listens for the segment; `None`: there is none, or another one takes it.
#[inline(always)]
fn ask<P: Reply>(
    packet: &P,
    fields: &Fields,
    read: &mut Read,
    question: impl FnOnce(*mut bpf_sock, &mut Read) -> i64,
) -> Option<i64> {
    let tuple = read.tuple.as_mut_ptr().cast();
    // SAFETY: the program's own context; the tuple is as long as is said.
    let sock = unsafe {
        if fields.family == FAMILY_V4 {
            bpf_skc_lookup_tcp(packet.context(), tuple, 12, HERE, 0)
        } else {
            bpf_skc_lookup_tcp(packet.context(), tuple, 36, HERE, 0)
        }
    };
    if sock == null_mut() {
        return None;
    }
    // SAFETY: a socket that is held until it is released.
    let listens = unsafe { (*sock).state } == LISTEN;
    let answer = if listens { Some(question(sock, read)) } else { None };
    // SAFETY: as above; it is not used afterwards.
    unsafe { bpf_sk_release(sock.cast()) };
    answer
}

/// Makes the segment the answer that carries the cookie, and sends it.
#[inline(always)]
fn send<P: Reply>(packet: &mut P, fields: &Fields, l3: bool, work: &mut Work, cookie: u64) -> u32 {
    let word = |at: usize| {
        let tcp = &work.read.tcp;
        u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]])
    };
    let ack = word(4).wrapping_add(1);
    let way = Way::back(fields);
    work.mark(fields, Kind::Cookie, SYN | ACK);
    let (ports, mss) = ([fields.dport, fields.sport], (cookie >> 32) as u32);
    let length = if fields.family == FAMILY_V4 {
        way.ipv4(Kind::Cookie, 20 + SYN_ACK_HEADER, at::<0, 20>(work));
        way.syn_ack(ports, cookie as u32, ack, mss, at::<20, 24>(work));
        // Up to the length of the shortest frame.
        *at::<44, 4>(work) = [0; 4];
        20 + SYN_ACK_HEADER
    } else {
        way.ipv6(Kind::Cookie, 40 + SYN_ACK_HEADER, at::<0, 40>(work));
        way.syn_ack(ports, cookie as u32, ack, mss, at::<40, 24>(work));
        40 + SYN_ACK_HEADER
    };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(last) = LAST_COOKIE.get_ptr_mut(0) {
        // SAFETY: an aligned store of eight bytes; whichever CPU's comes last is as good as another's.
        unsafe { last.write_volatile(now) };
    }
    if work.expect::<P>(now) && packet.send::<false>(fields, l3, work, length) { COOKIE_SENT } else { COOKIE_FAILED }
}

/// Whether a cookie was given that may still come back.
#[inline(always)]
fn recently() -> bool {
    let Some(last) = LAST_COOKIE.get_ptr(0) else { return false };
    // SAFETY: as in `send`.
    let (last, now) = unsafe { (last.read_volatile(), bpf_ktime_get_ns()) };
    last != 0 && now < last + GOOD
}

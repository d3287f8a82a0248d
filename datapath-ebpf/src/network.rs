//! The programs of one generation: they judge packets with tables that are theirs alone.
//!
//! The dispatcher tail-calls them. The same object is loaded a second time with `EXPLAIN` set to answer `ringctl
//! explain`: it decides in the same way and changes nothing.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "network/add.rs"]
mod add;
#[path = "network/again.rs"]
mod again;
#[path = "network/arena.rs"]
mod arena;
#[path = "network/cookie.rs"]
mod cookie;
#[path = "network/fragment.rs"]
mod fragment;
#[path = "network/holders.rs"]
mod holders;
#[path = "network/host.rs"]
mod host;
#[path = "network/keep.rs"]
mod keep;
#[path = "network/limit.rs"]
mod limit;
#[path = "network/lookup.rs"]
mod lookup;
#[path = "network/maps.rs"]
mod maps;
#[path = "network/packet.rs"]
mod packet;
#[path = "network/prove.rs"]
mod prove;
#[path = "network/reject.rs"]
mod reject;
#[path = "network/repeat.rs"]
mod repeat;
#[path = "network/reply.rs"]
mod reply;
#[path = "network/report.rs"]
mod report;
#[path = "network/track.rs"]
mod track;

use aya_ebpf::{
    bindings::{
        TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    },
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use ringfence_abi::{
    counter::{ANSWERED, COOKIE_SENT, MALFORMED},
    verdict::{DROP, PROTECT, REJECT},
};
use ringfence_engine::{
    deep::Deep,
    fields::{Fields, Malformed},
    judge::{Judgement, judge},
    parse::{Link, parse},
    ro::read,
    search::Outcome,
};

use crate::{
    arena::Arena,
    host::Kernel,
    maps::explaining,
    packet::{Packet, Skb, Xdp},
    reply::Reply,
};

/// What becomes of a packet.
enum Action {
    Pass,
    Drop,
    /// It has become an answer, which goes back.
    Answer,
}

/// Ingress at XDP.
#[xdp(frags)]
fn xdp_ingress(ctx: XdpContext) -> u32 {
    match decide::<_, false>(&mut Xdp(ctx.ctx), false) {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Answer => XDP_TX,
    }
}

/// Ingress at TC, for devices or policies that XDP cannot serve.
#[classifier]
fn tc_ingress(ctx: TcContext) -> i32 {
    tc::<false>(&ctx, false)
}

/// Ingress on devices whose packets begin at the IP header.
#[classifier]
fn tc_ingress_l3(ctx: TcContext) -> i32 {
    tc::<false>(&ctx, true)
}

/// Egress.
#[classifier]
fn tc_egress(ctx: TcContext) -> i32 {
    tc::<true>(&ctx, false)
}

/// Egress on devices whose packets begin at the IP header.
#[classifier]
fn tc_egress_l3(ctx: TcContext) -> i32 {
    tc::<true>(&ctx, true)
}

/// An accepted packet goes on to the next program or filter (`TCX_NEXT` has the same value): other owners' programs
/// behind ours still run.
#[inline(always)]
fn tc<const EGRESS: bool>(ctx: &TcContext, l3: bool) -> i32 {
    match decide::<_, EGRESS>(&mut Skb(ctx.skb.skb), l3) {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
        Action::Answer => TC_ACT_REDIRECT,
    }
}

/// What becomes of the packet.
#[inline(always)]
fn decide<P: Reply, const EGRESS: bool>(packet: &mut P, l3: bool) -> Action {
    let consts = maps::consts::<EGRESS>();
    let mut kernel = Kernel::new::<EGRESS>(packet, consts);
    let (Some(arena), Some(scratch)) = (Arena::of::<EGRESS>(consts), maps::scratch()) else {
        let tables = Judgement::early(Outcome::TABLES);
        return if kernel.decided(tables) { Action::Pass } else { Action::Drop };
    };
    // SAFETY: this CPU's own memory; the engine's other users of it do not touch these.
    let (fields, deep) = unsafe { (&mut (*scratch).fields, &mut (*scratch).deep) };
    if let Err(reason) = read_headers(packet, &kernel, l3, fields, deep) {
        let malformed = Judgement::early(Outcome { line: MALFORMED + reason as u32, verdict: u32::from(DROP) });
        return if kernel.decided(malformed) { Action::Pass } else { Action::Drop };
    }
    if reply::is_own::<P>(fields) {
        return Action::Pass;
    }
    kernel.without_link(fields.network);
    if fields.unknown != 0 {
        kernel.unknown();
    }
    track::begin_packet();
    let judgement = judge(consts, &arena, &mut kernel, fields, EGRESS);
    if !kernel.decided(judgement) {
        return refused::<P, EGRESS>(packet, &kernel, fields, judgement, l3);
    }
    let cookies = read(&consts.cookies);
    if !EGRESS
        && cookies != 0
        && judgement.outcome.verdict == u32::from(PROTECT)
        && !explaining()
        && !kernel.audits()
        && let Some(came) = cookie::guard(packet, fields, l3)
    {
        kernel.count(cookies + came);
        return if came == COOKIE_SENT { Action::Answer } else { Action::Drop };
    }
    if kernel.keep(fields, &judgement) { Action::Pass } else { Action::Drop }
}

/// Drops a packet; its sender is told if a rule says so.
#[inline(always)]
fn refused<P: Reply, const EGRESS: bool>(
    packet: &mut P,
    kernel: &Kernel,
    fields: &Fields,
    judgement: Judgement,
    l3: bool,
) -> Action {
    let answers = read(&maps::consts::<EGRESS>().answers);
    if answers != 0
        && judgement.outcome.verdict == u32::from(REJECT)
        && let Some(came) = reject::answer::<P, EGRESS>(packet, fields, l3)
    {
        kernel.count(answers + came);
        if came == ANSWERED {
            return Action::Answer;
        }
    }
    Action::Drop
}

/// Parses; where headers lie in fragments of an skb, once more after they are pulled together.
///
/// Written out twice: a loop around calls is a "back-edge" to 6.1 where LLVM enters it behind the call.
#[inline(always)]
fn read_headers<P: Packet>(
    packet: &mut P,
    kernel: &Kernel,
    l3: bool,
    fields: &mut Fields,
    deep: &mut Deep,
) -> Result<(), Malformed> {
    let link = Link { l3, tag: kernel.tag(packet), deep: read(&maps::track().on) != 0 };
    let parsed = parse(&packet.frame(), link, fields, deep);
    if parsed == Err(Malformed::Unreadable) && packet.pull() {
        return parse(&packet.frame(), link, fields, deep);
    }
    parsed
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The helpers used are for programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

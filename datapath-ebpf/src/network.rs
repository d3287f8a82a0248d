//! The programs of one generation: they judge packets with tables that are theirs alone.
//!
//! The dispatcher tail-calls them. The same object is loaded a second time with `EXPLAIN` set to answer `ringctl
//! explain`: it decides in the same way and changes nothing.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "network/again.rs"]
mod again;
#[path = "network/arena.rs"]
mod arena;
#[path = "network/host.rs"]
mod host;
#[path = "network/lookup.rs"]
mod lookup;
#[path = "network/maps.rs"]
mod maps;
#[path = "network/packet.rs"]
mod packet;
#[path = "network/repeat.rs"]
mod repeat;
#[path = "network/report.rs"]
mod report;
#[path = "network/track.rs"]
mod track;

use aya_ebpf::{
    bindings::{
        TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use ringfence_abi::{counter::MALFORMED, verdict::DROP};
use ringfence_engine::{
    deep::Deep,
    fields::{Fields, Malformed},
    judge::{Judgement, judge},
    parse::{Link, parse},
    ro,
    search::Outcome,
};

use crate::{
    arena::Arena,
    host::Kernel,
    packet::{Packet, Skb, Xdp},
};

/// Ingress at XDP.
#[xdp(frags)]
fn xdp_ingress(ctx: XdpContext) -> u32 {
    if decide::<_, false>(&mut Xdp(ctx.ctx), false) { XDP_PASS } else { XDP_DROP }
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
    if decide::<_, EGRESS>(&mut Skb(ctx.skb.skb), l3) { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

/// Whether the packet goes on.
#[inline(always)]
fn decide<P: Packet, const EGRESS: bool>(packet: &mut P, l3: bool) -> bool {
    let consts = maps::consts::<EGRESS>();
    let mut kernel = Kernel::new::<EGRESS>(packet, consts);
    let (Some(arena), Some(scratch)) = (Arena::of::<EGRESS>(consts), maps::scratch()) else {
        return kernel.decided(Judgement::early(Outcome::TABLES));
    };
    // SAFETY: this CPU's own memory; the engine's other users of it do not touch these.
    let (fields, deep) = unsafe { (&mut (*scratch).fields, &mut (*scratch).deep) };
    if let Err(reason) = read_headers(packet, &kernel, l3, fields, deep) {
        let line = MALFORMED + reason as u32;
        return kernel.decided(Judgement::early(Outcome { line, verdict: u32::from(DROP) }));
    }
    kernel.without_link(fields.network);
    if fields.unknown != 0 {
        kernel.unknown();
    }
    let judgement = judge(consts, &arena, &mut kernel, fields, EGRESS);
    let goes_on = kernel.decided(judgement);
    if goes_on {
        kernel.keep(fields, &judgement);
    }
    goes_on
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
    let link = Link { l3, tag: kernel.tag(packet), deep: ro::read(&maps::track().on) != 0 };
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

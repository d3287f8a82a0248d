//! Random policies and packets: the oracle, the compiled tables and the programs in the kernel give the same answers.
//!
//! Needs root. `RINGFENCE_SEED=N` draws other cases, as in `differential.rs`.

use ringfence_policy::oracle::Hook;
use ringfence_tests::differential::{Compared, Evaluator, Oracle, Programs, Tables, run};
use ringfence_tests::generate::{Case, Cases, Packet, Shape, truncations};

fn all() -> Vec<Box<dyn Evaluator>> {
    vec![Box::new(Oracle::default()), Box::new(Tables::default()), Box::new(Programs::new())]
}

/// Leaves what a test run can show: no segments, and a mark at TC always.
fn shown(case: &mut Case) {
    case.packets.retain(|packet| packet.context.segment == 0 && runs(packet));
    for packet in &mut case.packets {
        if packet.context.hook == Hook::Tc {
            packet.context.mark = packet.context.mark.or(Some(0));
        }
    }
}

/// A test run's packet fits a page with its head- and tailroom.
const MAX_FRAME: usize = 3000;

/// Whether a test run takes the frame: XDP wants an Ethernet header, TC a byte more, and the whole IP header where the
/// bytes of the ethertype announce one (6.18). Shorter ones are judged at XDP and behind VLAN tags.
fn runs(packet: &Packet) -> bool {
    let needed = match (packet.context.hook, packet.frame.get(12..14)) {
        (Hook::Xdp, _) => 14,
        (Hook::Tc, Some([0x08, 0x00])) => 14 + 20,
        (Hook::Tc, Some([0x86, 0xdd])) => 14 + 40,
        (Hook::Tc, _) => 15,
    };
    (needed..=MAX_FRAME).contains(&packet.frame.len())
}

#[track_caller]
fn enough(compared: Compared, packets: u32) {
    println!("{compared:?}");
    assert!(compared.packets >= packets, "only {} packets", compared.packets);
    assert!(compared.by_rule * 4 > compared.packets, "only {} decided by a rule", compared.by_rule);
}

#[test]
fn narrow_chains() {
    enough(run(Cases { shape: Shape::Narrow, packets: 2500 }, 28, shown, all()), 55_000);
}

#[test]
fn wide_chains() {
    enough(run(Cases { shape: Shape::Wide, packets: 2500 }, 16, shown, all()), 32_000);
}

#[test]
fn chains_of_several_blocks() {
    enough(run(Cases { shape: Shape::Huge, packets: 5000 }, 2, shown, all()), 8_000);
}

#[test]
fn frames_cut_off_after_every_byte() {
    let cut = |case: &mut Case| {
        case.packets = case.packets.iter().filter(|packet| packet.frame.len() < 200).flat_map(truncations).collect();
        shown(case);
    };
    let compared = run(Cases { shape: Shape::Narrow, packets: 60 }, 4, cut, all());
    println!("{compared:?}");
    assert!(compared.packets > 9_000);
}

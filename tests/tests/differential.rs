//! Random policies and packets: the oracle and the compiled tables give the same answers.
//!
//! `RINGFENCE_SEED=N` draws other cases; a failure prints the seed, the smallest policy that still fails, and the
//! frame in hexadecimal.

use ringfence_tests::differential::{Compared, Evaluator, Oracle, Tables, run};
use ringfence_tests::generate::{Case, Cases, Shape, truncations};

fn both() -> Vec<Box<dyn Evaluator>> {
    vec![Box::new(Oracle::default()), Box::new(Tables::default())]
}

#[track_caller]
fn enough(compared: Compared, packets: u32) {
    println!("{compared:?}");
    assert!(compared.packets >= packets, "only {} packets", compared.packets);
    assert!(compared.by_rule * 4 > compared.packets, "only {} decided by a rule", compared.by_rule);
    assert!(compared.refused * 20 < compared.policies, "{} policies refused", compared.refused);
}

#[test]
fn narrow_chains() {
    enough(run(Cases { shape: Shape::Narrow, packets: 60 }, 1200, |_| {}, both()), 70_000);
}

#[test]
fn wide_chains() {
    enough(run(Cases { shape: Shape::Wide, packets: 250 }, 120, |_| {}, both()), 28_000);
}

#[test]
fn chains_of_several_blocks() {
    enough(run(Cases { shape: Shape::Huge, packets: 3000 }, 3, |_| {}, both()), 9_000);
}

#[test]
fn frames_cut_off_after_every_byte() {
    let cut = |case: &mut Case| {
        case.packets = case.packets.iter().filter(|packet| packet.frame.len() < 200).flat_map(truncations).collect();
    };
    let compared = run(Cases { shape: Shape::Narrow, packets: 6 }, 60, cut, both());
    println!("{compared:?}");
    assert!(compared.packets > 15_000);
}

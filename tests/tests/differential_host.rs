//! Random host policies and accesses: the oracle, the compiled tables and the program in the kernel give the same answers.
//! The program explains: it decides with the code of the security hooks, on every kernel.
//!
//! Needs root. `RINGFENCE_SEED=N` draws other cases.

use ringfence_tests::differential::{ComparedAccesses, Explainer, seed};

#[test]
fn accesses_are_judged_alike() {
    let mut explainer = Explainer::new();
    let mut total = ComparedAccesses::default();
    for number in 0..40 {
        let one = explainer.compare(seed() * 1_000 + number, 500);
        total.policies += one.policies;
        total.accesses += one.accesses;
        total.by_rule += one.by_rule;
    }
    println!("{total:?}");
    assert!(total.accesses == 20_000, "only {} accesses", total.accesses);
    assert!(total.by_rule * 10 > total.accesses, "only {} decided by a rule", total.by_rule);
}

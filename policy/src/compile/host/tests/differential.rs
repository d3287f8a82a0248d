//! Random policies and accesses: the oracle and the tables must agree on verdict, line and continuations.

use std::collections::BTreeMap;

use ringfence_abi::host::line::BUILTINS;

use crate::{
    compile::compile,
    evaluate,
    generate::{self, Random},
    oracle::{LineRef, judge_access},
};

#[test]
fn the_tables_decide_as_the_oracle_does() {
    let (mut accesses, mut lines) = (0, BTreeMap::<u32, u32>::new());
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let policy = generate::policy(&mut random);
        let compiled = compile(&policy).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for _ in 0..60 {
            let access = generate::access(&mut random);
            let expected = judge_access(&policy, &access);
            let found = evaluate::access(&compiled.host, &access);
            let line = expected.line.host_counter().unwrap();
            let continued: Vec<u32> = expected.continued.iter().map(|rule| BUILTINS + *rule as u32).collect();
            let expected = (u32::from(expected.verdict.code()), line, continued);
            let found = (found.verdict, found.line, found.continued);
            assert_eq!(found, expected, "seed {seed}: {access:#?} in {:#?}", policy.host.rules);
            accesses += 1;
            *lines.entry(line).or_default() += 1;
        }
    }
    // The test looks at what it is for: many rules decide, not the default alone.
    assert!(
        accesses == 24_000 && lines[&LineRef::Default.counter().unwrap()] < accesses * 3 / 4 && lines.len() > 60,
        "{lines:?}"
    );
}

#[test]
fn the_same_policy_gives_the_same_bytes() {
    for seed in 0..20 {
        let policy = generate::policy(&mut Random::new(seed));
        let (one, other) = (compile(&policy).unwrap().host, compile(&policy).unwrap().host);
        assert!(one.arena == other.arena && one.consts == other.consts, "seed {seed}");
    }
}

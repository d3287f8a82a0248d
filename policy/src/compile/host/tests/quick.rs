//! Quick words: what they say is what every call of these classes gets, and they say it wherever they can.

use ringfence_abi::{
    counter::DEFAULT,
    host::line::BUILTINS,
    host::{field, op},
    verdict::{ACCEPT, DROP},
};
use ringfence_engine::{Tables, host::quick::quick, search::Outcome, slice::SliceTables};

use super::paths::{policy, rule};
use crate::{
    compile::{CompiledHost, PathKind, compile},
    generate::{self, Random},
    model::{HostRule, ObjectPath, Verdict},
    oracle::judge_access,
    ranges::Ranges,
};

fn op_class(host: &CompiledHost, op: u32) -> u32 {
    let chain = &host.consts.chain;
    if chain.active >> field::OP & 1 == 0 {
        return 0;
    }
    SliceTables(&host.arena).u32(chain.direct[field::OP] + op * 4).unwrap()
}

fn said(host: &CompiledHost, leaf: u32, op: u32) -> Option<Outcome> {
    quick(&host.consts, &SliceTables(&host.arena), host.leaf_record(leaf).path, op_class(host, op))
}

#[test]
fn quick_words_say_what_the_oracle_says_or_nothing() {
    let (mut decided, mut by_rule, mut left) = (0, 0, 0);
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let policy = generate::policy(&mut random);
        let host = compile(&policy).unwrap_or_else(|error| panic!("seed {seed}: {error}")).host;
        for _ in 0..60 {
            let access = generate::access(&mut random);
            let leaf = match &access.path {
                None => ringfence_abi::host::LEAF_ABSENT,
                Some(ObjectPath::Host(path)) => host.leaf(PathKind::Host, path.as_bytes()),
                Some(ObjectPath::Foreign(path)) => host.leaf(PathKind::Foreign, path.as_bytes()),
                Some(ObjectPath::Abstract(name)) => host.leaf(PathKind::Abstract, name.as_bytes()),
                Some(ObjectPath::Unknown) => ringfence_abi::host::LEAF_UNKNOWN,
            };
            let Some(found) = said(&host, leaf, access.op) else {
                left += 1;
                continue;
            };
            let expected = judge_access(&policy, &access);
            assert!(expected.continued.is_empty(), "seed {seed}: {access:#?} in {:#?}", policy.host.rules);
            let expected =
                Outcome { line: expected.line.host_counter().unwrap(), verdict: u32::from(expected.verdict.code()) };
            assert_eq!(found, expected, "seed {seed}: {access:#?} in {:#?}", policy.host.rules);
            decided += 1;
            by_rule += u32::from(found.line >= BUILTINS);
        }
    }
    assert!(decided > 2000 && by_rule > 500 && left > 2000, "{decided} ({by_rule} by a rule), {left} left");
}

/// Rules whose outcome at a path can be told by hand; `wide` ones have five thousand others behind them.
fn example(wide: bool) -> CompiledHost {
    let only = |ops: u32, mut rule: HostRule| {
        rule.matches.ops = ops;
        rule
    };
    let mut with_user = rule(Verdict::Accept, Some(&["/srv/x"]), &[]);
    with_user.matches.uid = Some(Ranges::new(vec![(0, 0)]));
    let mut audited = rule(Verdict::Drop, Some(&["/srv/audited"]), &[]);
    audited.audit = true;
    let mut rules = vec![
        only(1 << op::READ, rule(Verdict::Drop, Some(&["/etc/shadow"]), &[])),
        only(1 << op::READ, with_user),
        rule(Verdict::Count, Some(&["/srv/counted"]), &[]),
        audited,
        rule(Verdict::Drop, Some(&["/srv/**"]), &[]),
        only(1 << op::WRITE, rule(Verdict::Drop, None, &["/tmp/**"])),
    ];
    if wide {
        let more = |i| rule(Verdict::Drop, Some(&[&format!("/more/{i}")]), &[]);
        rules.extend((0..5000).map(more));
    }
    compile(&policy(rules)).unwrap().host
}

#[test]
fn quick_words_decide_wherever_path_and_operation_do() {
    let line = |rule: u32, verdict: u8| Some(Outcome { line: BUILTINS + rule, verdict: u32::from(verdict) });
    let default = Some(Outcome { line: DEFAULT, verdict: u32::from(ACCEPT) });
    for wide in [false, true] {
        let host = example(wide);
        let said = |path: &str, op| said(&host, host.leaf(PathKind::Host, path.as_bytes()), op);
        assert_eq!(said("/etc/shadow", op::READ), line(0, DROP));
        assert_eq!(said("/etc/shadow", op::EXEC), default);
        assert_eq!(said("/etc/shadow", op::WRITE), line(5, DROP), "a rule for paths that are excluded nowhere");
        assert_eq!(said("/srv/x", op::READ), None, "the user matters");
        assert_eq!(said("/srv/x", op::WRITE), line(4, DROP), "the user matters to reading only");
        assert_eq!(said("/srv/counted", op::READ), None, "something is to be counted");
        assert_eq!(said("/srv/audited", op::READ), None, "something is to be reported");
        assert_eq!(said("/srv/other", op::READ), line(4, DROP));
        assert_eq!(said("/tmp/file", op::WRITE), default);
        assert_eq!(said("/tmp/file", op::READ), default);
        if wide {
            assert_eq!(said("/more/4999", op::READ), line(6 + 4999, DROP));
            assert_eq!(said("/more/5000", op::READ), default);
        }
    }
}

#[test]
fn a_policy_that_asks_no_path_is_decided_by_operation() {
    let mut rules = vec![rule(Verdict::Drop, None, &[])];
    rules[0].matches.path.clear();
    rules[0].matches.ops = 1 << op::BPF;
    let host = compile(&policy(rules)).unwrap().host;
    assert_eq!(host.consts.quick_columns, 2);
    let outcome = |line, verdict: u8| Some(Outcome { line, verdict: u32::from(verdict) });
    assert_eq!(said(&host, 0, op::BPF), outcome(BUILTINS, DROP));
    assert_eq!(said(&host, 0, op::READ), outcome(DEFAULT, ACCEPT));
}

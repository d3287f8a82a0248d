//! What each counter stands for.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use ringfence_abi::{
    counter::{ANSWER_NAMES, BUILTINS, COOKIE_NAMES, FLOOR_NAMES, MALFORMED_NAMES},
    host,
};

use super::{Line, chain};
use crate::{
    model::{AddressMatch, Chain, HostChain, Policy, Rule, Verdict, host_word},
    ranges::AddressRanges,
};

/// The counters of one chain: the built-in ones, then the rules.
pub(super) fn lines(policy: &Policy, chain: &Chain, name: &'static str) -> Vec<Line> {
    let builtin = |line: String, verb| Line { name: line, named: true, chain: name, verb, at: None, content: 0 };
    let mut lines = Vec::with_capacity(BUILTINS as usize + chain.rules.len());
    lines.push(Line { at: Some(chain.default_at), ..builtin("default".into(), chain.default.word()) });
    lines.extend(FLOOR_NAMES.map(|floor| builtin(format!("floor/{floor}"), "accept")));
    lines.extend(MALFORMED_NAMES.map(|reason| builtin(format!("malformed/{reason}"), "drop")));
    lines.push(builtin("dynamic".into(), "drop"));
    lines.push(builtin("continuations".into(), "drop"));
    lines.push(builtin("tables".into(), "drop"));
    lines.push(builtin("unknown".into(), "count"));
    lines.push(builtin("connection/killed".into(), "drop"));
    lines.push(builtin("connection/full".into(), "count"));
    lines.push(builtin("fragment/overlap".into(), "drop"));
    lines.push(builtin("limit/full".into(), "count"));
    lines.push(builtin("limit/connections".into(), "drop"));
    lines.push(builtin("set/full".into(), "count"));
    debug_assert_eq!(lines.len(), BUILTINS as usize);
    let mut sets = SetHashes::default();
    lines.extend(chain.rules.iter().map(|rule| Line {
        name: rule.name.clone(),
        named: rule.named,
        chain: name,
        verb: verb(rule),
        at: Some(rule.at),
        content: sets.content(policy, rule),
    }));
    if chain::rejects(chain) {
        lines.extend(ANSWER_NAMES.map(|outcome| builtin(outcome.into(), "count")));
    }
    if chain::protects(chain) {
        let verbs = ["count", "drop", "drop"];
        lines.extend(COOKIE_NAMES.into_iter().zip(verbs).map(|(came, verb)| builtin(came.into(), verb)));
    }
    lines
}

/// The counters of the host chain.
pub(super) fn host(chain: &HostChain) -> Vec<Line> {
    let builtin = |line: String, verb| Line { name: line, named: true, chain: "host", verb, at: None, content: 0 };
    let mut lines = Vec::with_capacity(host::line::BUILTINS as usize + chain.rules.len());
    lines.push(Line { at: chain.default_at, ..builtin("default".into(), host_word(chain.default)) });
    lines.extend(host::line::NAMES.into_iter().zip(host::line::VERBS).map(|(name, verb)| builtin(name.into(), verb)));
    lines.push(builtin("dynamic".into(), "deny"));
    lines.push(builtin("continuations".into(), "deny"));
    lines.push(builtin("tables".into(), "deny"));
    lines.push(builtin("unknown".into(), "count"));
    debug_assert_eq!(lines.len(), host::line::BUILTINS as usize);
    lines.extend(chain.rules.iter().map(|rule| {
        let mut hash = Fnv::default();
        (rule.verdict, rule.audit, &rule.matches).hash(&mut hash);
        Line {
            name: rule.name.clone(),
            named: rule.named,
            chain: "host",
            verb: if rule.audit { "would-deny" } else { rule.word() },
            at: Some(rule.at),
            content: hash.finish(),
        }
    }));
    lines
}

fn verb(rule: &Rule) -> &'static str {
    match (rule.audit, rule.verdict) {
        (true, Verdict::Drop) => "would-drop",
        (true, Verdict::Reject) => "would-reject",
        (_, verdict) => verdict.word(),
    }
}

/// Hashes of shared address sets, each taken once.
#[derive(Default)]
struct SetHashes(HashMap<*const AddressRanges, u64>);

impl SetHashes {
    fn content(&mut self, policy: &Policy, rule: &Rule) -> u64 {
        let mut hash = Fnv::default();
        let m = &rule.matches;
        (rule.verdict, rule.audit, rule.limit).hash(&mut hash);
        if let Some(add) = rule.add {
            (&policy.dynamic_sets[usize::from(add.set.0)].name, add.unproven).hash(&mut hash);
        }
        if rule.protect {
            "syn-flood".hash(&mut hash);
        }
        (&m.proto, &m.port, &m.source_port, &m.interface, &m.family, &m.flags, &m.icmp).hash(&mut hash);
        (&m.vlan, &m.dscp, &m.mark, &m.length, &m.fragment, &m.state).hash(&mut hash);
        for side in [&m.from, &m.to] {
            hash.write_usize(side.len());
            for condition in side {
                self.address(policy, condition, &mut hash);
            }
        }
        hash.finish()
    }

    fn address(&mut self, policy: &Policy, condition: &AddressMatch, hash: &mut Fnv) {
        condition.any_of.is_some().hash(hash);
        for list in condition.any_of.iter().chain([&condition.none_of]) {
            hash.write_usize(list.fixed.len());
            for set in &list.fixed {
                let of_set = *self.0.entry(Arc::as_ptr(set)).or_insert_with(|| {
                    let mut hash = Fnv::default();
                    set.hash(&mut hash);
                    hash.finish()
                });
                hash.write_u64(of_set);
            }
            for set in &list.dynamic {
                policy.dynamic_sets[usize::from(set.0)].name.hash(hash);
            }
        }
    }
}

/// FNV-1a, 64 bits: the standard library's hasher may change between releases, and this value is kept on disk.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

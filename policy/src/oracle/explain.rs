//! Why each rule up to the deciding one did or did not match, in words.

use std::fmt::Display;

use ringfence_abi::chain::MAX_CONTINUATIONS;

use super::judge::{LineRef, judge};
use super::matches::{Mismatch, Why, check, state};
use super::{Context, DynamicEntry, Family, Field, Fields, Members, Parsed};
use crate::model::{Policy, Rule, STATES, Verdict};
use crate::ranges::Ranges;

/// What became of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// Its index in the chain.
    pub rule: usize,
    /// Its name.
    pub name: String,
    /// Whether it matched.
    pub matched: bool,
    /// Why, or why not: the first field that did not match.
    pub because: String,
}

/// Every rule from the first to the one that decides. Empty where something before the rules decides.
#[must_use]
pub fn explain(
    policy: &Policy,
    context: &Context,
    parsed: &Parsed,
    members: &Members<'_>,
    entries: &[DynamicEntry],
) -> Vec<Considered> {
    let chain = if context.ingress { &policy.ingress } else { &policy.egress };
    let (Some(chain), Ok(fields)) = (chain, parsed) else { return Vec::new() };
    let end = match judge(policy, context, parsed, members, entries).line {
        LineRef::Rule(index) => index + 1,
        LineRef::Default | LineRef::Continuations => chain.rules.len(),
        LineRef::Unattached | LineRef::Floor(_) | LineRef::Malformed(_) | LineRef::Dynamic(_) => 0,
    };
    let mut matches = 0;
    let mut considered = Vec::new();
    for (index, rule) in chain.rules[..end].iter().enumerate() {
        let outcome = check(rule, context, fields, members);
        let because = match outcome {
            Ok(()) => why_matched(rule, context, fields),
            Err(mismatch) => why_not(mismatch, rule, context, fields),
        };
        considered.push(Considered { rule: index, name: rule.name.clone(), matched: outcome.is_ok(), because });
        matches += u32::from(outcome.is_ok());
        if matches > MAX_CONTINUATIONS {
            break;
        }
    }
    considered
}

fn why_matched(rule: &Rule, context: &Context, fields: &Fields) -> String {
    let reads = &rule.matches;
    let unknown = [
        ("proto", reads.proto.is_some() && fields.proto.is_unknown()),
        ("port", reads.port.is_some() && fields.port.is_unknown()),
        ("source_port", reads.source_port.is_some() && fields.source_port.is_unknown()),
        ("flags", reads.flags.is_some() && fields.flags.is_unknown()),
        ("icmp", reads.icmp.is_some() && fields.icmp.is_unknown()),
        ("state", reads.state.is_some() && state(context, fields).is_unknown()),
    ];
    let unknown: Vec<&str> = unknown.iter().filter(|(_, unknown)| *unknown).map(|(name, _)| *name).collect();
    let by_unknown = if unknown.is_empty() {
        String::new()
    } else {
        format!("; {} cannot be told, which a refusal matches", unknown.join(", "))
    };
    let goes_on = match (rule.verdict, rule.audit) {
        (Verdict::Count, _) => "; counts, evaluation goes on",
        (_, true) => "; only audits, evaluation goes on",
        (_, false) => "",
    };
    format!("matches{by_unknown}{goes_on}")
}

fn why_not(mismatch: Mismatch, rule: &Rule, context: &Context, fields: &Fields) -> String {
    let name = mismatch.field;
    match mismatch.why {
        Why::Absent => format!("{name}: the packet has none"),
        Why::Unknown => format!("{name}: cannot be told, which only a refusal matches"),
        Why::Outside => format!("{name}: {}", outside(name, rule, context, fields)),
    }
}

/// The packet's value of a field, and what the rule wants of it where that is short.
fn outside(name: &str, rule: &Rule, context: &Context, fields: &Fields) -> String {
    let reads = &rule.matches;
    match name {
        "interface" => format!("{} is outside", context.interface),
        "family" => {
            format!("the packet is {}", if fields.family == Field::Value(Family::V4) { "ipv4" } else { "ipv6" })
        }
        "from" => format!("{} is outside", shown(fields.from)),
        "to" => format!("{} is outside", shown(fields.to)),
        "proto" => number(fields.proto, reads.proto.as_ref()),
        "port" => number(fields.port, reads.port.as_ref()),
        "source_port" => number(fields.source_port, reads.source_port.as_ref()),
        "vlan" => number(fields.vlan, reads.vlan.as_ref()),
        "dscp" => number(fields.dscp, reads.dscp.as_ref()),
        "mark" => number(fields.mark, reads.mark.as_ref()),
        "length" => number(fields.length, reads.length.as_ref()),
        "limit" => "nothing is above it yet".to_owned(),
        "state" => format!("{} is not wanted", STATES.get(usize::from(context.state)).unwrap_or(&"unknown")),
        "flags" => match fields.flags {
            Field::Value(flags) => format!("{} are not wanted", flag_names(flags)),
            Field::Absent | Field::Unknown => String::new(),
        },
        "icmp" => match fields.icmp {
            Field::Value(icmp) => format!("type {} code {} is outside", icmp.kind, icmp.code),
            Field::Absent | Field::Unknown => format!("no message of protocol {} is wanted", shown(fields.proto)),
        },
        _ => format!("the packet is {} fragment", if fields.fragment == Field::Value(true) { "a" } else { "no" }),
    }
}

pub(super) fn number<T: Display>(value: Field<T>, wanted: Option<&Ranges>) -> String {
    const SHOWN: usize = 4;
    let ranges = wanted.map_or(&[][..], Ranges::as_slice);
    let each = |&(low, high): &(u32, u32)| if low == high { low.to_string() } else { format!("{low}-{high}") };
    let list = ranges.iter().take(SHOWN).map(each).collect::<Vec<_>>().join(", ");
    let value = shown(value);
    match ranges.len() {
        0 => format!("{value} is not in the empty list"),
        1..=SHOWN => format!("{value} is not {list}"),
        more => format!("{value} is not {list} or {} more", more - SHOWN),
    }
}

pub(super) fn shown<T: Display>(value: Field<T>) -> String {
    match value {
        Field::Value(value) => value.to_string(),
        Field::Absent => "none".to_owned(),
        Field::Unknown => "unknown".to_owned(),
    }
}

fn flag_names(flags: u8) -> String {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
    let set: Vec<&str> =
        NAMES.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, name)| *name).collect();
    if set.is_empty() { "no flags".to_owned() } else { set.join(",") }
}

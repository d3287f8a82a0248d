//! `add:` beside a rule.

use ringfence_abi::limit::MAX_ADDED;

use super::fields::Context;
use super::node::{flag, text};
use super::problems::{Complaint, Problems, quote};
use super::rules::Added;
use super::sets::SetValue;
use super::source::Span;
use super::tree::{Entry, Kind, Node};
use crate::model::{Add, DynamicKind, Quantity, Rule, SetId};

const KEYS: [&str; 3] = ["source", "destination", "unproven"];
const TCP: u32 = 6;

/// Reads it; `None`: something in it is wrong, and reported.
pub(super) fn read(cx: &mut Context<'_, '_, '_>, at: Span, node: &Node<'_>) -> Option<Added> {
    let Kind::Map(entries) = &node.kind else {
        if !matches!(node.kind, Kind::Bad) {
            cx.problems.error(node.span, format!("expected `{{source: $set}}`, found {}", node.describe()));
        }
        return None;
    };
    let before = cx.problems.errors();
    let (mut set, mut destination, mut unproven, mut ends) = (None, false, false, 0);
    for Entry { key, at, value } in entries {
        match &**key {
            "source" | "destination" => {
                ends += 1;
                destination = key == "destination";
                set = added_set(cx, value);
            }
            "unproven" => unproven = flag(value, cx.problems).unwrap_or(false),
            _ => cx.problems.error(*at, Complaint::unknown("key of `add`", key, KEYS)),
        }
    }
    if ends != 1 {
        cx.problems.error(node.span, "`add` has one of `source` and `destination`");
    }
    if cx.problems.errors() > before {
        return None;
    }
    Some(Added { add: Add { set: set?, unproven }, at, destination })
}

fn added_set(cx: &mut Context<'_, '_, '_>, value: &Node<'_>) -> Option<SetId> {
    let name = text(value, "a dynamic set", cx.problems)?;
    let known = name.strip_prefix('$').map(|name| cx.sets.lookup(name, value.span, cx.problems));
    let declared = match &known {
        Some(SetValue::Bad) => return None,
        Some(SetValue::Addresses(list)) if list.fixed.is_empty() => match list.dynamic.as_slice() {
            [id] => cx.sets.dynamic.get(usize::from(id.0)).map(|set| (*id, set)),
            _ => None,
        },
        _ => None,
    };
    let Some((id, set)) = declared else {
        let complaint = Complaint::new(format!("{} is not a dynamic set", quote(name)));
        cx.problems.error(value.span, complaint.help("declare it as `NAME: {dynamic: true, timeout: 1h}`"));
        return None;
    };
    if let DynamicKind::Declared { capacity, .. } = set.kind
        && capacity > MAX_ADDED
    {
        cx.problems.error(value.span, format!("a set that rules add to has at most {MAX_ADDED} elements"));
        return None;
    }
    Some(id)
}

/// What can only be said of a rule in its chain.
pub(super) fn check(rule: &Rule, (at, added): (Span, Option<Added>), chain: &str, problems: &mut Problems) {
    let reaches = |proto: u32| rule.matches.proto.as_ref().is_none_or(|known| known.contains(proto));
    let arrives = chain == "ingress";
    if rule.counts_connections()
        && arrives
        && rule.matches.proto.as_ref().is_none_or(|proto| proto.as_slice() != [(TCP, TCP)])
    {
        let message = format!("`connections` on the rule `{}`, which is not of TCP alone", rule.name);
        let help = "what arrives is counted once a handshake has proven it: say `proto: tcp`";
        problems.error(at, Complaint::new(message).help(help));
    }
    let Some(Added { add, at, destination }) = added else { return };
    if destination == arrives {
        let (here, far) = if arrives { ("arrives", "source") } else { ("leaves", "destination") };
        problems.error(at, format!("`add` takes the far end: of what {here}, the `{far}`"));
    } else if add.unproven {
        let help = "whoever sends packets with another's address puts that address into the set";
        problems.warning(at, Complaint::new(format!("`unproven: true` on the rule `{}`", rule.name)).help(help));
    } else if !reaches(TCP) {
        let message =
            format!("`add` on the rule `{}`, which matches no TCP: only a handshake proves a source", rule.name);
        problems.error(at, Complaint::new(message).help("say `unproven: true` to add sources that nothing proves"));
    } else if rule.adds().is_none() {
        never_acts(rule, at, problems);
    }
}

fn never_acts(rule: &Rule, at: Span, problems: &mut Problems) {
    let (why, help) = match rule.limit.map(|limit| limit.of) {
        _ if rule.audit => ("in audit mode", "the rule adds when it enforces"),
        Some(Quantity::Connections(_)) => {
            ("what is refused here never completes a handshake", "a limit with `over` jails who begins too many")
        }
        Some(Quantity::Rate { rate, .. }) if rate.bytes => {
            ("handshakes prove a source, and bytes are counted", "limit what begins: `over: 10/minute` of `state: new`")
        }
        _ => (
            "what it refuses never completes a handshake",
            "accept the handshake, give it a limit with `over`, or say `unproven: true`",
        ),
    };
    problems.warning(at, Complaint::new(format!("`add` on the rule `{}` never adds: {why}", rule.name)).help(help));
}

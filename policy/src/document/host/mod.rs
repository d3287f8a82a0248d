//! `host:`, checked for its structure. The half that enforces it comes later, so a policy that has it is refused; but
//! its mistakes are reported now.

use super::fields::Context;
use super::node::{flag, parse, text};
use super::problems::{Complaint, Problems, quote};
use super::rules::{check_log, parse_name};
use super::sets::{SetValue, Sets};
use super::source::Span;
use super::tree::{Entry, Kind, Node};
use super::values;

/// Operations.
pub const OPERATIONS: [&str; 30] = [
    "all",
    "read",
    "write",
    "append",
    "create",
    "delete",
    "rename",
    "link",
    "attr",
    "exec",
    "map_exec",
    "mount",
    "umount",
    "connect",
    "bind",
    "listen",
    "send",
    "socket",
    "module_load",
    "kexec",
    "ptrace",
    "bpf",
    "perf",
    "userns",
    "capability",
    "setuid",
    "setgid",
    "signal",
    "ioctl",
    "settime",
];
/// Fields of the host half.
pub const FIELDS: [&str; 21] = [
    "op",
    "path",
    "fstype",
    "anonymous",
    "exe",
    "ancestor",
    "uid",
    "gid",
    "owner",
    "auid",
    "unit",
    "cgroup",
    "container",
    "to",
    "port",
    "proto",
    "family",
    "type",
    "capability",
    "signal",
    "target",
];
const KEYS: [&str; 12] =
    ["allow", "deny", "count", "use", "name", "comment", "mode", "log", "limit", "when", "rules", "default"];

/// Whether a group's rules are about the host: some verb is.
pub(super) fn is_host(items: &[Node<'_>]) -> bool {
    items.iter().any(|item| item.get("allow").is_some() || item.get("deny").is_some())
}

/// Checks one `host:`. Returns whether it has a `default`.
pub(super) fn section<'n, 't>(node: &'n Node<'t>, cx: &mut Context<'_, 'n, 't>) -> bool {
    let Kind::Map(entries) = &node.kind else {
        if !matches!(node.kind, Kind::Bad) {
            cx.problems
                .error(node.span, format!("expected a mapping with `default` and `rules`, found {}", node.describe()));
        }
        return true;
    };
    for Entry { key, at, value } in entries {
        match &**key {
            "default" => verdict(value, cx.problems),
            "rules" => match &value.kind {
                Kind::List(items) => rules(items, cx),
                Kind::Bad => {}
                _ => cx.problems.error(value.span, format!("expected a list of rules, found {}", value.describe())),
            },
            _ => cx.problems.error(*at, Complaint::unknown("key of `host`", key, ["default", "rules"])),
        }
    }
    entries.iter().any(|entry| entry.key == "default")
}

/// Checks a list of rules.
pub(super) fn rules<'n, 't>(items: &'n [Node<'t>], cx: &mut Context<'_, 'n, 't>) {
    for item in items {
        rule(item, cx);
    }
}

fn rule<'n, 't>(node: &'n Node<'t>, cx: &mut Context<'_, 'n, 't>) {
    let Kind::Map(entries) = &node.kind else {
        if !matches!(node.kind, Kind::Bad) {
            cx.problems.error(
                node.span,
                format!("expected a rule such as `deny: {{op: exec, path: \"/tmp/**\"}}`, found {}", node.describe()),
            );
        }
        return;
    };
    let verbs: Vec<&str> =
        entries.iter().map(|entry| &*entry.key).filter(|key| ["allow", "deny", "count", "use"].contains(key)).collect();
    let block = entries.iter().any(|entry| entry.key == "rules");
    let at = entries.first().map_or(node.span, |entry| entry.at);
    match (verbs.as_slice(), block) {
        ([], false) => cx
            .problems
            .error(at, Complaint::new("a rule without a verb").help("expected one of allow, deny, count, use")),
        ([_], false) | ([], true) => {}
        ([_, ..], true) => cx.problems.error(at, "a block has rules of its own and no verb"),
        ([first, second, ..], false) => {
            cx.problems.error(at, format!("one rule has two verbs, `{first}` and `{second}`"));
        }
    }
    for Entry { key, at, value } in entries {
        match &**key {
            "allow" | "deny" | "count" | "when" => fields(value, cx),
            "use" => {
                text(value, "a group's name", cx.problems);
            }
            "name" => {
                parse_name(value, cx.problems);
            }
            "comment" => {
                text(value, "a comment", cx.problems);
            }
            "mode" => {
                parse(
                    value,
                    "`audit`",
                    |text| match text {
                        "audit" | "enforce" => Ok(()),
                        _ => Err(Complaint::unknown("mode", text, ["enforce", "audit"])),
                    },
                    cx.problems,
                );
            }
            "log" => check_log(value, cx.problems),
            "limit" => {}
            "rules" => match &value.kind {
                Kind::List(items) => rules(items, cx),
                Kind::Bad => {}
                _ => cx.problems.error(value.span, format!("expected a list of rules, found {}", value.describe())),
            },
            "default" if block => verdict(value, cx.problems),
            _ => cx.problems.error(*at, unknown_key(key)),
        }
    }
}

fn unknown_key(key: &str) -> Complaint {
    let complaint = Complaint::unknown("key in a rule", key, KEYS);
    match key {
        "accept" => complaint.help("operations are allowed: `allow`; `accept` is a verb of the network half"),
        "drop" | "reject" => {
            complaint.help("operations are denied: `deny`; `drop` and `reject` are verbs of the network half")
        }
        _ if FIELDS.contains(&key) => complaint.help(format!("fields stand inside the verb: `- deny: {{{key}: ...}}`")),
        _ => complaint,
    }
}

fn verdict(node: &Node<'_>, problems: &mut Problems) {
    parse(
        node,
        "`allow` or `deny`",
        |text| match text {
            "allow" | "deny" => Ok(()),
            _ => Err(Complaint::unknown("verdict", text, ["allow", "deny"])),
        },
        problems,
    );
}

fn fields<'n, 't>(node: &'n Node<'t>, cx: &mut Context<'_, 'n, 't>) {
    let entries = match &node.kind {
        Kind::Map(entries) => entries,
        Kind::Scalar { text, .. } if text == "any" => return,
        Kind::Bad => return,
        _ => {
            cx.problems.error(
                node.span,
                format!("expected fields such as `{{op: exec, path: \"/tmp/**\"}}`, found {}", node.describe()),
            );
            return;
        }
    };
    for Entry { key, at, value } in entries {
        match &**key {
            "anonymous" | "owner" | "container" => {
                flag(value, cx.problems);
            }
            key if FIELDS.contains(&key) => each(value, cx.problems, cx.sets, key),
            _ => cx.problems.error(*at, Complaint::unknown("field", key, FIELDS)),
        }
    }
}

fn each(node: &Node<'_>, problems: &mut Problems, sets: &mut Sets<'_, '_>, field: &str) {
    let Some(selection) = super::selection::selection(node, problems) else { return };
    for (text, span) in selection.any_of.into_iter().flatten().chain(selection.none_of) {
        if let Some(name) = text.strip_prefix('$') {
            set(field, text, &sets.lookup(name, span, problems), span, problems);
        } else {
            problems.check(span, value(field, text));
        }
    }
}

fn set(field: &str, text: &str, value: &SetValue, span: Span, problems: &mut Problems) {
    let fits = match value {
        SetValue::Bad => true,
        SetValue::Paths => ["path", "exe", "ancestor", "target"].contains(&field),
        SetValue::Addresses(_) => field == "to",
        SetValue::Ports(_) => field == "port",
    };
    if !fits {
        problems.error(span, format!("{} does not hold what `{field}` takes", quote(text)));
    }
}

fn value(field: &str, text: &str) -> Result<(), Complaint> {
    match field {
        "op" if OPERATIONS.contains(&text) => Ok(()),
        "op" => Err(Complaint::unknown("operation", text, OPERATIONS)),
        "path" | "exe" | "ancestor" | "target" if !text.starts_with(['/', '@']) && !text.starts_with("**/") => {
            let message = format!("expected a path, found {}", quote(text));
            Err(Complaint::new(message).help("a path begins with `/` or `**/`; an abstract socket with `@`"))
        }
        "to" => values::addresses(text).map(drop),
        "port" => values::port(text).map(drop),
        "proto" => values::protocol(text).map(drop),
        _ => Ok(()),
    }
}

/// Checks the `access` of a test and what it expects.
pub(super) fn access<'n, 't>(node: &'n Node<'t>, expect: Option<&Node<'_>>, cx: &mut Context<'_, 'n, 't>) {
    if let Some(expect) = expect {
        verdict(expect, cx.problems);
    }
    fields(node, cx);
}

//! The items of `rules:`: a rule, the use of a group, a block.

use super::super::deferred::Part;
use super::super::fields::Context;
use super::super::limit;
use super::super::node::{parse, text};
use super::super::problems::Complaint;
use super::super::rules::{check_log, parse_name};
use super::super::source::Span;
use super::super::tree::{Entry, Kind, Node};
use super::conditions::Fields;
use super::fields::FIELDS;
use crate::model::Verdict;

const KEYS: [&str; 12] =
    ["allow", "deny", "count", "use", "name", "comment", "mode", "log", "limit", "when", "rules", "default"];

/// A rule as written.
pub(super) struct Rule<'n> {
    pub(super) name: Option<(&'n str, Span)>,
    pub(super) at: Span,
    pub(super) verdict: Verdict,
    pub(super) audit: bool,
    pub(super) fields: Fields,
}

/// An item of `rules:`.
pub(super) enum Item<'n, 't> {
    Rule(Rule<'n>),
    Use {
        group: &'n str,
        at: Span,
        name: Option<(&'n str, Span)>,
        when: Option<Fields>,
    },
    Block {
        name: Option<(&'n str, Span)>,
        at: Span,
        when: Fields,
        rules: &'n [Node<'t>],
        default: Option<(Verdict, Span)>,
    },
}

/// An item's keys, before it is told what they make together.
struct Parts<'n, 't> {
    at: Span,
    verbs: Vec<(&'n str, &'n Node<'t>)>,
    name: Option<(&'n str, Span)>,
    /// `mode: audit`.
    audit: Option<Span>,
    limit: Option<&'n Node<'t>>,
    /// Keys that only rules have.
    of_rules: Vec<(&'n str, Span)>,
    when: Option<(Span, Option<Fields>)>,
    /// The item is a block.
    block: bool,
    rules: Option<&'n [Node<'t>]>,
    default: Option<(Verdict, Span)>,
}

impl<'n, 't> Context<'_, 'n, 't> {
    /// Reads one item of `rules:`. `None`: something in it is wrong, and reported.
    pub(super) fn host_item(&mut self, node: &'n Node<'t>) -> Option<Item<'n, 't>> {
        let Kind::Map(entries) = &node.kind else {
            if !matches!(node.kind, Kind::Bad) {
                self.problems.error(
                    node.span,
                    format!(
                        "expected a rule such as `deny: {{op: exec, path: \"/tmp/**\"}}`, found {}",
                        node.describe()
                    ),
                );
            }
            return None;
        };
        let before = self.problems.errors();
        let parts = self.parts(entries, entries.first().map_or(node.span, |entry| entry.at));
        let whole = self.problems.errors() == before;
        let item = match (parts.verbs.as_slice(), parts.block) {
            ([], false) => {
                if whole {
                    let complaint = Complaint::new("a rule without a verb");
                    self.problems.error(parts.at, complaint.help("expected one of allow, deny, count, use"));
                }
                None
            }
            ([], true) => self.block(parts),
            (&[("use", group)], false) => self.group_use(group, parts),
            (&[(verb, fields)], false) => self.host_rule(verb, fields, &parts),
            ([_, ..], true) => {
                self.problems.error(parts.at, "a block has rules of its own and no verb");
                None
            }
            ([(first, _), (second, _), ..], false) => {
                let message = format!("one rule has two verbs, `{first}` and `{second}`");
                let complaint = Complaint::new(message).help("each verb begins a rule of its own, with `- `");
                self.problems.error(parts.at, complaint);
                None
            }
        };
        if self.problems.errors() == before { item } else { None }
    }

    fn parts(&mut self, entries: &'n [Entry<'t>], at: Span) -> Parts<'n, 't> {
        let mut parts = Parts {
            at,
            verbs: Vec::new(),
            name: None,
            audit: None,
            limit: None,
            of_rules: Vec::new(),
            when: None,
            block: entries.iter().any(|entry| entry.key == "rules"),
            rules: None,
            default: None,
        };
        for Entry { key, at, value } in entries {
            if matches!(&**key, "mode" | "log" | "limit") {
                parts.of_rules.push((&**key, *at));
            }
            match &**key {
                "allow" | "deny" | "count" | "use" => parts.verbs.push((&**key, value)),
                "name" => parts.name = parse_name(value, self.problems).map(|name| (name, value.span)),
                "comment" => {
                    text(value, "a comment", self.problems);
                }
                "mode" => parts.audit = self.mode(value),
                "when" => parts.when = Some((*at, self.host_fields(value))),
                "log" => {
                    self.deferred.add(Part::Log, *at);
                    check_log(value, self.problems);
                }
                "limit" => {
                    self.deferred.add(Part::Limit, *at);
                    parts.limit = Some(value);
                }
                "rules" => match &value.kind {
                    Kind::List(items) => parts.rules = Some(items.as_slice()),
                    Kind::Bad => {}
                    _ => {
                        let message = format!("expected a list of rules, found {}", value.describe());
                        self.problems.error(value.span, message);
                    }
                },
                "default" if parts.block => {
                    let verdict = parse(value, "`allow` or `deny`", verdict, self.problems);
                    parts.default = verdict.map(|verdict| (verdict, *at));
                }
                _ => self.problems.error(*at, unknown_key(key)),
            }
        }
        parts
    }

    fn block(&mut self, parts: Parts<'n, 't>) -> Option<Item<'n, 't>> {
        self.none_of_rules(&parts, "rules");
        let Parts { at, name, rules, default, .. } = parts;
        let when = parts.when.map_or_else(|| Some(Fields::default()), |(_, fields)| fields)?;
        Some(Item::Block { name, at, when, rules: rules?, default })
    }

    fn group_use(&mut self, group: &'n Node<'t>, parts: Parts<'n, 't>) -> Option<Item<'n, 't>> {
        self.none_of_rules(&parts, "use");
        let group = text(group, "a group's name", self.problems)?;
        let when = match parts.when {
            Some((_, fields)) => Some(fields?),
            None => None,
        };
        Some(Item::Use { group, at: parts.at, name: parts.name, when })
    }

    fn none_of_rules(&mut self, parts: &Parts<'_, '_>, whose: &str) {
        for (key, span) in &parts.of_rules {
            self.problems.error(*span, format!("`{key}` beside `{whose}`: it belongs to the rules in it"));
        }
    }

    fn host_rule(&mut self, verb: &str, fields: &'n Node<'t>, parts: &Parts<'n, 't>) -> Option<Item<'n, 't>> {
        let Parts { at, name, audit, .. } = *parts;
        if let Some((span, _)) = &parts.when {
            let complaint = Complaint::new("`when` stands beside `use` or `rules` only");
            self.problems.error(*span, complaint.help("put its fields into the rule's own"));
        }
        let verdict = match verb {
            "allow" => Verdict::Accept,
            "deny" => Verdict::Drop,
            _ => Verdict::Count,
        };
        if let Some(span) = audit
            && !verdict.refuses()
        {
            let help = "audit reports what would be refused; to only count, use the verb `count`";
            let message = format!("`mode: audit` on `{verb}`, which refuses nothing");
            self.problems.error(span, Complaint::new(message).help(help));
        }
        if let Some(limit) = parts.limit {
            limit::read(limit, verdict, verb, self.problems);
        }
        let fields = self.host_fields(fields)?;
        Some(Item::Rule(Rule { name, at, verdict, audit: audit.is_some(), fields }))
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

/// `allow` or `deny`.
pub(in crate::document) fn verdict(text: &str) -> Result<Verdict, Complaint> {
    match text {
        "allow" => Ok(Verdict::Accept),
        "deny" => Ok(Verdict::Drop),
        _ => Err(Complaint::unknown("verdict", text, ["allow", "deny"])),
    }
}

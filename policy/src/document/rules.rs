//! One rule as written: its verb, its fields and the keys beside them.

use super::add;
use super::deferred::Part;
use super::fields::{Context, Fields};
use super::limit;
use super::node::{parse, text};
use super::problems::{Complaint, Problems, quote};
use super::source::Span;
use super::tree::{Entry, Kind, Node};
use super::values;
use crate::model::{Add, Limit, Verdict};

/// Keys beside the verb.
const BESIDE: [&str; 8] = ["name", "comment", "mode", "log", "limit", "add", "when", "protect"];
const VERBS: [&str; 5] = ["accept", "drop", "reject", "count", "use"];
/// Names that counters, answers and tests use for what is not a rule.
pub(super) const RESERVED: [&str; 7] =
    ["default", "floor", "dynamic", "malformed", "continuations", "tables", "unknown"];

/// A rule, or the use of a group.
pub(super) enum Written<'n> {
    Rule(Rule<'n>),
    Use(Use<'n>),
}

/// A rule as written.
pub(super) struct Rule<'n> {
    pub name: Option<(&'n str, Span)>,
    pub at: Span,
    pub verdict: Verdict,
    pub audit: bool,
    /// Where `protect` stands.
    pub protect: Option<Span>,
    pub limit: Option<Limit>,
    pub add: Option<Added>,
    pub fields: Fields,
}

/// `- use: GROUP`.
pub(super) struct Use<'n> {
    pub group: &'n str,
    pub at: Span,
    pub name: Option<(&'n str, Span)>,
    pub when: Option<Fields>,
}

/// `add:` as written.
#[derive(Clone, Copy)]
pub(super) struct Added {
    pub add: Add,
    /// Where it stands.
    pub at: Span,
    /// It names the destination.
    pub destination: bool,
}

enum Verb {
    Verdict(Verdict),
    Use,
}

// The keys of one rule while they are read.
#[derive(Default)]
struct Keys<'n, 't> {
    verbs: Vec<(Verb, &'n str, &'n Node<'t>)>,
    name: Option<(&'n str, Span)>,
    audit: Option<Span>,
    protect: Option<Span>,
    when: Option<(Span, &'n Node<'t>)>,
    limit: Option<&'n Node<'t>>,
    add: Option<Added>,
    // Keys that only a rule with a verdict has.
    of_rules: Vec<(&'n str, Span)>,
}

impl<'n, 't> Context<'_, 'n, 't> {
    /// Reads one item of `rules:` or of a group. `None`: something in it is wrong, and reported.
    pub fn rule(&mut self, node: &'n Node<'t>) -> Option<Written<'n>> {
        let Kind::Map(entries) = &node.kind else {
            if !matches!(node.kind, Kind::Bad) {
                let complaint =
                    Complaint::new(format!("expected a rule such as `drop: any`, found {}", node.describe()));
                self.problems.error(node.span, complaint);
            }
            return None;
        };
        let before = self.problems.errors();
        let at = entries.first().map_or(node.span, |entry| entry.at);
        let mut keys = Keys::default();
        for entry in entries {
            self.key(entry, &mut keys);
        }
        let written = match keys.verbs.as_slice() {
            [] => {
                if self.problems.errors() == before {
                    let complaint = Complaint::new("a rule without a verb");
                    self.problems.error(at, complaint.help("expected one of accept, drop, reject, count, use"));
                }
                None
            }
            [(Verb::Use, _, value)] => self.finish_use(at, value, &keys),
            [(Verb::Verdict(verdict), word, value)] => self.finish_rule(at, *verdict, word, value, &keys),
            [(_, first, _), (_, second, _), ..] => {
                let message = format!("one rule has two verbs, `{first}` and `{second}`");
                self.problems.error(at, Complaint::new(message).help("each verb begins a rule of its own, with `- `"));
                for (verb, _, value) in &keys.verbs {
                    if matches!(verb, Verb::Verdict(_)) {
                        self.fields(value);
                    }
                }
                None
            }
        };
        if self.problems.errors() == before { written } else { None }
    }

    fn key(&mut self, entry: &'n Entry<'t>, keys: &mut Keys<'n, 't>) {
        let Entry { key, at, value } = entry;
        let key: &'n str = key;
        if matches!(key, "mode" | "log" | "limit" | "add" | "protect") {
            keys.of_rules.push((key, *at));
        }
        match key {
            "accept" | "drop" | "reject" | "count" | "use" => keys.verbs.push((verb(key), key, value)),
            "name" => keys.name = parse_name(value, self.problems).map(|name| (name, value.span)),
            "comment" => {
                text(value, "a comment", self.problems);
            }
            "mode" => keys.audit = self.mode(value),
            "when" => keys.when = Some((*at, value)),
            "limit" => keys.limit = Some(value),
            "add" => keys.add = add::read(self, *at, value),
            "protect" => {
                check_protect(value, self.problems);
                keys.protect = Some(*at);
            }
            "log" => {
                self.deferred.add(Part::Log, *at);
                check_log(value, self.problems);
            }
            _ => self.problems.error(*at, unknown_key(key)),
        }
    }

    // Where `mode: audit` stands.
    pub(super) fn mode(&mut self, value: &Node<'_>) -> Option<Span> {
        match text(value, "`audit`", self.problems)? {
            "audit" => return Some(value.span),
            "enforce" if self.audit_policy => {
                self.problems.error(value.span, "a rule cannot enforce in a policy that says `mode: audit`");
            }
            "enforce" => {}
            other => self.problems.error(value.span, Complaint::unknown("mode", other, ["enforce", "audit"])),
        }
        None
    }

    fn finish_use(&mut self, at: Span, value: &'n Node<'t>, keys: &Keys<'n, 't>) -> Option<Written<'n>> {
        for (key, span) in &keys.of_rules {
            self.problems.error(*span, format!("`{key}` beside `use`: it belongs to the rules of the group"));
        }
        let group = text(value, "a group's name", self.problems);
        let when = match keys.when {
            None => None,
            Some((_, node)) => Some(self.fields(node)?),
        };
        Some(Written::Use(Use { group: group?, at, name: keys.name, when }))
    }

    fn finish_rule(
        &mut self,
        at: Span,
        verdict: Verdict,
        word: &str,
        value: &'n Node<'t>,
        keys: &Keys<'n, 't>,
    ) -> Option<Written<'n>> {
        if let Some((span, _)) = keys.when {
            self.problems.error(
                span,
                Complaint::new("`when` stands beside `use` only").help("put its fields into the rule's own"),
            );
        }
        if let Some(span) = keys.audit
            && !verdict.refuses()
        {
            let help = "audit reports what would be refused; to only count, use the verb `count`";
            self.problems
                .error(span, Complaint::new(format!("`mode: audit` on `{word}`, which refuses nothing")).help(help));
        }
        if let Some(span) = keys.protect
            && verdict != Verdict::Accept
        {
            let message = format!("`protect` on `{word}`, which lets no connection begin");
            self.problems.error(span, Complaint::new(message).help("it stands beside `accept`"));
        }
        let limit = keys.limit.and_then(|node| limit::read(node, verdict, word, self.problems));
        let fields = self.fields(value)?;
        let (audit, protect) = (keys.audit.is_some(), keys.protect);
        let add = keys.add;
        Some(Written::Rule(Rule { name: keys.name, at, verdict, audit, protect, limit, add, fields }))
    }
}

fn verb(word: &str) -> Verb {
    match word {
        "accept" => Verb::Verdict(Verdict::Accept),
        "drop" => Verb::Verdict(Verdict::Drop),
        "reject" => Verb::Verdict(Verdict::Reject),
        "count" => Verb::Verdict(Verdict::Count),
        _ => Verb::Use,
    }
}

fn unknown_key(key: &str) -> Complaint {
    let complaint = Complaint::unknown("key in a rule", key, VERBS.into_iter().chain(BESIDE));
    match key {
        "allow" => complaint.help("packets are accepted: `accept`; `allow` is a verb of the host half"),
        "deny" => {
            complaint.help("packets are dropped or rejected: `drop`, `reject`; `deny` is a verb of the host half")
        }
        "rules" | "default" => {
            complaint.help("blocks are for the host half; here make a group and `use` it with a `when`")
        }
        _ if super::fields::FIELDS.contains(&key) => {
            complaint.help(format!("fields stand inside the verb: `- drop: {{{key}: ...}}`"))
        }
        _ => complaint,
    }
}

/// A given name that is not a reserved one.
pub(super) fn parse_name<'n>(node: &'n Node<'_>, problems: &mut Problems) -> Option<&'n str> {
    let text = text(node, "a name", problems)?;
    let name = problems.check(node.span, values::given_name(text))?;
    if RESERVED.contains(&name) {
        problems.error(
            node.span,
            format!("the name `{name}` is reserved: counters and answers use it for what is not a rule"),
        );
        return None;
    }
    Some(name)
}

/// `syn-flood`.
pub(super) fn check_protect(node: &Node<'_>, problems: &mut Problems) {
    let known = ["syn-flood"];
    parse(
        node,
        "`syn-flood`",
        |text| {
            if known.contains(&text) { Ok(()) } else { Err(Complaint::unknown("protection", text, known)) }
        },
        problems,
    );
}

/// `true`, or a mapping of `rate` and `sample`.
pub(super) fn check_log(node: &Node<'_>, problems: &mut Problems) {
    let Kind::Map(entries) = &node.kind else {
        if super::node::flag(node, problems) == Some(false) {
            problems.error(node.span, Complaint::new("`log: false` means nothing").help("leave it out"));
        }
        return;
    };
    for Entry { key, at, value } in entries {
        match &**key {
            "rate" => {
                parse(value, "a rate", values::rate, problems);
            }
            "sample" => {
                parse(value, "a fraction such as `1/100`", sample, problems);
            }
            _ => problems.error(*at, Complaint::unknown("key of `log`", key, ["rate", "sample"])),
        }
    }
}

fn sample(text: &str) -> Result<(), Complaint> {
    match text.strip_prefix("1/").map(|every| values::number(every, u32::MAX)) {
        Some(Ok(1..)) => Ok(()),
        _ => Err(Complaint::new(format!("expected a fraction such as `1/100`, found {}", quote(text)))),
    }
}

//! Groups and chains: rules in order, groups flattened, every rule with its name.

use std::collections::{BTreeMap, HashMap};

use ringfence_abi::chain::{MAX_RULES, STATE_ESTABLISHED};

use super::add;
use super::fields::{Context, Fields};
use super::host;
use super::node::place;
use super::outline::{CHAINS, ChainParts};
use super::problems::{Complaint, quote};
use super::rules::{Rule, Use, Written};
use super::source::Span;
use super::tree::{Kind, Node};
use crate::model::{self, Chain, Verdict};
use crate::ranges::Ranges;

// What the rules of a policy may keep in memory together, in machine words: groups and sets multiply.
const MAX_WEIGHT: usize = 8_000_000;

/// A group's rules, read once.
pub(super) struct Group<'n> {
    at: Span,
    rules: Vec<(usize, Rule<'n>)>,
    // Its rules are about the host, or wrong; either way it was reported.
    unusable: bool,
    is_host: bool,
    used: bool,
}

pub(super) type Groups<'n> = BTreeMap<&'n str, Group<'n>>;

/// Where each written rule name stands: over all chains, and within each group.
#[derive(Default)]
pub(super) struct Names<'n>(HashMap<(&'n str, &'n str), Span>);

impl<'n> Names<'n> {
    /// Takes a name; an error if it is taken. `scope` is a group, or empty.
    pub fn take(
        &mut self,
        scope: &'n str,
        name: Option<(&'n str, Span)>,
        files: &[String],
        cx: &mut Context<'_, '_, '_>,
    ) {
        let Some((name, span)) = name else { return };
        if let Some(first) = self.0.insert((scope, name), span) {
            cx.problems
                .error(span, format!("the rule name {} is given twice, first in {}", quote(name), place(first, files)));
            self.0.insert((scope, name), first);
        }
    }
}

/// Reads all groups.
pub(super) fn read_groups<'n, 't>(
    written: &BTreeMap<&'n str, (Span, &'n Node<'t>)>,
    names: &mut Names<'n>,
    files: &[String],
    cx: &mut Context<'_, 'n, 't>,
) -> Groups<'n> {
    let mut groups = Groups::new();
    for (&name, &(at, node)) in written {
        let mut group = Group { at, rules: Vec::new(), unusable: false, is_host: false, used: false };
        match &node.kind {
            Kind::List(items) if host::is_host(items) => {
                // Read with the host's rules.
                group.is_host = true;
            }
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    match cx.rule(item) {
                        Some(Written::Rule(rule)) => {
                            names.take(name, rule.name, files, cx);
                            group.rules.push((index, rule));
                        }
                        Some(Written::Use(inner)) => {
                            let complaint = Complaint::new("a group inside a group");
                            cx.problems.error(inner.at, complaint.help("use both groups where this one is used"));
                            group.unusable = true;
                        }
                        None => group.unusable = true,
                    }
                }
            }
            Kind::Bad => group.unusable = true,
            _ => {
                cx.problems.error(node.span, format!("expected a list of rules, found {}", node.describe()));
                group.unusable = true;
            }
        }
        groups.insert(name, group);
    }
    groups
}

/// Builds the rules of one chain after the other.
pub(super) struct Builder<'b, 'c, 'n, 't> {
    pub cx: &'b mut Context<'c, 'n, 't>,
    pub groups: Groups<'n>,
    pub names: Names<'n>,
    /// The files as reports call them.
    pub files: &'b [String],
    /// Some file could not be read: what is missing may have been in it.
    pub incomplete: bool,
    weight: usize,
}

impl<'b, 'c, 'n, 't> Builder<'b, 'c, 'n, 't> {
    pub fn new(
        cx: &'b mut Context<'c, 'n, 't>,
        groups: Groups<'n>,
        names: Names<'n>,
        files: &'b [String],
        incomplete: bool,
    ) -> Self {
        Self { cx, groups, names, files, incomplete, weight: 0 }
    }

    /// A chain; `None` if the policy does not have it. With errors its rules are not all there.
    pub fn chain(&mut self, index: usize, parts: &ChainParts<'n, 't>) -> Option<Chain> {
        let at = parts.at?;
        let name = CHAINS[index];
        let mut flat = Flat { rules: Vec::new(), prefixes: HashMap::new(), over: false };
        for (file, items) in &parts.rules {
            let file_name =
                self.files.get(*file as usize).map_or("", |name| name.rsplit('/').next().unwrap_or(name)).to_owned();
            for (index, item) in items.iter().enumerate() {
                match self.cx.rule(item) {
                    Some(Written::Rule(rule)) => {
                        self.names.take("", rule.name, self.files, self.cx);
                        let given = rule.name.map(|(name, _)| name.to_owned());
                        let full = given.unwrap_or_else(|| format!("{file_name}:{name}[{index}]"));
                        self.push(&rule, full, &rule.fields, None, name, &mut flat);
                    }
                    Some(Written::Use(group)) => self.flatten(&group, name, &mut flat),
                    None => {}
                }
            }
        }
        let Some((default, default_at)) = parts.default else {
            if !parts.default_written && !self.incomplete {
                let complaint = Complaint::new(format!("`{name}` has no `default`"));
                self.cx.problems.error(
                    at,
                    complaint
                        .help("say what happens to packets that no rule decides: `default: drop` or `default: accept`"),
                );
            }
            return None;
        };
        let stateless = parts.stateless.is_some_and(|(on, _)| on);
        if default.refuses() && !stateless && !flat.rules.iter().any(accepts_established) && !self.incomplete {
            let message = format!("`{name}` refuses by default and accepts no established connections");
            let help = "answers would be refused, too: begin with `- accept: {state: [established, related]}`, or say `stateless: true`";
            self.cx.problems.error(default_at, Complaint::new(message).help(help));
        }
        if let Some(span) = parts.protect {
            self.protected(span, name);
            for rule in flat.rules.iter_mut().filter(|rule| rule.verdict == Verdict::Accept) {
                rule.protect = true;
            }
        }
        let protect = parts.protect.is_some() && default == Verdict::Accept;
        Some(Chain { default, default_at: default_at.location(), protect, rules: flat.rules })
    }

    // Only connections from elsewhere begin with a SYN to this host.
    fn protected(&mut self, at: Span, chain: &str) {
        if chain != CHAINS[0] {
            let complaint = Complaint::new(format!("`protect` in `{chain}`"));
            self.cx.problems.error(at, complaint.help("SYN floods arrive: it belongs into `ingress`"));
        }
    }

    fn flatten(&mut self, written: &Use<'n>, chain: &'static str, flat: &mut Flat) {
        let Some(group) = self.groups.get_mut(written.group) else {
            if !self.incomplete {
                let help = self.cx.problems.nearest(written.group, self.groups.keys().copied());
                let message = format!("there is no group {}", quote(written.group));
                self.cx.problems.error(written.at, Complaint { help, ..message.into() });
            }
            return;
        };
        group.used = true;
        if group.is_host {
            self.cx.problems.error(
                written.at,
                format!("the group `{}` has rules about the host, not about packets", written.group),
            );
        }
        if group.is_host || group.unusable {
            return;
        }
        let prefix = written.name.map_or(written.group, |(name, _)| name).to_owned();
        if let Some(first) = flat.prefixes.insert(prefix.clone(), written.at) {
            let first = place(first, self.files);
            let message =
                format!("`{prefix}` is used twice in `{chain}`, first in {first}: its rules would have the same names");
            self.cx.problems.error(written.at, Complaint::new(message).help("give this use a `name`"));
            return;
        }
        // Taken out while its rules are pushed, since that needs all of `self`.
        let rules = std::mem::take(&mut group.rules);
        for (index, rule) in &rules {
            let full = match rule.name {
                Some((name, _)) => format!("{prefix}/{name}"),
                None => format!("{prefix}[{index}]"),
            };
            match &written.when {
                Some(when) => self.push(rule, full, &when.and(&rule.fields), Some(written.at), chain, flat),
                None => self.push(rule, full, &rule.fields, Some(written.at), chain, flat),
            }
        }
        if let Some(group) = self.groups.get_mut(written.group) {
            group.rules = rules;
        }
    }

    fn push(
        &mut self,
        rule: &Rule<'n>,
        name: String,
        fields: &Fields,
        used_at: Option<Span>,
        chain: &'static str,
        flat: &mut Flat,
    ) {
        if flat.over || !fields.check_protocol(self.cx.problems) {
            return;
        }
        if flat.rules.len() == MAX_RULES {
            flat.over = true;
            self.cx.problems.error(used_at.unwrap_or(rule.at), format!("`{chain}` has more than {MAX_RULES} rules"));
            return;
        }
        self.weight += fields.weight();
        if self.weight > MAX_WEIGHT {
            flat.over = true;
            let message = "the rules up to here list too many values together: the same long lists stand in many rules";
            self.cx
                .problems
                .error(used_at.unwrap_or(rule.at), Complaint::new(message).help("let fewer rules name them"));
            return;
        }
        if !fields.contradictions.is_empty() {
            let at = used_at.unwrap_or(rule.at);
            let fields = fields.contradictions.join("` and `");
            self.cx.problems.warning(
                at,
                format!("the rule `{name}` can never match: its `{fields}` and that of `when` exclude each other"),
            );
        }
        if let Some(span) = rule.protect {
            self.protected(span, chain);
            if fields.matches.proto.as_ref().is_some_and(|proto| !proto.contains(6)) {
                let message = format!("`protect` on the rule `{name}`, which matches no TCP");
                self.cx.problems.error(span, Complaint::new(message).help("say `proto: tcp`, or leave it out"));
            }
        }
        let made = model::Rule {
            name,
            named: rule.name.is_some(),
            at: rule.at.location(),
            verdict: rule.verdict,
            audit: rule.audit,
            limit: rule.limit,
            add: rule.add.map(|added| added.add),
            protect: rule.protect.is_some(),
            matches: fields.matches.clone(),
        };
        add::check(&made, (rule.at, rule.add), chain, self.cx.problems);
        flat.rules.push(made);
    }

    /// Warns of groups that no chain uses.
    pub fn warn_unused(&mut self) {
        for (name, group) in self.groups.iter().filter(|(_, group)| !group.used && !group.is_host) {
            self.cx.problems.warning(group.at, format!("the group `{name}` is not used"));
        }
    }
}

fn accepts_established(rule: &model::Rule) -> bool {
    let established = |states: &Ranges| states.contains(STATE_ESTABLISHED);
    rule.verdict == Verdict::Accept && rule.matches.state.as_ref().is_some_and(established)
}

// A chain's rules so far.
struct Flat {
    rules: Vec<model::Rule>,
    // Uses of groups, by the first part of their rules' names.
    prefixes: HashMap<String, Span>,
    over: bool,
}

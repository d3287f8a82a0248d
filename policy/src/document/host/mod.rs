//! `host:`: rules about what processes do, groups and blocks flattened.

mod access;
mod conditions;
mod fields;
mod items;
mod words;

use std::collections::{BTreeMap, HashMap};

use ringfence_abi::chain::MAX_RULES;

pub(super) use self::access::Builder as AccessBuilder;
pub(crate) use self::access::KEYS as ACCESS_KEYS;
use self::conditions::Fields;
pub(crate) use self::fields::FIELDS;
pub(super) use self::fields::path;
pub(super) use self::items::verdict;
use self::items::{Item, Rule};
pub(crate) use self::words::OPERATIONS;
use super::chains::Names;
use super::fields::Context;
use super::node::{flag, parse, place};
use super::problems::{Complaint, quote};
use super::source::Span;
use super::tree::{Entry, Kind, Node};
use crate::model::{HostChain, HostRule, Verdict};

/// A group of rules about the host.
pub(super) struct Group<'n> {
    at: Span,
    rules: Vec<(usize, Rule<'n>)>,
    unusable: bool,
    used: bool,
}

/// Whether a group's rules are about the host: some verb is.
pub(super) fn is_host(items: &[Node<'_>]) -> bool {
    items.iter().any(|item| item.get("allow").is_some() || item.get("deny").is_some())
}

/// Reads the groups that are about the host.
pub(super) fn read_groups<'n, 't>(
    written: &BTreeMap<&'n str, (Span, &'n Node<'t>)>,
    names: &mut Names<'n>,
    files: &[String],
    cx: &mut Context<'_, 'n, 't>,
) -> BTreeMap<&'n str, Group<'n>> {
    let mut groups = BTreeMap::new();
    for (&name, &(at, node)) in written {
        let Kind::List(items) = &node.kind else { continue };
        if !is_host(items) {
            continue;
        }
        let mut group = Group { at, rules: Vec::new(), unusable: false, used: false };
        for (index, item) in items.iter().enumerate() {
            match cx.host_item(item) {
                Some(Item::Rule(rule)) => {
                    names.take(name, rule.name, files, cx);
                    group.rules.push((index, rule));
                }
                Some(Item::Use { at, .. }) => {
                    let complaint = Complaint::new("a group inside a group");
                    cx.problems.error(at, complaint.help("use both groups where this one is used"));
                    group.unusable = true;
                }
                Some(Item::Block { at, .. }) => {
                    let complaint = Complaint::new("a block inside a group");
                    cx.problems.error(at, complaint.help("put `when` beside the group's `use`"));
                    group.unusable = true;
                }
                None => group.unusable = true,
            }
        }
        groups.insert(name, group);
    }
    groups
}

/// Reads every file's `host:` into one chain; without any, the implicit one.
pub(super) fn read<'n, 't>(
    sections: &[(Span, &'n Node<'t>)],
    groups: BTreeMap<&'n str, Group<'n>>,
    names: &mut Names<'n>,
    files: &[String],
    incomplete: bool,
    cx: &mut Context<'_, 'n, 't>,
) -> HostChain {
    let mut builder =
        Builder { cx, names, files, groups, incomplete, rules: Vec::new(), prefixes: HashMap::new(), over: false };
    let (mut default, mut protect) = (None, None);
    let mut default_written = false;
    let mut any_rules = false;
    for (_, node) in sections {
        let Kind::Map(entries) = &node.kind else {
            if !matches!(node.kind, Kind::Bad) {
                let message = format!("expected a mapping with `default` and `rules`, found {}", node.describe());
                builder.cx.problems.error(node.span, message);
            }
            default_written = true;
            continue;
        };
        for Entry { key, at, value } in entries {
            match &**key {
                "default" => {
                    default_written = true;
                    let verdict = parse(value, "`allow` or `deny`", verdict, builder.cx.problems);
                    builder.once("the default of `host`", verdict, *at, &mut default);
                }
                "protect_self" => {
                    let on = flag(value, builder.cx.problems);
                    builder.once("`protect_self`", on, *at, &mut protect);
                }
                "rules" => {
                    any_rules = true;
                    match &value.kind {
                        Kind::List(items) => builder.file(at.file, items),
                        Kind::Bad => {}
                        _ => {
                            let message = format!("expected a list of rules, found {}", value.describe());
                            builder.cx.problems.error(value.span, message);
                        }
                    }
                }
                _ => {
                    let known = ["default", "rules", "protect_self"];
                    builder.cx.problems.error(*at, Complaint::unknown("key of `host`", key, known));
                }
            }
        }
    }
    builder.warn_unused();
    let rules = std::mem::take(&mut builder.rules);
    let Some((at, _)) = sections.first() else { return HostChain::implicit() };
    // To ask for self-protection alone is to say nothing else.
    if !default_written && !incomplete && (any_rules || protect.is_none()) {
        let complaint = Complaint::new("`host` has no `default`").help("say `default: allow` or `default: deny`");
        cx.problems.error(*at, complaint);
    }
    HostChain {
        implicit: false,
        default: default.map_or(Verdict::Accept, |(verdict, _)| verdict),
        default_at: default.map(|(_, at)| at.location()),
        rules,
        protect_self: protect.is_some_and(|(on, _)| on),
    }
}

struct Builder<'b, 'c, 'n, 't> {
    cx: &'b mut Context<'c, 'n, 't>,
    names: &'b mut Names<'n>,
    files: &'b [String],
    groups: BTreeMap<&'n str, Group<'n>>,
    incomplete: bool,
    rules: Vec<HostRule>,
    /// Uses of groups and blocks, by the first part of their rules' names.
    prefixes: HashMap<String, Span>,
    over: bool,
}

impl<'n, 't> Builder<'_, '_, 'n, 't> {
    fn once<T>(&mut self, what: &str, value: Option<T>, at: Span, slot: &mut Option<(T, Span)>) {
        match (value, &slot) {
            (Some(_), Some((_, first))) => {
                let message = format!("{what} is set a second time, first in {}", place(*first, self.files));
                self.cx.problems.error(at, message);
            }
            (Some(value), None) => *slot = Some((value, at)),
            (None, _) => {}
        }
    }

    fn file(&mut self, file: u32, items: &'n [Node<'t>]) {
        let name = self.files.get(file as usize).map_or("", |name| name.rsplit('/').next().unwrap_or(name)).to_owned();
        for (index, item) in items.iter().enumerate() {
            let unnamed = format!("{name}:host[{index}]");
            match self.cx.host_item(item) {
                Some(Item::Rule(rule)) => {
                    self.names.take("", rule.name, self.files, self.cx);
                    let full = rule.name.map_or(unnamed, |(name, _)| name.to_owned());
                    self.push(&rule, full, None, rule.at);
                }
                Some(Item::Use { group, at, name, when }) => self.flatten(group, at, name, "", when.as_ref()),
                Some(Item::Block { name, at, when, rules, default }) => {
                    self.names.take("", name, self.files, self.cx);
                    let named = name.is_some();
                    let prefix = name.map_or(unnamed, |(name, _)| name.to_owned());
                    self.block(&prefix, named, at, &when, rules, default);
                }
                None => {}
            }
        }
    }

    fn block(
        &mut self,
        prefix: &str,
        named: bool,
        at: Span,
        when: &Fields,
        items: &'n [Node<'t>],
        default: Option<(Verdict, Span)>,
    ) {
        if !self.prefix(prefix, at) {
            return;
        }
        let mut inner: HashMap<&str, Span> = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            match self.cx.host_item(item) {
                Some(Item::Rule(rule)) => {
                    let full = match rule.name {
                        Some((name, span)) => {
                            if let Some(first) = inner.insert(name, span) {
                                let first = place(first, self.files);
                                let message = format!("the rule name {} is given twice, first in {first}", quote(name));
                                self.cx.problems.error(span, message);
                            }
                            format!("{prefix}/{name}")
                        }
                        None => format!("{prefix}[{index}]"),
                    };
                    self.push(&rule, full, Some(when), rule.at);
                }
                Some(Item::Use { group, at, name, when: own }) => {
                    let both = own.map_or_else(|| when.clone(), |own| when.and(&own));
                    self.flatten(group, at, name, &format!("{prefix}/"), Some(&both));
                }
                Some(Item::Block { at, .. }) => self.cx.problems.error(at, "a block inside a block"),
                None => {}
            }
        }
        if let Some((verdict, at)) = default {
            let name = named.then_some(("default", at));
            let rule = Rule { name, at, verdict, audit: false, fields: Fields::default() };
            self.push(&rule, format!("{prefix}/default"), Some(when), at);
        }
    }

    fn prefix(&mut self, prefix: &str, at: Span) -> bool {
        let Some(first) = self.prefixes.insert(prefix.to_owned(), at) else { return true };
        let first = place(first, self.files);
        let message =
            format!("`{prefix}` is used twice in `host`, first in {first}: its rules would have the same names");
        self.cx.problems.error(at, Complaint::new(message).help("give this one another `name`"));
        false
    }

    fn flatten(
        &mut self,
        name: &'n str,
        at: Span,
        own_name: Option<(&'n str, Span)>,
        within: &str,
        when: Option<&Fields>,
    ) {
        let Some(group) = self.groups.get_mut(name) else {
            if !self.incomplete {
                let help = self.cx.problems.nearest(name, self.groups.keys().copied());
                let message = format!("there is no group {} of rules about the host", quote(name));
                self.cx.problems.error(at, Complaint { help, ..message.into() });
            }
            return;
        };
        group.used = true;
        if group.unusable {
            return;
        }
        // Taken out while its rules are pushed, since that needs all of `self`.
        let rules = std::mem::take(&mut group.rules);
        let prefix = format!("{within}{}", own_name.map_or(name, |(name, _)| name));
        if self.prefix(&prefix, at) {
            for (index, rule) in &rules {
                let full =
                    rule.name.map_or_else(|| format!("{prefix}[{index}]"), |(name, _)| format!("{prefix}/{name}"));
                self.push(rule, full, when, at);
            }
        }
        if let Some(group) = self.groups.get_mut(name) {
            group.rules = rules;
        }
    }

    fn push(&mut self, rule: &Rule<'n>, name: String, when: Option<&Fields>, used_at: Span) {
        if self.over {
            return;
        }
        if self.rules.len() == MAX_RULES {
            self.over = true;
            self.cx.problems.error(used_at, format!("`host` has more than {MAX_RULES} rules"));
            return;
        }
        let fields = when.map_or_else(|| rule.fields.clone(), |when| when.and(&rule.fields));
        let Some(matches) = fields.finish(rule.at, self.cx.problems) else { return };
        if !fields.contradictions.is_empty() {
            let names: Vec<&str> = fields.contradictions.iter().copied().collect();
            let message = format!(
                "the rule `{name}` can never match: its `{}` and that of `when` exclude each other",
                names.join("` and `")
            );
            self.cx.problems.warning(used_at, message);
        }
        self.rules.push(HostRule {
            name,
            named: rule.name.is_some(),
            at: rule.at.location(),
            verdict: rule.verdict,
            audit: rule.audit,
            matches,
        });
    }

    fn warn_unused(&mut self) {
        for (name, group) in self.groups.iter().filter(|(_, group)| !group.used) {
            self.cx.problems.warning(group.at, format!("the group `{name}` is not used"));
        }
    }
}

//! The top level of every file, put together: what may stand once, what adds up, and where each part was written.

use std::collections::BTreeMap;
use std::path::Path;

use ringfence_abi::counter::FLOOR_NAMES;

use super::connections::Written;
use super::node::{flag, parse, place};
use super::problems::{Complaint, Problems};
use super::rules::check_protect;
use super::source::Span;
use super::tree::{Entry, Kind, Node};
use super::values;
use crate::model::{Mode, NameGlob, Verdict};

const TOP: [&str; 7] = ["ringfence", "mode", "sets", "network", "host", "groups", "tests"];

/// One file's tree and what it is called.
pub(super) struct File<'n, 't> {
    pub root: &'n Node<'t>,
    pub base: &'n Path,
}

/// A chain as written.
#[derive(Default)]
pub(super) struct ChainParts<'n, 't> {
    /// The chain's first mention.
    pub at: Option<Span>,
    pub default: Option<(Verdict, Span)>,
    /// It was written, even if wrongly.
    pub default_written: bool,
    pub stateless: Option<(bool, Span)>,
    /// Where `protect` stands.
    pub protect: Option<Span>,
    /// The `rules:` of each file.
    pub rules: Vec<(u32, &'n [Node<'t>])>,
}

/// Everything at the top of the files.
#[derive(Default)]
pub(super) struct Outline<'n, 't> {
    pub mode: Option<(Mode, Span)>,
    pub sets: Vec<(&'n [Entry<'t>], &'n Path)>,
    pub interfaces: Option<(Vec<NameGlob>, Span)>,
    pub floor: [Option<(bool, Span)>; FLOOR_NAMES.len()],
    pub connections: Written,
    pub chains: [ChainParts<'n, 't>; 2],
    pub host: Vec<(Span, &'n Node<'t>)>,
    pub groups: BTreeMap<&'n str, (Span, &'n Node<'t>)>,
    pub tests: Vec<&'n Node<'t>>,
}

/// Reads the top level of all files.
pub(super) fn read<'n, 't>(files: &[File<'n, 't>], names: &[String], problems: &mut Problems) -> Outline<'n, 't> {
    let mut reader = Reader { outline: Outline::default(), names, problems };
    for file in files {
        reader.file(file);
    }
    reader.outline
}

struct Reader<'r, 'n, 't> {
    outline: Outline<'n, 't>,
    names: &'r [String],
    problems: &'r mut Problems,
}

impl<'n, 't> Reader<'_, 'n, 't> {
    fn file(&mut self, file: &File<'n, 't>) {
        let Some(entries) = self.mapping(file.root, "a policy with the keys ringfence, sets, network ...") else {
            return;
        };
        if !entries.iter().any(|entry| entry.key == "ringfence") {
            let at = entries.first().map_or(file.root.span, |entry| entry.at);
            let complaint = Complaint::new("the language version is missing");
            self.problems.error(at, complaint.help("a policy file begins with `ringfence: 1`"));
        }
        for Entry { key, at, value } in entries {
            match &**key {
                "ringfence" => self.version(value),
                "mode" => {
                    let mode = parse(value, "`enforce` or `audit`", mode, self.problems);
                    let mode = mode.map(|mode| (mode, *at));
                    once("mode", mode, &mut self.outline.mode, self.names, self.problems);
                }
                "sets" => {
                    if let Some(entries) = self.mapping(value, "set names with their values") {
                        self.outline.sets.push((entries, file.base));
                    }
                }
                "network" => self.network(value),
                "host" => self.outline.host.push((*at, value)),
                "groups" => self.groups(value),
                "tests" => {
                    let tests = self.list(value, "a list of tests");
                    self.outline.tests.extend(tests.into_iter().flatten());
                }
                _ => {
                    let complaint = Complaint::unknown("key", key, TOP);
                    let network = ["interfaces", "floor", "connections", "ingress", "egress"].contains(&&**key);
                    let complaint =
                        if network { complaint.help(format!("`{key}` stands inside `network:`")) } else { complaint };
                    self.problems.error(*at, complaint);
                }
            }
        }
    }

    fn mapping(&mut self, node: &'n Node<'t>, what: &str) -> Option<&'n [Entry<'t>]> {
        match &node.kind {
            Kind::Map(entries) => return Some(entries),
            Kind::Bad => {}
            _ => self.problems.error(node.span, format!("expected {what}, found {}", node.describe())),
        }
        None
    }

    fn list(&mut self, node: &'n Node<'t>, what: &str) -> Option<&'n [Node<'t>]> {
        match &node.kind {
            Kind::List(items) => return Some(items),
            Kind::Bad => {}
            _ => self.problems.error(node.span, format!("expected {what}, found {}", node.describe())),
        }
        None
    }

    fn version(&mut self, value: &Node<'_>) {
        let version =
            parse(value, "the version of the language, 1", |text| values::number(text, u32::MAX), self.problems);
        if version.is_some_and(|version| version != 1) {
            self.problems.error(value.span, "this Ringfence knows version 1 of the language only");
        }
    }

    fn groups(&mut self, value: &'n Node<'t>) {
        let Some(entries) = self.mapping(value, "group names with their rules") else { return };
        for Entry { key, at, value } in entries {
            let name: &'n str = key;
            if self.problems.check(*at, values::given_name(name)).is_none() {
                continue;
            }
            if super::rules::RESERVED.contains(&name) {
                self.problems.error(
                    *at,
                    format!("the name `{name}` is reserved: counters and answers use it for what is not a rule"),
                );
            } else if let Some((first, _)) = self.outline.groups.get(name) {
                let message = format!("the group `{name}` is declared twice, first in {}", place(*first, self.names));
                self.problems.error(*at, message);
            } else {
                self.outline.groups.insert(name, (*at, value));
            }
        }
    }

    fn network(&mut self, value: &'n Node<'t>) {
        let Some(entries) = self.mapping(value, "a mapping with ingress, egress, interfaces or floor") else { return };
        for Entry { key, at, value } in entries {
            match &**key {
                "interfaces" => {
                    let globs = self.interfaces(value).map(|globs| (globs, *at));
                    once("interfaces", globs, &mut self.outline.interfaces, self.names, self.problems);
                }
                "floor" => self.floor(value),
                "connections" => self.outline.connections.read(value, self.names, self.problems),
                "ingress" => self.chain(0, *at, value),
                "egress" => self.chain(1, *at, value),
                _ => self.problems.error(
                    *at,
                    Complaint::unknown(
                        "key of `network`",
                        key,
                        ["interfaces", "floor", "connections", "ingress", "egress"],
                    ),
                ),
            }
        }
    }

    fn interfaces(&mut self, value: &'n Node<'t>) -> Option<Vec<NameGlob>> {
        let items = match &value.kind {
            Kind::Scalar { .. } => std::slice::from_ref(value),
            _ => self.list(value, "a list of interface names")?,
        };
        let globs: Vec<Option<NameGlob>> =
            items.iter().map(|item| parse(item, "an interface name", values::interface_glob, self.problems)).collect();
        globs.into_iter().collect()
    }

    fn floor(&mut self, value: &'n Node<'t>) {
        let Some(entries) = self.mapping(value, "floor lines with `true` or `false`") else { return };
        for Entry { key, at, value } in entries {
            match FLOOR_NAMES.iter().position(|name| name == key) {
                Some(index) => {
                    let on = flag(value, self.problems).map(|on| (on, *at));
                    once(&format!("floor: {key}"), on, &mut self.outline.floor[index], self.names, self.problems);
                }
                None => self.problems.error(*at, Complaint::unknown("line of the floor", key, FLOOR_NAMES)),
            }
        }
    }

    fn chain(&mut self, index: usize, at: Span, value: &'n Node<'t>) {
        let name = CHAINS[index];
        self.outline.chains[index].at.get_or_insert(at);
        let Some(entries) = self.mapping(value, "a mapping with `default` and `rules`") else { return };
        for Entry { key, at, value } in entries {
            match &**key {
                "default" => {
                    self.outline.chains[index].default_written = true;
                    let verdict = parse(value, "a verdict", default, self.problems).map(|verdict| (verdict, *at));
                    let slot = &mut self.outline.chains[index].default;
                    once(&format!("the default of `{name}`"), verdict, slot, self.names, self.problems);
                }
                "stateless" => {
                    let stateless = flag(value, self.problems).map(|stateless| (stateless, *at));
                    let slot = &mut self.outline.chains[index].stateless;
                    once(&format!("`stateless` of `{name}`"), stateless, slot, self.names, self.problems);
                }
                "rules" => {
                    if let Some(rules) = self.list(value, "a list of rules") {
                        self.outline.chains[index].rules.push((at.file, rules));
                    }
                }
                "protect" => {
                    check_protect(value, self.problems);
                    self.outline.chains[index].protect = Some(*at);
                }
                _ => {
                    let known = ["default", "rules", "stateless", "protect"];
                    self.problems.error(*at, Complaint::unknown(&format!("key of `{name}`"), key, known));
                }
            }
        }
    }
}

/// Names of the chains, in the order of [`Outline::chains`].
pub(super) const CHAINS: [&str; 2] = ["ingress", "egress"];

fn mode(text: &str) -> Result<Mode, Complaint> {
    match text {
        "enforce" => Ok(Mode::Enforce),
        "audit" => Ok(Mode::Audit),
        _ => Err(Complaint::unknown("mode", text, ["enforce", "audit"])),
    }
}

/// `accept`, `drop` or `reject`.
pub(super) fn default(text: &str) -> Result<Verdict, Complaint> {
    match text {
        "accept" => Ok(Verdict::Accept),
        "drop" => Ok(Verdict::Drop),
        "reject" => Ok(Verdict::Reject),
        "allow" => Err(Complaint::new("unknown verdict `allow`").help("packets are accepted: `accept`")),
        "deny" => Err(Complaint::new("unknown verdict `deny`").help("packets are dropped: `drop`")),
        _ => Err(Complaint::unknown("verdict", text, ["accept", "drop", "reject"])),
    }
}

// Keeps a value that may be given in one place only.
pub(super) fn once<T>(
    what: &str,
    value: Option<(T, Span)>,
    slot: &mut Option<(T, Span)>,
    names: &[String],
    problems: &mut Problems,
) {
    match (value, &slot) {
        (Some((_, span)), Some((_, first))) => {
            problems.error(span, format!("{what} is set a second time, first in {}", place(*first, names)));
        }
        (Some(value), None) => *slot = Some(value),
        (None, _) => {}
    }
}

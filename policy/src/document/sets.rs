//! `sets:` resolved to addresses, ports or paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Copies;
use super::node::{flag, parse, place};
use super::problems::{Complaint, Problems, quote};
use super::set_file::{self, SetFile};
use super::set_list::Parts;
use super::source::Span;
use super::tree::{Entry, Kind, Node};
use super::values::{self, Addresses};
use crate::model::{AddressList, DynamicKind, DynamicSet, PathGlob, SetId, WhenFull};
use crate::ranges::{AddressRanges, Ranges};

/// Sets in a policy.
pub const MAX_SETS: usize = 1000;
/// Elements of all static sets together, those in files included.
pub const MAX_ELEMENTS: usize = 4_000_000;
/// Dynamic sets in a policy, the built-in ones included where a rule reads them.
pub const MAX_DYNAMIC_SETS: usize = 64;
/// `capacity:` of a dynamic set: at most.
pub const MAX_CAPACITY: u32 = 4_000_000;
const DEFAULT_CAPACITY: u32 = 65_536;

/// The sets the daemon keeps.
pub(super) const BUILT_IN: [(&str, DynamicKind); 3] =
    [("local", DynamicKind::Local), ("gateways", DynamicKind::Gateways), ("resolvers", DynamicKind::Resolvers)];

/// What a set's name stands for.
#[derive(Clone, Debug)]
pub(super) enum SetValue {
    Addresses(AddressList),
    Ports(Arc<Ranges>),
    /// For the host half.
    Paths(Arc<Vec<PathGlob>>),
    /// Reported; whoever names it says no more.
    Bad,
}

impl SetValue {
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Addresses(_) => "addresses",
            Self::Ports(_) => "ports",
            Self::Paths(_) | Self::Bad => "paths",
        }
    }
}

enum State<'n, 't> {
    Declared(&'n Node<'t>),
    Resolving,
    Resolved(SetValue),
}

struct Slot<'n, 't> {
    at: Span,
    base: &'n Path,
    state: State<'n, 't>,
    used: bool,
}

/// All sets of a policy.
pub(super) struct Sets<'n, 't> {
    slots: BTreeMap<&'n str, Slot<'n, 't>>,
    /// The declared dynamic sets, in name order; [`SetId`]s from their number on are the built-in ones.
    pub dynamic: Vec<DynamicSet>,
    /// The file feeds that were read.
    pub files: Vec<SetFile>,
    elements: usize,
    // Some file of the policy could not be read: a name that is missing may have been in it.
    incomplete: bool,
    copies: &'n Copies,
}

impl<'n, 't> Sets<'n, 't> {
    pub fn new(incomplete: bool, copies: &'n Copies) -> Self {
        Self { slots: BTreeMap::new(), dynamic: Vec::new(), files: Vec::new(), elements: 0, incomplete, copies }
    }

    /// Takes one file's `sets:`.
    pub fn declare(&mut self, entries: &'n [Entry<'t>], base: &'n Path, names: &[String], problems: &mut Problems) {
        for Entry { key, at, value } in entries {
            let complaint = match values::given_name(key) {
                Err(complaint) => complaint,
                Ok(name) if BUILT_IN.iter().any(|(built_in, _)| *built_in == name) => {
                    Complaint::new(format!("`{name}` is a built-in set, kept by the daemon"))
                        .help("choose another name")
                }
                Ok(name) => {
                    let Some(first) = self.slots.get(name) else {
                        let state = State::Declared(value);
                        self.slots.insert(key, Slot { at: *at, base, state, used: false });
                        continue;
                    };
                    format!("the set `{name}` is declared twice, first in {}", place(first.at, names)).into()
                }
            };
            problems.error(*at, complaint);
        }
    }

    /// Resolves every set.
    pub fn resolve_all(&mut self, problems: &mut Problems) {
        let names: Vec<&'n str> = self.slots.keys().copied().collect();
        if let Some(first_over) = self.slots.values().nth(MAX_SETS) {
            problems.error(first_over.at, format!("{} sets, the limit is {MAX_SETS}", names.len()));
            self.slots.values_mut().for_each(|slot| slot.state = State::Resolved(SetValue::Bad));
            return;
        }
        // Dynamic sets first: `SetId` is the position in name order.
        for name in &names {
            if let Some(Slot { at, state: State::Declared(node), .. }) = self.slots.get(name)
                && node.get("dynamic").is_some()
            {
                let id = SetId(self.dynamic.len() as u16);
                let never = Arc::default();
                let kind =
                    DynamicKind::Declared { timeout: None, capacity: DEFAULT_CAPACITY, full: WhenFull::Refuse, never };
                self.dynamic.push(DynamicSet { name: (*name).to_owned(), at: Some(at.location()), kind });
                let (at, node) = (*at, *node);
                let value = SetValue::Addresses(AddressList { fixed: Vec::new(), dynamic: vec![id] });
                self.set(name, SetValue::Bad);
                self.declared_dynamic(id, at, node, problems);
                self.set(name, value);
            }
        }
        for name in names {
            self.resolve(name, problems);
        }
    }

    fn set(&mut self, name: &str, value: SetValue) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.state = State::Resolved(value);
        }
    }

    /// The value of `$name`, which stands at `span`; its use is remembered.
    pub fn lookup(&mut self, name: &str, span: Span, problems: &mut Problems) -> SetValue {
        if let Some(index) = BUILT_IN.iter().position(|(built_in, _)| *built_in == name) {
            let id = SetId((self.dynamic.len() + index) as u16);
            return SetValue::Addresses(AddressList { fixed: Vec::new(), dynamic: vec![id] });
        }
        let Some(slot) = self.slots.get_mut(name) else {
            if !self.incomplete {
                let known = BUILT_IN.iter().map(|(name, _)| *name).chain(self.slots.keys().copied());
                let help = problems.nearest(name, known);
                let message = format!("there is no set {}", quote(&format!("${name}")));
                problems.error(span, Complaint { help, ..message.into() });
            }
            return SetValue::Bad;
        };
        slot.used = true;
        match &slot.state {
            State::Resolved(value) => value.clone(),
            State::Declared(_) | State::Resolving => SetValue::Bad,
        }
    }

    /// Warns of the sets that nothing names.
    pub fn warn_unused(&self, problems: &mut Problems) {
        for (name, slot) in self.slots.iter().filter(|(_, slot)| !slot.used) {
            problems.warning(slot.at, format!("the set `{name}` is not used"));
        }
    }

    fn resolve(&mut self, name: &'n str, problems: &mut Problems) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let State::Declared(node) = slot.state else { return };
        let (at, base) = (slot.at, slot.base);
        slot.state = State::Resolving;
        let value = match &node.kind {
            Kind::Scalar { .. } => self.list(std::slice::from_ref(node), problems),
            Kind::List(items) => self.list(items, problems),
            Kind::Map(entries) => self.feed(name, entries, at, base, problems),
            Kind::Bad => SetValue::Bad,
        };
        self.set(name, value);
    }

    fn list(&mut self, items: &'n [Node<'t>], problems: &mut Problems) -> SetValue {
        let mut parts = Parts::default();
        for item in items {
            let Kind::Scalar { text, .. } = &item.kind else {
                if !matches!(item.kind, Kind::Bad) {
                    let complaint =
                        Complaint::new(format!("expected a single value in a set, found {}", item.describe()));
                    problems
                        .error(item.span, complaint.help("sets are not negated; write `{not: $set}` where it is used"));
                }
                parts.bad = true;
                continue;
            };
            if let Some(other) = text.strip_prefix('$') {
                let value = self.nested(other, item.span, problems);
                parts.add_set(value, item.span, problems);
            } else {
                self.count(1, item.span, problems);
                parts.add(text, item.span, problems);
            }
        }
        parts.finish()
    }

    fn nested(&mut self, name: &str, span: Span, problems: &mut Problems) -> SetValue {
        if let Some((&name, slot)) = self.slots.get_key_value(name) {
            match slot.state {
                State::Declared(_) => self.resolve(name, problems),
                State::Resolving => {
                    problems.error(span, format!("the set `{name}` contains itself"));
                    return SetValue::Bad;
                }
                State::Resolved(_) => {}
            }
        }
        self.lookup(name, span, problems)
    }

    fn count(&mut self, more: usize, span: Span, problems: &mut Problems) -> bool {
        let before = self.elements;
        self.elements += more;
        if before <= MAX_ELEMENTS && self.elements > MAX_ELEMENTS {
            problems.error(span, format!("the sets have more than {MAX_ELEMENTS} elements together"));
        }
        self.elements <= MAX_ELEMENTS
    }

    fn feed(
        &mut self,
        name: &str,
        entries: &'n [Entry<'t>],
        at: Span,
        base: &Path,
        problems: &mut Problems,
    ) -> SetValue {
        let Some((path, span, feed)) = set_file::keys(name, entries, at, problems) else { return SetValue::Bad };
        let path: PathBuf = base.join(path);
        let room = MAX_ELEMENTS.saturating_sub(self.elements);
        let copy = self.copies.get(&path).map(PathBuf::as_path);
        let named = set_file::Named { set: name, path: &path, feed: &feed, copy };
        let Some((ranges, file)) = set_file::read(&named, room, span, problems) else {
            return SetValue::Bad;
        };
        self.elements += file.elements;
        self.files.push(file);
        SetValue::Addresses(AddressList { fixed: vec![Arc::new(ranges)], dynamic: Vec::new() })
    }

    fn declared_dynamic(&mut self, id: SetId, at: Span, node: &'n Node<'t>, problems: &mut Problems) {
        if usize::from(id.0) == MAX_DYNAMIC_SETS {
            problems.error(at, format!("more than {MAX_DYNAMIC_SETS} dynamic sets"));
        }
        let Kind::Map(entries) = &node.kind else { return };
        let (mut timeout, mut capacity, mut full, mut never) =
            (None, DEFAULT_CAPACITY, WhenFull::Refuse, Arc::default());
        for Entry { key, at, value } in entries {
            match &**key {
                "dynamic" => {
                    if flag(value, problems) == Some(false) {
                        problems.error(
                            value.span,
                            Complaint::new("`dynamic: false` means nothing").help("list the values of a static set"),
                        );
                    }
                }
                "timeout" => timeout = parse(value, "a duration", values::duration, problems),
                "capacity" => {
                    let parsed = parse(value, "a number", |text| values::number(text, MAX_CAPACITY), problems);
                    if parsed == Some(0) {
                        problems.error(value.span, "a set of capacity 0 would stay empty");
                    }
                    capacity = parsed.unwrap_or(capacity);
                }
                "full" => full = parse(value, "`refuse` or `evict-oldest`", when_full, problems).unwrap_or(full),
                "never" => never = self.never(value, problems),
                key if set_file::KEYS.contains(&key) => {
                    problems.error(*at, format!("`{key}` beside `dynamic`: a set is one or the other"));
                }
                _ => {
                    let known = ["dynamic", "timeout", "capacity", "full", "never"];
                    problems.error(*at, Complaint::unknown("key in a dynamic set", key, known));
                }
            }
        }
        self.dynamic[usize::from(id.0)].kind = DynamicKind::Declared { timeout, capacity, full, never };
    }

    fn never(&mut self, node: &'n Node<'t>, problems: &mut Problems) -> Arc<AddressRanges> {
        let value = match &node.kind {
            Kind::List(items) => self.list(items, problems),
            Kind::Scalar { .. } => self.list(std::slice::from_ref(node), problems),
            Kind::Map(_) => {
                problems.error(node.span, "expected addresses or a static set, found a mapping");
                SetValue::Bad
            }
            Kind::Bad => SetValue::Bad,
        };
        match value {
            SetValue::Addresses(list) if !list.dynamic.is_empty() => {
                problems.error(node.span, "`never` takes static addresses, not dynamic sets");
                Arc::default()
            }
            SetValue::Addresses(list) => merge(&list.fixed),
            SetValue::Bad => Arc::default(),
            other => {
                problems.error(node.span, format!("`never` takes addresses, found {}", other.noun()));
                Arc::default()
            }
        }
    }
}

fn merge(lists: &[Arc<AddressRanges>]) -> Arc<AddressRanges> {
    if let [one] = lists {
        return Arc::clone(one);
    }
    let mut all = AddressRanges::default();
    for list in lists {
        all.v4.extend_from_slice(&list.v4);
        all.v6.extend_from_slice(&list.v6);
    }
    all.normalise();
    Arc::new(all)
}

fn when_full(text: &str) -> Result<WhenFull, Complaint> {
    match text {
        "refuse" => Ok(WhenFull::Refuse),
        "evict-oldest" => Ok(WhenFull::EvictOldest),
        _ => Err(Complaint::unknown("value of `full`", text, ["refuse", "evict-oldest"])),
    }
}

/// Adds a range to the addresses.
pub(super) fn push(ranges: &mut AddressRanges, range: Addresses) {
    match range {
        Addresses::V4(low, high) => ranges.v4.push((low, high)),
        Addresses::V6(low, high) => ranges.v6.push((low, high)),
    }
}

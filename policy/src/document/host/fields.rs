//! The fields of a rule about the host.

use std::collections::BTreeSet;

use ringfence_abi::host::op;

use super::super::fields::Context;
use super::super::node::flag;
use super::super::problems::{Complaint, Problems, quote};
use super::super::selection::{Selection, selection};
use super::super::sets::SetValue;
use super::super::source::Span;
use super::super::tree::{Entry, Kind, Node};
use super::super::values;
use super::words::{self, ADDRESSED, ALL, FILES, SOCKETS};
use crate::glob;
use crate::model::{AddressMatch, GidMatch, HostMatch, NameMatch, PathGlob, PathMatch, SocketKinds, SocketMatch};
use crate::ranges::Ranges;
use crate::services::WITH_PORTS;

/// Fields of the host half.
pub(crate) const FIELDS: [&str; 21] = [
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

/// Which operations have a field; the others are asked of the caller and every call has one.
const PATHS: u32 = FILES | ADDRESSED | 1 << op::IOCTL | 1 << op::MODULE_LOAD | 1 << op::KEXEC;
const HAVE: [(&str, u32); 12] = [
    ("path", PATHS),
    ("fstype", FILES | 1 << op::IOCTL),
    ("anonymous", 1 << op::EXEC | 1 << op::MAP_EXEC),
    ("owner", FILES | 1 << op::IOCTL),
    ("to", ADDRESSED),
    ("port", ADDRESSED),
    ("proto", SOCKETS),
    ("family", SOCKETS),
    ("type", SOCKETS),
    ("capability", 1 << op::CAPABILITY),
    ("signal", 1 << op::SIGNAL),
    ("target", 1 << op::PTRACE | 1 << op::SIGNAL),
];

/// A match and what checks between fields need.
#[derive(Clone, Debug, Default)]
pub(in crate::document) struct Fields {
    pub matches: HostMatch,
    /// `op`, or all of them by `any`.
    pub ops: Option<u32>,
    /// Fields that only some operations have, and where they stand.
    pub present: Vec<(&'static str, Span)>,
    /// Fields in which a `when` and a rule exclude each other.
    pub contradictions: BTreeSet<&'static str>,
}

impl Fields {
    /// Both conditions.
    pub fn and(&self, other: &Self) -> Self {
        let (a, b) = (&self.matches, &other.matches);
        let mut contradictions = BTreeSet::new();
        let ops = match (self.ops, other.ops) {
            (Some(a), Some(b)) => {
                if a & b == 0 {
                    contradictions.insert("op");
                }
                Some(a & b)
            }
            (a, b) => a.or(b),
        };
        let mut numbers = |name, a: &Option<Ranges>, b: &Option<Ranges>| match (a, b) {
            (Some(a), Some(b)) => {
                let both = a.intersection(b);
                if both.is_empty() {
                    contradictions.insert(name);
                }
                Some(both)
            }
            (a, b) => a.as_ref().or(b.as_ref()).cloned(),
        };
        let (uid, auid) = (numbers("uid", &a.uid, &b.uid), numbers("auid", &a.auid, &b.auid));
        let (port, proto) = (numbers("port", &a.port, &b.port), numbers("proto", &a.proto, &b.proto));
        let family = numbers("family", &a.family, &b.family);
        let capability = numbers("capability", &a.capability, &b.capability);
        let signal = numbers("signal", &a.signal, &b.signal);
        let mut truth = |name, a: Option<bool>, b: Option<bool>| {
            if a.is_some() && b.is_some() && a != b {
                contradictions.insert(name);
            }
            a.or(b)
        };
        let matches = HostMatch {
            ops: 0,
            path: joined(&a.path, &b.path),
            fstype: joined(&a.fstype, &b.fstype),
            anonymous: truth("anonymous", a.anonymous, b.anonymous),
            exe: joined(&a.exe, &b.exe),
            ancestor: joined(&a.ancestor, &b.ancestor),
            target: joined(&a.target, &b.target),
            uid,
            gid: joined(&a.gid, &b.gid),
            owner: truth("owner", a.owner, b.owner),
            auid,
            cgroup: joined(&a.cgroup, &b.cgroup),
            container: truth("container", a.container, b.container),
            to: joined(&a.to, &b.to),
            port,
            proto,
            family,
            kind: joined(&a.kind, &b.kind),
            capability,
            signal,
        };
        Self { matches, ops, present: joined(&self.present, &other.present), contradictions }
    }

    /// The match of a rule that stands at `at`; an error if no operation has some of its fields.
    pub fn finish(&self, at: Span, problems: &mut Problems) -> Option<HostMatch> {
        let mut matches = self.matches.clone();
        let Some(ops) = self.ops else {
            let help = "say which operations it is about, as in `op: exec`; `op: all` is every one";
            problems.error(at, Complaint::new("a rule without `op`").help(help));
            return None;
        };
        if !self.contradictions.is_empty() {
            // No caller is without a uid, and it is never unknown: the rule matches nothing at all.
            matches.uid = Some(Ranges::default());
            matches.ops = ALL;
            return Some(matches);
        }
        matches.ops = ops;
        let before = problems.errors();
        for (field, span) in &self.present {
            let have = HAVE.iter().find(|(name, _)| name == field).map_or(ALL, |(_, have)| *have);
            if ops & have == 0 {
                let having = (0..op::COUNT).filter(|op| have >> op & 1 == 1).map(|op| op::NAMES[op as usize]);
                let complaint = Complaint::new(format!("`{field}` means nothing for {}", named(ops)));
                let help = format!("operations that have it: {}", having.collect::<Vec<_>>().join(", "));
                problems.error(*span, complaint.help(help));
            }
        }
        if let (Some(proto), Some((_, span))) = (&matches.proto, self.present.iter().find(|(name, _)| *name == "port"))
        {
            let with = Ranges::new(WITH_PORTS.map(|proto| (proto.into(), proto.into())).to_vec());
            if proto.intersection(&with).is_empty() {
                problems.error(*span, "`port` needs a protocol with ports: tcp, udp or sctp");
            }
        }
        (problems.errors() == before).then_some(matches)
    }
}

fn joined<T: Clone>(a: &[T], b: &[T]) -> Vec<T> {
    [a, b].concat()
}

fn named(ops: u32) -> String {
    let names: Vec<String> =
        (0..op::COUNT).filter(|op| ops >> op & 1 == 1).map(|op| format!("`{}`", op::NAMES[op as usize])).collect();
    names.join(", ")
}

impl<'n> Context<'_, 'n, '_> {
    /// Reads the mapping behind a verb or `when`. `None`: some field is wrong, and reported.
    pub fn host_fields(&mut self, node: &'n Node<'_>) -> Option<Fields> {
        let entries = match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Scalar { text, .. } if text == "any" => {
                return Some(Fields { ops: Some(ALL), ..Fields::default() });
            }
            Kind::Bad => return None,
            _ => {
                self.problems.error(
                    node.span,
                    format!("expected fields such as `{{op: exec, path: \"/tmp/**\"}}`, found {}", node.describe()),
                );
                return None;
            }
        };
        let mut fields = Fields::default();
        let mut good = true;
        for entry in entries {
            good &= self.host_field(entry, &mut fields).is_some();
        }
        good.then_some(fields)
    }

    fn host_field(&mut self, entry: &'n Entry<'_>, fields: &mut Fields) -> Option<()> {
        let Entry { key, at, value } = entry;
        if let Some((name, _)) = HAVE.iter().find(|(name, _)| name == key) {
            fields.present.push((name, *at));
        }
        let matches = &mut fields.matches;
        match &**key {
            "op" => fields.ops = Some(self.operations(value)?),
            "path" => matches.path.push(self.paths(value, "path", path)?),
            "exe" => matches.exe.push(self.paths(value, "exe", file)?),
            "ancestor" => matches.ancestor.push(self.paths(value, "ancestor", file)?),
            "target" => matches.target.push(self.paths(value, "target", file)?),
            "cgroup" => matches.cgroup.push(self.paths(value, "cgroup", cgroup)?),
            "unit" => matches.cgroup.push(self.paths(value, "unit", |text| words::unit(text).map(PathGlob::Unit))?),
            "fstype" => matches.fstype.push(self.fstypes(value)?),
            "anonymous" => matches.anonymous = Some(flag(value, self.problems)?),
            "owner" => matches.owner = Some(flag(value, self.problems)?),
            "container" => matches.container = Some(flag(value, self.problems)?),
            "uid" => matches.uid = Some(self.ids(value, "uid")?.0),
            "auid" => matches.auid = Some(self.ids(value, "auid")?.0),
            "gid" => {
                let (_, any_of, none_of) = self.ids(value, "gid")?;
                matches.gid.push(GidMatch { any_of, none_of });
            }
            "to" => matches.to.push(self.host_addresses(value)?),
            "port" => matches.port = Some(self.ports(value)?),
            "proto" => matches.proto = Some(self.small(value, 255, values::protocol)?),
            "family" => matches.family = Some(self.small(value, 255, words::family)?),
            "type" => matches.kind.push(self.socket_types(value)?),
            "capability" => matches.capability = Some(self.small(value, 255, words::capability)?),
            "signal" => matches.signal = Some(self.small(value, 255, words::signal)?),
            _ => {
                self.problems.error(*at, unknown_field(key));
                return None;
            }
        }
        Some(())
    }

    fn operations(&mut self, node: &Node<'_>) -> Option<u32> {
        let Selection { any_of, none_of } = selection(node, self.problems)?;
        let mut bits = |items: Vec<(&str, Span)>| {
            let (mut all, mut good) = (0, true);
            for (text, span) in items {
                match self.problems.check(span, words::operation(text)) {
                    Some(ops) => all |= ops,
                    None => good = false,
                }
            }
            good.then_some(all)
        };
        let any_of = any_of.map(&mut bits);
        let none_of = bits(none_of)?;
        let ops = match any_of {
            Some(ops) => ops? & !none_of,
            None => ALL & !none_of,
        };
        self.not_empty(ops != 0, node.span)?;
        Some(ops)
    }

    fn paths(
        &mut self,
        node: &Node<'_>,
        field: &str,
        parse: impl Fn(&str) -> Result<PathGlob, Complaint>,
    ) -> Option<PathMatch> {
        let Selection { any_of, none_of } = selection(node, self.problems)?;
        let mut globs = |items: Vec<(&str, Span)>| {
            let (mut all, mut good) = (Vec::new(), true);
            for (text, span) in items {
                let Some(name) = text.strip_prefix('$') else {
                    match self.problems.check(span, parse(text)) {
                        Some(glob) => all.push(glob),
                        None => good = false,
                    }
                    continue;
                };
                match self.sets.lookup(name, span, self.problems) {
                    SetValue::Paths(set) if !matches!(field, "unit" | "cgroup") => all.extend(set.iter().cloned()),
                    SetValue::Bad => good = false,
                    _ => {
                        let message = format!("{} does not hold what `{field}` takes", quote(text));
                        self.problems.error(span, message);
                        good = false;
                    }
                }
            }
            all.sort_unstable();
            all.dedup();
            good.then_some(all)
        };
        let any_of = any_of.map(&mut globs);
        let none_of = globs(none_of)?;
        let any_of = match any_of {
            Some(list) => Some(list?),
            None => None,
        };
        Some(PathMatch { any_of, none_of })
    }

    fn fstypes(&mut self, node: &Node<'_>) -> Option<NameMatch> {
        let Selection { any_of, none_of } = selection(node, self.problems)?;
        let mut names = |items: Vec<(&str, Span)>| {
            let parsed: Vec<Option<String>> =
                items.into_iter().map(|(text, span)| self.problems.check(span, words::fstype(text))).collect();
            parsed.into_iter().collect::<Option<Vec<String>>>()
        };
        let any_of = any_of.map(&mut names);
        let none_of = names(none_of)?;
        let any_of = match any_of {
            Some(list) => Some(list?),
            None => None,
        };
        Some(NameMatch { any_of, none_of })
    }

    /// The ids that are meant, and the two lists they come from.
    fn ids(&mut self, node: &Node<'_>, field: &'static str) -> Option<(Ranges, Option<Ranges>, Ranges)> {
        let Selection { any_of, none_of } = selection(node, self.problems)?;
        let mut union = |items: Vec<(&str, Span)>| {
            let (mut all, mut good) = (Vec::new(), true);
            for (text, span) in items {
                let id = self.id(text, field);
                match self.problems.check(span, id) {
                    Some(range) => all.push(range),
                    None => good = false,
                }
            }
            good.then(|| Ranges::new(all))
        };
        let any_of = any_of.map(&mut union);
        let none_of = union(none_of)?;
        let any_of = match any_of {
            Some(list) => Some(list?),
            None => None,
        };
        let outside = none_of.complement(u32::MAX);
        let meant = any_of.as_ref().map_or(outside.clone(), |any_of| any_of.intersection(&outside));
        self.not_empty(!meant.is_empty(), node.span)?;
        Some((meant, any_of, none_of))
    }

    /// An id, a range of them, or a name.
    pub(super) fn id(&self, text: &str, field: &str) -> Result<(u32, u32), Complaint> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            // The last number is "no id".
            return values::number_range(text, u32::MAX - 1);
        }
        if text == "unset" && field == "auid" {
            return Ok((u32::MAX, u32::MAX));
        }
        let (found, file) = if field == "gid" {
            (self.users.group(text), "/etc/group")
        } else {
            (self.users.user(text), "/etc/passwd")
        };
        let what = if field == "gid" { "group" } else { "user" };
        found.map(|id| (id, id)).ok_or_else(|| {
            Complaint::new(format!("there is no {what} {} in {file}", quote(text)))
                .help("names from elsewhere are not looked up; write the number")
        })
    }

    fn small(&mut self, node: &Node<'_>, max: u32, parse: impl Fn(&str) -> Result<u8, Complaint>) -> Option<Ranges> {
        self.numbers(node, max, |text| parse(text).map(|number| (number.into(), number.into())))
    }

    fn host_addresses(&mut self, node: &Node<'_>) -> Option<AddressMatch> {
        let condition = self.addresses(node)?;
        let dynamic = |list: &crate::model::AddressList| !list.dynamic.is_empty();
        if condition.any_of.as_ref().is_some_and(dynamic) || dynamic(&condition.none_of) {
            let complaint = Complaint::new("a dynamic set cannot be used in a rule about the host");
            self.problems.error(node.span, complaint.help("list the addresses, or judge the packets in `network:`"));
            return None;
        }
        Some(condition)
    }

    fn socket_types(&mut self, node: &Node<'_>) -> Option<SocketMatch> {
        let Selection { any_of, none_of } = selection(node, self.problems)?;
        let mut kinds = |items: Vec<(&str, Span)>| {
            let (mut types, mut packet, mut good) = (Vec::new(), false, true);
            for (text, span) in items {
                match self.problems.check(span, words::socket_type(text)) {
                    Some(Some(number)) => types.push((number.into(), number.into())),
                    Some(None) => packet = true,
                    None => good = false,
                }
            }
            good.then(|| SocketKinds { types: Ranges::new(types), packet })
        };
        let any_of = any_of.map(&mut kinds);
        let none_of = kinds(none_of)?;
        let any_of = match any_of {
            Some(kinds) => Some(kinds?),
            None => None,
        };
        Some(SocketMatch { any_of, none_of })
    }
}

/// A path pattern, for a file or a socket.
pub(in crate::document) fn path(text: &str) -> Result<PathGlob, Complaint> {
    match glob::parse(text) {
        Ok(_) => Ok(PathGlob::Path(text.to_owned())),
        Err(glob::GlobError::Start) => Err(Complaint::new(format!("expected a path, found {}", quote(text)))
            .help("a path begins with `/` or `**/`; an abstract socket with `@`")),
        Err(error) => Err(Complaint::new(format!("{} is no path pattern: {error}", quote(text)))),
    }
}

fn file(text: &str) -> Result<PathGlob, Complaint> {
    if text.starts_with('@') {
        return Err(Complaint::new(format!("expected an executable's path, found the socket {}", quote(text))));
    }
    path(text)
}

fn cgroup(text: &str) -> Result<PathGlob, Complaint> {
    if !text.starts_with('/') {
        let complaint = Complaint::new(format!("expected the path of a cgroup, found {}", quote(text)));
        return Err(complaint.help("as in `/system.slice/**`; a unit is given as `unit:`"));
    }
    path(text)
}

fn unknown_field(key: &str) -> Complaint {
    let complaint = Complaint::unknown("field", key, FIELDS);
    match key {
        "name" | "log" | "limit" | "mode" | "comment" => {
            complaint.help(format!("`{key}` stands beside the verb, not among the fields"))
        }
        "user" => complaint.help("did you mean `uid`?"),
        "group" => complaint.help("did you mean `gid`?"),
        "parent" => complaint.help("did you mean `ancestor`?"),
        "from" | "source_port" | "interface" | "state" | "flags" | "icmp" => {
            complaint.help(format!("`{key}` belongs to the network half, with `accept` and `drop`"))
        }
        _ => complaint,
    }
}

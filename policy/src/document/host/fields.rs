//! The fields of a rule about the host.

use super::super::fields::Context;
use super::super::node::flag;
use super::super::problems::{Complaint, quote};
use super::super::selection::{Selection, selection};
use super::super::sets::SetValue;
use super::super::tree::{Entry, Kind, Node};
use super::super::values;
use super::conditions::{Fields, HAVE};
use super::words::{self, ALL};
use crate::glob;
use crate::model::{AddressMatch, GidMatch, NameMatch, PathGlob, PathMatch, SocketKinds, SocketMatch};
use crate::ranges::Ranges;
use crate::users::Users;

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
        let Selection { any_of, none_of } = selection(node, self.problems)?.read(|items| {
            let bits = self.problems.check_all(items, words::operation)?;
            Some(bits.into_iter().fold(0, |all, ops| all | ops))
        })?;
        let ops = any_of.unwrap_or(ALL) & !none_of;
        self.not_empty(ops != 0, node.span)?;
        Some(ops)
    }

    fn paths(
        &mut self,
        node: &Node<'_>,
        field: &str,
        parse: impl Fn(&str) -> Result<PathGlob, Complaint>,
    ) -> Option<PathMatch> {
        let Selection { any_of, none_of } = selection(node, self.problems)?.read(|items| {
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
        })?;
        Some(PathMatch { any_of, none_of })
    }

    fn fstypes(&mut self, node: &Node<'_>) -> Option<NameMatch> {
        let Selection { any_of, none_of } =
            selection(node, self.problems)?.read(|items| self.problems.check_all(items, words::fstype))?;
        Some(NameMatch { any_of, none_of })
    }

    /// The ids that are meant, and the two lists they come from.
    fn ids(&mut self, node: &Node<'_>, field: &'static str) -> Option<(Ranges, Option<Ranges>, Ranges)> {
        let users = self.users;
        let Selection { any_of, none_of } = selection(node, self.problems)?
            .read(|items| self.problems.check_all(items, |text| id(users, text, field)).map(Ranges::new))?;
        let outside = none_of.complement(u32::MAX);
        let meant = any_of.as_ref().map_or(outside.clone(), |any_of| any_of.intersection(&outside));
        self.not_empty(!meant.is_empty(), node.span)?;
        Some((meant, any_of, none_of))
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
        let Selection { any_of, none_of } = selection(node, self.problems)?.read(|items| {
            let kinds = self.problems.check_all(items, words::socket_type)?;
            let types = kinds.iter().flatten().map(|number| ((*number).into(), (*number).into())).collect();
            Some(SocketKinds { types: Ranges::new(types), packet: kinds.contains(&None) })
        })?;
        Some(SocketMatch { any_of, none_of })
    }
}

/// An id, a range of them, or a name.
pub(super) fn id(users: &Users, text: &str, field: &str) -> Result<(u32, u32), Complaint> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        // The last number is "no id".
        return values::number_range(text, u32::MAX - 1);
    }
    if text == "unset" && field == "auid" {
        return Ok((u32::MAX, u32::MAX));
    }
    let (found, file) =
        if field == "gid" { (users.group(text), "/etc/group") } else { (users.user(text), "/etc/passwd") };
    let what = if field == "gid" { "group" } else { "user" };
    found.map(|id| (id, id)).ok_or_else(|| {
        Complaint::new(format!("there is no {what} {} in {file}", quote(text)))
            .help("names from elsewhere are not looked up; write the number")
    })
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

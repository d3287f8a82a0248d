//! The fields of a rule: what it matches.

use std::sync::Arc;

use super::deferred::Deferred;
use super::problems::{Complaint, Problems, quote};
use super::selection::{Selection, selection};
use super::sets::{self, SetValue, Sets};
use super::source::Span;
use super::tree::{Entry, Kind, Node};
use super::values;
use crate::model::{AddressList, AddressMatch, Families, FlagSet, IcmpMatch, InterfaceMatch, Match, NameGlob};
use crate::ranges::{AddressRanges, Ranges};
use crate::services;
use crate::users::Users;

/// Every field of the network half.
pub(super) const FIELDS: [&str; 15] = [
    "from",
    "to",
    "proto",
    "port",
    "source_port",
    "interface",
    "family",
    "state",
    "flags",
    "icmp",
    "vlan",
    "dscp",
    "mark",
    "length",
    "fragment",
];
/// What everything below the top level needs.
pub(super) struct Context<'c, 'n, 't> {
    pub sets: &'c mut Sets<'n, 't>,
    pub problems: &'c mut Problems,
    pub deferred: &'c mut Deferred,
    /// Names of users and groups.
    pub users: &'c Users,
    /// `interfaces:` of the policy.
    pub interfaces: Option<&'c [NameGlob]>,
    /// The policy says `mode: audit`.
    pub audit_policy: bool,
}

/// A match and the places in it that checks between fields need.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub matches: Match,
    /// `port` and `source_port`: they need a protocol with ports.
    pub ports: Vec<(&'static str, Span)>,
    /// An ICMP message given as number: needs a protocol.
    pub icmp_number: Option<Span>,
    /// Where `flags` or `icmp` stand and what `proto` must leave possible.
    pub needs: Vec<(&'static str, Vec<u8>, Span)>,
    /// Fields in which a `when` and a rule exclude each other.
    pub contradictions: Vec<&'static str>,
}

impl<'n> Context<'_, 'n, '_> {
    /// Reads the mapping behind a verb or `when`. `None`: some field is wrong, and reported.
    pub fn fields(&mut self, node: &'n Node<'_>) -> Option<Fields> {
        let entries = match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Scalar { text, .. } if text == "any" => return Some(Fields::default()),
            Kind::Bad => return None,
            _ => {
                let complaint = Complaint::new(format!(
                    "expected fields such as `{{proto: tcp, port: 22}}`, found {}",
                    node.describe()
                ));
                self.problems.error(node.span, complaint.help("to match everything, write `any`"));
                return None;
            }
        };
        let mut fields = Fields::default();
        let mut good = true;
        for entry in entries {
            good &= self.field(entry, &mut fields).is_some();
        }
        good.then(|| {
            fields.imply_protocol();
            fields
        })
    }

    fn field(&mut self, entry: &'n Entry<'_>, fields: &mut Fields) -> Option<()> {
        let Entry { key, at, value } = entry;
        let matches = &mut fields.matches;
        match &**key {
            "from" => matches.from.push(self.addresses(value)?),
            "to" => matches.to.push(self.addresses(value)?),
            "proto" => {
                matches.proto =
                    Some(self.numbers(value, 255, |text| values::protocol(text).map(|p| (p.into(), p.into())))?);
            }
            "port" => {
                fields.ports.push(("port", *at));
                fields.matches.port = Some(self.ports(value)?);
            }
            "source_port" => {
                fields.ports.push(("source_port", *at));
                fields.matches.source_port = Some(self.ports(value)?);
            }
            "interface" => matches.interface.push(self.interface(value)?),
            "family" => matches.family = Some(self.family(value)?),
            "state" => {
                matches.state = Some(self.numbers(value, 3, |text| values::state(text).map(|s| (s.into(), s.into())))?);
            }
            "flags" => {
                fields.needs.push(("flags", vec![services::TCP], *at));
                fields.matches.flags = Some(self.flags(value)?);
            }
            "icmp" => self.icmp(value, *at, fields)?,
            "vlan" => matches.vlan = Some(self.range(value, 4095)?),
            "dscp" => matches.dscp = Some(self.range(value, 63)?),
            "mark" => matches.mark = Some(self.range(value, u32::MAX)?),
            "length" => matches.length = Some(self.range(value, 65_535)?),
            "fragment" => matches.fragment = Some(super::node::flag(value, self.problems)?),
            _ => {
                self.problems.error(*at, unknown_field(key));
                return None;
            }
        }
        Some(())
    }

    // A field of numbers: the union of its items, or the rest of the field's values.
    pub(super) fn numbers(
        &mut self,
        node: &Node<'_>,
        max: u32,
        item: impl Fn(&str) -> Result<(u32, u32), Complaint>,
    ) -> Option<Ranges> {
        self.numbers_or_sets(node, max, |this, text, span, out| {
            if text.starts_with('$') {
                this.problems.error(span, "a set cannot be used here: sets hold addresses, ports or paths");
                return None;
            }
            out.push(this.problems.check(span, item(text))?);
            Some(())
        })
    }

    fn numbers_or_sets(
        &mut self,
        node: &Node<'_>,
        max: u32,
        item: impl Fn(&mut Self, &str, Span, &mut Vec<(u32, u32)>) -> Option<()>,
    ) -> Option<Ranges> {
        let Selection { any_of, none_of } = selection(node, self.problems)?.read(|items| {
            let (mut out, mut good) = (Vec::new(), true);
            for (text, span) in items {
                good &= item(self, text, span, &mut out).is_some();
            }
            good.then(|| Ranges::new(out))
        })?;
        let outside = none_of.complement(max);
        let result = any_of.map_or(outside.clone(), |any_of| any_of.intersection(&outside));
        self.not_empty(!result.is_empty(), node.span)?;
        Some(result)
    }

    pub(super) fn not_empty(&mut self, good: bool, span: Span) -> Option<()> {
        if !good {
            self.problems.error(span, "this leaves no value: the rule could never match");
        }
        good.then_some(())
    }

    fn range(&mut self, node: &Node<'_>, max: u32) -> Option<Ranges> {
        self.numbers(node, max, |text| values::number_range(text, max))
    }

    pub(super) fn ports(&mut self, node: &Node<'_>) -> Option<Ranges> {
        self.numbers_or_sets(node, 65_535, |this, text, span, out| {
            let Some(name) = text.strip_prefix('$') else {
                out.push(this.problems.check(span, values::port(text))?);
                return Some(());
            };
            match this.sets.lookup(name, span, this.problems) {
                SetValue::Ports(ranges) => {
                    out.extend_from_slice(ranges.as_slice());
                    Some(())
                }
                SetValue::Bad => None,
                _ => {
                    this.problems.error(span, format!("{} does not hold ports", quote(text)));
                    None
                }
            }
        })
    }

    pub(super) fn addresses(&mut self, node: &Node<'_>) -> Option<AddressMatch> {
        let Selection { any_of, none_of } = selection(node, self.problems)?.read(|items| self.address_list(items))?;
        Some(AddressMatch { any_of, none_of })
    }

    fn address_list(&mut self, items: Vec<(&str, Span)>) -> Option<AddressList> {
        let (mut list, mut own, mut good) = (AddressList::default(), AddressRanges::default(), true);
        for (text, span) in items {
            let Some(name) = text.strip_prefix('$') else {
                match self.problems.check(span, values::addresses(text)) {
                    Some(range) => sets::push(&mut own, range),
                    None => good = false,
                }
                continue;
            };
            match self.sets.lookup(name, span, self.problems) {
                SetValue::Addresses(set) => {
                    list.fixed.extend(set.fixed);
                    list.dynamic.extend(set.dynamic);
                }
                SetValue::Bad => good = false,
                _ => {
                    self.problems.error(span, format!("{} does not hold addresses", quote(text)));
                    good = false;
                }
            }
        }
        if !own.is_empty() {
            own.normalise();
            list.fixed.push(Arc::new(own));
        }
        list.fixed.sort_by_key(|ranges| Arc::as_ptr(ranges).addr());
        list.fixed.dedup_by(|a, b| Arc::ptr_eq(a, b));
        list.dynamic.sort_unstable();
        list.dynamic.dedup();
        good.then_some(list)
    }

    fn interface(&mut self, node: &Node<'_>) -> Option<InterfaceMatch> {
        let Selection { any_of, none_of } = selection(node, self.problems)?.read(|items| {
            let parsed: Vec<Option<NameGlob>> = items
                .into_iter()
                .map(|(text, span)| {
                    let glob = self.problems.check(span, values::interface_glob(text))?;
                    self.inside_interfaces(&glob, span)?;
                    Some(glob)
                })
                .collect();
            parsed.into_iter().collect::<Option<Vec<NameGlob>>>()
        })?;
        Some(InterfaceMatch { any_of, none_of })
    }

    /// Whether `interfaces:` has a name that the glob matches; otherwise an error.
    pub fn inside_interfaces(&mut self, glob: &NameGlob, span: Span) -> Option<()> {
        let Some(interfaces) = self.interfaces else { return Some(()) };
        if interfaces.iter().any(|listed| overlap(listed.0.as_bytes(), glob.0.as_bytes())) {
            return Some(());
        }
        let listed: Vec<&str> = interfaces.iter().map(|glob| glob.0.as_str()).collect();
        let complaint = Complaint::new(format!(
            "the interface {} is not among `interfaces`: {}",
            quote(&glob.0),
            listed.join(", ")
        ));
        self.problems.error(span, complaint.help("packets on other interfaces are not judged; add it there"));
        None
    }

    fn family(&mut self, node: &Node<'_>) -> Option<Families> {
        let numbers = self.numbers(node, 1, |text| match text {
            "ipv4" => Ok((0, 0)),
            "ipv6" => Ok((1, 1)),
            _ => Err(Complaint::unknown("family", text, ["ipv4", "ipv6"])),
        })?;
        Some(Families { v4: numbers.contains(0), v6: numbers.contains(1) })
    }

    fn flags(&mut self, node: &Node<'_>) -> Option<FlagSet> {
        let Selection { any_of, none_of } = selection(node, self.problems)?.read(|items| {
            let mut all = FlagSet::default();
            for set in self.problems.check_all(items, values::flags)? {
                all.0.iter_mut().zip(set.0).for_each(|(word, more)| *word |= more);
            }
            Some(all)
        })?;
        let outside = FlagSet(none_of.0.map(|word| !word));
        let result = any_of.map_or(outside, |any_of| any_of.intersection(&outside));
        self.not_empty(result != FlagSet::default(), node.span)?;
        Some(result)
    }

    fn icmp(&mut self, node: &Node<'_>, at: Span, fields: &mut Fields) -> Option<()> {
        let mut number = None;
        let Selection { any_of, none_of } = selection(node, self.problems)?.read(|items| {
            let (mut v4, mut v6, mut good) = (Vec::new(), Vec::new(), true);
            for (text, span) in items {
                match self.problems.check(span, values::icmp(text)) {
                    Some(icmp) => {
                        if matches!(icmp, values::Icmp::Number(_)) {
                            number = Some(span);
                        }
                        icmp.add_to(&mut v4, &mut v6);
                    }
                    None => good = false,
                }
            }
            good.then(|| IcmpMatch { v4: Ranges::new(v4), v6: Ranges::new(v6) })
        })?;
        let outside = values::icmp_complement(&none_of);
        let result = any_of.map_or(outside.clone(), |any_of| any_of.and(&outside));
        self.not_empty(!result.v4.is_empty() || !result.v6.is_empty(), node.span)?;
        let protocols = [(&result.v4, services::ICMP), (&result.v6, services::ICMPV6)];
        let protocols =
            protocols.iter().filter(|(ranges, _)| !ranges.is_empty()).map(|(_, protocol)| *protocol).collect();
        fields.icmp_number = number;
        fields.needs.push(("icmp", protocols, at));
        fields.matches.icmp = Some(result);
        Some(())
    }
}

fn unknown_field(key: &str) -> Complaint {
    let complaint = Complaint::unknown("field", key, FIELDS);
    match key {
        "protocol" => complaint.help("did you mean `proto`?"),
        "source" | "src" | "saddr" => complaint.help("did you mean `from`?"),
        "destination" | "dst" | "daddr" => complaint.help("did you mean `to`?"),
        "sport" => complaint.help("did you mean `source_port`?"),
        "dport" | "ports" | "destination_port" => complaint.help("did you mean `port`?"),
        "iif" | "oif" | "iface" | "interfaces" => complaint.help("did you mean `interface`?"),
        "name" | "log" | "limit" | "add" | "mode" | "comment" => {
            complaint.help(format!("`{key}` stands beside the verb, not among the fields"))
        }
        "op" | "path" | "exe" | "uid" | "unit" => {
            complaint.help(format!("`{key}` belongs to the host half, with `allow` and `deny`"))
        }
        _ => complaint,
    }
}

/// Whether some name matches both globs.
fn overlap(a: &[u8], b: &[u8]) -> bool {
    // Row by row over suffixes; names have at most 15 bytes, so the table is small.
    match (a.split_first(), b.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if overlap(rest, b) => true,
        (_, Some((b'*', rest))) if overlap(a, rest) => true,
        (Some((b'*', _)), Some((_, rest))) => overlap(a, rest),
        (Some((_, rest)), Some((b'*', _))) => overlap(rest, b),
        (Some((x, a)), Some((y, b))) => (x == y || *x == b'?' || *y == b'?') && overlap(a, b),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

//! Conditions between fields: a group's `when` and its rules together, and what one field needs of another.

use super::fields::Fields;
use super::problems::{Complaint, Problems};
use super::source::Span;
use crate::model::{Families, FlagSet, IcmpMatch, Match};
use crate::ranges::Ranges;
use crate::services::{ICMP, ICMPV6, PROTOCOLS, TCP, WITH_PORTS, protocol_name};

impl IcmpMatch {
    /// The messages in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }
}

impl Fields {
    /// A field that only some protocols have says the protocol where `proto` does not.
    pub fn imply_protocol(&mut self) {
        if self.matches.proto.is_none() && self.icmp_number.is_none() && !self.needs.is_empty() {
            let all = Ranges::new(vec![(0, 255)]);
            let implied = self.needs.iter().fold(all, |left, (_, protocols, _)| left.intersection(&ranges(protocols)));
            self.matches.proto = Some(implied);
        }
    }

    /// Both conditions.
    pub fn and(&self, other: &Self) -> Self {
        let (a, b) = (&self.matches, &other.matches);
        let mut contradictions = Vec::new();
        let mut numbers = |name, a: &Option<Ranges>, b: &Option<Ranges>| {
            both(a.as_ref(), b.as_ref(), Ranges::intersection, Ranges::is_empty, name, &mut contradictions)
        };
        let mut matches = Match {
            from: a.from.iter().chain(&b.from).cloned().collect(),
            to: a.to.iter().chain(&b.to).cloned().collect(),
            interface: a.interface.iter().chain(&b.interface).cloned().collect(),
            proto: numbers("proto", &a.proto, &b.proto),
            port: numbers("port", &a.port, &b.port),
            source_port: numbers("source_port", &a.source_port, &b.source_port),
            vlan: numbers("vlan", &a.vlan, &b.vlan),
            dscp: numbers("dscp", &a.dscp, &b.dscp),
            state: numbers("state", &a.state, &b.state),
            mark: numbers("mark", &a.mark, &b.mark),
            length: numbers("length", &a.length, &b.length),
            ..Match::default()
        };
        let families = |a: &Families, b: &Families| Families { v4: a.v4 && b.v4, v6: a.v6 && b.v6 };
        matches.family =
            both(a.family.as_ref(), b.family.as_ref(), families, |f| !f.v4 && !f.v6, "family", &mut contradictions);
        matches.flags = both(
            a.flags.as_ref(),
            b.flags.as_ref(),
            FlagSet::intersection,
            |f| f.0 == [0; 4],
            "flags",
            &mut contradictions,
        );
        matches.icmp = both(
            a.icmp.as_ref(),
            b.icmp.as_ref(),
            IcmpMatch::and,
            |i| i.v4.is_empty() && i.v6.is_empty(),
            "icmp",
            &mut contradictions,
        );
        matches.fragment = a.fragment.or(b.fragment);
        if let (Some(a), Some(b)) = (a.fragment, b.fragment)
            && a != b
        {
            contradictions.push("fragment");
        }
        if !contradictions.is_empty() {
            // No packet is of no family, and the family is never unknown: the rule matches nothing at all.
            matches.family = Some(Families { v4: false, v6: false });
        }
        Self {
            matches,
            ports: self.ports.iter().chain(&other.ports).copied().collect(),
            icmp_number: self.icmp_number.or(other.icmp_number),
            needs: self.needs.iter().chain(&other.needs).cloned().collect(),
            contradictions,
        }
    }

    /// Reports fields that the rule's protocol does not have. False: there are such.
    pub fn check_protocol(&self, problems: &mut Problems) -> bool {
        if !self.contradictions.is_empty() {
            return true;
        }
        let before = problems.errors();
        let proto = self.matches.proto.as_ref();
        if proto.is_some_and(Ranges::is_empty)
            && let Some((_, _, span)) = self.needs.first()
        {
            problems.error(*span, "`flags` and `icmp` exclude each other: no packet has both");
            return false;
        }
        for &(field, span) in &self.ports {
            if let Some(complaint) = ports(field, proto) {
                problems.error(span, complaint);
            }
        }
        for (field, protocols, span) in &self.needs {
            self.check_need(field, protocols, *span, problems);
        }
        problems.errors() == before
    }

    fn check_need(&self, field: &str, protocols: &[u8], span: Span, problems: &mut Problems) {
        let Some(proto) = &self.matches.proto else {
            if let Some(number) = self.icmp_number {
                let complaint = Complaint::new("an ICMP message by number means different things in IPv4 and IPv6");
                problems
                    .error(number, complaint.help("say `proto: icmp` or `proto: icmpv6`, or use the message's name"));
            }
            return;
        };
        if !protocols.iter().any(|&protocol| proto.contains(protocol.into())) {
            let wanted: Vec<&str> = protocols.iter().filter_map(|&protocol| protocol_name(protocol)).collect();
            problems.error(
                span,
                format!("`{field}` needs `proto: {}`, but `proto` says {}", wanted.join("` or `"), names(proto)),
            );
        } else if self.icmp_number.is_some() && ranges(&[ICMP, ICMPV6]).intersection(proto) != *proto {
            problems.error(span, "an ICMP message by number needs `proto: icmp` or `proto: icmpv6` and nothing else");
        } else if field == "flags" && ranges(&[TCP]) != *proto {
            problems.error(span, format!("`flags` needs `proto: tcp`, but `proto` says {}", names(proto)));
        }
    }

    /// How much a rule keeps in memory, roughly in machine words.
    pub fn weight(&self) -> usize {
        let m = &self.matches;
        let numbers = [&m.proto, &m.port, &m.source_port, &m.vlan, &m.dscp, &m.mark, &m.length];
        let numbers: usize =
            numbers.iter().filter_map(|field| field.as_ref()).map(|ranges| ranges.as_slice().len()).sum();
        let addresses = m.from.iter().chain(&m.to);
        let addresses: usize = addresses
            .flat_map(|condition| condition.any_of.iter().chain([&condition.none_of]))
            .map(|list| list.fixed.len() + list.dynamic.len())
            .sum();
        let interfaces = m.interface.iter();
        let interfaces: usize =
            interfaces.map(|condition| condition.any_of.as_ref().map_or(0, Vec::len) + condition.none_of.len()).sum();
        numbers + addresses + 4 * interfaces
    }
}

fn both<T: Clone>(
    a: Option<&T>,
    b: Option<&T>,
    and: impl Fn(&T, &T) -> T,
    empty: impl Fn(&T) -> bool,
    name: &'static str,
    contradictions: &mut Vec<&'static str>,
) -> Option<T> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b).cloned() };
    let result = and(a, b);
    if empty(&result) {
        contradictions.push(name);
    }
    Some(result)
}

fn ports(field: &str, proto: Option<&Ranges>) -> Option<Complaint> {
    let Some(proto) = proto else {
        return Some(
            Complaint::new(format!("`{field}` without `proto`"))
                .help("add `proto: tcp`, `proto: udp` or `proto: [tcp, udp]`"),
        );
    };
    let without = proto.intersection(&ranges(&WITH_PORTS).complement(255));
    if without.is_empty() {
        return None;
    }
    let message = format!("`{field}` needs a protocol with ports, but `proto` says {}", names(&without));
    Some(Complaint::new(message).help("ports are read for tcp, udp and sctp"))
}

fn ranges(protocols: &[u8]) -> Ranges {
    Ranges::new(protocols.iter().map(|&protocol| (protocol.into(), protocol.into())).collect())
}

// Protocols for a message, the first few.
fn names(proto: &Ranges) -> String {
    let numbers = || proto.as_slice().iter().flat_map(|&(low, high)| low..=high).map(|number| number as u8);
    let known = |number: &u8| PROTOCOLS.iter().any(|(_, listed)| listed == number);
    let shown: Vec<String> = numbers()
        .filter(known)
        .chain(numbers().filter(|number| !known(number)))
        .take(3)
        .map(|number| protocol_name(number).map_or_else(|| number.to_string(), str::to_owned))
        .collect();
    let more = if numbers().nth(3).is_some() { " and others" } else { "" };
    format!("{}{more}", shown.join(", "))
}

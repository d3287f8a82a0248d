//! The verdict on a packet: malformed, floor, dynamic entries, rules in order, default.

use std::net::IpAddr;

use ringfence_abi::chain::MAX_CONTINUATIONS;
use ringfence_abi::counter;

use super::matches::check;
use super::{Context, Family, Field, Fields, Icmp, Members, Parsed};
use crate::model::{Chain, Policy, Verdict};

/// What is decided about a packet and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict; never [`Verdict::Count`]. `mode: audit` of the policy does not change it.
    pub verdict: Verdict,
    /// What decided.
    pub line: LineRef,
    /// Indices of the rules that matched and let evaluation go on, in order; at most [`MAX_CONTINUATIONS`].
    pub continued: Vec<usize>,
    /// Some field of the packet was in the state *unknown*.
    pub unknown: bool,
}

/// What decided about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LineRef {
    /// The policy has no chain for the direction: nothing is attached, everything passes.
    Unattached,
    /// No rule decided.
    Default,
    /// A line of the floor, index into [`counter::FLOOR_NAMES`].
    Floor(usize),
    /// The frame cannot be parsed; index into [`counter::MALFORMED_NAMES`].
    Malformed(usize),
    /// A dynamic entry, by id.
    Dynamic(u64),
    /// A rule, by index in its chain.
    Rule(usize),
    /// One more rule matched without deciding than the programs follow.
    Continuations,
}

impl LineRef {
    /// Index of its counter within the chain; `None` where nothing is attached that could count.
    #[must_use]
    pub fn counter(self) -> Option<u32> {
        match self {
            Self::Unattached => None,
            Self::Default => Some(counter::DEFAULT),
            Self::Floor(line) => Some(counter::FLOOR + line as u32),
            Self::Malformed(reason) => Some(counter::MALFORMED + reason as u32),
            Self::Dynamic(_) => Some(counter::DYNAMIC),
            Self::Rule(index) => Some(counter::BUILTINS + index as u32),
            Self::Continuations => Some(counter::CONTINUATIONS),
        }
    }
}

impl LineRef {
    /// The same within the host chain, which has built-in lines of its own.
    #[must_use]
    pub fn host_counter(self) -> Option<u32> {
        match self {
            Self::Rule(index) => Some(ringfence_abi::host::line::BUILTINS + index as u32),
            other => other.counter(),
        }
    }
}

/// The name that `tests:`, `explain` and every listing know a line by.
#[must_use]
pub fn line_name(chain: &Chain, line: LineRef) -> String {
    match line {
        LineRef::Unattached => "unattached".to_owned(),
        LineRef::Default => "default".to_owned(),
        LineRef::Floor(index) => format!("floor/{}", counter::FLOOR_NAMES[index]),
        LineRef::Malformed(index) => format!("malformed/{}", counter::MALFORMED_NAMES[index]),
        LineRef::Dynamic(_) => "dynamic".to_owned(),
        LineRef::Rule(index) => chain.rules[index].name.clone(),
        LineRef::Continuations => "continuations".to_owned(),
    }
}

/// A `ringctl deny` or `allow` that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicEntry {
    /// Grows with every entry; the highest that matches decides.
    pub id: u64,
    /// It judges arriving packets by their source; otherwise leaving ones by their destination.
    pub ingress: bool,
    /// Address; bits past `length` are ignored.
    pub address: IpAddr,
    /// Prefix length, 0..=32 or 0..=128.
    pub length: u8,
    /// Destination port; `None`: any, also none.
    pub port: Option<u16>,
    /// Whether it accepts (or drops).
    pub accept: bool,
}

/// Judges a packet that [`super::parse()`] has read.
#[must_use]
pub fn judge(
    policy: &Policy,
    context: &Context,
    parsed: &Parsed,
    members: &Members<'_>,
    entries: &[DynamicEntry],
) -> Decision {
    let unknown = parsed.as_ref().is_ok_and(Fields::any_unknown);
    let decided = |verdict, line| Decision { verdict, line, continued: Vec::new(), unknown };
    let Some(chain) = (if context.ingress { &policy.ingress } else { &policy.egress }) else {
        return decided(Verdict::Accept, LineRef::Unattached);
    };
    let fields = match parsed {
        Ok(fields) => fields,
        Err(malformed) => return decided(Verdict::Drop, LineRef::Malformed(*malformed as usize)),
    };
    if let Some(line) = (0..policy.floor.len()).find(|&line| policy.floor[line] && floor_accepts(line, context, fields))
    {
        return decided(Verdict::Accept, LineRef::Floor(line));
    }
    if let Some(entry) =
        entries.iter().filter(|entry| entry_matches(entry, context, fields)).max_by_key(|entry| entry.id)
    {
        let verdict = if entry.accept { Verdict::Accept } else { Verdict::Drop };
        return decided(verdict, LineRef::Dynamic(entry.id));
    }
    let mut continued = Vec::new();
    for (index, rule) in chain.rules.iter().enumerate() {
        if check(rule, context, fields, members).is_err() {
            continue;
        }
        if !rule.continues() {
            return Decision { verdict: rule.verdict, line: LineRef::Rule(index), continued, unknown };
        }
        if continued.len() == MAX_CONTINUATIONS as usize {
            return Decision { verdict: Verdict::Drop, line: LineRef::Continuations, continued, unknown };
        }
        continued.push(index);
    }
    Decision { verdict: chain.default, line: LineRef::Default, continued, unknown }
}

/// Whether a line of the floor lets a packet pass. No line that looks at headers speaks of fragments.
fn floor_accepts(line: usize, context: &Context, fields: &Fields) -> bool {
    if counter::FLOOR_NAMES[line] == "loopback" {
        return context.loopback;
    }
    if fields.fragment == Field::Value(true) {
        return false;
    }
    let v4 = fields.family == Field::Value(Family::V4);
    let v6 = fields.family == Field::Value(Family::V6);
    let hops = |count| fields.hop_limit == Field::Value(count);
    let ports = |from, to| fields.source_port == Field::Value(from) && fields.port == Field::Value(to);
    let udp = fields.proto == Field::Value(17);
    let icmp4 = match fields.icmp {
        Field::Value(Icmp { v6: false, kind, code }) if v4 => Some((kind, code)),
        _ => None,
    };
    let icmp6 = match fields.icmp {
        Field::Value(Icmp { v6: true, kind, code }) if v6 => Some((kind, code)),
        _ => None,
    };
    match counter::FLOOR_NAMES[line] {
        "arp" => fields.arp,
        "neighbor-discovery" => matches!(icmp6, Some((133 | 135 | 136, 0))) && hops(255),
        "router-advertisement" => icmp6 == Some((134, 0)) && hops(255),
        "multicast-listener" => matches!(icmp6, Some((130 | 131 | 132 | 143, _))) && hops(1),
        "dhcp-client" if context.ingress => udp && (v4 && ports(67, 68) || v6 && ports(547, 546)),
        "dhcp-client" => udp && (v4 && ports(68, 67) || v6 && ports(546, 547)),
        "path-mtu" => icmp4 == Some((3, 4)) || matches!(icmp6, Some((2, _))),
        _ => false,
    }
}

fn entry_matches(entry: &DynamicEntry, context: &Context, fields: &Fields) -> bool {
    let address = if entry.ingress { fields.from } else { fields.to };
    let Field::Value(address) = address else { return false };
    entry.ingress == context.ingress
        && in_prefix(address, entry.address, entry.length)
        && match (entry.port, fields.port) {
            (None, _) => true,
            (Some(wanted), Field::Value(port)) => port == wanted,
            (Some(_), Field::Unknown) => !entry.accept,
            (Some(_), Field::Absent) => false,
        }
}

/// Whether the first `length` bits of two addresses of one family are equal.
fn in_prefix(address: IpAddr, prefix: IpAddr, length: u8) -> bool {
    let (difference, width) = match (address, prefix) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    (0..width).rev().take(length.into()).all(|bit| difference >> bit & 1 == 0)
}

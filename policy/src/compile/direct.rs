//! Conditions on small fields as sets of direct indices (`abi::chain`), absent and unknown included.
//!
//! A position's condition holds for *absent* never, and for *unknown* exactly when its rule refuses.

use ringfence_abi::chain::{
    IP_FAMILY_SHIFT, IP_FRAGMENT, IP_SPACE, LENGTH_SPACE, PORT_SPACE, PORT_UNKNOWN, PROTO_ICMP, PROTO_ICMPV6,
    PROTO_SPACE, PROTO_TCP, PROTO_UNKNOWN, STATE_SPACE, STATE_UNKNOWN, VLAN_SPACE,
};

use crate::{
    model::Rule,
    ranges::{Ranges, normalise},
};

type Indices = Vec<(u32, u32)>;

/// A field with a table of classes, one for each index below `space`.
pub(super) struct Direct {
    pub(super) field: usize,
    pub(super) space: u32,
    /// The indices a rule accepts; `None`: it does not read the field.
    pub(super) accepts: fn(&Rule) -> Option<Indices>,
}

/// All of them.
pub(super) const FIELDS: [Direct; 7] = {
    use ringfence_abi::chain::{DPORT, IP, LENGTH, PROTO, SPORT, STATE, VLAN};
    [
        Direct { field: SPORT, space: PORT_SPACE, accepts: |rule| ports(rule, rule.matches.source_port.as_ref()) },
        Direct { field: DPORT, space: PORT_SPACE, accepts: |rule| ports(rule, rule.matches.port.as_ref()) },
        Direct { field: PROTO, space: PROTO_SPACE, accepts: protocol },
        Direct { field: IP, space: IP_SPACE, accepts: ip },
        Direct { field: VLAN, space: VLAN_SPACE, accepts: |rule| plain(rule.matches.vlan.as_ref()) },
        Direct { field: LENGTH, space: LENGTH_SPACE, accepts: |rule| plain(rule.matches.length.as_ref()) },
        Direct { field: STATE, space: STATE_SPACE, accepts: |rule| state(rule) },
    ]
};

fn plain(values: Option<&Ranges>) -> Option<Indices> {
    values.map(|values| values.as_slice().to_vec())
}

fn ports(rule: &Rule, values: Option<&Ranges>) -> Option<Indices> {
    let mut indices = plain(values)?;
    if rule.verdict.refuses() {
        indices.push((PORT_UNKNOWN, PORT_UNKNOWN));
    }
    Some(indices)
}

fn state(rule: &Rule) -> Option<Indices> {
    let mut indices = plain(rule.matches.state.as_ref())?;
    if rule.verdict.refuses() {
        indices.push((STATE_UNKNOWN, STATE_UNKNOWN));
    }
    Some(indices)
}

const ICMP: u32 = 1;
const TCP: u32 = 6;
const ICMPV6: u32 = 58;

fn protocol(rule: &Rule) -> Option<Indices> {
    let m = &rule.matches;
    if m.proto.is_none() && m.flags.is_none() && m.icmp.is_none() {
        return None;
    }
    let refuses = rule.verdict.refuses();
    let allowed = |number: u32| m.proto.as_ref().is_none_or(|proto| proto.contains(number));
    let mut indices = Indices::new();
    // A protocol number alone: its details are absent, or (TCP, ICMP) they are unknown.
    for number in (0..256).filter(|number| allowed(*number)) {
        let flags = m.flags.is_none() || number == TCP && refuses;
        let icmp = m.icmp.as_ref().is_none_or(|icmp| match number {
            ICMP => refuses && !icmp.v4.is_empty(),
            ICMPV6 => refuses && !icmp.v6.is_empty(),
            _ => false,
        });
        if flags && icmp {
            indices.push((number, number));
        }
    }
    if allowed(TCP) && m.icmp.is_none() {
        let accepted = (0..=255_u8).filter(|flags| m.flags.is_none_or(|set| set.contains(*flags)));
        indices.extend(accepted.map(|flags| (PROTO_TCP + u32::from(flags), PROTO_TCP + u32::from(flags))));
    }
    if m.flags.is_none() {
        let all = Ranges::new(vec![(0, 0xffff)]);
        for (number, base, of) in [
            (ICMP, PROTO_ICMP, m.icmp.as_ref().map_or(&all, |icmp| &icmp.v4)),
            (ICMPV6, PROTO_ICMPV6, m.icmp.as_ref().map_or(&all, |icmp| &icmp.v6)),
        ] {
            if allowed(number) {
                indices.extend(of.as_slice().iter().map(|(low, high)| (base + low, base + high)));
            }
        }
    }
    if refuses {
        indices.push((PROTO_UNKNOWN, PROTO_UNKNOWN));
    }
    normalise(&mut indices);
    Some(indices)
}

fn ip(rule: &Rule) -> Option<Indices> {
    let m = &rule.matches;
    if m.family.is_none() && m.fragment.is_none() && m.dscp.is_none() {
        return None;
    }
    let mut indices = Indices::new();
    for (family, accepted) in [(1_u32, m.family.is_none_or(|f| f.v4)), (2, m.family.is_none_or(|f| f.v6))] {
        for fragment in [false, true] {
            if !accepted || m.fragment.is_some_and(|wanted| wanted != fragment) {
                continue;
            }
            let base = family << IP_FAMILY_SHIFT | if fragment { IP_FRAGMENT } else { 0 };
            let dscp = (0..64).filter(|value| m.dscp.as_ref().is_none_or(|set| set.contains(*value)));
            indices.extend(dscp.map(|value| (base + value, base + value)));
        }
    }
    normalise(&mut indices);
    Some(indices)
}

//! Whether a rule matches a packet, and if not, for which field.

use std::net::IpAddr;

use super::{Context, Family, Field, Fields, Icmp, Members};
use crate::model::{AddressList, AddressMatch, InterfaceMatch, NameGlob, Rule};
use crate::ranges::Ranges;

/// Why a field does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The packet has none.
    Absent,
    /// It cannot be told, and the rule does not refuse.
    Unknown,
    /// It has another value.
    Outside,
}

/// The first field of a rule that does not match a packet, by its name in the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub field: &'static str,
    pub why: Why,
}

/// Every field that the rule reads accepts the packet; or the first that does not.
pub(super) fn check(rule: &Rule, context: &Context, fields: &Fields, members: &Members<'_>) -> Result<(), Mismatch> {
    // Judged without effect, nothing has been spent: what is above a rate does not come.
    if rule.limit.is_some_and(|limit| limit.over) {
        return Err(Mismatch { field: "limit", why: Why::Outside });
    }
    let refuses = rule.verdict.refuses();
    let reads = &rule.matches;
    for one in &reads.interface {
        let name = Field::Value(context.interface.as_str());
        field("interface", name, refuses, |name| interface_accepts(one, name))?;
    }
    if let Some(families) = reads.family {
        field("family", fields.family, refuses, |family| match family {
            Family::V4 => families.v4,
            Family::V6 => families.v6,
        })?;
    }
    for one in &reads.from {
        field("from", fields.from, refuses, |address| address_accepts(one, address, members))?;
    }
    for one in &reads.to {
        field("to", fields.to, refuses, |address| address_accepts(one, address, members))?;
    }
    number("proto", reads.proto.as_ref(), fields.proto, refuses)?;
    number("port", reads.port.as_ref(), fields.port, refuses)?;
    number("source_port", reads.source_port.as_ref(), fields.source_port, refuses)?;
    if let Some(accepted) = reads.flags {
        field("flags", fields.flags, refuses, |flags| accepted.0[usize::from(flags / 64)] & (1 << (flags % 64)) != 0)?;
    }
    if let Some(accepted) = &reads.icmp {
        // A rule that names messages of one protocol only says nothing of the other's, unreadable ones included.
        let nothing = match fields.proto {
            Field::Value(1) => accepted.v4.is_empty(),
            Field::Value(58) => accepted.v6.is_empty(),
            _ => false,
        };
        if nothing {
            return Err(Mismatch { field: "icmp", why: Why::Outside });
        }
        field("icmp", fields.icmp, refuses, |Icmp { v6, kind, code }| {
            let table = if v6 { &accepted.v6 } else { &accepted.v4 };
            within(table, u32::from(kind) * 256 + u32::from(code))
        })?;
    }
    number("state", reads.state.as_ref(), state(context, fields), refuses)?;
    number("vlan", reads.vlan.as_ref(), fields.vlan, refuses)?;
    number("dscp", reads.dscp.as_ref(), fields.dscp, refuses)?;
    number("mark", reads.mark.as_ref(), fields.mark, refuses)?;
    number("length", reads.length.as_ref(), fields.length, refuses)?;
    if let Some(wanted) = reads.fragment {
        field("fragment", fields.fragment, refuses, |is| is == wanted)?;
    }
    Ok(())
}

/// Only IP packets have a state; that of a fragment without the beginning, and of what carries no known protocol, cannot
/// be told from the packet.
pub(super) fn state(context: &Context, fields: &Fields) -> Field<u8> {
    match fields.family {
        Field::Absent => Field::Absent,
        _ if fields.later_fragment || fields.proto.is_unknown() => Field::Unknown,
        _ => Field::Value(context.state),
    }
}

/// The one place where the three states of a field meet a condition.
pub(super) fn field<T: Copy>(
    name: &'static str,
    state: Field<T>,
    refuses: bool,
    accepts: impl FnOnce(T) -> bool,
) -> Result<(), Mismatch> {
    let why = match state {
        Field::Value(value) if accepts(value) => return Ok(()),
        Field::Value(_) => Why::Outside,
        Field::Absent => Why::Absent,
        Field::Unknown if refuses => return Ok(()),
        Field::Unknown => Why::Unknown,
    };
    Err(Mismatch { field: name, why })
}

pub(super) fn number<T: Copy + Into<u32>>(
    name: &'static str,
    accepted: Option<&Ranges>,
    state: Field<T>,
    refuses: bool,
) -> Result<(), Mismatch> {
    match accepted {
        None => Ok(()),
        Some(ranges) => field(name, state, refuses, |value| within(ranges, value.into())),
    }
}

pub(super) fn within(ranges: &Ranges, value: u32) -> bool {
    ranges.as_slice().iter().any(|&(low, high)| low <= value && value <= high)
}

pub(super) fn address_accepts(condition: &AddressMatch, address: IpAddr, members: &Members<'_>) -> bool {
    condition.any_of.as_ref().is_none_or(|list| listed(list, address, members))
        && !listed(&condition.none_of, address, members)
}

fn listed(list: &AddressList, address: IpAddr, members: &Members<'_>) -> bool {
    list.dynamic.iter().any(|&set| members(set, address))
        || list.fixed.iter().any(|ranges| match address {
            IpAddr::V4(a) => ranges.v4.iter().any(|&(low, high)| low <= a.into() && u32::from(a) <= high),
            IpAddr::V6(a) => ranges.v6.iter().any(|&(low, high)| low <= a.into() && u128::from(a) <= high),
        })
}

fn interface_accepts(condition: &InterfaceMatch, name: &str) -> bool {
    let any = |globs: &[NameGlob]| globs.iter().any(|glob| glob_accepts(glob.0.as_bytes(), name.as_bytes()));
    condition.any_of.as_deref().is_none_or(any) && !any(&condition.none_of)
}

/// `*` is any run of bytes, `?` any one byte.
fn glob_accepts(glob: &[u8], name: &[u8]) -> bool {
    match (glob, name) {
        ([], []) => true,
        ([b'*', glob_rest @ ..], _) if glob_accepts(glob_rest, name) => true,
        ([b'*', ..], [_, name_rest @ ..]) => glob_accepts(glob, name_rest),
        ([b'?', glob_rest @ ..], [_, name_rest @ ..]) => glob_accepts(glob_rest, name_rest),
        ([a, glob_rest @ ..], [b, name_rest @ ..]) => a == b && glob_accepts(glob_rest, name_rest),
        _ => false,
    }
}

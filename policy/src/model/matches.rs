//! What a rule for packets matches.

use std::sync::Arc;

use super::SetId;
use crate::ranges::{AddressRanges, Ranges};

/// The conditions of a rule, all of which must hold; `Match::default()` is `any`.
///
/// For every field: `None` (or an empty `Vec`) means the rule does not read it. A rule that reads a field never matches
/// a packet in which it is *absent*; one in which it is *unknown* it matches exactly when its verdict
/// [refuses](super::Verdict::refuses). Negations are already folded into the ranges.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Source address: all of these (a group's `when` adds to a rule's own).
    pub from: Vec<AddressMatch>,
    /// Destination address.
    pub to: Vec<AddressMatch>,
    /// Protocol numbers, 0..=255.
    pub proto: Option<Ranges>,
    /// Destination ports, 0..=65535.
    pub port: Option<Ranges>,
    /// Source ports.
    pub source_port: Option<Ranges>,
    /// Interface names: all of these.
    pub interface: Vec<InterfaceMatch>,
    /// Whether IPv4, IPv6 packets match.
    pub family: Option<Families>,
    /// The accepted TCP flag bytes.
    pub flags: Option<FlagSet>,
    /// ICMP types and codes.
    pub icmp: Option<IcmpMatch>,
    /// Outermost VLAN ids, 0..=4095.
    pub vlan: Option<Ranges>,
    /// DSCP, 0..=63.
    pub dscp: Option<Ranges>,
    /// States, indices into [`STATES`](super::STATES).
    pub state: Option<Ranges>,
    /// `skb->mark`, any `u32`.
    pub mark: Option<Ranges>,
    /// Length from the network header on, 0..=65535.
    pub length: Option<Ranges>,
    /// Fragments (first or later) only, or none.
    pub fragment: Option<bool>,
}

/// One condition on an address: `in` any of these (if given) and `not` in any of those.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AddressMatch {
    /// `None`: any address, only the exclusions count.
    pub any_of: Option<AddressList>,
    /// Exclusions.
    pub none_of: AddressList,
}

/// Static addresses and dynamic sets, any of which may hold the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressList {
    /// Shared where rules name the same set, so that a set of a million prefixes is one distinction.
    pub fixed: Vec<Arc<AddressRanges>>,
    /// Dynamic sets.
    pub dynamic: Vec<SetId>,
}

/// One condition on the interface name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceMatch {
    /// `None`: any.
    pub any_of: Option<Vec<NameGlob>>,
    /// Exclusions.
    pub none_of: Vec<NameGlob>,
}

/// A glob over interface names: `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameGlob(pub String);

impl NameGlob {
    /// Whether it has no wildcard.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Whether `name` matches. Names have at most 15 bytes, so plain backtracking is bounded.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        fn go(pattern: &[u8], name: &[u8]) -> bool {
            match pattern.split_first() {
                None => name.is_empty(),
                Some((b'*', rest)) => (0..=name.len()).any(|skip| go(rest, &name[skip..])),
                Some((b'?', rest)) => !name.is_empty() && go(rest, &name[1..]),
                Some((byte, rest)) => name.first() == Some(byte) && go(rest, &name[1..]),
            }
        }
        go(self.0.as_bytes(), name.as_bytes())
    }
}

impl InterfaceMatch {
    /// Whether the condition holds for `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.any_of.as_ref().is_none_or(|list| list.iter().any(|glob| glob.matches(name)))
            && !self.none_of.iter().any(|glob| glob.matches(name))
    }
}

/// Which families a rule accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// A set of TCP flag bytes (byte 13 of the header): bit `b % 64` of word `b / 64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlagSet(pub [u64; 4]);

impl FlagSet {
    /// Whether the flag byte is in the set.
    #[must_use]
    pub fn contains(&self, flags: u8) -> bool {
        self.0[usize::from(flags >> 6)] >> (flags & 63) & 1 == 1
    }

    /// Adds a flag byte.
    pub fn insert(&mut self, flags: u8) {
        self.0[usize::from(flags >> 6)] |= 1 << (flags & 63);
    }

    /// The flag bytes that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

/// Accepted ICMP messages, as `type * 256 + code`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct IcmpMatch {
    /// With protocol 1.
    pub v4: Ranges,
    /// With protocol 58.
    pub v6: Ranges,
}

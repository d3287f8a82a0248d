//! What is in a set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringfence_api::Prefix;

use crate::clock::Expiry;

/// What is known of an element. Texts are shared by the elements that one request added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Until when; `None`: until deleted.
    pub expiry: Option<Expiry>,
    /// Why it was added, if somebody said.
    pub reason: Option<Arc<str>>,
    /// Who added it; `None`: the daemon, or a rule.
    pub by: Option<Arc<str>>,
}

impl Member {
    /// As the kernel has it: nanoseconds of boot time, 0 for never.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.expiry.map_or(0, |expiry| expiry.boot)
    }

    /// Whether a rule added it, where people may add, too.
    #[must_use]
    pub fn is_by_rule(&self) -> bool {
        self.by.is_none()
    }
}

/// A set with what is in it.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub(super) elements: BTreeMap<Prefix, Member>,
    // Soonest first: what expires and what is evicted. Elements without expiry are not in it.
    pub(super) by_expiry: BTreeSet<(u64, Prefix)>,
    by_rules: usize,
    // Single addresses, IPv4 and IPv6.
    hosts: [u32; 2],
}

impl Contents {
    /// Adds an element, or replaces what is known of it.
    pub fn insert(&mut self, element: Prefix, member: Member) {
        self.remove(element);
        if let Some(expiry) = member.expiry {
            self.by_expiry.insert((expiry.boot, element));
        }
        self.by_rules += usize::from(member.is_by_rule());
        self.hosts[family(element)] += u32::from(element.is_address());
        self.elements.insert(element, member);
    }

    /// Takes an element out; whether it was in.
    pub fn remove(&mut self, element: Prefix) -> bool {
        let Some(member) = self.elements.remove(&element) else { return false };
        if let Some(expiry) = member.expiry {
            self.by_expiry.remove(&(expiry.boot, element));
        }
        self.by_rules -= usize::from(member.is_by_rule());
        self.hosts[family(element)] -= u32::from(element.is_address());
        true
    }

    /// How many elements rules added.
    #[must_use]
    pub fn by_rules(&self) -> usize {
        self.by_rules
    }

    /// How many elements are single addresses, of IPv4 and of IPv6.
    #[must_use]
    pub fn hosts(&self) -> [u32; 2] {
        self.hosts
    }

    /// What rules added: what expires first comes first, what never does last.
    pub fn oldest_by_rules(&self) -> impl Iterator<Item = (Prefix, &Member)> {
        let lasting = self.elements.iter().filter(|(_, member)| member.expiry.is_none());
        let soonest = self.by_expiry.iter().filter_map(|(_, element)| Some((*element, self.elements.get(element)?)));
        soonest.chain(lasting.map(|(element, member)| (*element, member))).filter(|(_, member)| member.is_by_rule())
    }
}

fn family(element: Prefix) -> usize {
    usize::from(element.address().is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_what_is_in() {
        let mut contents = Contents::default();
        let hand = Member { by: Some("root".into()), ..Member::default() };
        let at = |boot| Member { expiry: Some(Expiry { boot, wall: 0, span: 0 }), ..Member::default() };
        let element = |text: &str| -> Prefix { text.parse().unwrap() };
        contents.insert(element("10.0.0.1"), Member::default());
        contents.insert(element("10.0.0.2"), at(9));
        contents.insert(element("2001:db8::1"), at(5));
        contents.insert(element("10.0.0.0/24"), hand.clone());
        assert_eq!((contents.by_rules(), contents.hosts()), (3, [2, 1]));
        let oldest: Vec<String> = contents.oldest_by_rules().map(|(element, _)| element.to_string()).collect();
        assert_eq!(oldest, ["2001:db8::1", "10.0.0.2", "10.0.0.1"]);
        contents.insert(element("10.0.0.2"), hand);
        assert!(contents.remove(element("2001:db8::1")) && !contents.remove(element("2001:db8::1")));
        assert_eq!((contents.by_rules(), contents.hosts()), (1, [2, 0]));
    }
}

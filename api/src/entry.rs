//! Dynamic entries: judged after the floor and before the rules, newest first.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Prefix;

/// `ringctl deny` and `allow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EntryRequest {
    /// What happens to the packets.
    pub verb: EntryVerb,
    /// Which packets.
    pub what: Target,
    /// Which way.
    #[serde(default)]
    pub direction: Direction,
    /// It is in force so long; until undone unless said.
    #[serde(default)]
    pub for_seconds: Option<u64>,
    /// Why, for the listing.
    #[serde(default)]
    pub reason: Option<String>,
    /// Also when it cuts the caller's own session or a `never` member.
    #[serde(default)]
    pub force: bool,
    /// Needed to allow an address without a port.
    #[serde(default)]
    pub all_ports: bool,
}

/// Peers, and the destination port of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Source of packets that arrive, destination of those that leave.
    pub address: Prefix,
    /// Destination port; `null`: any, also none.
    #[serde(default)]
    pub port: Option<u16>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            None => self.address.fmt(f),
            Some(port) if self.address.address().is_ipv6() => write!(f, "[{}]:{port}", self.address),
            Some(port) => write!(f, "{}:{port}", self.address),
        }
    }
}

/// What a dynamic entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryVerb {
    /// Drops.
    Deny,
    /// Accepts.
    Allow,
}

impl EntryVerb {
    /// The word on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// Which packets a dynamic entry is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Those that arrive from the address.
    #[default]
    In,
    /// Those that leave for it.
    Out,
    /// Both.
    Both,
}

/// A dynamic entry in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Names it; grows with each entry.
    pub id: u64,
    /// What it does.
    pub verb: EntryVerb,
    /// Which packets.
    pub what: Target,
    /// Which way.
    pub direction: Direction,
    /// When it ends; `null`: when undone.
    pub expires: Option<u64>,
    /// When it was made.
    pub created: u64,
    /// Why.
    pub reason: Option<String>,
    /// Who made it: user name or `uid N`.
    pub by: String,
    /// Packets it decided.
    pub packets: u64,
    /// Bytes it decided.
    pub bytes: u64,
}

impl Entry {
    /// The entry as the rules it stands for, in the policy's own words.
    #[must_use]
    pub fn rule(&self) -> String {
        let verb = match self.verb {
            EntryVerb::Deny => "drop",
            EntryVerb::Allow => "accept",
        };
        let port = self.what.port.map_or_else(String::new, |port| format!(", port: {port}"));
        let quote = if self.what.address.address().is_ipv6() { "\"" } else { "" };
        let one = |chain, side| format!("{chain}: {verb}: {{{side}: {quote}{}{quote}{port}}}", self.what.address);
        match self.direction {
            Direction::In => one("ingress", "from"),
            Direction::Out => one("egress", "to"),
            Direction::Both => format!("{}; {}", one("ingress", "from"), one("egress", "to")),
        }
    }
}

/// The most elements in one [`EntryList`].
pub const MAX_LISTED_ELEMENTS: usize = 65_536;

/// `ringctl list --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryList {
    /// Dynamic entries, newest first.
    pub entries: Vec<Entry>,
    /// Elements of dynamic sets by set and address, at most [`MAX_LISTED_ELEMENTS`].
    pub elements: Vec<Element>,
    /// How many more elements there are.
    pub elements_left_out: u64,
}

/// An element of a dynamic set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Element {
    /// The set, without the `$`.
    pub set: String,
    /// The element.
    pub address: Prefix,
    /// When it ends; `null`: when deleted.
    pub expires: Option<u64>,
    /// Why it was added, if somebody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who added it, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// `ringctl undo`: `{"id": 7}` or `{"what": {"address": "203.0.113.5"}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UndoRequest {
    /// This dynamic entry.
    Id(u64),
    /// Every dynamic entry about exactly this, and without a port the address in every dynamic set.
    What(Target),
}

/// What was taken back; never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UndoAnswer {
    /// Dynamic entries.
    pub entries: Vec<Entry>,
    /// Set elements.
    pub elements: Vec<Element>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, port: Option<u16>, direction: Direction) -> Entry {
        Entry {
            id: 1,
            verb: EntryVerb::Deny,
            what: Target { address: address.parse().unwrap(), port },
            direction,
            expires: None,
            created: 0,
            reason: None,
            by: "root".into(),
            packets: 0,
            bytes: 0,
        }
    }

    #[test]
    fn an_entry_reads_as_the_rule_it_stands_for() {
        assert_eq!(entry("203.0.113.5", None, Direction::In).rule(), "ingress: drop: {from: 203.0.113.5}");
        assert_eq!(
            entry("2001:db8::/32", Some(22), Direction::Both).rule(),
            "ingress: drop: {from: \"2001:db8::/32\", port: 22}; egress: drop: {to: \"2001:db8::/32\", port: 22}"
        );
    }

    #[test]
    fn a_target_is_written_as_it_is_typed() {
        assert_eq!(entry("2001:db8::1", Some(22), Direction::In).what.to_string(), "[2001:db8::1]:22");
        assert_eq!(entry("192.0.2.0/24", Some(22), Direction::In).what.to_string(), "192.0.2.0/24:22");
        assert_eq!(entry("2001:db8::1", None, Direction::In).what.to_string(), "2001:db8::1");
    }

    #[test]
    fn requests_have_defaults_and_refuse_what_they_do_not_know() {
        let short: EntryRequest =
            serde_json::from_str(r#"{"verb": "deny", "what": {"address": "203.0.113.5"}}"#).unwrap();
        assert_eq!((short.direction, short.for_seconds, short.force), (Direction::In, None, false));
        let typo = r#"{"verb": "deny", "what": {"address": "203.0.113.5"}, "for": 60}"#;
        assert!(serde_json::from_str::<EntryRequest>(typo).is_err());
        assert_eq!(serde_json::from_str::<UndoRequest>(r#"{"id": 7}"#).unwrap(), UndoRequest::Id(7));
    }
}

//! Dynamic entries: judged before the rules (packets: after the floor), newest first.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Prefix;

/// `ringctl deny` and `allow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EntryRequest {
    /// What happens to the packets or calls.
    pub verb: EntryVerb,
    /// Which packets, or which calls.
    pub what: What,
    /// Which way packets go; nothing to calls.
    #[serde(default)]
    pub direction: Direction,
    /// It is in force so long; until undone unless said.
    #[serde(default)]
    pub for_seconds: Option<u64>,
    /// Why, for the listing.
    #[serde(default)]
    pub reason: Option<String>,
    /// Also when it cuts the caller's own session, a `never` member, root's login or the daemon.
    #[serde(default)]
    pub force: bool,
    /// Needed to allow an address without a port.
    #[serde(default)]
    pub all_ports: bool,
}

/// What a dynamic entry is about: `{"address": "203.0.113.5"}` or `{"path": "/etc/shadow", "op": ["read"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum What {
    /// Packets.
    Packets(Target),
    /// System calls.
    Calls(Calls),
}

impl From<Target> for What {
    fn from(target: Target) -> Self {
        Self::Packets(target)
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Packets(target) => target.fmt(f),
            Self::Calls(calls) => calls.fmt(f),
        }
    }
}

/// System calls on a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    /// Host path; `DIR/**` is the directory and all that lies below it.
    pub path: String,
    /// Operations in the words of the policy language: `read`, `write`, `exec` ...
    pub op: Vec<String>,
    /// Path of the caller's executable; `null`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Its user id; `null`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} op={}", self.path, self.op.join(","))?;
        if let Some(exe) = &self.exe {
            write!(f, " exe={exe}")?;
        }
        self.uid.map_or(Ok(()), |uid| write!(f, " uid={uid}"))
    }
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
    /// Drops packets, refuses calls.
    Deny,
    /// Accepts packets, lets calls through.
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
    /// Which packets, or which calls.
    pub what: What,
    /// Which way packets go; `null` where it is about calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// When it ends; `null`: when undone.
    pub expires: Option<u64>,
    /// When it was made.
    pub created: u64,
    /// Why.
    pub reason: Option<String>,
    /// Who made it: user name or `uid N`.
    pub by: String,
    /// Packets or calls it decided.
    #[serde(default)]
    pub hits: u64,
    /// Packets it decided.
    pub packets: u64,
    /// Bytes it decided.
    pub bytes: u64,
}

impl Entry {
    /// The entry as the rules it stands for, in the policy's own words.
    #[must_use]
    pub fn rule(&self) -> String {
        let target = match &self.what {
            What::Packets(target) => target,
            What::Calls(calls) => return call_rule(self.verb, calls),
        };
        let verb = match self.verb {
            EntryVerb::Deny => "drop",
            EntryVerb::Allow => "accept",
        };
        let port = target.port.map_or_else(String::new, |port| format!(", port: {port}"));
        let quote = if target.address.address().is_ipv6() { "\"" } else { "" };
        let one = |chain, side| format!("{chain}: {verb}: {{{side}: {quote}{}{quote}{port}}}", target.address);
        match self.direction.unwrap_or_default() {
            Direction::In => one("ingress", "from"),
            Direction::Out => one("egress", "to"),
            Direction::Both => format!("{}; {}", one("ingress", "from"), one("egress", "to")),
        }
    }
}

fn call_rule(verb: EntryVerb, calls: &Calls) -> String {
    let op = match &calls.op[..] {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let exe = calls.exe.as_ref().map_or_else(String::new, |exe| format!(", exe: \"{exe}\""));
    let uid = calls.uid.map_or_else(String::new, |uid| format!(", uid: {uid}"));
    format!("host: {}: {{op: {op}, path: \"{}\"{exe}{uid}}}", verb.word(), calls.path)
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

/// `ringctl undo`: `{"id": 7}`, `{"what": {"address": "203.0.113.5"}}` or `{"path": "/etc/shadow"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UndoRequest {
    /// This dynamic entry.
    Id(u64),
    /// Every dynamic entry about exactly this, and without a port the address in every dynamic set.
    What(Target),
    /// Every dynamic entry about exactly this path.
    Path(String),
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
            what: Target { address: address.parse().unwrap(), port }.into(),
            direction: Some(direction),
            expires: None,
            created: 0,
            reason: None,
            by: "root".into(),
            hits: 0,
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
    fn an_entry_about_calls_is_told_from_one_about_packets_by_its_fields() {
        let json = r#"{"verb": "deny", "what": {"path": "/etc/shadow", "op": ["read", "write"], "uid": 1000}}"#;
        let request: EntryRequest = serde_json::from_str(json).unwrap();
        let What::Calls(calls) = &request.what else { panic!("{request:?}") };
        assert_eq!(calls.to_string(), "/etc/shadow op=read,write uid=1000");
        let entry = Entry { what: request.what.clone(), direction: None, ..entry("192.0.2.1", None, Direction::In) };
        assert_eq!(entry.rule(), "host: deny: {op: [read, write], path: \"/etc/shadow\", uid: 1000}");
        assert_eq!(serde_json::to_value(&entry).unwrap()["what"]["path"], "/etc/shadow");
        let both = r#"{"verb": "deny", "what": {"path": "/x", "op": ["read"], "address": "192.0.2.1"}}"#;
        assert!(serde_json::from_str::<EntryRequest>(both).is_err());
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
        assert_eq!(
            serde_json::from_str::<UndoRequest>(r#"{"path": "/x"}"#).unwrap(),
            UndoRequest::Path("/x".to_owned())
        );
    }
}

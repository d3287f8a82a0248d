//! What is enforced, and switching it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `ringctl status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Number of the generation in force; `null`: none.
    pub generation: Option<u64>,
    /// The policy file or directory it came from; `null`: none in force.
    pub policy: Option<String>,
    /// Both halves.
    pub halves: Halves,
    /// What was lost, by kind (`events`, `dispatch-miss` ...): how often since the programs were loaded.
    pub lost: BTreeMap<String, u64>,
    /// Whether refusals are carried out.
    pub mode: Mode,
    /// When `mode` turns back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_until: Option<u64>,
    /// A generation that waits for `ringctl confirm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// What is wrong without belonging to one hook: the configured policy has errors and the last confirmed one is in
    /// force, a set file vanished ... Degrades the status when not empty.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The set files of the generation in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_files: Vec<SetFile>,
    /// What traffic that cannot be judged as the policy says gets, and how much of it there was.
    #[serde(default)]
    pub fail_directions: Vec<FailDirection>,
    /// Version of the daemon.
    pub version: String,
}

/// A set file of the generation in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetFile {
    /// The set.
    pub set: String,
    /// The file.
    pub file: String,
    /// Its format: `plain`, `csv`, `spamhaus-json`, `ipset`, `nft`.
    pub format: String,
    /// Elements that were read, before overlapping ones are merged.
    pub elements: u64,
    /// Lines that cannot be used.
    pub refused: u64,
    /// The first of them, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Why the file as it is now is not taken: what was read before is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

/// The two halves of Ringfence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Halves {
    /// Packets.
    pub network: Half,
    /// System calls.
    pub host: Half,
}

/// One half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Half {
    /// The worst state of its hooks.
    pub state: State,
    /// Why it is not `enforced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Every place where it decides, or should.
    pub hooks: Vec<Hook>,
    /// Rules of the policy that are not enforced as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// What it works with; host: `mounts`, `mounts-left-out`, `path-entries`; while rules
    /// ask for executables also `processes-unknown` (theirs cannot be told) and `processes-tainted` (foreign code, traced).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, u64>,
}

/// A rule that is not enforced as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftOut {
    /// Its name.
    pub rule: String,
    /// The file it was written in.
    pub file: String,
    /// Its line there.
    pub line: u32,
    /// Why, and what happens instead.
    pub because: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// One hook, for the network half on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hook {
    /// `ingress`, `egress`, `backstop` or the name of an LSM hook.
    pub hook: String,
    /// The interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether it enforces.
    pub state: State,
    /// By what: `xdp-native`, `tcx`, `clsact`, `lsm`, `cgroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// Why it is not `enforced`, or not in the fastest way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Whether a half or a hook does what the policy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Enforced,
    /// The policy asks nothing of it.
    Unused,
    /// It judges and counts but lets everything go.
    Audit,
    /// It does part of it.
    Degraded,
    /// It cannot.
    Unavailable,
    /// `ringctl off`.
    Off,
}

impl State {
    /// The word in every listing.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Unused => "unused",
            Self::Audit => "audit",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
            Self::Off => "off",
        }
    }
}

/// Traffic for which the fail direction was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailDirection {
    /// `ingress`, `egress` or `host`.
    pub chain: String,
    /// The name it is counted under: `malformed/truncated-link`, `continuations`, `tables`, `unknown`; host:
    /// `unknown/depth`, `dispatch` ...
    pub name: String,
    /// What it gets: `drop`, `deny`, or `judged`: whatever is unknown matches every refusal and no permission.
    pub gets: String,
    /// How many packets or calls.
    pub packets: u64,
}

/// A generation that waits for confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pending {
    /// Its number.
    pub generation: u64,
    /// The one that comes back otherwise; `null`: none, nothing is enforced then.
    pub previous: Option<u64>,
    /// Seconds that are left.
    pub seconds: u64,
}

/// Whether refusals are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are counted and let go.
    Audit,
}

impl Mode {
    /// The word in the policy and in every listing.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}

/// `ringctl mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// The mode wanted. `enforce` cannot undo a `mode: audit` of the policy.
    pub mode: Mode,
    /// Turn back after so long.
    #[serde(default)]
    pub for_seconds: Option<u64>,
}

/// The mode in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeAnswer {
    /// The mode.
    pub mode: Mode,
    /// When it turns back.
    #[serde(default)]
    pub until: Option<u64>,
}

/// What `ringctl off` removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OffAnswer {
    /// One line for each thing: `tcx egress on eth0`, `pins below /sys/fs/bpf/ringfence`.
    pub removed: Vec<String>,
}

impl Status {
    /// Exit code of `ringctl status`: 0 as asked; 1 degraded, audit, loss or a pending confirmation; 3 not enforcing.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let halves = [self.halves.network.state, self.halves.host.state];
        let has = |states: &[State]| halves.iter().any(|state| states.contains(state));
        if self.generation.is_none() || has(&[State::Unavailable, State::Off]) {
            return 3;
        }
        let less_than_asked = has(&[State::Degraded, State::Audit])
            || self.mode == Mode::Audit
            || self.pending.is_some()
            || !self.problems.is_empty()
            || self.lost.values().any(|&count| count > 0);
        u8::from(less_than_asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let half =
            |state| Half { state, because: None, hooks: Vec::new(), left_out: Vec::new(), figures: BTreeMap::new() };
        Status {
            generation: Some(3),
            policy: Some("/etc/ringfence/policy.yaml".into()),
            halves: Halves { network: half(State::Enforced), host: half(State::Unused) },
            lost: BTreeMap::from([("events".into(), 0)]),
            mode: Mode::Enforce,
            mode_until: None,
            pending: None,
            problems: Vec::new(),
            set_files: Vec::new(),
            fail_directions: Vec::new(),
            version: "0".into(),
        }
    }

    #[test]
    fn exit_codes_follow_the_worst_thing() {
        let exit = |change: fn(&mut Status)| {
            let mut status = status();
            change(&mut status);
            status.exit_code()
        };
        assert_eq!(exit(|_| {}), 0);
        assert_eq!(exit(|s| s.halves.network.state = State::Degraded), 1);
        assert_eq!(exit(|s| s.halves.host.state = State::Audit), 1);
        assert_eq!(exit(|s| s.mode = Mode::Audit), 1);
        assert_eq!(exit(|s| s.pending = Some(Pending { generation: 3, previous: Some(2), seconds: 9 })), 1);
        assert_eq!(exit(|s| s.problems.push("set file gone".into())), 1);
        assert_eq!(exit(|s| *s.lost.get_mut("events").unwrap() = 1), 1);
        assert_eq!(exit(|s| s.halves.network.state = State::Off), 3);
        assert_eq!(exit(|s| s.halves.host.state = State::Unavailable), 3);
        assert_eq!(exit(|s| s.generation = None), 3);
    }

    #[test]
    fn the_documented_shape_is_kept() {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!(json["generation"], 3);
        assert_eq!(json["policy"], "/etc/ringfence/policy.yaml");
        assert_eq!(json["halves"]["network"], serde_json::json!({"state": "enforced", "hooks": []}));
        assert_eq!(json["halves"]["host"]["state"], "unused");
        assert_eq!(json["lost"]["events"], 0);
    }
}

//! Rules and their counters.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One line of `ringctl rules --json`: a rule, a line of the floor, another built-in line, or a chain's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleLine {
    /// The rule's name, `floor/NAME`, `malformed/NAME`, `dynamic`, `continuations`, `tables`, `unknown` or `default`;
    /// host: also `init`, `unknown/NAME`, `dispatch`, `protected`.
    pub name: String,
    /// `network` or `host`.
    pub half: String,
    /// `ingress`, `egress` or `host`.
    pub chain: String,
    /// `accept`, `drop`, `reject`, `count`, `would-drop` or `would-reject`; host: `allow`, `deny`, `count` or
    /// `would-deny`; `-` for a line that decides nothing itself.
    pub verb: String,
    /// File it was written in; `null` for built-in lines.
    pub file: Option<String>,
    /// Line in that file, counted from 1.
    pub line: Option<u32>,
    /// How often it matched.
    pub hits: u64,
    /// Packets it matched; a GSO packet counts its segments. 0 for the host half, whose hits are calls.
    pub packets: u64,
    /// Their bytes from the network header on.
    pub bytes: u64,
    /// When it last matched; `null`: never.
    pub last_hit: Option<u64>,
}

/// Query of `GET /v1/rules`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RulesQuery {
    /// Set all counters to zero after reading them.
    pub reset: bool,
}

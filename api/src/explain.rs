//! Which rule decides about a packet or a system call, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Mode;

/// `ringctl explain --packet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The packet. It is judged by the kernel's own program; nothing is sent, counted or changed.
    pub packet: Packet,
}

/// A packet by its fields; those left out are absent, or what a usual packet has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Packet {
    /// Which way it goes.
    pub direction: PacketDirection,
    /// Interface name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub from: Option<IpAddr>,
    /// Destination address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub to: Option<IpAddr>,
    /// Protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// TCP flags, the whole byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<u8>,
    /// ICMP type and code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<[u8; 2]>)]
    pub icmp: Option<(u8, u8)>,
    /// VLAN id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// DSCP, 0..=63.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
    /// `skb->mark`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// Length from the network header on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<u16>,
    /// A later fragment.
    pub fragment: bool,
    /// Hop limit; 64 unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hop_limit: Option<u8>,
    /// State of its connection.
    pub state: PacketState,
}

/// The state of the connection that a packet is taken to be of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PacketState {
    /// It begins one.
    #[default]
    New,
    /// Both sides have been heard.
    Established,
    /// An error about one.
    Related,
    /// Of none.
    Invalid,
}

/// Whether a packet arrives or leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PacketDirection {
    /// It arrives.
    #[default]
    Ingress,
    /// It leaves.
    Egress,
}

/// `ringctl explain --access`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessRequest {
    /// The call. It is judged by the programs of the generation in force; nothing is done, counted or changed.
    pub access: Access,
    /// Takes what `access` does not say of the caller from this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// A system call by its fields; those left out are absent, or what a usual call has (no path, user id 0, no login).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Operation: one that a call asks for, so not `all`.
    pub op: String,
    /// Host path of the object, or `@NAME` of an abstract socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Type of its file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fstype: Option<String>,
    /// The executed or mapped file has no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// The caller's executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// It runs foreign code: no permission by `exe` holds.
    pub tainted: bool,
    /// Executables of its ancestors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ancestor: Vec<String>,
    /// User id: fsuid for files, euid otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group ids, supplementary ones too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid: Vec<u32>,
    /// The file belongs to that user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<bool>,
    /// Login user id; 4294967295: unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auid: Option<u32>,
    /// Path of the caller's cgroup below the hierarchy's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// In another PID namespace than the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<bool>,
    /// Address of a socket call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub to: Option<IpAddr>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Socket family, `AF_` number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<u8>,
    /// Socket type, `SOCK_` number.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<u8>,
    /// Capability number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<u8>,
    /// Signal number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// Executable of the process acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// `ringctl explain --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// `accept`, `drop` or `reject`; of a call `allow`, `deny` or, with mode audit, `would-deny`.
    pub verdict: String,
    /// The rule that decides, or the built-in line as in [`crate::RuleLine::name`]; a dynamic entry is `dynamic/ID`.
    pub rule: String,
    /// File of that rule.
    pub file: Option<String>,
    /// Line in that file.
    pub line: Option<u32>,
    /// The generation asked; `null`: a policy that is not loaded (`--policy`).
    pub generation: Option<u64>,
    /// With `audit` a refusal is counted and the packet passes all the same.
    pub mode: Mode,
    /// Every rule up to the one that decides, in order.
    pub considered: Vec<Considered>,
}

/// One rule on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Considered {
    /// Its name.
    pub rule: String,
    /// Whether it matched. One that did and is not the last counted or audited only.
    pub matched: bool,
    /// The condition that failed, or what made it match.
    pub because: String,
}

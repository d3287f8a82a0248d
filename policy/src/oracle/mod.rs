//! The naive evaluator: what a policy means, written for obviousness instead of speed.
//!
//! It shares no code with `engine` and `compile`, because it is what they are compared with: packets are parsed
//! from slices, rules are tried one after the other, ranges are searched from the left. It also answers
//! `ringctl explain` and runs the `tests:` of a policy.

mod checksum;
mod explain;
mod frame;
mod glob;
mod host;
mod judge;
mod matches;
mod parse;
mod run;
#[cfg(test)]
mod tests;

pub use explain::{Considered, explain};
pub use frame::{FrameError, frame};
pub use glob::matches as glob_matches;
pub use host::{HostDecision, explain_access, judge_access, run_access_tests};
pub use judge::{Decision, DynamicEntry, LineRef, judge, line_name};
pub use parse::{Family, Field, Fields, Icmp, Malformed, Parsed, parse};
pub use run::{Failure, context, run_tests};

use std::net::IpAddr;

use crate::model::SetId;

/// Where the program that sees the packet is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// In the driver, before there is an skb: no mark, no tag beside the frame, no segmentation offload.
    Xdp,
    /// tcx or clsact.
    Tc,
}

/// What is known of a packet beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The hook.
    pub hook: Hook,
    /// Whether the packet arrives (or leaves).
    pub ingress: bool,
    /// Name of the interface it is on.
    pub interface: String,
    /// The interface is the loopback device.
    pub loopback: bool,
    /// The device has no Ethernet header: frames begin at the IP header.
    pub l3: bool,
    /// Payload bytes of each of the segments that the packet will still be cut into; 0: none. Only at TC.
    pub segment: u16,
    /// Tag control information of a VLAN tag held in the skb instead of the frame; only at TC.
    pub tag: Option<u16>,
    /// `skb->mark`; absent at XDP whatever is said here.
    pub mark: Option<u32>,
    /// The state of its connection, index into [`crate::model::STATES`].
    pub state: u8,
}

/// Whether an address is in a dynamic set.
pub type Members<'a> = dyn Fn(SetId, IpAddr) -> bool + 'a;

/// The members of dynamic sets that nobody has filled.
#[must_use]
pub fn no_members(_: SetId, _: IpAddr) -> bool {
    false
}

//! What a rule, a default or the floor decides about a packet.

/// Let the packet through.
pub const ACCEPT: u8 = 1;
/// Drop the packet.
pub const DROP: u8 = 2;
/// Drop the packet and tell its sender.
pub const REJECT: u8 = 3;
/// Count and go on with the next matching rule.
pub const COUNT: u8 = 4;
/// Let the packet through; a TCP handshake only with a SYN cookie (`protect: syn-flood`). Outside the tables it is [`ACCEPT`].
pub const PROTECT: u8 = 5;

/// [`crate::chain::Position::flags`]: the rule never decides, it reports `would-drop`, and evaluation goes on.
pub const FLAG_AUDIT: u8 = 1;
/// [`crate::chain::Position::flags`]: the rule asks for an event for each match.
pub const FLAG_LOG: u8 = 2;

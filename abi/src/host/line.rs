//! Names of the host chain's built-in counters in the places that packets use for the floor and for malformed frames
//! ([`crate::counter::FLOOR`], [`crate::counter::MALFORMED`]): why a path, a subject or a call was unknown, or was let
//! through before any rule.

use crate::counter::{FLOOR, MALFORMED, UNKNOWN};

/// Let through because the caller is PID 1.
pub const INIT: u32 = FLOOR;
/// More than 64 components.
pub const DEPTH: u32 = FLOOR + 1;
/// More than 4,096 bytes.
pub const LENGTH: u32 = FLOOR + 2;
/// A file system that is not in the mount table, asked for from the host's mount namespace.
pub const SUPERBLOCK: u32 = FLOOR + 3;
/// The walk did not end at the file system's root.
pub const DISCONNECTED: u32 = FLOOR + 4;
/// Names changed during the walk, three times.
pub const TORN: u32 = FLOOR + 5;
/// A name that the file system compares in its own way against a pattern that does not fold.
pub const FOLDED: u32 = FLOOR + 6;
/// Working memory or kernel memory could not be had.
pub const MEMORY: u32 = MALFORMED;
/// The caller's executable or its ancestors.
pub const SUBJECT: u32 = MALFORMED + 1;
/// The caller's cgroup.
pub const CGROUP: u32 = MALFORMED + 2;
/// A socket address that cannot be read.
pub const ADDRESS: u32 = MALFORMED + 3;
/// No program of the generation in force where its slot must have one: refused.
pub const DISPATCH: u32 = MALFORMED + 4;
/// Refused because it reaches Ringfence itself (`protect_self`).
pub const PROTECTED: u32 = MALFORMED + 5;
/// How many built-in counters the host chain has; its rules follow.
pub const BUILTINS: u32 = UNKNOWN + 1;
/// Their names, from [`FLOOR`] on.
pub const NAMES: [&str; 13] = [
    "init",
    "unknown/depth",
    "unknown/length",
    "unknown/superblock",
    "unknown/disconnected",
    "unknown/torn",
    "unknown/folded",
    "unknown/memory",
    "unknown/subject",
    "unknown/cgroup",
    "unknown/address",
    "dispatch",
    "protected",
];
/// What each of them says in listings: why something was unknown is only counted, the rules decide.
pub const VERBS: [&str; NAMES.len()] =
    ["allow", "count", "count", "count", "count", "count", "count", "count", "count", "count", "count", "deny", "deny"];

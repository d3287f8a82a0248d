//! What `ringctl check` says of a policy's host half.

use std::collections::BTreeMap;

use ringfence_abi::host::{HOOKS, field, op};
use ringfence_policy::compile::Compiled;
use ringfence_policy::model::{Policy, host_word};
use serde::Serialize;

use crate::units;

/// The host half in `ringctl check --json`.
#[derive(Debug, Serialize)]
pub struct HostSummary {
    default: &'static str,
    rules: usize,
    /// Operations that some rule, or the default, may refuse or count.
    operations: Vec<&'static str>,
    /// Security hooks that are attached for them.
    hooks: usize,
    /// For each field that some rule reads: how many kinds of value the rules tell apart.
    classes: BTreeMap<&'static str, usize>,
    protect_self: bool,
    /// Bytes of its tables, path automaton included.
    pub table_bytes: u64,
}

impl HostSummary {
    /// Of a policy that has one.
    pub fn of(policy: &Policy, compiled: &Compiled) -> Option<Self> {
        let (chain, tables) = (&policy.host, &compiled.host);
        if chain.implicit {
            return None;
        }
        let ops = tables.consts.ops;
        let operations = op::NAMES.into_iter().enumerate().filter(|(n, _)| ops >> n & 1 == 1).map(|(_, name)| name);
        let mut classes = BTreeMap::new();
        for &(field, count) in &tables.classes {
            *classes.entry(field_name(field)).or_insert(0) += count;
        }
        Some(Self {
            default: host_word(chain.default),
            rules: chain.rules.len(),
            operations: operations.collect(),
            hooks: HOOKS.iter().filter(|hook| hook.ops & ops != 0).count(),
            classes,
            protect_self: chain.protect_self,
            table_bytes: tables.arena.len() as u64,
        })
    }

    /// In one line.
    pub fn describe(&self) -> String {
        let classes: Vec<String> = self.classes.iter().map(|(field, count)| format!("{field} {count}")).collect();
        let classes = if classes.is_empty() { "none".to_owned() } else { classes.join(", ") };
        let protect = if self.protect_self { ", protects itself" } else { "" };
        format!(
            "{} rules, default {}{protect}; {} operations at {} hooks; classes: {classes}; {}",
            self.rules,
            self.default,
            self.operations.len(),
            self.hooks,
            units::size(self.table_bytes)
        )
    }
}

/// The language's name of a field of the tables.
fn field_name(number: usize) -> &'static str {
    match number {
        field::OP => "op",
        field::PATH => "path",
        field::EXE => "exe",
        field::UID => "uid",
        field::CGROUP => "unit/cgroup",
        field::FLAGS => "owner/anonymous/container",
        field::GID => "gid",
        field::AUID => "auid",
        field::TARGET => "target",
        field::ADDR => "to",
        field::PORT => "port",
        field::ANCESTOR => "ancestor",
        field::FSTYPE => "fstype",
        field::PROTO => "proto",
        field::FAMILY => "family",
        field::TYPE => "type",
        field::CAPABILITY => "capability",
        field::SIGNAL => "signal",
        _ => "other",
    }
}

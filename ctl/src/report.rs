//! What `ringctl check` says of a policy without mistakes.

use std::collections::BTreeMap;
use std::io::Write;

use ringfence_abi::chain;
use ringfence_abi::connection::{half_in, half_out};
use ringfence_abi::counter::Counter;
use ringfence_policy::Loaded;
use ringfence_policy::compile::{Compiled, CompiledChain};
use ringfence_policy::model::{Chain, DynamicKind, Policy};
use serde::Serialize;

use crate::host_report::HostSummary;
use crate::interfaces;
use crate::table::{Table, clean};
use crate::units;

/// `ringctl check --json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    files: Vec<String>,
    mode: &'static str,
    /// Globs of the policy; `null`: the default selection.
    interfaces: Option<Vec<String>>,
    /// The interfaces of this machine among them.
    interfaces_here: Vec<String>,
    chains: Vec<ChainSummary>,
    /// `null`: the policy has no `host:`.
    host: Option<HostSummary>,
    /// `null`: no rule reads `state`, and none are followed.
    connections: Option<ConnectionSummary>,
    dynamic_sets: Vec<SetSummary>,
    /// Bytes of the tables of all chains.
    table_bytes: u64,
    /// Bytes of the counters, for each CPU.
    counter_bytes: u64,
    tests: TestSummary,
    warnings: usize,
}

#[derive(Debug, Serialize)]
struct ChainSummary {
    chain: &'static str,
    default: &'static str,
    rules: usize,
    /// For each field that some rule reads: how many kinds of value the rules tell apart.
    classes: BTreeMap<&'static str, usize>,
    table_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ConnectionSummary {
    /// Established connections that are remembered.
    capacity: u32,
    /// Kernel memory of all pools.
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct SetSummary {
    name: String,
    /// `null`: filled by the daemon.
    capacity: Option<u32>,
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct TestSummary {
    run: usize,
    failed: usize,
}

impl Summary {
    /// Of a policy, what it compiled to, and how many of its tests failed.
    pub fn new(loaded: &Loaded, compiled: &Compiled, failed: usize) -> Self {
        let policy = &loaded.policy;
        let chains: Vec<ChainSummary> =
            [("ingress", &policy.ingress, &compiled.ingress), ("egress", &policy.egress, &compiled.egress)]
                .into_iter()
                .filter_map(|(name, chain, tables)| Some(chain_summary(name, chain.as_ref()?, tables.as_ref()?)))
                .collect();
        let host = HostSummary::of(policy, compiled);
        Self {
            files: policy.files.clone(),
            mode: match policy.mode {
                ringfence_policy::model::Mode::Enforce => "enforce",
                ringfence_policy::model::Mode::Audit => "audit",
            },
            interfaces: policy.interfaces.as_ref().map(|globs| globs.iter().map(|glob| glob.0.clone()).collect()),
            interfaces_here: interfaces::covered(policy.interfaces.as_deref()),
            table_bytes: chains.iter().map(|chain| chain.table_bytes).sum::<u64>()
                + host.as_ref().map_or(0, |host| host.table_bytes),
            chains,
            host,
            connections: policy.tracks().then(|| ConnectionSummary {
                capacity: policy.connections.capacity,
                bytes: policy.connections.bytes(),
            }),
            dynamic_sets: dynamic_sets(policy),
            counter_bytes: (compiled.lines.len() * size_of::<Counter>()) as u64,
            tests: TestSummary { run: policy.tests.len() + policy.access_tests.len(), failed },
            warnings: loaded.warnings.len(),
        }
    }

    /// Writes it for people.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut table = Table::plain();
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let globs = self.interfaces.as_deref().map_or_else(|| "default selection".to_owned(), list);
        table.row(["policy".into(), list(&self.files).into()]);
        table.row(["mode".into(), self.mode.into()]);
        table.row(["interfaces".into(), format!("{globs}; on this machine: {}", list(&self.interfaces_here)).into()]);
        for chain in &self.chains {
            table.row([chain.chain.into(), chain.describe().into()]);
        }
        if let Some(host) = &self.host {
            table.row(["host".into(), host.describe().into()]);
        }
        for set in &self.dynamic_sets {
            table.row(["set".into(), set.describe().into()]);
        }
        if let Some(connections) = &self.connections {
            table.row(["connections".into(), connections.describe().into()]);
        }
        let memory = format!(
            "{} of tables, {} of counters for each CPU",
            units::size(self.table_bytes),
            units::size(self.counter_bytes)
        );
        table.row(["memory".into(), memory.into()]);
        let tests = &self.tests;
        table.row(["tests".into(), format!("{} passed, {} failed", tests.run - tests.failed, tests.failed).into()]);
        table.row(["warnings".into(), self.warnings.to_string().into()]);
        table.write(out)
    }
}

impl ChainSummary {
    fn describe(&self) -> String {
        let classes: Vec<String> = self.classes.iter().map(|(field, count)| format!("{field} {count}")).collect();
        let classes = if classes.is_empty() { "none".to_owned() } else { classes.join(", ") };
        let bytes = units::size(self.table_bytes);
        format!("{} rules, default {}; classes: {classes}; {bytes}", self.rules, self.default)
    }
}

impl ConnectionSummary {
    fn describe(&self) -> String {
        let half = (half_in(self.capacity), half_out(self.capacity));
        format!(
            "up to {} established, {} that came in and {} that this host began; {} of kernel memory",
            self.capacity,
            half.0,
            half.1,
            units::size(self.bytes)
        )
    }
}

impl SetSummary {
    fn describe(&self) -> String {
        let name = clean(&self.name);
        let Some(capacity) = self.capacity else { return format!("${name}, kept by the daemon") };
        let timeout = self.timeout_seconds.map_or_else(|| "no timeout".to_owned(), units::duration);
        format!("${name}, up to {capacity} elements, {timeout}")
    }
}

fn chain_summary(name: &'static str, chain: &Chain, tables: &CompiledChain) -> ChainSummary {
    let mut classes = BTreeMap::new();
    for &(field, count) in &tables.classes {
        *classes.entry(field_name(field)).or_insert(0) += count;
    }
    ChainSummary {
        chain: name,
        default: chain.default.word(),
        rules: chain.rules.len(),
        classes,
        table_bytes: tables.arena.len() as u64,
    }
}

fn dynamic_sets(policy: &Policy) -> Vec<SetSummary> {
    policy
        .dynamic_sets
        .iter()
        .map(|set| {
            let (capacity, timeout_seconds) = match &set.kind {
                DynamicKind::Declared { capacity, timeout, .. } => (Some(*capacity), *timeout),
                DynamicKind::Local | DynamicKind::Gateways | DynamicKind::Resolvers => (None, None),
            };
            SetSummary { name: set.name.clone(), capacity, timeout_seconds }
        })
        .collect()
}

/// The language's name of a field of the tables. Membership in dynamic sets has a field for each eight sets.
fn field_name(field: usize) -> &'static str {
    match field {
        chain::SRC => "from",
        chain::DST => "to",
        chain::SPORT => "source_port",
        chain::DPORT => "port",
        chain::PROTO => "proto/flags/icmp",
        chain::IP => "family/fragment/dscp",
        chain::VLAN => "vlan",
        chain::LENGTH => "length",
        chain::MARK => "mark",
        chain::INTERFACE => "interface",
        chain::STATE => "state",
        chain::SRC_SETS..chain::DST_SETS => "from sets",
        _ => "to sets",
    }
}

//! A generation that is in the kernel, with what the daemon knows of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ringfence_abi::interface::Interface;
use ringfence_policy::compile::{CompiledHost, InterfaceClasses};
use ringfence_policy::model::{Mode, Policy};

use crate::clock;
use crate::error::Result;
use crate::interfaces::link::Link;
use crate::interfaces::select::Demand;
use crate::kernel::Loaded;
use crate::state::counts::{Count, Counts, carry};
use crate::state::generations::{KeptLine, Record, Store};

use super::candidate::Candidate;
use super::fallback::LeftOut;

/// A loaded generation.
#[derive(Debug)]
pub struct Active {
    /// Its place in the kernel.
    pub loaded: Loaded,
    /// What is on disk about it.
    pub record: Record,
    /// What its counters count.
    pub lines: Vec<KeptLine>,
    /// The policy and what it asks of interfaces; `None` when this daemon cannot read what an older one loaded.
    pub meaning: Option<Meaning>,
    counts: Mutex<Counts>,
}

/// What a generation means, beside its tables.
#[derive(Debug)]
pub struct Meaning {
    /// The policy.
    pub policy: Policy,
    /// What it asks of interfaces.
    pub demand: Demand,
    /// The host half's tables, by which questions about calls are put.
    pub host: CompiledHost,
    /// Rules that are not enforced as written.
    pub left_out: Vec<LeftOut>,
    ingress: InterfaceClasses,
    egress: InterfaceClasses,
}

impl Meaning {
    /// Of a policy that was compiled.
    #[must_use]
    pub fn of(candidate: Candidate) -> Self {
        let classes = |chain: Option<ringfence_policy::compile::CompiledChain>| {
            chain.map(|chain| chain.interfaces).unwrap_or_default()
        };
        Self {
            policy: candidate.policy,
            demand: candidate.demand,
            host: candidate.compiled.host,
            left_out: candidate.left_out,
            ingress: classes(candidate.compiled.ingress),
            egress: classes(candidate.compiled.egress),
        }
    }

    fn interface(&self, link: &Link) -> Interface {
        Interface {
            ingress: self.ingress.class(&link.name),
            egress: self.egress.class(&link.name),
            address: link.address,
            zero: 0,
        }
    }
}

impl Active {
    /// A generation that was just loaded, or adopted.
    #[must_use]
    pub fn new(loaded: Loaded, record: Record, lines: Vec<KeptLine>, meaning: Option<Meaning>, counts: Counts) -> Self {
        Self { loaded, record, lines, meaning, counts: Mutex::new(counts) }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.loaded.number
    }

    /// Whether the policy says `mode: audit`.
    #[must_use]
    pub fn audits(&self) -> bool {
        self.meaning.as_ref().is_some_and(|meaning| meaning.policy.mode == Mode::Audit)
    }

    /// Says what the interface is to this generation's rules.
    pub fn classify(&self, link: &Link) -> Result<()> {
        match &self.meaning {
            Some(meaning) => Ok(self.loaded.set_interface(link.index, &meaning.interface(link))?),
            None => Ok(()),
        }
    }

    /// What is kept of its counters.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the kernel holds now.
    pub fn live(&self) -> Result<Vec<Count>> {
        let (wall, monotonic) = (clock::wall_now(), clock::monotonic_now());
        Ok(self.loaded.counters()?.iter().map(|counter| Count::live(counter, wall, monotonic)).collect())
    }

    /// What is to be shown, line by line.
    pub fn total(&self) -> Result<Vec<Count>> {
        let live = self.live()?;
        Ok(self.counts().total(&live))
    }

    /// Its counts, laid out for the lines of another generation.
    pub fn total_for(&self, lines: &[KeptLine]) -> Result<Vec<Count>> {
        Ok(carry(&self.total()?, &self.lines, lines))
    }

    /// Takes over the counts of a generation that is not in force any more and will be unloaded. Safe to be
    /// interrupted anywhere, and to be done again.
    pub fn take_over(&self, other: &Self, store: &Store) -> Result<()> {
        let carried = other.total_for(&self.lines)?;
        let mut counts = self.counts();
        if counts.merged.contains(&other.number()) {
            return Ok(());
        }
        let mut next = counts.clone();
        next.add(&carried);
        next.merged.push(other.number());
        next.write(store, self.number())?;
        *counts = next;
        Ok(())
    }

    /// The generation with this number is not in the kernel any more: it may come again.
    pub fn forget_merged(&self, number: u64, store: &Store) -> Result<()> {
        let mut counts = self.counts();
        counts.merged.retain(|&merged| merged != number);
        Ok(counts.write(store, self.number())?)
    }

    /// Writes down what the kernel holds, for the case that it forgets.
    pub fn snapshot(&self, store: &Store) -> Result<()> {
        let live = self.live()?;
        let mut counts = self.counts();
        counts.snapshot = live;
        Ok(counts.write(store, self.number())?)
    }

    /// Sets all counters to zero.
    pub fn reset(&self, store: &Store) -> Result<()> {
        let live = self.live()?;
        let mut counts = self.counts();
        counts.reset(&live, clock::wall_now());
        Ok(counts.write(store, self.number())?)
    }
}

impl Active {
    /// The generation that lets everything pass.
    #[must_use]
    pub fn empty(loaded: Loaded) -> Self {
        let record = Record {
            generation: loaded.number,
            applied: clock::wall_now(),
            by: "ringfenced".to_owned(),
            why: "nothing was in force".to_owned(),
            policy: String::new(),
            confirmed: true,
            rules: 0,
            digest: String::new(),
            tables: String::new(),
            texts: Vec::new(),
            sets: Vec::new(),
        };
        Self::new(loaded, record, Vec::new(), None, Counts::default())
    }
}

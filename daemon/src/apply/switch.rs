//! The change from one generation to another: load, attach, flip, detach, take over the counters, unload.
//!
//! Up to the flip everything can fail and is taken back; the flip is one store and cannot; what comes after it can be
//! done again by the next start, which finds in the kernel what is left to do.

use ringfence_abi::generation::NO_SLOT;
use ringfence_policy::compile::compile;
use ringfence_policy::model::Policy;

use super::active::{Active, Meaning};
use super::candidate::Candidate;
use super::feeds;
use crate::cli::Half;
use crate::clock::boot_seconds;
use crate::daemon::{Control, Daemon, EMPTY, Pending};
use crate::error::{Error, Result, with_sources};
use crate::faults::reach;
use crate::interfaces::attachments::Step;
use crate::interfaces::select::Demand;
use crate::interfaces::watch;
use crate::kernel::Loaded;
use crate::state::counts::Counts;
use crate::state::generations::Record;

/// How a generation comes into force.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is written about it; its number is the generation's.
    pub record: Record,
    /// Not on disk yet.
    pub new: bool,
    /// Go back unless confirmed within so many seconds.
    pub confirm: Option<u32>,
}

impl Daemon {
    /// Puts a candidate in force. The caller holds `applying`.
    pub fn switch(&self, candidate: Candidate, plan: &Plan) -> Result<u64> {
        let number = plan.record.generation;
        let sets = candidate.policy.dynamic_sets.clone();
        let ids = {
            let mut dynamic = self.dynamic();
            self.kernel(|kernel| dynamic.assign_ids(Some(kernel), &sets))?
        };
        let id = |set: ringfence_policy::model::SetId| ids.get(usize::from(set.0)).copied().unwrap_or_default();
        reach("apply/sets-known");
        let loaded = self.kernel(|kernel| Ok(kernel.load(&candidate.compiled, number, id)?))?;
        reach("apply/loaded");
        if let Some(rings) = loaded.rings() {
            self.known().follow_new(loaded.slot, rings, &candidate.lines);
        }
        let mut control = self.control();
        let like = control.running.as_ref().map(|running| running.number()).filter(|&number| number != EMPTY);
        let prepared = self.prepare(plan, &candidate, like, control.running.is_some());
        let counts = match prepared {
            Ok(counts) => counts,
            Err(error) => return Err(self.abandon(loaded, plan, error)),
        };
        reach("apply/written");
        let lines = candidate.lines.clone();
        let mut active = Active::new(loaded, plan.record.clone(), lines, Some(Meaning::of(candidate)), counts);
        if let Err(error) = self.before_flip(&mut control, &active) {
            return Err(self.abandon(active.loaded, plan, error));
        }
        let empty = match (plan.confirm, &control.running) {
            (Some(_), None) => match self.load_empty() {
                Ok(empty) => Some(empty),
                Err(error) => return Err(self.abandon(active.loaded, plan, error)),
            },
            _ => None,
        };
        reach("apply/before-flip");
        let deadline = plan.confirm.map_or(0, |seconds| boot_seconds().saturating_add(seconds).max(1));
        let first = control.running.is_none();
        let old = control.running.take().or(empty.map(Box::new));
        let previous = plan.confirm.and(old.as_ref()).map_or(active.loaded.slot, |old| old.loaded.slot);
        self.kernel(|kernel| {
            kernel.flip(active.loaded.slot, previous, deadline);
            Ok(())
        })?;
        reach("apply/flipped");
        // Not after an upgrade: what the other version had attached is ours now, and taken away it would be missing.
        let upgraded = self.kernel(|kernel| Ok(!kernel.formers().is_empty()))?;
        if first && !upgraded && self.arguments.requires(Half::Network) {
            let problem = self.bring(&mut control, &active);
            if let Some(reason) = problem {
                self.nothing_in_force(&mut control)?;
                return Err(self.abandon(active.loaded, plan, Error::Required { half: "network", reason }));
            }
        }
        active.record.confirmed |= plan.confirm.is_none();
        tracing::info!(generation = number, policy = active.record.policy, deadline, "in force");
        control.running = Some(Box::new(active));
        self.after_flip(&mut control, &sets, old, deadline);
        Ok(number)
    }

    /// Writes down what is needed to load the generation again, before it comes into force.
    fn prepare(&self, plan: &Plan, candidate: &Candidate, like: Option<u64>, replaces: bool) -> Result<Counts> {
        let number = plan.record.generation;
        if plan.new {
            self.store.add(&plan.record, &candidate.sources, &candidate.lines, like)?;
        }
        let mut counts = Counts::default();
        if !replaces {
            // The same generation after a reboot, or after `off`: it goes on counting.
            counts = Counts::read(&self.store, number)?;
            counts.loaded_again();
        }
        match counts.write(&self.store, number) {
            // A kept generation must come back also where nothing can be written: a full disk takes no policy away.
            Err(error) if !plan.new => {
                tracing::error!(error = with_sources(&error), "counters could not be written down");
            }
            result => result?,
        }
        Ok(counts)
    }

    /// Takes back what was loaded of a generation that does not come into force.
    fn abandon(&self, loaded: Loaded, plan: &Plan, error: Error) -> Error {
        let number = loaded.number;
        let unloaded = self.unload(loaded);
        let removed = if plan.new { self.store.remove(number).map_err(Error::from) } else { Ok(()) };
        for leftover in [unloaded, removed].into_iter().filter_map(Result::err) {
            tracing::debug!(error = with_sources(&leftover), "left behind by a generation that failed");
        }
        error
    }

    /// Makes the interfaces known to the new generation, and attaches where the old one was not attached.
    fn before_flip(&self, control: &mut Control, active: &Active) -> Result<()> {
        self.require_host()?;
        // Before the interfaces, which `--require network` may have to take back.
        self.host_before_flip(control, &active.loaded)?;
        reach("apply/host-ready");
        let network = watch::lock(&self.network).clone();
        for link in network.links.values() {
            active.classify(link)?;
        }
        self.adopt_connections(control, active, &network)?;
        reach("apply/interfaces-known");
        // Without a generation in force the dispatchers drop, so nothing is attached before there is one.
        if control.running.is_none() {
            return self.require(active, &network);
        }
        let Some(meaning) = &active.meaning else { return Ok(()) };
        let failure = self
            .kernel(|kernel| Ok(control.attachments.reconcile(kernel, &meaning.demand, &network, Step::BeforeFlip)))?;
        match failure {
            Some(reason) if self.arguments.requires(Half::Network) => {
                // Back to what the old generation wants.
                if let Some(old) = control.running.as_ref().and_then(|old| old.meaning.as_ref()) {
                    self.kernel(|kernel| {
                        control.attachments.reconcile(kernel, &old.demand, &network, Step::Final);
                        Ok(())
                    })?;
                }
                Err(Error::Required { half: "network", reason })
            }
            _ => self.require(active, &network),
        }
    }

    /// `--require network`: every interface the policy covers can be judged, and there is one.
    fn require(&self, active: &Active, network: &watch::Network) -> Result<()> {
        let Some(meaning) = active.meaning.as_ref().filter(|_| self.arguments.requires(Half::Network)) else {
            return Ok(());
        };
        let (wanted, unsupported) = meaning.demand.wanted(&network.links, &network.default_routes, |_| true);
        let missing = |reason: String| Err(Error::Required { half: "network", reason });
        if let Some(first) = unsupported.first() {
            return missing(format!("{}: no program can judge its frames (link type {})", first.name, first.link_type));
        }
        let asks = meaning.demand.ingress || meaning.demand.egress;
        if asks && wanted.is_empty() {
            missing("the policy covers no interface of this machine".to_owned())
        } else {
            Ok(())
        }
    }

    /// Nothing here may fail the apply: the new generation is in force.
    fn after_flip(
        &self,
        control: &mut Control,
        sets: &[ringfence_policy::model::DynamicSet],
        old: Option<Box<Active>>,
        deadline: u32,
    ) {
        let problem = self.reconcile(control);
        note(control, "attach", problem.map(|reason| format!("cannot attach: {reason}")));
        reach("apply/attached");
        let declared = {
            let mut dynamic = self.dynamic();
            self.kernel(|kernel| dynamic.declare(Some(kernel), sets))
        };
        note(control, "sets", declared.err().map(|error| with_sources(&error)));
        reach("apply/sets-declared");
        let running = control.running.as_ref().map(|running| running.number());
        let before = old.as_ref().map(|old| old.number()).filter(|&number| number != EMPTY);
        // New contents of a set file are the same policy: `rollback` goes to the one before it.
        let before = before.filter(|_| control.running.as_ref().is_none_or(|r| r.record.why != feeds::WHY));
        let written = control.standing.follow(|standing| {
            standing.running = running;
            standing.previous = before.filter(|number| Some(*number) != running).or(standing.previous);
            standing.last_number = standing.last_number.max(running.unwrap_or_default());
        });
        note(control, "state", written.err().map(|error| with_sources(&error)));
        reach("apply/standing-written");
        match old {
            Some(old) if deadline != 0 => control.pending = Some(Pending { previous: old, deadline }),
            Some(old) => self.retire(control, *old),
            None => {}
        }
        let problem = self.host_after_flip(control);
        note(control, "host", problem);
        reach("apply/host-settled");
        self.retire_formers(control);
        let needed: Vec<u64> = [running, control.standing.get().previous].into_iter().flatten().collect();
        if let Err(error) = self.store.prune(&needed) {
            tracing::warn!(error = with_sources(&error), "cannot remove old generations");
        }
        reach("apply/pruned");
        self.rearm.notify_one();
        self.feeds.changed.notify_one();
    }

    /// Lets a generation go that is not in force any more: its counts go to the one that is.
    pub fn retire(&self, control: &mut Control, old: Active) {
        let drained = (|| {
            self.kernel(|kernel| Ok(kernel.wait_for_running_programs()?))?;
            reach("retire/drained");
            match &control.running {
                Some(running) => {
                    self.kernel(|kernel| Ok(kernel.carry_connections(&old.loaded, &running.loaded)?))?;
                    running.take_over(&old, &self.store)
                }
                None => Ok(()),
            }
        })();
        let retired = if let Err(error) = drained {
            // Its counts are nowhere else: it stays until they can be written down.
            control.leftover.push(old);
            Err(error)
        } else {
            reach("retire/counts-taken-over");
            let number = old.number();
            self.unload(old.loaded).and_then(|()| {
                reach("retire/unloaded");
                control.running.as_ref().map_or(Ok(()), |running| running.forget_merged(number, &self.store))
            })
        };
        let problem = retired.err();
        let problem =
            problem.map(|error| format!("a previous generation is still in the kernel: {}", with_sources(&error)));
        note(control, "retire", problem);
    }

    /// Tries again to let go what could not be let go.
    pub fn retire_again(&self, control: &mut Control) {
        for old in std::mem::take(&mut control.leftover) {
            self.retire(control, old);
        }
    }

    /// Brings the interfaces to what the generation in force wants.
    pub fn reconcile(&self, control: &mut Control) -> Option<String> {
        let network = watch::lock(&self.network).clone();
        let nothing = Demand::default();
        let demand = match &control.running {
            None => &nothing,
            // What this daemon does not understand stays attached as it is.
            Some(running) => &running.meaning.as_ref()?.demand,
        };
        self.kernel(|kernel| Ok(control.attachments.reconcile(kernel, demand, &network, Step::Final))).unwrap_or_else(
            |error| match error {
                Error::Off => None,
                error => Some(with_sources(&error)),
            },
        )
    }

    /// Brings the interfaces to what a generation wants that was flipped to just now.
    fn bring(&self, control: &mut Control, active: &Active) -> Option<String> {
        let demand = &active.meaning.as_ref()?.demand;
        let network = watch::lock(&self.network).clone();
        let attached = self.kernel(|kernel| Ok(control.attachments.reconcile(kernel, demand, &network, Step::Final)));
        attached.unwrap_or_else(|error| Some(with_sources(&error)))
    }

    /// Detaches from everything, and only then lets the cell name nothing, which the dispatchers answer by dropping.
    /// `control` names no generation any more.
    pub fn nothing_in_force(&self, control: &mut Control) -> Result<()> {
        let problem = self.reconcile(control);
        note(control, "attach", problem);
        // Likewise the security hooks: without a generation that needs them they are detached.
        let problem = self.host_after_flip(control);
        note(control, "host", problem);
        self.kernel(|kernel| {
            kernel.flip(NO_SLOT, NO_SLOT, 0);
            Ok(kernel.wait_for_running_programs()?)
        })
    }

    /// A generation that lets everything pass: what an unconfirmed first apply goes back to.
    fn load_empty(&self) -> Result<Active> {
        let compiled = compile(&Policy::empty())?;
        let loaded = self.kernel(|kernel| Ok(kernel.load(&compiled, EMPTY, |_| 0)?))?;
        Ok(Active::empty(loaded))
    }
}

/// Remembers or forgets a problem.
pub fn note(control: &mut Control, subject: &'static str, problem: Option<String>) {
    match problem {
        Some(problem) => {
            tracing::error!(subject, problem, "degraded");
            control.problems.insert(subject, problem);
        }
        None => {
            control.problems.remove(subject);
        }
    }
}

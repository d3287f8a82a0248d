//! The connections that a policy would cut, found before it comes into force.

use std::cell::OnceCell;
use std::cmp::Reverse;

use ringfence_abi::connection::{Connection, KILLED, Key, TCP_CLOSED, TIMEOUTS};
use ringfence_api::{CutConnection, CutConnections, LISTED_CUT};
use ringfence_engine::fields::{FAMILY_V4, Fields};
use ringfence_engine::judge::Entry;
use ringfence_policy::compile::{Compiled, compile};
use ringfence_policy::evaluate::Dynamics;
use ringfence_policy::model::{Policy, SetId};

use super::fate::{Fate, Judge, Refusal};
use super::list::Found;
use super::{clock, of_sockets};
use crate::apply::candidate::Candidate;
use crate::clock::boot_now;
use crate::daemon::Daemon;
use crate::dynamic::lookup::{EntryTable, SetTable};
use crate::dynamic::session::Session;
use crate::dynamic::sets::Sets;
use crate::error::Result;
use crate::interfaces::select::Demand;
use crate::interfaces::watch::{self, Network};
use crate::kernel::{Loaded, Pool};
use crate::server::caller::Caller;
use crate::state::generations::KeptLine;

impl Daemon {
    /// What a candidate would do to the connections that the generation in force follows, or where it follows none, to those
    /// of this host's sockets. Those that are cut as it is do not count. The caller holds `applying`.
    ///
    /// Takes a second for some hundred thousand connections, and holds no other lock for long.
    pub fn would_cut(&self, candidate: &Candidate, caller: &Caller) -> Result<CutConnections> {
        let pools = {
            let control = self.control();
            if control.standing.get().audit.is_some() {
                return Ok(CutConnections::default());
            }
            let followed = control.running.as_ref().map(|running| &running.loaded).filter(|loaded| loaded.tracks());
            followed.map(Loaded::pools).transpose()?
        };
        let network = watch::lock(&self.network).clone();
        let entries = EntryTable::new(self.known().entries());
        let (now, boot) = (clock(), boot_now());
        let after = {
            let demand = &candidate.demand;
            Side::new(&candidate.policy, &candidate.compiled, demand, &network, self.dynamic().sets())
        };
        // Asked for only when something would be cut.
        let (running, before) = (OnceCell::new(), OnceCell::new());
        let before = || {
            let running = running.get_or_init(|| Running::of(self)).as_ref()?;
            let Running { policy, demand, compiled } = running;
            Some(before.get_or_init(|| Side::new(policy, compiled, demand, &network, self.dynamic().sets())))
        };
        let mut cuts = Cuts::new(now, caller.sessions());
        let mut look = |pool, key: &Key, connection: &Connection| {
            cuts.look(pool, key, connection, || {
                let fate = after.fate(key, connection, &entries, boot, self.dynamic().sets());
                if fate == Fate::GoesOn {
                    return fate;
                }
                let as_it_is = before().map(|side| side.fate(key, connection, &entries, boot, self.dynamic().sets()));
                let worse = as_it_is.is_none_or(|before| before == Fate::GoesOn);
                if worse { fate } else { Fate::GoesOn }
            });
        };
        match pools {
            Some(pools) => pools.for_each(look)?,
            None => of_sockets(&network.local, &TIMEOUTS, now)
                .for_each(|(key, connection)| look(Pool::Established, &key, &connection)),
        }
        Ok(cuts.shown(&candidate.lines, &network))
    }
}

/// The policy in force.
struct Running {
    policy: Policy,
    demand: Demand,
    compiled: Compiled,
}

impl Running {
    /// `None`: there is none, or none that this daemon understands.
    fn of(daemon: &Daemon) -> Option<Self> {
        let (policy, demand) = {
            let control = daemon.control();
            let meaning = control.running.as_ref()?.meaning.as_ref()?;
            (meaning.policy.clone(), meaning.demand.clone())
        };
        // It was compiled before; this comes to the same.
        let compiled = compile(&policy).ok()?;
        Some(Self { policy, demand, compiled })
    }
}

/// A policy with all that its rules read.
struct Side<'a> {
    judge: Judge<'a>,
    sets: SetTable<'a>,
}

impl<'a> Side<'a> {
    fn new(policy: &'a Policy, compiled: &'a Compiled, demand: &Demand, network: &'a Network, contents: &Sets) -> Self {
        let chains = [&compiled.ingress, &compiled.egress].map(Option::as_ref);
        let sets = SetTable::new(&policy.dynamic_sets, chains, contents);
        Self { judge: Judge::new(compiled, demand, network), sets }
    }

    fn fate(&self, key: &Key, connection: &Connection, entries: &EntryTable, boot: u64, contents: &Sets) -> Fate {
        self.judge.fate(key, connection, &InForce { entries, boot, sets: &self.sets, contents })
    }
}

/// What is in force beside the rules.
struct InForce<'a> {
    entries: &'a EntryTable,
    boot: u64,
    sets: &'a SetTable<'a>,
    contents: &'a Sets,
}

impl Dynamics for InForce<'_> {
    fn entry(&self, fields: &Fields, egress: bool) -> Option<Entry> {
        self.entries.find(fields, egress, self.boot)
    }

    fn holds(&self, set: SetId, address: [u64; 2], family: u32) -> bool {
        self.sets.holds(self.contents, set, address, family == FAMILY_V4)
    }
}

/// A connection that is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    found: Found,
    refusal: Refusal,
    own: bool,
}

/// Those that are cut, in bounded memory.
#[derive(Debug)]
struct Cuts {
    now: u64,
    sessions: Vec<Session>,
    judged: u64,
    total: u64,
    first: Vec<Cut>,
}

impl Cuts {
    fn new(now: u64, sessions: Vec<Session>) -> Self {
        Self { now, sessions, judged: 0, total: 0, first: Vec::new() }
    }

    fn look(&mut self, pool: Pool, key: &Key, connection: &Connection, fate: impl FnOnce() -> Fate) {
        // What is over, or was ended, cannot be cut.
        if connection.expires <= self.now || [KILLED, TCP_CLOSED].contains(&connection.state) {
            return;
        }
        self.judged += 1;
        let Fate::Cut(refusal) = fate() else { return };
        self.total += 1;
        let found = Found { pool, key: *key, connection: *connection };
        let own = self.sessions.iter().any(|session| found.carries(session));
        self.first.push(Cut { found, refusal, own });
        if self.first.len() >= 1024 {
            self.keep_first();
        }
    }

    fn keep_first(&mut self) {
        let order = |cut: &Cut| {
            let Found { pool, key, connection } = cut.found;
            (!cut.own, pool as u8, Reverse(connection.created), key)
        };
        self.first.sort_unstable_by_key(order);
        self.first.truncate(LISTED_CUT);
    }

    fn shown(mut self, lines: &[KeptLine], network: &Network) -> CutConnections {
        self.keep_first();
        let connections: Vec<_> = self.first.iter().map(|cut| cut.shown(self.now, lines, network)).collect();
        let left_out = self.total.saturating_sub(connections.len() as u64);
        CutConnections { connections, total: self.total, left_out, judged: self.judged }
    }
}

impl Cut {
    fn shown(&self, now: u64, lines: &[KeptLine], network: &Network) -> CutConnection {
        let line = lines.get(self.refusal.line as usize);
        let name = line.map(|line| line.name.clone()).unwrap_or_default();
        let (file, number) = line.and_then(|line| line.at.clone()).unzip();
        let connection = self.found.shown(now, network);
        CutConnection {
            rule: if self.refusal.entry == 0 { name } else { format!("dynamic/{}", self.refusal.entry) },
            chain: line.map(|line| line.chain.clone()).unwrap_or_default(),
            file,
            line: number,
            own: self.own,
            connection,
        }
    }
}

#[cfg(test)]
#[path = "tests/cut.rs"]
mod tests;

//! A packet of which only the fields are known, such as the first one of a connection.

use std::mem::offset_of;

use ringfence_abi::{
    chain::{ChainConsts, MAX_CHAIN_SETS},
    limit::{FLAG_OVER, Limit},
};
use ringfence_engine::{
    Tables as _,
    fields::Fields,
    judge::{Entry, Host, Judgement, Walker, judge},
    search::{Outcome, Search, Sink, Step},
    slice::SliceTables,
};

use crate::{compile::CompiledChain, model::SetId};

/// A packet, and what a hook knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// What its headers say.
    pub fields: &'a Fields,
    /// Whether it leaves.
    pub egress: bool,
    /// The interface's number.
    pub ifindex: u32,
    /// The interface's class in the chain, [`crate::compile::InterfaceClasses::class`].
    pub interface: u32,
    /// The mark; `None` where there is none.
    pub mark: Option<u32>,
    /// Direct index of its state.
    pub state: u32,
}

/// What is in force beside the rules.
pub trait Dynamics {
    /// The dynamic entry that decides about a packet.
    fn entry(&self, fields: &Fields, egress: bool) -> Option<Entry>;
    /// Whether a dynamic set holds an address, which is as in [`Fields`].
    fn holds(&self, set: SetId, address: [u64; 2], family: u32) -> bool;
}

/// Judges a packet as the programs do, without a trace: nothing is counted, no limit is spent from, and nothing is above one.
#[must_use]
pub fn judge_fields<D: Dynamics>(chain: &CompiledChain, packet: &Described<'_>, dynamics: &D) -> Judgement {
    let mut host = Quiet { chain, packet, dynamics, search: Search::default() };
    judge(&chain.consts, &SliceTables(&chain.arena), &mut host, packet.fields, packet.egress)
}

/// Whether a rule with this limit matches while nothing is above it; `None`: the tables contradict themselves.
pub(super) fn admits(chain: &CompiledChain, limit: u32) -> Option<bool> {
    let at = chain.limits + (limit - 1) * size_of::<Limit>() as u32 + offset_of!(Limit, flags) as u32;
    SliceTables(&chain.arena).u32(at).map(|flags| flags & FLAG_OVER == 0)
}

struct Quiet<'a, D> {
    chain: &'a CompiledChain,
    packet: &'a Described<'a>,
    dynamics: &'a D,
    search: Search,
}

impl<D> Sink for Quiet<'_, D> {
    fn admits(&mut self, limit: u32) -> Option<bool> {
        admits(self.chain, limit)
    }

    fn continued(&mut self, _: u32) {}
}

impl<D: Dynamics> Host<SliceTables<'_>> for Quiet<'_, D> {
    fn ifindex(&self) -> u32 {
        self.packet.ifindex
    }

    fn interface_class(&self) -> u32 {
        self.packet.interface
    }

    fn mark(&self) -> Option<u32> {
        self.packet.mark
    }

    fn track(&mut self, _: &Fields) -> Option<Outcome> {
        None
    }

    fn state(&self) -> u32 {
        self.packet.state
    }

    fn entry(&self, fields: &Fields) -> Option<Entry> {
        self.dynamics.entry(fields, self.packet.egress)
    }

    fn members(&self, fields: &Fields, source: bool) -> u64 {
        let consts = &self.chain.consts;
        let (sets, count, address) = if source {
            (&consts.src_sets, consts.src_set_count, fields.src)
        } else {
            (&consts.dst_sets, consts.dst_set_count, fields.dst)
        };
        let held = |(_, set): &(u32, &u16)| self.dynamics.holds(SetId(**set), address, fields.family);
        let named = sets.iter().take((count as usize).min(MAX_CHAIN_SETS));
        (0_u32..).zip(named).filter(held).fold(0, |mask, (bit, _)| mask | 1 << bit)
    }
}

impl<D> Walker<SliceTables<'_>> for Quiet<'_, D> {
    fn search(&mut self) -> Option<&mut Search> {
        Some(&mut self.search)
    }

    fn walk(&mut self, consts: &ChainConsts, tables: &SliceTables<'_>) -> Outcome {
        let mut search = self.search;
        loop {
            if let Step::Done(outcome) = search.step(consts, tables, self) {
                return outcome;
            }
        }
    }
}

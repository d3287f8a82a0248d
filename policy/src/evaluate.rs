//! The compiled tables, asked in user space with the very code the kernel programs run.

mod fields;
mod host;

use std::net::IpAddr;

use ringfence_abi::{
    chain::{ChainConsts, VLAN_ABSENT},
    counter::MALFORMED,
    interface::LOOPBACK_IFINDEX,
    verdict::{ACCEPT, DROP},
};
use ringfence_engine::{
    deep::Deep,
    fields::{FAMILY_V4, Fields},
    judge::{Entry, Host, Walker, judge},
    parse::{Link, parse},
    search::{Outcome, Search, Sink, Step, passes},
    slice::{SliceFrame, SliceTables},
    track::described,
};

pub use self::fields::{Described, Dynamics, judge_fields};
pub use self::host::{access, question};
use crate::{compile::CompiledChain, model::SetId};

/// A packet and what a hook knows of it.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Its bytes.
    pub frame: &'a [u8],
    /// Payload bytes of the segments it will be cut into; 0: none.
    pub segment: u32,
    /// Whether it leaves.
    pub egress: bool,
    /// Whether it begins at the IP header.
    pub l3: bool,
    /// Tag control information of a VLAN tag held outside the frame.
    pub tag: Option<u16>,
    /// The mark; `None` at XDP.
    pub mark: Option<u32>,
    /// The state of its connection, index into [`crate::model::STATES`].
    pub state: u8,
    /// The interface's name.
    pub interface: &'a str,
    /// Whether that is the loopback device.
    pub loopback: bool,
    /// Whether an address is in a dynamic set.
    pub members: &'a dyn Fn(SetId, IpAddr) -> bool,
    /// The dynamic entry that decides about these fields.
    pub entry: &'a dyn Fn(&Fields) -> Option<Entry>,
}

/// What the tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// One of [`ringfence_abi::verdict`].
    pub verdict: u32,
    /// Counter index within the chain.
    pub line: u32,
    /// Id of the dynamic entry that decided; 0 otherwise.
    pub entry: u64,
    /// Counter indices of the rules that matched and let evaluation go on.
    pub continued: Vec<u32>,
    /// Whether a field was unknown.
    pub unknown: bool,
}

/// Judges a packet.
#[must_use]
pub fn evaluate(chain: &CompiledChain, input: &Input<'_>) -> Decision {
    let mut fields = Fields::default();
    let frame = SliceFrame { bytes: input.frame, segment: input.segment };
    let tag = input.tag.map_or(VLAN_ABSENT, |tag| u32::from(tag & 0xfff));
    let (link, mut deep) = (Link { l3: input.l3, tag, deep: false }, Deep::default());
    if let Err(reason) = parse(&frame, link, &mut fields, &mut deep) {
        return Decision { verdict: u32::from(DROP), line: MALFORMED + reason as u32, ..Decision::default() };
    }
    let state = described(&fields, &deep, input.state.into());
    let mut host = UserSpace { chain, input, state, continued: Vec::new(), search: Search::default() };
    let judgement = judge(&chain.consts, &SliceTables(&chain.arena), &mut host, &fields, input.egress);
    Decision {
        verdict: if passes(judgement.outcome) { u32::from(ACCEPT) } else { judgement.outcome.verdict },
        line: judgement.outcome.line,
        entry: judgement.entry,
        continued: host.continued,
        unknown: fields.unknown != 0,
    }
}

struct UserSpace<'a> {
    chain: &'a CompiledChain,
    input: &'a Input<'a>,
    state: u32,
    continued: Vec<u32>,
    search: Search,
}

impl Sink for UserSpace<'_> {
    // Nothing is spent here, so nothing is above a rate.
    fn admits(&mut self, limit: u32) -> Option<bool> {
        fields::admits(self.chain, limit)
    }

    fn continued(&mut self, line: u32) {
        self.continued.push(line);
    }
}

impl Host<SliceTables<'_>> for UserSpace<'_> {
    fn ifindex(&self) -> u32 {
        // Any other number than the loopback's stands for any other device.
        if self.input.loopback { LOOPBACK_IFINDEX } else { LOOPBACK_IFINDEX + 1 }
    }

    fn interface_class(&self) -> u32 {
        self.chain.interfaces.class(self.input.interface)
    }

    fn mark(&self) -> Option<u32> {
        self.input.mark
    }

    fn track(&mut self, _: &Fields) -> Option<Outcome> {
        None
    }

    fn state(&self) -> u32 {
        self.state
    }

    fn entry(&self, fields: &Fields) -> Option<Entry> {
        (self.input.entry)(fields)
    }

    fn members(&self, fields: &Fields, source: bool) -> u64 {
        let consts = &self.chain.consts;
        let (sets, count, words) = if source {
            (&consts.src_sets, consts.src_set_count, fields.src)
        } else {
            (&consts.dst_sets, consts.dst_set_count, fields.dst)
        };
        let address = if fields.family == FAMILY_V4 {
            IpAddr::V4(((words[0] >> 32) as u32).into())
        } else {
            IpAddr::V6((u128::from(words[0]) << 64 | u128::from(words[1])).into())
        };
        let held = |i: &usize| (self.input.members)(SetId(sets[*i]), address);
        (0..count as usize).filter(held).map(|i| 1 << i).sum()
    }
}

impl Walker<SliceTables<'_>> for UserSpace<'_> {
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

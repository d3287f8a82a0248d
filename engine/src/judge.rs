//! The way of a parsed packet: floor, dynamic entries, rules, default. One text for the kernel programs and user space.

use ringfence_abi::{
    chain::{ChainConsts, INTERFACE, MARK, STATE},
    counter::{DYNAMIC, FLOOR},
    interface::LOOPBACK_IFINDEX,
    verdict::ACCEPT,
};

use crate::{
    Tables,
    classify::{Headers, Surroundings},
    fields::{FAMILY_NONE, Fields},
    floor,
    ro::read,
    search::{Classes, Narrow, Outcome, Search, Sink, narrow},
};

/// A dynamic entry (`ringctl deny`) that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: u64,
    /// [`ringfence_abi::verdict::ACCEPT`] or [`ringfence_abi::verdict::DROP`].
    pub verdict: u32,
}

/// Who walks over matching rules, where one look does not decide.
pub trait Walker<T: Tables>: Sink {
    /// Memory for a walk's state; `None` (the kernel has none) is taken for unreadable tables.
    fn search(&mut self) -> Option<&mut Search>;
    /// Steps until the walk in [`Walker::search`] is done.
    fn walk(&mut self, consts: &ChainConsts, tables: &T) -> Outcome;
}

/// What surrounds a packet; asked only for what a policy reads.
pub trait Host<T: Tables>: Walker<T> {
    /// The interface it is on.
    fn ifindex(&self) -> u32;
    /// Class of that interface in this chain.
    fn interface_class(&self) -> u32;
    /// `skb->mark`; `None` where there is none.
    fn mark(&self) -> Option<u32>;
    /// Looks up what is remembered of the packet's connection, before anything but the floor is asked; what that settles.
    fn track(&mut self, fields: &Fields) -> Option<Outcome>;
    /// Direct index of the state that [`Host::track`] found.
    fn state(&self) -> u32;
    /// The dynamic entry that decides about the packet.
    fn entry(&self, fields: &Fields) -> Option<Entry>;
    /// Membership of the source (or destination) in the chain's dynamic sets, bit `i` for set `i`.
    fn members(&self, fields: &Fields, source: bool) -> u64;
}

/// Who decided, and what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Line and verdict.
    pub outcome: Outcome,
    /// Id of the dynamic entry that decided, when the line is [`DYNAMIC`].
    pub entry: u64,
    /// The rules or the default decided, and no dynamic set holds an address of the packet.
    pub plain: bool,
}

impl Judgement {
    /// What something before the rules decided.
    #[inline(always)]
    #[must_use]
    pub fn early(outcome: Outcome) -> Self {
        Self { outcome, entry: 0, plain: false }
    }
}

/// Judges a packet that could be parsed.
#[inline(always)]
pub fn judge<T: Tables, H: Host<T>>(
    consts: &ChainConsts,
    tables: &T,
    host: &mut H,
    fields: &Fields,
    egress: bool,
) -> Judgement {
    if let Some(line) = floor::line(fields, read(&consts.floor), egress, host.ifindex() == LOOPBACK_IFINDEX) {
        return Judgement::early(Outcome { line: FLOOR + line, verdict: u32::from(ACCEPT) });
    }
    if let Some(outcome) = host.track(fields) {
        return Judgement::early(outcome);
    }
    if fields.family != FAMILY_NONE
        && let Some(entry) = host.entry(fields)
    {
        return Judgement { outcome: Outcome { line: DYNAMIC, verdict: entry.verdict }, entry: entry.id, plain: false };
    }
    let active = read(&consts.active);
    let mut around = Surroundings::default();
    if active & (1 << INTERFACE) != 0 {
        around.interface = host.interface_class();
    }
    if active & (1 << MARK) != 0 {
        around.mark = host.mark();
    }
    if active & (1 << STATE) != 0 {
        around.state = host.state();
    }
    if read(&consts.src_set_count) != 0 && fields.family != FAMILY_NONE {
        around.src_sets = host.members(fields, true);
    }
    if read(&consts.dst_set_count) != 0 && fields.family != FAMILY_NONE {
        around.dst_sets = host.members(fields, false);
    }
    let plain = around.src_sets | around.dst_sets == 0;
    Judgement { outcome: search(consts, tables, host, &Headers { fields, around: &around }), entry: 0, plain }
}

/// What the rules and the default say of a packet or a call.
#[inline(always)]
pub fn search<T: Tables, W: Walker<T>, C: Classes>(
    consts: &ChainConsts,
    tables: &T,
    walker: &mut W,
    judged: &C,
) -> Outcome {
    if read(&consts.blocks) == 0 {
        match narrow(consts, tables, judged) {
            Narrow::Done(outcome) => return outcome,
            Narrow::Walk(word) => {
                let Some(search) = walker.search() else { return Outcome::TABLES };
                search.resume(word);
            }
        }
    } else {
        let Some(search) = walker.search() else { return Outcome::TABLES };
        if search.start(consts, tables, judged).is_none() {
            return Outcome::TABLES;
        }
    }
    walker.walk(consts, tables)
}

//! Fields to classes: one bounded lookup for each field that some rule reads.

use ringfence_abi::chain::{
    ChainConsts, DPORT, DST, DST_SETS, INTERFACE, IP, LENGTH, MARK, PROTO, SETS_ABSENT, SETS_PER_FIELD, SPORT, SRC,
    SRC_SETS, STATE, TRIE_DST4, TRIE_DST6, TRIE_MARK, TRIE_SRC4, TRIE_SRC6, VLAN,
};

use crate::{
    Tables,
    fields::{FAMILY_NONE, FAMILY_V4, Fields},
    ro::read,
    search::Classes,
    trie::{LEVELS_V4, LEVELS_V6, lookup},
};

// Class 0 of an address or mark field: no rule names it, and absent is in it.
const ABSENT: u32 = 0;

/// What the packet's headers do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `skb->mark`; `None` at XDP, where there is none.
    pub mark: Option<u32>,
    /// Class of the interface.
    pub interface: u32,
    /// Direct index of the connection's state.
    pub state: u32,
    /// Bit `i`: the source is in the dynamic set `src_sets[i]`.
    pub src_sets: u64,
    /// The same for the destination.
    pub dst_sets: u64,
}

/// A packet with what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// What its headers say.
    pub fields: &'a Fields,
    /// What they do not.
    pub around: &'a Surroundings,
}

impl Classes for Headers<'_> {
    #[inline(always)]
    fn class<T: Tables, const FIELD: usize>(&self, consts: &ChainConsts, tables: &T) -> Option<u32> {
        let Self { fields, around } = *self;
        match FIELD {
            SRC => address(consts, tables, fields, true),
            DST => address(consts, tables, fields, false),
            SPORT => direct::<T, SPORT>(consts, tables, fields.sport),
            DPORT => direct::<T, DPORT>(consts, tables, fields.dport),
            PROTO => direct::<T, PROTO>(consts, tables, fields.proto),
            IP => direct::<T, IP>(consts, tables, fields.ip),
            VLAN => direct::<T, VLAN>(consts, tables, fields.vlan),
            LENGTH => direct::<T, LENGTH>(consts, tables, fields.length),
            MARK => match around.mark {
                Some(mark) => lookup(tables, &consts.tries[TRIE_MARK], u64::from(mark) << 32, 0, LEVELS_V4),
                None => Some(ABSENT),
            },
            INTERFACE => Some(around.interface),
            STATE => direct::<T, STATE>(consts, tables, around.state),
            SRC_SETS..DST_SETS => Some(members(fields, around.src_sets, FIELD - SRC_SETS)),
            DST_SETS.. => Some(members(fields, around.dst_sets, FIELD - DST_SETS)),
        }
    }
}

/// The class of a directly indexed field.
#[inline(always)]
pub(crate) fn direct<T: Tables, const FIELD: usize>(consts: &ChainConsts, tables: &T, index: u32) -> Option<u32> {
    tables.u32(read(&consts.direct[FIELD]) + index * 4)
}

#[inline(always)]
fn address<T: Tables>(consts: &ChainConsts, tables: &T, fields: &Fields, source: bool) -> Option<u32> {
    let (value, v4, v6) =
        if source { (&fields.src, TRIE_SRC4, TRIE_SRC6) } else { (&fields.dst, TRIE_DST4, TRIE_DST6) };
    match fields.family {
        FAMILY_NONE => Some(ABSENT),
        FAMILY_V4 => lookup(tables, &consts.tries[v4], value[0], 0, LEVELS_V4),
        _ => lookup(tables, &consts.tries[v6], value[0], value[1], LEVELS_V6),
    }
}

#[inline(always)]
fn members(fields: &Fields, mask: u64, group: usize) -> u32 {
    if fields.family == FAMILY_NONE {
        return SETS_ABSENT;
    }
    (mask >> (group * SETS_PER_FIELD)) as u32 & 0xff
}

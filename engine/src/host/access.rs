//! A system call as classes. What a policy does not read is neither looked up nor stored.

use ringfence_abi::{
    chain::{ChainConsts, FIELDS},
    host::{
        HostConsts, Leaf, TRIE_ADDR4, TRIE_ADDR6, TRIE_AUID, TRIE_FSTYPE, TRIE_UID,
        field::{
            ADDR, ANCESTOR, AUID, CAPABILITY, CGROUP, EXE, FAMILY, FLAGS, FSTYPE, GID, OP, PATH, PORT, PROTO, SIGNAL,
            TARGET, TYPE, UID,
        },
    },
};

use crate::{
    Tables,
    classify::direct,
    ro::read,
    search::Classes,
    trie::{LEVELS_V4, LEVELS_V6, lookup},
};

/// An address of a socket call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// The call has none.
    Absent,
    /// It has one that cannot be read.
    Unknown,
    /// IPv4, or IPv4 mapped into IPv6: left-aligned in the word.
    V4(u64),
    /// IPv6.
    V6([u64; 2]),
}

/// The classes of a call, by field.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    class: [u32; FIELDS],
}

impl Access {
    /// The class that was set for a field; 0 where no rule reads it.
    #[inline(always)]
    #[must_use]
    pub fn class_of<const FIELD: usize>(&self) -> u32 {
        self.class[FIELD]
    }
}

impl Classes for Access {
    #[inline(always)]
    fn class<T: Tables, const FIELD: usize>(&self, _: &ChainConsts, _: &T) -> Option<u32> {
        Some(self.class[FIELD])
    }
}

/// Where an [`Access`] takes its classes from. Every setter gives `None` when the tables contradict themselves.
#[derive(Clone, Copy, Debug)]
pub struct Classifier<'a, T> {
    /// The chain's constants.
    pub host: &'a HostConsts,
    /// Its arena.
    pub tables: &'a T,
}

impl<T: Tables> Classifier<'_, T> {
    /// Whether a rule reads the field.
    #[inline(always)]
    #[must_use]
    pub fn reads(&self, field: usize) -> bool {
        read(&self.host.chain.active) >> field & 1 == 1
    }

    /// Sets a field whose value is an index of a direct table: operation, flags, port, and the small ones.
    #[inline(always)]
    pub fn direct<const FIELD: usize>(&self, access: &mut Access, index: u32) -> Option<()> {
        const { assert!(matches!(FIELD, OP | FLAGS | PORT | PROTO | FAMILY | TYPE | CAPABILITY | SIGNAL)) };
        if self.reads(FIELD) {
            access.class[FIELD] = direct::<T, FIELD>(&self.host.chain, self.tables, index)?;
        }
        Some(())
    }

    /// Class of an operation, without setting it; 0 where no rule reads it.
    #[inline(always)]
    #[must_use]
    pub fn operation(&self, op: u32) -> Option<u32> {
        if self.reads(OP) { direct::<T, OP>(&self.host.chain, self.tables, op) } else { Some(0) }
    }

    /// Sets a field whose class was found elsewhere: cgroup, group ids, ancestors.
    #[inline(always)]
    pub fn class<const FIELD: usize>(&self, access: &mut Access, class: u32) {
        const { assert!(matches!(FIELD, CGROUP | GID | ANCESTOR)) };
        if self.reads(FIELD) {
            access.class[FIELD] = class;
        }
    }

    /// Sets the path of the object.
    #[inline(always)]
    pub fn path(&self, access: &mut Access, leaf: u32) -> Option<()> {
        self.leaf::<PATH>(access, leaf, core::mem::offset_of!(Leaf, path))
    }

    /// Sets the caller's executable.
    #[inline(always)]
    pub fn exe(&self, access: &mut Access, leaf: u32, tainted: bool) -> Option<()> {
        let member = if tainted { core::mem::offset_of!(Leaf, tainted) } else { core::mem::offset_of!(Leaf, exe) };
        self.leaf::<EXE>(access, leaf, member)
    }

    /// Sets the executable of the process acted on.
    #[inline(always)]
    pub fn target(&self, access: &mut Access, leaf: u32) -> Option<()> {
        self.leaf::<TARGET>(access, leaf, core::mem::offset_of!(Leaf, target))
    }

    #[inline(always)]
    fn leaf<const FIELD: usize>(&self, access: &mut Access, leaf: u32, member: usize) -> Option<()> {
        if self.reads(FIELD) {
            access.class[FIELD] = self.leaf_word(leaf, member)?;
        }
        Some(())
    }

    /// A word of a [`Leaf`], by its offset in it.
    #[inline(always)]
    #[must_use]
    pub fn leaf_word(&self, leaf: u32, member: usize) -> Option<u32> {
        self.tables.u32(read(&self.host.paths.leaves) + leaf * size_of::<Leaf>() as u32 + member as u32)
    }

    /// Sets the user id.
    #[inline(always)]
    pub fn uid(&self, access: &mut Access, uid: u32) -> Option<()> {
        self.narrow::<UID>(access, TRIE_UID, uid)
    }

    /// Sets the login user id.
    #[inline(always)]
    pub fn auid(&self, access: &mut Access, auid: u32) -> Option<()> {
        self.narrow::<AUID>(access, TRIE_AUID, auid)
    }

    #[inline(always)]
    fn narrow<const FIELD: usize>(&self, access: &mut Access, trie: usize, value: u32) -> Option<()> {
        if self.reads(FIELD) {
            let trie = &self.host.chain.tries[trie];
            access.class[FIELD] = lookup(self.tables, trie, u64::from(value) << 32, 0, LEVELS_V4)?;
        }
        Some(())
    }

    /// Conditions that a group id meets, as bits.
    #[inline(always)]
    #[must_use]
    pub fn group(&self, gid: u32) -> Option<u32> {
        lookup(self.tables, &self.host.gid, u64::from(gid) << 32, 0, LEVELS_V4)
    }

    /// Sets the type of the object's file system: its name, zero-padded; `None`: it cannot be told.
    #[inline(always)]
    pub fn fstype(&self, access: &mut Access, name: Option<[u64; 2]>) -> Option<()> {
        if self.reads(FSTYPE) {
            access.class[FSTYPE] = match name {
                None => read(&self.host.fstype_unknown),
                Some([high, low]) => {
                    let trie = &self.host.chain.tries[TRIE_FSTYPE];
                    lookup(self.tables, trie, high.to_be(), low.to_be(), LEVELS_V6)?
                }
            };
        }
        Some(())
    }

    /// Leaves the type of the object's file system out: the call has none.
    #[inline(always)]
    pub fn no_fstype(&self, access: &mut Access) {
        if self.reads(FSTYPE) {
            access.class[FSTYPE] = 0;
        }
    }

    /// Sets the address of a socket call.
    #[inline(always)]
    pub fn address(&self, access: &mut Access, address: Address) -> Option<()> {
        if self.reads(ADDR) {
            let tries = &self.host.chain.tries;
            access.class[ADDR] = match address {
                Address::Absent => 0,
                Address::Unknown => read(&self.host.address_unknown),
                Address::V4(word) => lookup(self.tables, &tries[TRIE_ADDR4], word, 0, LEVELS_V4)?,
                Address::V6([high, low]) => lookup(self.tables, &tries[TRIE_ADDR6], high, low, LEVELS_V6)?,
            };
        }
        Some(())
    }
}

//! What changes without an apply: `deny` and `allow`, elements of dynamic sets, the sets the daemon itself keeps.

pub mod call_commands;
pub mod calls;
pub mod commands;
pub mod contents;
pub mod entries;
pub mod ids;
pub mod journal;
pub mod keys;
pub mod learn;
pub mod lookup;
pub mod restore;
pub mod session;
pub mod sets;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ringfence_abi::dynamic::{Element, EntryKey};
use ringfence_api::Prefix;
use ringfence_policy::model::DynamicSet;

use self::calls::CallEntries;
use self::entries::{Change, Entries, Entry};
use self::ids::SetIds;
use self::journal::{Event, Log};
use self::learn::Learning;
use self::sets::{Member, Sets};
use crate::clock::{Expiry, boot_now};
use crate::error::{Result, with_sources};
use crate::interfaces::resolvers::Resolvers;
use crate::kernel::Kernel;
use crate::state::files::{read_json, write_json};

/// Entries, sets, and where they are kept.
///
/// What is changed is in the kernel and on the disk when a method returns, and after an error it is in neither.
/// `kernel` is `None` while `off` is in force.
#[derive(Debug)]
pub struct Dynamic {
    entries: Entries,
    calls: CallEntries,
    // Whether the kernel has what `calls` says.
    calls_restored: bool,
    sets: Sets,
    ids: SetIds,
    ids_path: PathBuf,
    log: Log,
    resolvers: Resolvers,
    learning: Learning,
}

impl Dynamic {
    /// Reads what the state directory has.
    pub fn open(state: &Path) -> Result<Self> {
        let ids_path = state.join("set-ids.json");
        let ids = read_json(&ids_path)?.unwrap_or_default();
        let (mut entries, mut calls, mut sets) = (Entries::default(), CallEntries::default(), Sets::default());
        let log = Log::open(&state.join("dynamic.jsonl"), &mut entries, &mut calls, &mut sets)?;
        Ok(Self {
            entries,
            calls,
            calls_restored: false,
            sets,
            ids,
            ids_path,
            log,
            resolvers: Resolvers::default(),
            learning: Learning::default(),
        })
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The entries about system calls.
    #[must_use]
    pub fn calls(&self) -> &CallEntries {
        &self.calls
    }

    /// The sets.
    #[must_use]
    pub fn sets(&self) -> &Sets {
        &self.sets
    }

    /// The name servers of this machine.
    pub fn resolvers(&mut self) -> &BTreeSet<IpAddr> {
        self.resolvers.current()
    }

    /// Adds an entry.
    pub fn add_entry(&mut self, kernel: Option<&Kernel>, entry: Entry) -> Result<()> {
        let id = entry.id;
        let event = Event::Entry(entry.clone());
        let changes = self.entries.insert(entry);
        // Written first: one that cannot be kept must not be in force for a moment, either.
        if let Err(error) = self.log.append(&[event]) {
            self.entries.remove(id);
            return Err(error.into());
        }
        let done = carry_out(kernel, &changes);
        if done.is_err()
            && let Some((_, back)) = self.entries.remove(id)
            && let Err(error) = carry_out(kernel, &back).and_then(|()| Ok(self.log.append(&[Event::Undo { id }])?))
        {
            tracing::error!(id, error = with_sources(&error), "cannot take back an entry that failed");
        }
        self.tidy();
        done
    }

    /// Takes an entry back.
    pub fn remove_entry(&mut self, kernel: Option<&Kernel>, id: u64) -> Result<Option<Entry>> {
        if self.entries.get(id).is_none() {
            return Ok(None);
        }
        // Written first: what the disk no longer has is not restored, and the kernel is told right after.
        self.log.append(&[Event::Undo { id }])?;
        let Some((entry, changes)) = self.entries.remove(id) else { return Ok(None) };
        carry_out(kernel, &changes)?;
        self.tidy();
        Ok(Some(entry))
    }

    /// Adds elements that [`Sets::plan`] allowed, each group with what is known of it; `evicted` ones make room.
    pub fn add_elements(
        &mut self,
        kernel: Option<&Kernel>,
        name: &str,
        evicted: &[Prefix],
        added: &[(Member, Vec<Prefix>)],
    ) -> Result<()> {
        // Written first: what cannot be kept must not be in force for a moment, either.
        let mut events = vec![Event::del(name, evicted)];
        events.extend(added.iter().map(|(member, elements)| Event::add(name, elements, member)));
        self.log.append(&events)?;
        if let (Some(kernel), Some(id)) = (kernel, self.ids.get(name)) {
            let keys: Vec<_> = evicted.iter().map(|element| keys::element(id, *element)).collect();
            let group = |(member, elements): &(Member, Vec<Prefix>)| kernel_elements(id, elements, member.expiry);
            let wanted: Vec<_> = added.iter().flat_map(group).collect();
            let done = kernel.remove_elements(id, &keys).and_then(|_| kernel.add_elements(id, &wanted));
            if let Err(error) = done {
                // The set is as it was: both are brought back to it.
                self.log.rewrite(&self.entries, &self.calls, &self.sets)?;
                self.restore_set(kernel, name, id)?;
                return Err(error.into());
            }
        }
        self.sets.remove(name, evicted);
        for (member, elements) in added {
            self.sets.insert(name, elements, member);
        }
        self.tidy();
        Ok(())
    }

    /// Takes elements out; returns those that were in.
    pub fn remove_elements(&mut self, kernel: Option<&Kernel>, name: &str, elements: &[Prefix]) -> Result<Vec<Prefix>> {
        self.log.append(&[Event::del(name, elements)])?;
        self.forget_elements(kernel, name, elements)?;
        let removed = self.sets.remove(name, elements);
        self.tidy();
        Ok(removed)
    }

    /// Takes all elements out; how many there were.
    pub fn flush(&mut self, kernel: Option<&Kernel>, name: &str) -> Result<usize> {
        self.log.append(&[Event::Flush { set: name.to_owned() }])?;
        if let (Some(kernel), Some(id)) = (kernel, self.ids.get(name)) {
            kernel.flush_set(id)?;
        }
        Ok(self.sets.flush(name).len())
    }

    fn forget_elements(&self, kernel: Option<&Kernel>, name: &str, elements: &[Prefix]) -> Result<()> {
        if let (Some(kernel), Some(id)) = (kernel, self.ids.get(name)) {
            let keys: Vec<_> = elements.iter().map(|element| keys::element(id, *element)).collect();
            kernel.remove_elements(id, &keys)?;
        }
        Ok(())
    }

    /// Gives the sets of a policy their kernel ids, in its order.
    pub fn assign_ids(&mut self, kernel: Option<&Kernel>, sets: &[DynamicSet]) -> Result<Vec<u16>> {
        let keep: BTreeSet<String> = self.sets.declared().map(|set| set.name.clone()).collect();
        let mut next = self.ids.clone();
        let (ids, lost) = next.assign(sets, &keep)?;
        for (name, id) in lost {
            // The id gets another meaning; what it meant must be gone before.
            self.log.append(&[Event::Flush { set: name.clone() }])?;
            self.sets.flush(&name);
            if let Some(kernel) = kernel {
                kernel.flush_set(id)?;
            }
        }
        if next != self.ids {
            write_json(&self.ids_path, &next)?;
            let before = std::mem::replace(&mut self.ids, next);
            // A set that the daemon keeps is full before the first policy that reads it is in force.
            let new =
                sets.iter().filter(|set| before.get(&set.name).is_none() && sets::KEPT.contains(&set.name.as_str()));
            for set in new {
                if let (Some(kernel), Some(id)) = (kernel, self.ids.get(&set.name)) {
                    self.restore_set(kernel, &set.name, id)?;
                }
            }
        }
        Ok(ids)
    }

    /// A policy has come into force: its declarations hold. Elements that it never wants are taken out.
    pub fn declare(&mut self, kernel: Option<&Kernel>, sets: &[DynamicSet]) -> Result<()> {
        for (name, element) in self.sets.declare(sets) {
            tracing::warn!(set = name, %element, "the policy says `never`: taken out");
            self.log.append(&[Event::del(&name, &[element])])?;
            self.forget_elements(kernel, &name, &[element])?;
        }
        Ok(())
    }

    /// Gives a set that the daemon keeps these addresses, also while no policy reads it.
    pub fn keep(&mut self, kernel: Option<&Kernel>, name: &str, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        let wanted: BTreeSet<Prefix> = addresses.iter().map(|address| Prefix::from(*address)).collect();
        let present: BTreeSet<Prefix> = self.sets.elements(name, None).map(|(element, _)| element).collect();
        let new: Vec<Prefix> = wanted.difference(&present).copied().collect();
        let old: Vec<Prefix> = present.difference(&wanted).copied().collect();
        if let (Some(kernel), Some(id)) = (kernel, self.ids.get(name)) {
            kernel.add_elements(id, &kernel_elements(id, &new, None))?;
        }
        self.sets.insert(name, &new, &Member::default());
        self.forget_elements(kernel, name, &old)?;
        self.sets.remove(name, &old);
        Ok(())
    }

    /// Removes what has expired.
    pub fn expire(&mut self, kernel: Option<&Kernel>) -> Result<()> {
        let now = boot_now();
        for (entry, changes) in self.entries.expire(now) {
            tracing::info!(id = entry.id, what = %entry.target, "a dynamic entry has expired");
            carry_out(kernel, &changes)?;
        }
        for (name, elements) in self.sets.expire(now) {
            if let (Some(kernel), Some(id)) = (kernel, self.ids.get(&name)) {
                let keys: Vec<_> = elements.iter().map(|element| keys::element(id, *element)).collect();
                kernel.remove_expired(id, &keys, now)?;
            }
        }
        self.expire_calls(kernel, now)
    }

    /// When the next entry or element expires, nanoseconds of boot time.
    #[must_use]
    pub fn first_expiry(&self) -> Option<u64> {
        [self.entries.first_expiry(), self.calls.first_expiry(), self.sets.first_expiry()].into_iter().flatten().min()
    }

    /// Writes down what could not be written when the daemon started.
    pub fn settle(&mut self) -> Result<()> {
        Ok(self.log.settle(&self.entries, &self.calls, &self.sets)?)
    }

    fn tidy(&mut self) {
        if let Err(error) = self.log.tidy(&self.entries, &self.calls, &self.sets) {
            // Nothing is lost: the long journal says the same.
            tracing::warn!(error = with_sources(&error), "cannot shorten the journal");
        }
    }
}

fn carry_out(kernel: Option<&Kernel>, changes: &[Change]) -> Result<()> {
    let Some(kernel) = kernel else { return Ok(()) };
    // Additions first: while a newer entry gives way to an older one, one of them is there.
    for (key, entry) in changes {
        if let Some(entry) = entry {
            kernel.add_entry(key, entry)?;
        }
    }
    let gone = changes.iter().filter(|(_, entry)| entry.is_none());
    gone.map(|(key, _): &(EntryKey, _)| key).try_for_each(|key| Ok(kernel.remove_entry(key).map(drop)?))
}

fn kernel_elements(
    id: u16,
    elements: &[Prefix],
    expiry: Option<Expiry>,
) -> Vec<(ringfence_abi::dynamic::ElementKey, Element)> {
    let expires = expiry.map_or(0, |expiry| expiry.boot);
    elements.iter().map(|element| (keys::element(id, *element), Element { expires })).collect()
}

//! Dynamic entries and elements of dynamic sets, which outlive generations.
//!
//! The programs look an address up once for each prefix length that is in use; which these are is kept here by
//! counting. The order makes the programs see every entry: a length's bit is set before its first entry is added, and
//! cleared after its last one is gone.
//!
//! Programs add single addresses to sets by themselves, and set the bit of these lengths. The daemon hears of it later, so to it
//! a length without elements may have one: it never clears these two bits of a set. A set that lost its last address costs
//! one lookup more until the maps go.

use std::{io, sync::atomic::Ordering};

use ringfence_abi::dynamic::{self, Element, ElementKey, Entry, EntryKey, MAX_SETS, V4};

use super::{
    Kernel,
    error::{Context as _, KernelError, Result},
    mapped::Words,
    maps::{MAX_ELEMENTS, MAX_ENTRIES, Shared},
};

/// Words of one [`dynamic::Lengths`]: one for IPv4, three for IPv6.
const WORDS: usize = 4;
/// Prefix lengths of IPv4, then of IPv6.
const LENGTHS: usize = 33 + 129;
/// Those of single addresses, IPv4 and IPv6.
const HOSTS: [usize; 2] = [32, 33 + 128];

/// How many entries there are of each prefix length, for each index of a lengths map.
#[derive(Debug)]
pub struct Lengths {
    entries: Vec<[u32; LENGTHS]>,
    sets: Vec<[u32; LENGTHS]>,
}

/// One prefix length in one lengths map.
struct Place<'a> {
    words: &'a Words,
    index: usize,
    word: usize,
    bit: u64,
    slot: usize,
    // Somebody else sets the bit, too.
    shared: bool,
}

impl<'a> Place<'a> {
    fn new(words: &'a Words, index: usize, family: u8, length: u8) -> Result<Self> {
        let (first, longest, base) = if family == V4 { (0, 32, 0) } else { (1, 128, 33) };
        if length > longest || (index + 1) * WORDS > words.words().len() {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(KernelError::Io { what: format!("prefix length {length} in table {index}"), source });
        }
        let (word, bit) = dynamic::Lengths::bit(length);
        let (word, slot) = (index * WORDS + first + word, base + length as usize);
        Ok(Self { words, index, word, bit, slot, shared: false })
    }

    fn set(&self) {
        self.words.words()[self.word].fetch_or(self.bit, Ordering::SeqCst);
    }

    /// Counts one more.
    fn add(&self, counts: &mut [[u32; LENGTHS]]) {
        counts[self.index][self.slot] += 1;
    }

    /// Counts one less.
    fn take(&self, counts: &mut [[u32; LENGTHS]]) {
        counts[self.index][self.slot] = counts[self.index][self.slot].saturating_sub(1);
        self.settle(counts);
    }

    /// Clears the bit if nothing has this length.
    fn settle(&self, counts: &[[u32; LENGTHS]]) {
        if counts[self.index][self.slot] == 0 && !self.shared {
            self.words.words()[self.word].fetch_and(!self.bit, Ordering::SeqCst);
        }
    }
}

fn entry_place<'a>(maps: &'a Shared, key: &EntryKey) -> Result<Place<'a>> {
    let index = key.direction as usize * 3 + key.port_kind as usize;
    Place::new(&maps.entry_lengths, index, key.family, key.length)
}

fn element_place<'a>(maps: &'a Shared, key: &ElementKey) -> Result<Place<'a>> {
    let place = Place::new(&maps.set_lengths, key.set as usize, key.family, key.length)?;
    let shared = HOSTS.contains(&place.slot);
    Ok(Place { shared, ..place })
}

impl Lengths {
    /// Counts what is in the maps, and writes the bits accordingly: a daemon killed between two steps may have left a
    /// bit too many.
    pub fn recount(maps: &Shared) -> Result<Self> {
        let mut counts = Self {
            entries: vec![[0; LENGTHS]; dynamic::ENTRY_LENGTHS as usize],
            sets: vec![[0; LENGTHS]; MAX_SETS as usize],
        };
        let mut invalid = Ok(());
        let mut note = |place: Result<Place<'_>>, counts: &mut Vec<[u32; LENGTHS]>| match place {
            Ok(place) => place.add(counts),
            Err(error) => invalid = Err(error),
        };
        maps.entries
            .for_each(|key, _| note(entry_place(maps, &key), &mut counts.entries))
            .context(|| "cannot list the dynamic entries".to_owned())?;
        maps.elements
            .for_each(|key, _| note(element_place(maps, &key), &mut counts.sets))
            .context(|| "cannot list the elements of dynamic sets".to_owned())?;
        invalid?;
        for (word, bits) in maps.entry_lengths.words().iter().zip(counts.entries.iter().flat_map(bits)) {
            word.store(bits, Ordering::SeqCst);
        }
        // Bit by bit: the programs of a generation in force may set one at this very moment.
        let mut hosts = [0; LENGTHS];
        for slot in HOSTS {
            hosts[slot] = 1;
        }
        let shared = bits(&hosts).into_iter().cycle();
        for ((word, bits), shared) in maps.set_lengths.words().iter().zip(counts.sets.iter().flat_map(bits)).zip(shared)
        {
            word.fetch_or(bits, Ordering::SeqCst);
            word.fetch_and(bits | shared, Ordering::SeqCst);
        }
        Ok(counts)
    }

    fn elements(&self) -> u64 {
        self.sets.iter().flatten().map(|count| *count as u64).sum()
    }
}

/// The four words for the counts of one index.
fn bits(counts: &[u32; LENGTHS]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (slot, _) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let (first, length) = if slot < 33 { (0, slot) } else { (1, slot - 33) };
        let (word, bit) = dynamic::Lengths::bit(length as u8);
        words[first + word] |= bit;
    }
    words
}

impl Kernel {
    fn changing(&self) -> Change<'_> {
        Change(&self.maps)
    }

    /// Adds a dynamic entry or replaces the one with this key; whether it is new.
    pub fn add_entry(&self, key: &EntryKey, entry: &Entry) -> Result<bool> {
        let _change = self.changing();
        let mut lengths = self.lengths();
        let place = entry_place(&self.maps, key)?;
        place.set();
        let inserted = self.maps.entries.insert(key, entry);
        if matches!(inserted, Ok(true)) {
            place.add(&mut lengths.entries);
        } else {
            place.settle(&lengths.entries);
        }
        inserted.map_err(|error| full(error, "the table of dynamic entries", MAX_ENTRIES))
    }

    /// Removes a dynamic entry; whether there was one.
    pub fn remove_entry(&self, key: &EntryKey) -> Result<bool> {
        let _change = self.changing();
        let mut lengths = self.lengths();
        let place = entry_place(&self.maps, key)?;
        let removed = self.maps.entries.remove(key).context(|| "cannot remove a dynamic entry".to_owned())?;
        if removed {
            place.take(&mut lengths.entries);
        }
        Ok(removed)
    }

    /// All dynamic entries with what they counted, expired ones too, in no particular order.
    pub fn entries(&self) -> Result<Vec<(EntryKey, Entry)>> {
        let mut all = Vec::new();
        let listed = self.maps.entries.for_each(|key, entry| all.push((key, entry)));
        listed.context(|| "cannot list the dynamic entries".to_owned())?;
        Ok(all)
    }

    /// Adds elements to one set, or renews those it has. Whole or not at all where the limit is concerned.
    pub fn add_elements(&self, set: u16, elements: &[(ElementKey, Element)]) -> Result<()> {
        let _change = self.changing();
        let mut elements: Vec<_> =
            elements.iter().map(|(key, element)| (ElementKey { set, ..*key }, *element)).collect();
        // Of equal keys the last one counts.
        elements.reverse();
        elements.sort_by_key(|(key, _)| *key);
        elements.dedup_by_key(|(key, _)| *key);

        let mut lengths = self.lengths();
        let limit = || KernelError::Full { what: "the table of set elements", limit: MAX_ELEMENTS };
        let places = elements.iter().map(|(key, _)| element_place(&self.maps, key)).collect::<Result<Vec<_>>>()?;
        let counts = lengths.sets.get(set as usize).ok_or_else(limit)?;
        let empty = counts.iter().all(|count| *count == 0);
        if lengths.elements() + elements.len() as u64 > MAX_ELEMENTS as u64 {
            return Err(limit());
        }
        places.iter().for_each(Place::set);
        if empty {
            // Nothing to count twice, so they can go in by the thousand.
            let inserted = self.maps.elements.insert_all(&elements);
            if let Err(error) = inserted {
                for ((key, _), place) in elements.iter().zip(&places) {
                    // What is left after an error here is found by the next start's recount.
                    let _ = self.maps.elements.remove(key);
                    place.settle(&lengths.sets);
                }
                return Err(full(error, "the table of set elements", MAX_ELEMENTS));
            }
            for place in &places {
                place.add(&mut lengths.sets);
            }
            return Ok(());
        }
        for ((key, element), place) in elements.iter().zip(&places) {
            match self.maps.elements.insert(key, element) {
                Ok(true) => place.add(&mut lengths.sets),
                Ok(false) => {}
                Err(error) => {
                    for place in &places {
                        place.settle(&lengths.sets);
                    }
                    return Err(full(error, "the table of set elements", MAX_ELEMENTS));
                }
            }
        }
        Ok(())
    }

    /// Removes elements; how many there were.
    pub fn remove_elements(&self, set: u16, elements: &[ElementKey]) -> Result<usize> {
        let _change = self.changing();
        let mut lengths = self.lengths();
        let mut removed = 0;
        for key in elements {
            let key = ElementKey { set, ..*key };
            let place = element_place(&self.maps, &key)?;
            if self.maps.elements.remove(&key).context(|| format!("cannot remove an element of set {set}"))? {
                place.take(&mut lengths.sets);
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The elements of one set, expired ones too, in no particular order.
    pub fn elements(&self, set: u16) -> Result<Vec<(ElementKey, Element)>> {
        let mut all = Vec::new();
        let listed = self.maps.elements.for_each(|key, element| {
            if key.set == set {
                all.push((key, element));
            }
        });
        listed.context(|| format!("cannot list the elements of set {set}"))?;
        Ok(all)
    }

    /// How many elements each set has, by kernel id; sets without elements are left out.
    pub fn element_counts(&self) -> Vec<(u16, u64)> {
        let lengths = self.lengths();
        let sums = (0_u16..).zip(&lengths.sets).map(|(set, counts)| (set, counts.iter().map(|n| *n as u64).sum()));
        sums.filter(|(_, sum)| *sum > 0).collect()
    }

    /// An element as it is now.
    pub fn element(&self, key: &ElementKey) -> Result<Option<Element>> {
        self.maps.elements.get(key).context(|| format!("cannot look an element of set {} up", key.set))
    }

    /// Removes those of the elements that have expired at `now` (nanoseconds of `CLOCK_BOOTTIME`): a program may have
    /// added one again that the daemon knows to have expired.
    pub fn remove_expired(&self, set: u16, elements: &[ElementKey], now: u64) -> Result<()> {
        let mut expired = Vec::new();
        for key in elements {
            let key = ElementKey { set, ..*key };
            if self.element(&key)?.is_some_and(|element| element.expires != 0 && element.expires <= now) {
                expired.push(key);
            }
        }
        self.remove_elements(set, &expired).map(drop)
    }

    /// Says how many single addresses, IPv4 and IPv6, a set has that programs add to as well: what these did could not be
    /// counted step by step.
    pub fn count_hosts(&self, set: u16, hosts: [u32; 2]) {
        if let Some(counts) = self.lengths().sets.get_mut(set as usize) {
            for (slot, count) in HOSTS.into_iter().zip(hosts) {
                counts[slot] = count;
            }
        }
    }

    /// What programs remember of connections is to be judged anew.
    pub fn elements_changed(&self) {
        drop(self.changing());
    }

    /// Removes all elements of one set; how many there were.
    pub fn flush_set(&self, set: u16) -> Result<usize> {
        let keys: Vec<ElementKey> = self.elements(set)?.into_iter().map(|(key, _)| key).collect();
        self.remove_elements(set, &keys)
    }
}

/// When it goes, what the programs remember of connections does not hold any more: also after an error half way.
struct Change<'a>(&'a Shared);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.cell.advance();
    }
}

fn full(error: io::Error, what: &'static str, limit: u32) -> KernelError {
    if error.raw_os_error() == Some(libc::E2BIG) {
        return KernelError::Full { what, limit };
    }
    KernelError::Io { what: format!("cannot write {what}"), source: error }
}

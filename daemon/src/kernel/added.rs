//! What a generation's programs added to sets, as they note it: for each set a ring, of which places are written anew once
//! they are needed again.
//!
//! Nothing is locked. A place is one's own once `head` was counted up, and its number is written last; who reads looks at
//! the number, and afterwards at `head`: whoever is to write the place again counts that up first.

use std::{
    mem::offset_of,
    os::fd::AsFd as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use ringfence_abi::{
    connection::TrackConsts,
    dynamic::ElementKey,
    limit::{AddState, Added},
    names,
};
use ringfence_policy::compile::AddedSet;

use super::{
    error::{Context as _, KernelError, Result},
    mapped::Words,
    maps, sys,
};

/// Keeps which set has which places, for a later daemon: one value a set of [`WORDS`] words.
const RECORD: &str = "RINGS";
/// The set's id, the first place, how many there are.
const WORDS: usize = 3;
const STATE: usize = size_of::<AddState>() / 8;
const PLACE: usize = size_of::<Added>() / 8;
/// [`Added::line`] of an element that an earlier generation's rule added: it is none of this one's.
pub const NO_LINE: u64 = u64::MAX;

/// The ring of one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ring {
    set: u16,
    base: usize,
    capacity: u64,
}

/// The rings of a generation.
#[derive(Debug)]
pub struct Rings {
    states: Words,
    places: Words,
    sets: Vec<Ring>,
}

/// How far a ring has been read.
#[derive(Debug, Default)]
pub struct Position {
    /// Some number was not seen before its place was written anew, since this was last set to `false`.
    pub missed: bool,
    seen: u64,
    // Numbers up to `seen` that were being written.
    unwritten: Vec<u64>,
}

enum Reading {
    Whole(Added),
    // Given out, and not written yet.
    Unwritten,
    // Its place has, or gets, a later one.
    Gone,
}

/// Pins what tells a later daemon where the rings are. `track` has the kernel's ids of the sets.
pub fn record(directory: &Path, sets: &[AddedSet], track: &TrackConsts) -> Result<()> {
    if sets.is_empty() {
        return Ok(());
    }
    let what = || format!("cannot record {RECORD}");
    let (value, count) = ((WORDS * 8) as u32, sets.len() as u32);
    let map = maps::create(RECORD, &maps::shape(BPF_MAP_TYPE_ARRAY, 4, value, count, BPF_F_MMAPABLE))?;
    let words = Words::new(map.as_fd(), sets.len() * WORDS * 8).context(what)?;
    let rings = sets.iter().flat_map(|ring| {
        let id = track.sets.get(usize::from(ring.set.0)).copied().unwrap_or_default();
        [u64::from(id), u64::from(ring.base), u64::from(ring.capacity)]
    });
    words.words().iter().zip(rings).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    let path = directory.join(RECORD);
    sys::pin(map.as_fd(), &path).context(|| format!("cannot pin {}", path.display()))
}

impl Rings {
    /// Opens the rings of the generation that is pinned in `directory`; `None`: its rules add nothing.
    pub fn open(directory: &Path, track: &TrackConsts) -> Result<Option<Arc<Self>>> {
        if track.adding == 0 {
            return Ok(None);
        }
        let record = map(directory, RECORD, WORDS, track.adding)?;
        let ring = |words: &[AtomicU64]| {
            let word = |index: usize| words[index].load(Ordering::Relaxed);
            Ring { set: word(0) as u16, base: word(1) as usize, capacity: word(2).max(1) }
        };
        let rings: Vec<Ring> = record.words().chunks_exact(WORDS).map(ring).collect();
        let states = map(directory, names::ADD_STATES, STATE, track.adding)?;
        let places = map(directory, names::ADDED, PLACE, track.added)?;
        Self::new(states, places, rings).map(|all| Some(Arc::new(all)))
    }

    fn new(states: Words, places: Words, rings: Vec<Ring>) -> Result<Self> {
        let there = (places.words().len() / PLACE) as u64;
        let fits = |ring: &Ring| (ring.base as u64).checked_add(ring.capacity).is_some_and(|end| end <= there);
        if rings.len() * STATE > states.words().len() || !rings.iter().all(fits) {
            let source = std::io::ErrorKind::InvalidData.into();
            return Err(KernelError::Io {
                what: "the rings of added elements do not fit their maps".to_owned(),
                source,
            });
        }
        Ok(Self { states, places, sets: rings })
    }

    /// The kernel's ids of the sets, in the order of their rings.
    pub fn sets(&self) -> impl Iterator<Item = u16> {
        self.sets.iter().map(|ring| ring.set)
    }

    /// How many elements of a ring are forgotten again: those up to this number.
    #[must_use]
    pub fn tail(&self, ring: usize) -> u64 {
        self.state(ring, offset_of!(AddState, tail)).load(Ordering::SeqCst)
    }

    /// How many places of a ring are in use.
    #[must_use]
    pub fn used(&self, ring: usize) -> u64 {
        let tail = self.tail(ring);
        self.state(ring, offset_of!(AddState, head)).load(Ordering::SeqCst).saturating_sub(tail)
    }

    /// Says how many elements the set has that are not in its ring.
    pub fn set_others(&self, ring: usize, others: u64) {
        self.state(ring, offset_of!(AddState, others)).store(others, Ordering::SeqCst);
    }

    /// What was added since the last look and is not forgotten yet, oldest first.
    #[must_use]
    pub fn look(&self, ring: usize, position: &mut Position) -> Vec<Added> {
        let tail = self.tail(ring);
        let head = self.state(ring, offset_of!(AddState, head)).load(Ordering::SeqCst);
        let oldest = tail.max(head.saturating_sub(self.sets[ring].capacity));
        let mut added = Vec::new();
        let again: Vec<u64> = std::mem::take(&mut position.unwritten);
        position.missed |= oldest > position.seen || again.iter().any(|number| *number <= oldest);
        let first = position.seen.max(oldest) + 1;
        for number in again.into_iter().filter(|number| *number > oldest).chain(first..=head) {
            match self.read(ring, number) {
                Reading::Whole(element) => added.push(element),
                Reading::Unwritten => position.unwritten.push(number),
                Reading::Gone => position.missed = true,
            }
        }
        position.seen = position.seen.max(head);
        added
    }

    /// Enters elements that the set has already, oldest first, into a ring whose programs are not in force yet, as many
    /// as there is room for.
    pub fn seed(&self, ring: usize, elements: &[(ElementKey, u64)]) {
        let room = elements.len().min(self.sets[ring].capacity as usize);
        for ((key, expires), number) in elements[..room].iter().zip(1..) {
            self.write(ring, &Added { key: *key, expires: *expires, line: NO_LINE, number });
        }
        self.state(ring, offset_of!(AddState, head)).store(room as u64, Ordering::SeqCst);
    }

    fn read(&self, ring: usize, number: u64) -> Reading {
        let place = self.place(ring, number);
        let word = |offset: usize| place[offset / 8].load(Ordering::SeqCst);
        let before = word(offset_of!(Added, number));
        if before != number {
            return if before < number { Reading::Unwritten } else { Reading::Gone };
        }
        let key = offset_of!(Added, key);
        let added = Added {
            key: decode([word(key), word(key + 8), word(key + 16)]),
            expires: word(offset_of!(Added, expires)),
            line: word(offset_of!(Added, line)),
            number,
        };
        let head = self.state(ring, offset_of!(AddState, head)).load(Ordering::SeqCst);
        if head >= number + self.sets[ring].capacity { Reading::Gone } else { Reading::Whole(added) }
    }

    fn write(&self, ring: usize, added: &Added) {
        let place = self.place(ring, added.number);
        let put = |offset: usize, value: u64| place[offset / 8].store(value, Ordering::SeqCst);
        for (word, value) in (0..).step_by(8).zip(encode(&added.key)) {
            put(offset_of!(Added, key) + word, value);
        }
        put(offset_of!(Added, expires), added.expires);
        put(offset_of!(Added, line), added.line);
        put(offset_of!(Added, number), added.number);
    }

    fn place(&self, ring: usize, number: u64) -> &[AtomicU64] {
        let Ring { base, capacity, .. } = self.sets[ring];
        let first = (base + ((number - 1) % capacity) as usize) * PLACE;
        &self.places.words()[first..first + PLACE]
    }

    fn state(&self, ring: usize, offset: usize) -> &AtomicU64 {
        &self.states.words()[ring * STATE + offset / 8]
    }
}

fn map(directory: &Path, name: &str, words: usize, values: u32) -> Result<Words> {
    let path = directory.join(name);
    let map = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))?;
    let map = map.ok_or(KernelError::Foreign { path })?;
    Words::new(map.as_fd(), words * 8 * values as usize).context(|| format!("cannot map {name}"))
}

/// The words of a key as they are in memory.
fn encode(key: &ElementKey) -> [u64; 3] {
    let mut last = [0; 8];
    last[..2].copy_from_slice(&key.set.to_ne_bytes());
    (last[2], last[3]) = (key.family, key.length);
    [key.address[0], key.address[1], u64::from_ne_bytes(last)]
}

fn decode([high, low, last]: [u64; 3]) -> ElementKey {
    let last = last.to_ne_bytes();
    let set = u16::from_ne_bytes([last[0], last[1]]);
    ElementKey { address: [high, low], set, family: last[2], length: last[3], zero: 0 }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::OwnedFd;

    use ringfence_abi::dynamic::{Element, V4};

    use super::*;
    use crate::kernel::Kernel;

    fn array(name: &str, words: usize, count: u32) -> OwnedFd {
        maps::create(name, &maps::shape(BPF_MAP_TYPE_ARRAY, 4, (words * 8) as u32, count, BPF_F_MMAPABLE)).unwrap()
    }

    /// Rings of these sets and capacities, in maps of their own.
    pub(crate) fn rings(sets: &[(u16, u32)]) -> Arc<Rings> {
        let mut places = 0;
        let ring = |&(set, capacity): &(u16, u32)| {
            let ring = Ring { set, base: places, capacity: capacity.into() };
            places += capacity as usize;
            ring
        };
        let all: Vec<Ring> = sets.iter().map(ring).collect();
        let words = |name: &str, words: usize, count: usize| {
            Words::new(array(name, words, count as u32).as_fd(), words * count * 8).unwrap()
        };
        let (states, places) = (words(names::ADD_STATES, STATE, sets.len()), words(names::ADDED, PLACE, places));
        Arc::new(Rings::new(states, places, all).unwrap())
    }

    impl Rings {
        /// Takes the next number, as a program does.
        pub(crate) fn take(&self, ring: usize) -> u64 {
            self.state(ring, offset_of!(AddState, head)).fetch_add(1, Ordering::SeqCst) + 1
        }

        /// Notes an element, as a program does.
        pub(crate) fn add(&self, ring: usize, key: ElementKey, expires: u64, line: u64) -> u64 {
            let number = self.take(ring);
            self.write(ring, &Added { key, expires, line, number });
            number
        }

        /// Forgets the oldest, as a program does; which one that was.
        pub(crate) fn give_way(&self, ring: usize) -> ElementKey {
            let tail = self.state(ring, offset_of!(AddState, tail)).fetch_add(1, Ordering::SeqCst);
            let key = offset_of!(Added, key) / 8;
            let place = self.place(ring, tail + 1);
            decode([key, key + 1, key + 2].map(|word| place[word].load(Ordering::SeqCst)))
        }

        /// What the programs reckon with.
        pub(crate) fn others(&self, ring: usize) -> u64 {
            self.state(ring, offset_of!(AddState, others)).load(Ordering::SeqCst)
        }
    }

    impl Kernel {
        /// Puts an element into a set, as a program does that has noted it.
        pub(crate) fn program_adds(&self, key: ElementKey, expires: u64) {
            let bits = &self.maps.set_lengths.words()[usize::from(key.set) * 4..];
            let (word, bit) = if key.family == V4 { (0, 1 << 32) } else { (3, 1) };
            bits[word].fetch_or(bit, Ordering::SeqCst);
            self.maps.elements.set(&key, &Element { expires }).unwrap();
        }

        /// Takes the oldest of a ring out of its set, as a program does that needs room.
        pub(crate) fn program_evicts(&self, rings: &Rings, ring: usize) {
            self.maps.elements.remove(&rings.give_way(ring)).unwrap();
        }
    }

    fn key(number: u32) -> ElementKey {
        ElementKey { address: [u64::from(number) << 32, 7], set: 0x1234, family: V4, length: 32, zero: 0 }
    }

    fn numbers(added: &[Added]) -> Vec<u64> {
        added.iter().map(|added| added.number).collect()
    }

    #[test]
    fn what_is_new_is_read_once_and_as_it_was_written() {
        let rings = rings(&[(1, 3), (2, 4)]);
        let mut position = Position::default();
        rings.add(1, key(1), 50, 9);
        rings.add(1, key(2), 60, 8);
        rings.add(0, key(3), 70, 7);
        let added = rings.look(1, &mut position);
        assert_eq!(added[0], Added { key: key(1), expires: 50, line: 9, number: 1 });
        assert_eq!(added[1], Added { key: key(2), expires: 60, line: 8, number: 2 });
        assert_eq!(added.len(), 2);
        assert!(rings.look(1, &mut position).is_empty());
        assert_eq!(rings.look(0, &mut Position::default())[0].key, key(3));
    }

    #[test]
    fn a_place_that_is_being_written_is_read_the_next_time() {
        let rings = rings(&[(1, 4)]);
        let mut position = Position::default();
        rings.add(0, key(1), 0, 0);
        let slow = rings.take(0);
        rings.add(0, key(3), 0, 0);
        assert_eq!(numbers(&rings.look(0, &mut position)), [1, 3]);
        assert!(rings.look(0, &mut position).is_empty());
        rings.write(0, &Added { key: key(2), expires: 0, line: 0, number: slow });
        assert_eq!(numbers(&rings.look(0, &mut position)), [2]);
        assert!(rings.look(0, &mut position).is_empty());
    }

    #[test]
    fn a_place_that_is_needed_again_is_not_believed() {
        let rings = rings(&[(1, 4)]);
        let mut position = Position::default();
        for number in 0..4 {
            rings.add(0, key(number), 0, 0);
        }
        rings.give_way(0);
        // The place of 1 is taken; its number still says 1.
        let fifth = rings.take(0);
        assert!(matches!(rings.read(0, 1), Reading::Gone) && matches!(rings.read(0, fifth), Reading::Unwritten));
        assert_eq!(numbers(&rings.look(0, &mut position)), [2, 3, 4]);
        assert!(position.missed, "nobody saw what 1 was");
        position.missed = false;
        rings.write(0, &Added { key: key(5), expires: 0, line: 0, number: fifth });
        assert_eq!(numbers(&rings.look(0, &mut position)), [5]);
        assert!(!position.missed);
        // More than the ring has places for came meanwhile.
        for number in 0..11 {
            rings.give_way(0);
            rings.add(0, key(number), 0, 0);
        }
        assert_eq!(numbers(&rings.look(0, &mut position)), [13, 14, 15, 16]);
        assert_eq!((rings.tail(0), rings.used(0), position.missed), (12, 4, true));
    }

    #[test]
    fn seeds_stand_first_and_as_many_as_there_is_room_for() {
        let rings = rings(&[(1, 2)]);
        rings.seed(0, &[(key(1), 5), (key(2), 6), (key(3), 7)]);
        assert_eq!(rings.used(0), 2);
        let added = rings.look(0, &mut Position::default());
        assert_eq!(added[1], Added { key: key(2), expires: 6, line: NO_LINE, number: 2 });
        assert_eq!(added.len(), 2);
    }

    #[test]
    fn rings_that_do_not_fit_their_maps_are_refused() {
        let words = |words: usize| Words::new(array("words", words, 1).as_fd(), words * 8).unwrap();
        let ring = Ring { set: 0, base: 1, capacity: 2 };
        assert!(Rings::new(words(STATE), words(PLACE * 2), vec![ring]).is_err());
        assert!(Rings::new(words(STATE), words(PLACE * 3), vec![ring, ring]).is_err());
        assert!(Rings::new(words(STATE), words(PLACE * 3), vec![ring]).is_ok());
    }
}

//! Dynamic entries and set elements, and the prefix lengths that are kept with them.

use std::sync::atomic::Ordering;

use ringfence_abi::dynamic::{EGRESS, Element, ElementKey, Entry, EntryKey, INGRESS, PORT_EXACT, V4, V6};

use super::world::in_world;
use crate::kernel::{Kernel, KernelError, MAX_ELEMENTS, mapped::Words};

/// The words of one index of a lengths map: IPv4, then three of IPv6.
fn lengths(words: &Words, index: usize) -> Vec<u64> {
    words.words()[index * 4..index * 4 + 4].iter().map(|word| word.load(Ordering::SeqCst)).collect()
}

fn entry(address: u64, length: u8) -> EntryKey {
    EntryKey { address: [address << 32, 0], length, family: V4, direction: INGRESS, ..EntryKey::default() }
}

fn element(number: u32, length: u8) -> (ElementKey, Element) {
    let address = [(number as u64) << 32, 0];
    (ElementKey { address, family: V4, length, ..ElementKey::default() }, Element::default())
}

#[test]
fn entries_come_and_go_with_their_prefix_length() {
    in_world(|world| {
        let kernel = world.open();
        let at = |index| lengths(&kernel.maps.entry_lengths, index);
        let (one, two) = (entry(1, 32), entry(2, 32));
        assert!(kernel.add_entry(&one, &Entry { id: 1, ..Entry::default() }).unwrap());
        assert!(kernel.add_entry(&two, &Entry { id: 2, ..Entry::default() }).unwrap());
        assert!(!kernel.add_entry(&one, &Entry { id: 3, ..Entry::default() }).unwrap(), "it replaces");
        let mut ids: Vec<u64> = kernel.entries().unwrap().iter().map(|(_, entry)| entry.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [2, 3]);

        assert_eq!(at(0), [1 << 32, 0, 0, 0]);
        assert!(kernel.remove_entry(&one).unwrap());
        assert!(!kernel.remove_entry(&one).unwrap());
        assert_eq!(at(0), [1 << 32, 0, 0, 0], "another entry has this length");
        assert!(kernel.remove_entry(&two).unwrap());
        assert_eq!(at(0), [0; 4]);

        // Direction and port kind have lengths of their own; IPv6 has words of its own.
        let v6 = EntryKey { family: V6, length: 128, direction: EGRESS, port_kind: PORT_EXACT, ..entry(1, 0) };
        kernel.add_entry(&v6, &Entry::default()).unwrap();
        assert_eq!(at(3 + usize::from(PORT_EXACT)), [0, 0, 0, 1]);
        assert!(kernel.add_entry(&EntryKey { length: 33, ..one }, &Entry::default()).is_err(), "IPv4 ends at 32");
    });
}

#[test]
fn elements_belong_to_their_set() {
    in_world(|world| {
        let kernel = world.open();
        let at = |set| lengths(&kernel.maps.set_lengths, set);
        kernel.add_elements(3, &[element(1, 32), element(2, 24), element(1, 32)]).unwrap();
        kernel.add_elements(4, &[element(1, 32)]).unwrap();
        // Into a set that has elements: the old one is renewed, the new one is counted.
        kernel.add_elements(3, &[element(1, 32), element(5, 16)]).unwrap();
        assert_eq!(kernel.element_counts(), [(3, 3), (4, 1)]);
        assert_eq!(kernel.elements(3).unwrap().len(), 3);
        assert_eq!(at(3)[0], 1 << 32 | 1 << 24 | 1 << 16);

        assert_eq!(kernel.remove_elements(3, &[element(2, 24).0, element(9, 24).0]).unwrap(), 1);
        assert_eq!(at(3)[0], 1 << 32 | 1 << 16);
        assert_eq!(kernel.flush_set(3).unwrap(), 2);
        // The bit of single addresses stays: a program may have added one that nobody counted.
        assert_eq!((at(3), at(4)), (vec![1 << 32, 0, 0, 0], vec![1 << 32, 0, 0, 0]));
        assert!(kernel.add_elements(128, &[element(1, 32)]).is_err(), "there are 128 sets");
    });
}

#[test]
fn a_later_owner_counts_what_is_there() {
    in_world(|world| {
        let kernel = world.open();
        let many: Vec<_> = (0..50_000).map(|number| element(number, 32)).collect();
        kernel.add_elements(0, &many).unwrap();
        kernel.add_entry(&entry(1, 8), &Entry::default()).unwrap();
        // A length nobody uses, as a daemon that was killed between two steps leaves it.
        kernel.maps.set_lengths.words()[0].fetch_or(1, Ordering::SeqCst);
        drop(kernel);

        let kernel = world.open();
        assert_eq!(kernel.element_counts(), [(0, 50_000)]);
        assert_eq!(lengths(&kernel.maps.set_lengths, 0), [1 << 32, 0, 0, 0]);
        assert_eq!(kernel.flush_set(0).unwrap(), 50_000);
        assert_eq!(lengths(&kernel.maps.set_lengths, 0), [1 << 32, 0, 0, 0]);
        assert_eq!(lengths(&kernel.maps.entry_lengths, 0), [1 << 8, 0, 0, 0]);
    });
}

#[test]
fn what_programs_set_is_never_cleared() {
    in_world(|world| {
        let kernel = world.open();
        let words = kernel.maps.set_lengths.words();
        // A program has added an address of each family to sets 2 and 5 and nobody has counted it.
        for set in [2, 5] {
            words[set * 4].fetch_or(1 << 32, Ordering::SeqCst);
            words[set * 4 + 3].fetch_or(1, Ordering::SeqCst);
        }
        let at = |kernel: &Kernel, set| lengths(&kernel.maps.set_lengths, set);
        kernel.add_elements(2, &[element(1, 32), element(1, 24)]).unwrap();
        kernel.remove_elements(2, &[element(1, 32).0, element(1, 24).0]).unwrap();
        assert_eq!(at(&kernel, 2), [1 << 32, 0, 0, 1]);
        drop(kernel);
        let kernel = world.open();
        assert_eq!((at(&kernel, 2), at(&kernel, 5)), (vec![1 << 32, 0, 0, 1], vec![1 << 32, 0, 0, 1]));
        assert_eq!(at(&kernel, 3), [0; 4]);
    });
}

#[test]
fn what_a_program_added_again_does_not_expire_with_what_was_there() {
    in_world(|world| {
        let kernel = world.open();
        let at = |number, expires| (element(number, 32).0, Element { expires });
        kernel.add_elements(3, &[at(1, 50), at(2, 90), at(3, 0)]).unwrap();
        let keys = [1, 2, 3, 4].map(|number| element(number, 32).0);
        kernel.remove_expired(3, &keys, 60).unwrap();
        let mut left: Vec<u64> = kernel.elements(3).unwrap().iter().map(|(_, element)| element.expires).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 90]);
        kernel.count_hosts(3, [7, 1]);
        assert_eq!(kernel.element_counts(), [(3, 8)]);
    });
}

#[test]
fn too_many_elements_are_refused_before_the_first_is_added() {
    in_world(|world| {
        let kernel: Kernel = world.open();
        kernel.add_elements(1, &[element(1, 32)]).unwrap();
        let many: Vec<_> = (0..MAX_ELEMENTS).map(|number| element(number, 32)).collect();
        let error = kernel.add_elements(2, &many).unwrap_err();
        assert!(matches!(error, KernelError::Full { limit: MAX_ELEMENTS, .. }), "{error}");
        assert_eq!(kernel.element_counts(), [(1, 1)]);
        assert_eq!(lengths(&kernel.maps.set_lengths, 2), [0; 4]);
    });
}

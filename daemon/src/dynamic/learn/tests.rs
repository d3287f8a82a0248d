//! Rings that are written as programs write them, over the kernel's own maps.

use std::collections::BTreeSet;
use std::path::Path;

use ringfence_policy::model::{DynamicKind, DynamicSet, WhenFull};
use ringfence_policy::ranges::AddressRanges;

use super::*;
use crate::kernel::added_tests::rings;
use crate::kernel::tests::world::{World, in_world};

const LINE: u64 = 1;
const REASON: &str = "rule ssh-guess, policy.yaml:9";

/// The daemon's half with the set `jail`, and one generation whose rule adds to it.
struct Scene<'a> {
    kernel: &'a Kernel,
    state: &'a Path,
    dynamic: Dynamic,
    rings: Arc<Rings>,
    id: u16,
}

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn jail(never: &[&str]) -> [DynamicSet; 1] {
    let mut ranges = AddressRanges::default();
    for text in never {
        ranges.push_prefix(p(text).address(), p(text).length());
    }
    ranges.normalise();
    let never = Arc::new(ranges);
    let kind = DynamicKind::Declared { timeout: Some(60), capacity: 3, full: WhenFull::EvictOldest, never };
    [DynamicSet { name: "jail".into(), at: None, kind }]
}

fn lines() -> Vec<KeptLine> {
    let line = |name: &str, at| KeptLine {
        name: name.into(),
        named: true,
        chain: "ingress".into(),
        verb: "drop".into(),
        at,
        content: 0,
    };
    vec![line("default", None), line("ssh-guess", Some(("policy.yaml".to_owned(), 9)))]
}

/// Seconds from now.
fn after(seconds: u64) -> u64 {
    boot_now() + seconds * SECOND
}

impl<'a> Scene<'a> {
    fn new(kernel: &'a Kernel, state: &'a Path, capacity: u32) -> Self {
        let mut dynamic = Dynamic::open(state).unwrap();
        let id = dynamic.assign_ids(Some(kernel), &jail(&[])).unwrap()[0];
        dynamic.declare(Some(kernel), &jail(&[])).unwrap();
        let rings = rings(&[(id, capacity)]);
        dynamic.follow(0, Arc::clone(&rings), &lines());
        Self { kernel, state, dynamic, rings, id }
    }

    /// What a daemon that starts again does.
    fn restart(self) -> Self {
        let Self { kernel, state, rings, id, dynamic } = self;
        drop(dynamic);
        let mut dynamic = Dynamic::open(state).unwrap();
        dynamic.declare(Some(kernel), &jail(&[])).unwrap();
        dynamic.follow(0, Arc::clone(&rings), &lines());
        dynamic.miss(kernel, 0).unwrap();
        dynamic.learn(Some(kernel)).unwrap();
        dynamic.restore(kernel).unwrap();
        Self { kernel, state, dynamic, rings, id }
    }

    fn key(&self, address: &str) -> ElementKey {
        keys::element(self.id, p(address))
    }

    fn program_adds(&self, address: &str, expires: u64) {
        self.rings.add(0, self.key(address), expires, LINE);
        self.kernel.program_adds(self.key(address), expires);
    }

    fn by_hand(&mut self, address: &str) {
        let member = Member { by: Some("root".into()), ..Member::default() };
        self.dynamic.add_elements(Some(self.kernel), "jail", &[], &[(member, vec![p(address)])]).unwrap();
    }

    fn learn(&mut self) {
        self.dynamic.learn(Some(self.kernel)).unwrap();
    }

    fn known(&self) -> Vec<String> {
        self.dynamic.sets().elements("jail", None).map(|(element, _)| element.to_string()).collect()
    }

    /// What is in the kernel, and what another daemon would read from the disk.
    fn kept(&self) -> [Vec<String>; 2] {
        let mut present: Vec<Prefix> =
            self.kernel.elements(self.id).unwrap().iter().filter_map(|(key, _)| keys::prefix(key)).collect();
        present.sort_unstable();
        let copy = tempfile::tempdir().unwrap();
        for name in ["dynamic.jsonl", "set-ids.json"] {
            std::fs::copy(self.state.join(name), copy.path().join(name)).unwrap();
        }
        let read = Dynamic::open(copy.path()).unwrap();
        let read = read.sets().elements("jail", None).map(|(element, _)| element.to_string()).collect();
        [present.iter().map(ToString::to_string).collect(), read]
    }

    fn all_know(&self, elements: &[&str]) {
        assert_eq!(self.known(), elements);
        assert_eq!(self.kept(), [elements, elements]);
    }
}

fn in_scene(capacity: u32, test: impl FnOnce(Scene<'_>, &World) + Send + 'static) {
    in_world(move |world| {
        let kernel = world.open();
        let state = tempfile::tempdir().unwrap();
        test(Scene::new(&kernel, state.path(), capacity), world);
    });
}

#[test]
fn what_rules_add_is_known_kept_and_counted() {
    in_scene(3, |mut scene, _| {
        let until = after(60);
        scene.program_adds("10.0.0.1", until);
        scene.program_adds("2001:db8::1", 0);
        scene.learn();
        scene.all_know(&["10.0.0.1", "2001:db8::1"]);
        let member = scene.dynamic.sets().member("jail", p("10.0.0.1")).unwrap();
        assert_eq!((member.expires(), member.reason.as_deref(), member.by.as_deref()), (until, Some(REASON), None));
        let left = member.expiry.unwrap().wall - crate::clock::wall_now();
        assert!((50_000..=60_000).contains(&left), "{left}");
        assert_eq!(scene.dynamic.sets().member("jail", p("2001:db8::1")).unwrap().expiry, None);
        assert_eq!(scene.kernel.element_counts(), [(scene.id, 2)]);
        assert_eq!(scene.rings.others(0), 0);
        scene.by_hand("10.0.0.9");
        scene.by_hand("192.0.2.0/24");
        scene.learn();
        assert_eq!((scene.rings.others(0), scene.kernel.element_counts()), (2, vec![(scene.id, 4)]));
        assert!(scene.dynamic.next_look().is_some());
    });
}

#[test]
fn what_gave_way_is_forgotten() {
    in_scene(2, |mut scene, _| {
        scene.program_adds("10.0.0.1", after(60));
        scene.program_adds("10.0.0.2", after(61));
        scene.learn();
        scene.kernel.program_evicts(&scene.rings, 0);
        scene.program_adds("10.0.0.3", after(62));
        scene.learn();
        scene.all_know(&["10.0.0.2", "10.0.0.3"]);
        // Round and round between two looks: what came and went meanwhile was never there.
        for number in 4..=9 {
            scene.kernel.program_evicts(&scene.rings, 0);
            scene.program_adds(&format!("10.0.0.{number}"), after(63));
        }
        scene.learn();
        scene.all_know(&["10.0.0.8", "10.0.0.9"]);
        assert_eq!((scene.kernel.element_counts(), scene.rings.others(0)), (vec![(scene.id, 2)], 0));
    });
}

#[test]
fn an_element_that_leaves_or_comes_is_looked_at_again() {
    in_scene(2, |mut scene, _| {
        // Noted, and not in the set yet.
        let (key, until) = (scene.key("10.0.0.1"), after(60));
        scene.rings.add(0, key, until, LINE);
        scene.learn();
        assert_eq!(scene.known(), [] as [&str; 0]);
        scene.kernel.program_adds(key, until);
        scene.learn();
        scene.all_know(&["10.0.0.1"]);
        // Forgotten, and still in the set.
        scene.rings.give_way(0);
        scene.learn();
        assert_eq!(scene.known(), ["10.0.0.1"]);
        scene.kernel.remove_elements(scene.id, &[key]).unwrap();
        scene.learn();
        scene.all_know(&[]);
        // Added again by a rule before the daemon saw that it had expired.
        scene.program_adds("10.0.0.2", after(1));
        scene.learn();
        let later = after(90);
        scene.program_adds("10.0.0.2", later);
        scene.rings.give_way(0);
        scene.learn();
        scene.all_know(&["10.0.0.2"]);
        assert_eq!(scene.dynamic.sets().member("jail", p("10.0.0.2")).unwrap().expires(), later);
    });
}

#[test]
fn what_no_ring_says_any_more_is_found() {
    in_scene(2, |mut scene, _| {
        // Two CPUs took one place more than there are: the place of the first element is that of the third.
        let (soon, later) = (after(0), after(60));
        scene.program_adds("10.0.0.1", later);
        scene.program_adds("10.0.0.2", soon);
        scene.program_adds("10.0.0.3", later);
        scene.program_adds("10.0.0.4", later);
        scene.learn();
        assert_eq!(scene.known(), ["10.0.0.3", "10.0.0.4"]);
        scene.dynamic.learning.followed[0].sets[0].searched = 0;
        scene.learn();
        scene.all_know(&["10.0.0.1", "10.0.0.3", "10.0.0.4"]);
        let member = scene.dynamic.sets().member("jail", p("10.0.0.1")).unwrap();
        assert_eq!((member.expires(), member.reason.as_deref(), member.is_by_rule()), (later, Some("a rule"), true));
    });
}

#[test]
fn people_may_take_out_what_rules_added() {
    in_scene(3, |mut scene, _| {
        scene.program_adds("10.0.0.1", after(60));
        scene.program_adds("10.0.0.2", after(60));
        scene.learn();
        let kernel = Some(scene.kernel);
        assert_eq!(scene.dynamic.remove_elements(kernel, "jail", &[p("10.0.0.1")]).unwrap(), [p("10.0.0.1")]);
        scene.learn();
        scene.all_know(&["10.0.0.2"]);
        // Taken out before the daemon knew of it.
        scene.program_adds("10.0.0.3", after(60));
        assert_eq!(scene.dynamic.flush(kernel, "jail").unwrap(), 1);
        scene.learn();
        scene.all_know(&[]);
    });
}

#[test]
fn a_daemon_that_starts_learns_what_was_added_meanwhile() {
    in_scene(2, |mut scene, _| {
        scene.program_adds("10.0.0.1", after(60));
        scene.program_adds("10.0.0.2", after(60));
        scene.by_hand("10.0.0.9");
        scene.learn();
        // While no daemon is there: one gives way, one comes, and a killed daemon has left one that it had deleted.
        scene.kernel.program_evicts(&scene.rings, 0);
        scene.program_adds("10.0.0.3", after(60));
        scene
            .kernel
            .add_elements(scene.id, &[(scene.key("10.0.0.8"), ringfence_abi::dynamic::Element::default())])
            .unwrap();
        let mut scene = scene.restart();
        scene.all_know(&["10.0.0.2", "10.0.0.3", "10.0.0.9"]);
        // Each look puts the counts right.
        scene.learn();
        assert_eq!((scene.kernel.element_counts(), scene.rings.others(0)), (vec![(scene.id, 3)], 1));
        scene.kernel.program_evicts(&scene.rings, 0);
        scene.learn();
        scene.all_know(&["10.0.0.3", "10.0.0.9"]);
    });
}

#[test]
fn what_is_added_while_the_sets_are_restored_stays() {
    in_scene(3, |mut scene, _| {
        scene.program_adds("10.0.0.1", after(60));
        scene.dynamic.restore(scene.kernel).unwrap();
        scene.all_know(&["10.0.0.1"]);
    });
}

#[test]
fn after_a_reboot_what_rules_added_is_there_and_can_give_way() {
    in_scene(4, |mut scene, _| {
        let (soon, later) = (after(60), after(90));
        scene.program_adds("10.0.0.1", later);
        scene.program_adds("10.0.0.2", soon);
        scene.program_adds("10.0.0.3", 0);
        scene.by_hand("10.0.0.9");
        scene.learn();
        let (kernel, state, id) = (scene.kernel, scene.state, scene.id);
        drop(scene.dynamic);
        kernel.flush_set(id).unwrap();

        let mut dynamic = Dynamic::open(state).unwrap();
        dynamic.restore(kernel).unwrap();
        // Room for two of the three, and for none of those made by hand.
        let rings = rings(&[(id, 2)]);
        dynamic.follow_new(1, Arc::clone(&rings), &lines());
        assert_eq!((rings.used(0), rings.others(0)), (2, 2));
        let mut scene = Scene { kernel, state, dynamic, rings, id };
        scene.all_know(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9"]);
        let expires: BTreeSet<u64> = kernel.elements(id).unwrap().iter().map(|(_, element)| element.expires).collect();
        assert_eq!(expires, BTreeSet::from([0, soon, later]));
        // What expires first gives way first, and its reason stayed.
        scene.learn();
        let member = scene.dynamic.sets().member("jail", p("10.0.0.2")).unwrap();
        assert_eq!(member.reason.as_deref(), Some(REASON));
        kernel.program_evicts(&scene.rings, 0);
        scene.learn();
        scene.all_know(&["10.0.0.1", "10.0.0.3", "10.0.0.9"]);
    });
}

#[test]
fn what_the_policy_never_wants_is_taken_out_again() {
    in_scene(3, |mut scene, _| {
        scene.dynamic.declare(Some(scene.kernel), &jail(&["10.0.0.0/24"])).unwrap();
        scene.program_adds("10.0.0.1", after(60));
        scene.program_adds("10.0.1.1", after(60));
        scene.learn();
        scene.all_know(&["10.0.1.1"]);
    });
}

#[test]
fn a_generation_that_is_unloaded_is_not_looked_at() {
    in_scene(3, |mut scene, _| {
        scene.dynamic.unfollow(1);
        assert!(scene.dynamic.next_look().is_some());
        scene.dynamic.unfollow(0);
        scene.program_adds("10.0.0.1", after(60));
        scene.learn();
        assert_eq!(scene.known(), [] as [&str; 0]);
        assert_eq!(scene.dynamic.next_look(), None);
    });
}

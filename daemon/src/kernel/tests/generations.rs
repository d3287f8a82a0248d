//! Loading, flipping and unloading under traffic.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use ringfence_abi::{explain::Question, generation::SLOTS, interface::Interface, verdict};
use ringfence_policy::model::Verdict;

use super::world::{FRAME, by_default, captured, device, in_world, load, pinned, policy, send_frames};
use crate::kernel::{Hook, IngressHook, KernelError};

#[test]
fn nothing_passes_before_the_first_apply() {
    in_world(|world| {
        let kernel = world.open();
        kernel.attach(device("a"), Some(IngressHook::Xdp), true).unwrap();
        assert_eq!(captured("a", || send_frames("b", 10)), 0);
        assert_eq!(
            captured("b", || {
                let _ = std::panic::catch_unwind(|| send_frames("a", 1));
            }),
            0
        );
        assert!(kernel.dispatch_misses().unwrap() >= 11);
    });
}

#[test]
fn the_generation_in_the_cell_decides() {
    for hook in [IngressHook::Xdp, IngressHook::Tc] {
        in_world(move |world| {
            let kernel = world.open();
            let accept = load(&kernel, 1, Some(Verdict::Accept), Some(Verdict::Accept));
            let drop = load(&kernel, 2, Some(Verdict::Drop), Some(Verdict::Accept));
            kernel.flip(accept.slot, accept.slot, 0);
            kernel.attach(device("a"), Some(hook), true).unwrap();

            assert_eq!(captured("a", || send_frames("b", 10)), 10);
            assert_eq!((by_default(&accept, 0), by_default(&drop, 0)), (10, 0));
            kernel.flip(drop.slot, accept.slot, 0);
            let seen = captured("a", || send_frames("b", 5));
            assert_eq!((by_default(&accept, 0), by_default(&drop, 0)), (10, 5));
            // A capture sits before TC.
            assert_eq!(seen, if hook == IngressHook::Xdp { 0 } else { 5 });
            assert_eq!(captured("b", || send_frames("a", 3)), 3);
            assert_eq!(by_default(&drop, 1), 3, "what leaves is judged by the egress chain");
            assert_eq!(kernel.dispatch_misses().unwrap(), 0);
        });
    }
}

#[test]
fn every_packet_is_judged_once_while_generations_change() {
    in_world(|world| {
        let kernel = world.open();
        let one = load(&kernel, 1, Some(Verdict::Accept), None);
        let two = load(&kernel, 2, Some(Verdict::Drop), None);
        kernel.flip(one.slot, one.slot, 0);
        kernel.attach(device("a"), Some(IngressHook::Xdp), false).unwrap();

        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let sender = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    send_frames("b", 50);
                    sent.fetch_add(50, Ordering::Relaxed);
                }
            })
        };
        let mut flips = 0;
        while flips < 20_000 || sent.load(Ordering::Relaxed) < 2_000 {
            kernel.flip(two.slot, one.slot, 0);
            kernel.flip(one.slot, two.slot, 0);
            flips += 2;
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap();
        kernel.wait_for_running_programs().unwrap();

        let (by_one, by_two) = (by_default(&one, 0), by_default(&two, 0));
        assert_eq!(by_one + by_two, sent.load(Ordering::Relaxed) as u64, "{by_one} + {by_two}");
        assert!(by_one > 0 && by_two > 0, "{by_one} and {by_two}: both were in force");
        assert_eq!(kernel.dispatch_misses().unwrap(), 0);
    });
}

#[test]
fn after_the_deadline_the_previous_generation_decides() {
    in_world(|world| {
        let kernel = world.open();
        let previous = load(&kernel, 1, Some(Verdict::Accept), None);
        let current = load(&kernel, 2, Some(Verdict::Drop), None);
        kernel.attach(device("a"), Some(IngressHook::Xdp), false).unwrap();
        let now = u32::try_from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap().tv_sec()).unwrap();
        kernel.flip(current.slot, previous.slot, now + 2);
        assert_eq!(captured("a", || send_frames("b", 4)), 0);
        thread::sleep(Duration::from_secs(2));
        assert_eq!(captured("a", || send_frames("b", 6)), 6, "with nobody having written the cell");
        assert_eq!((by_default(&current, 0), by_default(&previous, 0)), (4, 6));
    });
}

#[test]
fn a_generation_without_a_chain_lets_pass() {
    in_world(|world| {
        let kernel = world.open();
        let nothing = load(&kernel, 1, None, None);
        kernel.flip(nothing.slot, nothing.slot, 0);
        kernel.attach(device("a"), Some(IngressHook::Xdp), true).unwrap();
        assert_eq!(captured("a", || send_frames("b", 4)), 4);
        assert_eq!(captured("b", || send_frames("a", 4)), 4);
        kernel.attach(device("a"), Some(IngressHook::Tc), true).unwrap();
        assert_eq!(captured("a", || send_frames("b", 4)), 4);
        assert_eq!(kernel.dispatch_misses().unwrap(), 0);
    });
}

#[test]
fn a_load_that_fails_leaves_nothing() {
    in_world(|world| {
        let kernel = world.open();
        let mut broken = policy(Some(Verdict::Accept), Some(Verdict::Accept));
        // The constants promise a larger arena than there is: the verifier must refuse the programs, and the ingress
        // programs, which are whole, must go again.
        let egress = broken.egress.as_mut().unwrap();
        egress.consts.arena = 1 << 20;
        egress.consts.active = u32::MAX >> 5;
        let maps = || pinned(&kernel.pins.root().join("gen"));
        let error = kernel.load(&broken, 1, |_| 0).unwrap_err();
        assert!(matches!(error, KernelError::Load { .. }), "{error}");
        assert_eq!(maps(), Vec::<String>::new());
        for index in 0..SLOTS * ringfence_abi::generation::VARIANTS {
            assert_eq!(kernel.maps.xdp.get(&index).unwrap(), None);
            assert_eq!(kernel.maps.tc.get(&index).unwrap(), None);
        }
    });
}

#[test]
fn slots_are_used_again_and_never_taken_from_the_generation_in_force() {
    in_world(|world| {
        let kernel = world.open();
        let mut all: Vec<_> =
            (0..u64::from(SLOTS)).map(|number| load(&kernel, number, Some(Verdict::Accept), None)).collect();
        let full = kernel.load(&policy(None, None), 9, |_| 0).unwrap_err();
        assert!(matches!(full, KernelError::NoSlot), "{full}");

        kernel.flip(all[0].slot, all[1].slot, 0);
        let current = all.remove(0);
        let in_force = kernel.unload(current).unwrap_err();
        assert!(matches!(in_force, KernelError::InForce { generation: 0 }), "{in_force}");
        let free = all.pop().unwrap();
        let slot = free.slot;
        kernel.unload(free).unwrap();
        assert_eq!(load(&kernel, 9, Some(Verdict::Drop), None).slot, slot);
        assert_eq!(kernel.adopt().unwrap().iter().map(|loaded| loaded.number).collect::<Vec<_>>(), [0, 1, 2, 9]);
    });
}

#[test]
fn a_full_table_of_interfaces_says_so_and_goes_on_judging() {
    in_world(|world| {
        let kernel = world.open();
        let loaded = load(&kernel, 1, Some(Verdict::Drop), None);
        kernel.flip(loaded.slot, loaded.slot, 0);
        kernel.attach(device("a"), Some(IngressHook::Xdp), false).unwrap();
        let interface = Interface::default();
        let full = (1000..20_000).find_map(|index| loaded.set_interface(index, &interface).err()).unwrap();
        assert!(matches!(full, KernelError::Full { limit: 16_384, .. }), "{full}");
        assert_eq!(captured("a", || send_frames("b", 10)), 0, "what is not in the table is judged all the same");
        loaded.forget_interface(1000).unwrap();
        loaded.set_interface(device("a").index, &interface).unwrap();
        assert_eq!(captured("a", || send_frames("b", 10)), 0);
        assert_eq!(by_default(&loaded, 0), 20);
    });
}

#[test]
fn a_question_is_answered_without_counting() {
    in_world(|world| {
        let kernel = world.open();
        let loaded = load(&kernel, 1, Some(Verdict::Drop), Some(Verdict::Accept));
        let ask = |loaded, hook| kernel.explain(loaded, hook, &FRAME, &Question::default()).unwrap().verdict;
        for hook in [Hook::XdpIngress, Hook::TcIngress] {
            assert_eq!(ask(&loaded, hook), u32::from(verdict::DROP), "{hook:?}");
        }
        assert_eq!(ask(&loaded, Hook::TcEgress), u32::from(verdict::ACCEPT));
        let counted: u64 = loaded.counters().unwrap().iter().map(|counter| counter.packets).sum();
        assert_eq!(counted, 0);

        let short = kernel.explain(&loaded, Hook::TcEgress, &FRAME[..13], &Question::default()).unwrap_err();
        assert!(matches!(short, KernelError::FrameTooShort { length: 13, needed: 14 }), "{short}");

        // A later daemon, which did not compile the policy, gets the same answer.
        let adopted = kernel.adopt().unwrap();
        assert_eq!(ask(&adopted[0], Hook::TcIngress), u32::from(verdict::DROP));

        let none = load(&kernel, 2, None, Some(Verdict::Drop));
        let missing = kernel.explain(&none, Hook::XdpIngress, &FRAME, &Question::default()).unwrap_err();
        assert!(matches!(missing, KernelError::NoChain { chain: "ingress" }), "{missing}");
    });
}

#[test]
fn sizes_are_those_of_the_programs_and_maps_in_the_kernel() {
    in_world(|world| {
        let kernel = world.open();
        let loaded = load(&kernel, 1, Some(Verdict::Drop), None);
        let (programs, maps) = kernel.generation_sizes(&loaded).unwrap();
        let names: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
        assert_eq!(names, ["tc_ingress", "tc_ingress_l3", "xdp_ingress"]);
        assert!(programs.iter().all(|program| program.translated > 0 && program.verified.unwrap() > 0), "{programs:?}");
        let arena = maps.iter().find(|map| map.name == "ARENA_INGRESS").unwrap();
        assert!(arena.bytes >= 64, "{maps:?}");
        let (programs, _) = kernel.sizes().unwrap();
        assert_eq!(programs.len(), 7);
    });
}

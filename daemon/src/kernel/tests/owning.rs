//! Who owns the pins, and what is there after a daemon has gone.

use ringfence_policy::model::Verdict;

use super::world::{by_default, captured, device, in_world, ip, load, pinned, send_frames};
use crate::kernel::{IngressHook, Kernel, KernelError, cell::NOTHING};

#[test]
fn a_second_owner_is_refused_while_the_first_lives() {
    in_world(|world| {
        let first = world.open();
        assert!(matches!(Kernel::open(&world.bpffs(), None), Err(KernelError::Owned { .. })));
        drop(first);
        world.open();
    });
}

#[test]
fn a_directory_elsewhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = Kernel::open(&directory.path().join("ringfence"), None).unwrap_err();
    assert!(matches!(error, KernelError::NotBpffs { .. }), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was made there");
}

#[test]
fn a_pin_of_another_shape_is_refused() {
    in_world(|world| {
        let kernel = world.open();
        let (cell, misses) = (kernel.pins.map("CELL"), kernel.pins.map("DISPATCH_MISS"));
        drop(kernel);
        std::fs::remove_file(&cell).unwrap();
        std::fs::rename(&misses, &cell).unwrap();
        let error = Kernel::open(&world.bpffs(), None).unwrap_err();
        assert!(matches!(&error, KernelError::Foreign { path } if *path == cell), "{error}");
    });
}

#[test]
fn enforcement_outlives_its_owner_and_is_adopted() {
    in_world(|world| {
        let a = device("a");
        let kernel = world.open();
        let loaded = load(&kernel, 7, Some(Verdict::Drop), Some(Verdict::Accept));
        let slot = loaded.slot;
        kernel.flip(slot, slot, 0);
        let reports = kernel.attach(a, Some(IngressHook::Xdp), true).unwrap();
        let ids = kernel.dispatchers.ids();
        drop((kernel, loaded));

        assert_eq!(captured("a", || send_frames("b", 10)), 0, "dropped with no daemon there");

        let kernel = world.open();
        assert_eq!(kernel.dispatchers.ids(), ids, "the dispatchers are the same programs");
        assert_eq!(kernel.attach(a, Some(IngressHook::Xdp), true).unwrap(), reports, "nothing is attached twice");
        assert_eq!(kernel.cell().current, slot);
        let adopted = kernel.adopt().unwrap();
        assert_eq!(adopted.iter().map(|loaded| (loaded.number, loaded.slot)).collect::<Vec<_>>(), [(7, slot)]);
        assert_eq!(by_default(&adopted[0], 0), 10, "what was counted meanwhile is there");
        send_frames("b", 5);
        assert_eq!(by_default(&adopted[0], 0), 15);
    });
}

#[test]
fn what_an_interrupted_load_left_is_removed() {
    in_world(|world| {
        let kernel = world.open();
        let whole = load(&kernel, 1, Some(Verdict::Drop), None);
        kernel.flip(whole.slot, whole.slot, 0);
        let other = load(&kernel, 2, Some(Verdict::Accept), None);
        // As if the daemon had died just before the generation was whole.
        std::fs::rename(&other.directory, kernel.pins.loading(other.slot)).unwrap();
        drop(kernel);

        let kernel = world.open();
        assert_eq!(kernel.adopt().unwrap().len(), 1);
        assert_eq!(pinned(&kernel.pins.root().join("gen")), [format!("1-{}", whole.slot)]);
        let index = u32::from(other.slot) * ringfence_abi::generation::VARIANTS;
        assert_eq!(kernel.maps.xdp.get(&index).unwrap(), None, "its slot is empty");
        assert_eq!(load(&kernel, 3, None, None).slot, other.slot, "and is used again");
    });
}

#[test]
fn off_leaves_nothing_of_ours() {
    in_world(|world| {
        let kernel = world.open();
        let a = device("a");
        let loaded = load(&kernel, 1, Some(Verdict::Drop), Some(Verdict::Drop));
        kernel.flip(loaded.slot, loaded.slot, 0);
        kernel.attach(a, Some(IngressHook::Xdp), true).unwrap();
        kernel.attach(device("b"), Some(IngressHook::Tc), false).unwrap();
        assert_eq!(captured("a", || send_frames("b", 3)), 0);
        drop(loaded);
        let root = kernel.pins.root().to_owned();
        kernel.off().unwrap();

        assert!(!root.exists());
        assert_eq!(captured("a", || send_frames("b", 3)), 3);
        // Nothing is in the way of a new beginning.
        assert_eq!(world.open().cell(), NOTHING);
    });
}

#[test]
fn a_device_that_is_gone_is_forgotten() {
    in_world(|world| {
        let kernel = world.open();
        let a = device("a");
        kernel.attach(a, Some(IngressHook::Xdp), true).unwrap();
        assert_eq!(kernel.attached_devices().unwrap(), [a.index]);
        ip(&["link", "del", "dev", "a"]);
        // Another device with the same number: the pinned links are not those of this one.
        ip(&["link", "add", "name", "c", "index", &a.index.to_string(), "type", "veth", "peer", "name", "d"]);
        ip(&["link", "set", "dev", "c", "up"]);
        ip(&["link", "set", "dev", "d", "up"]);
        let c = device("c");
        assert_eq!(c.index, a.index);
        kernel.attach(c, Some(IngressHook::Xdp), true).unwrap();
        send_frames("d", 4);
        assert_eq!(kernel.dispatch_misses().unwrap(), 4, "the new device is judged");
        ip(&["link", "del", "dev", "c"]);
        kernel.detach(c.index).unwrap();
        assert_eq!(kernel.attached_devices().unwrap(), Vec::<u32>::new());
    });
}

//! Attaching beside others.

use std::os::fd::{AsFd as _, OwnedFd};

use aya_obj::generated::{
    XDP_FLAGS_SKB_MODE,
    bpf_attach_type::{BPF_TCX_EGRESS, BPF_TCX_INGRESS, BPF_XDP},
};
use ringfence_abi::names;
use ringfence_policy::model::Verdict;

use super::world::{by_default, captured, device, in_world, load, run, send_frames};
use crate::kernel::{Attached, Device, Direction, IngressHook, Kernel, objects::DISPATCH, sys};

/// A program that another owner has loaded; it lets everything pass.
fn foreign(kernel: &Kernel, name: &'static str) -> OwnedFd {
    let mut object = DISPATCH.open(&kernel.pins, &[], &[]).unwrap();
    DISPATCH.load(&mut object, name).unwrap()
}

fn id(program: &OwnedFd) -> u32 {
    let text =
        run("cat", &[&format!("/proc/{}/fdinfo/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(program))]);
    text.lines().find_map(|line| line.strip_prefix("prog_id:")).unwrap().trim().parse().unwrap()
}

fn at(device: Device<'_>, kind: aya_obj::generated::bpf_attach_type) -> Vec<u32> {
    sys::attached(device.index, kind as u32).unwrap()
}

#[test]
fn native_xdp_and_tcx_are_used_where_they_can_be() {
    in_world(|world| {
        let kernel = world.open();
        let a = device("a");
        let reports = kernel.attach(a, Some(IngressHook::Xdp), true).unwrap();
        let seen: Vec<_> = reports.iter().map(|report| (report.direction, report.how)).collect();
        assert_eq!(seen, [(Direction::Ingress, Attached::NativeXdp), (Direction::Egress, Attached::Tcx)]);
        assert!(reports.iter().all(|report| report.degraded_because.is_none()));
        assert!(run("ip", &["-d", "link", "show", "dev", "a"]).contains("prog/xdp"), "in the driver, not generic");
        kernel.detach(a.index).unwrap();
        assert!(!run("ip", &["-d", "link", "show", "dev", "a"]).contains("xdp"));
        assert!(at(a, BPF_TCX_EGRESS).is_empty());
    });
}

#[test]
fn a_device_without_ethernet_headers_is_judged_at_tc() {
    in_world(|world| {
        let kernel = world.open();
        let tun = Device { l3: true, ..device("a") };
        let reports = kernel.attach(tun, Some(IngressHook::Xdp), true).unwrap();
        assert_eq!(reports[0].how, Attached::Tcx);
        assert!(reports[0].degraded_because.as_ref().unwrap().contains("no Ethernet headers"));
        assert_eq!(at(tun, BPF_TCX_INGRESS), [kernel.dispatchers.get(names::DISPATCH_TC_IN_L3).unwrap().id]);
        assert_eq!(at(tun, BPF_TCX_EGRESS), [kernel.dispatchers.get(names::DISPATCH_TC_OUT_L3).unwrap().id]);
    });
}

#[test]
fn the_ingress_hook_changes_without_a_gap_and_goes_on_request() {
    in_world(|world| {
        let kernel = world.open();
        let a = device("a");
        let drop = load(&kernel, 1, Some(Verdict::Drop), Some(Verdict::Drop));
        kernel.flip(drop.slot, drop.slot, 0);
        kernel.attach(a, Some(IngressHook::Xdp), true).unwrap();
        kernel.attach(a, Some(IngressHook::Tc), true).unwrap();
        send_frames("b", 3);
        assert_eq!(by_default(&drop, 0), 3, "judged once");
        kernel.attach(a, Some(IngressHook::Xdp), true).unwrap();
        assert!(at(a, BPF_TCX_INGRESS).is_empty());
        send_frames("b", 3);
        assert_eq!(by_default(&drop, 0), 6, "judged once");
        assert!(kernel.attach(a, None, false).unwrap().is_empty());
        assert_eq!(captured("a", || send_frames("b", 3)), 3);
        assert_eq!(captured("b", || send_frames("a", 3)), 3);
    });
}

#[test]
fn a_foreign_xdp_program_stays_and_we_go_to_tcx() {
    for (flags, because) in [(0, "another XDP program"), (XDP_FLAGS_SKB_MODE, "generic XDP program")] {
        in_world(move |world| {
            let kernel = world.open();
            let a = device("a");
            let theirs = foreign(&kernel, names::PASS_XDP);
            let link = sys::link_create(theirs.as_fd(), a.index, BPF_XDP as u32, flags).unwrap();
            let drop = load(&kernel, 1, Some(Verdict::Drop), None);
            kernel.flip(drop.slot, drop.slot, 0);

            let reports = kernel.attach(a, Some(IngressHook::Xdp), false).unwrap();
            assert_eq!(reports[0].how, Attached::Tcx);
            let reason = reports[0].degraded_because.as_ref().unwrap();
            assert!(reason.contains(because), "{reason}");
            send_frames("b", 4);
            assert_eq!(by_default(&drop, 0), 4);

            let info = || sys::link_info(link.as_fd()).unwrap();
            kernel.detach_all().unwrap();
            assert_eq!(info().ifindex, a.index, "theirs is attached still");
            // Without theirs, the next attach is native.
            sys::link_detach(link.as_fd()).unwrap();
            assert_eq!(kernel.attach(a, Some(IngressHook::Xdp), false).unwrap()[0].how, Attached::NativeXdp);
        });
    }
}

#[test]
fn a_foreign_tcx_program_stays_behind_ours() {
    in_world(|world| {
        let kernel = world.open();
        let a = device("a");
        let theirs = foreign(&kernel, names::PASS_TC);
        let _links = [BPF_TCX_INGRESS, BPF_TCX_EGRESS]
            .map(|kind| sys::link_create(theirs.as_fd(), a.index, kind as u32, 0).unwrap());
        kernel.attach(a, Some(IngressHook::Tc), true).unwrap();
        let ours = |name| kernel.dispatchers.get(name).unwrap().id;
        assert_eq!(at(a, BPF_TCX_INGRESS), [ours(names::DISPATCH_TC_IN), id(&theirs)]);
        assert_eq!(at(a, BPF_TCX_EGRESS), [ours(names::DISPATCH_TC_OUT), id(&theirs)]);
        kernel.off().unwrap();
        assert_eq!(at(a, BPF_TCX_INGRESS), [id(&theirs)]);
        assert_eq!(at(a, BPF_TCX_EGRESS), [id(&theirs)]);
    });
}

#[test]
fn without_tcx_a_clsact_filter_of_our_own_is_used() {
    in_world(|world| {
        let mut kernel = world.open();
        // As on a kernel before 6.6.
        kernel.tcx = false;
        let a = device("a");
        let loaded = load(&kernel, 1, Some(Verdict::Drop), Some(Verdict::Accept));
        kernel.flip(loaded.slot, loaded.slot, 0);
        let filters = |side| run("tc", &["filter", "show", "dev", "a", side]);
        // Somebody else's filter.
        let pin = world.bpffs().with_file_name("theirs");
        sys::pin(foreign(&kernel, names::PASS_TC).as_fd(), &pin).unwrap();
        run("tc", &["qdisc", "add", "dev", "a", "clsact"]);
        let theirs = ["bpf", "da", "object-pinned", pin.to_str().unwrap()];
        run("tc", &[&["filter", "add", "dev", "a", "ingress", "prio", "9"][..], &theirs].concat());

        for _ in 0..2 {
            let reports = kernel.attach(a, Some(IngressHook::Tc), true).unwrap();
            assert!(reports.iter().all(|report| report.how == Attached::Clsact), "{reports:?}");
            assert_eq!(filters("ingress").matches("handle 0x52460001").count(), 1, "{}", filters("ingress"));
        }
        send_frames("b", 4);
        assert_eq!(captured("b", || send_frames("a", 2)), 2);
        assert_eq!((by_default(&loaded, 0), by_default(&loaded, 1)), (4, 2));

        // They are found again by a later owner.
        drop(kernel);
        let mut kernel = world.open();
        kernel.tcx = false;
        assert_eq!(kernel.attached_devices().unwrap(), [a.index]);
        kernel.detach_all().unwrap();
        assert!(!filters("ingress").contains("dispatch"), "{}", filters("ingress"));
        assert!(!filters("egress").contains("dispatch"));
        assert!(filters("ingress").contains("theirs"), "theirs is there still: {}", filters("ingress"));
    });
}

//! Attaching the dispatchers to devices, and detaching them.
//!
//! A link is pinned as `links/IFINDEX-HOOK`; it ends with its pin, or with its device. What is not pinned there is
//! not ours and is never touched, with the exception of clsact filters, which cannot be pinned (see `clsact`).

use std::io;

use aya_obj::generated::{
    BPF_F_BEFORE, XDP_FLAGS_DRV_MODE,
    bpf_attach_type::{self, BPF_TCX_EGRESS, BPF_TCX_INGRESS, BPF_XDP},
};
use ringfence_abi::names;
use std::os::fd::AsFd as _;

use super::{
    Kernel, clsact,
    dispatchers::Dispatcher,
    error::{Context as _, Result},
    pins, sys,
};
use crate::faults::reach;

/// A network device.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name.
    pub name: &'a str,
    /// Its frames begin at the IP header (`WireGuard`, `tun`).
    pub l3: bool,
}

/// Where arriving packets should be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressHook {
    /// In the driver, where it can; else at TC.
    Xdp,
    /// At TC: the policy reads what XDP does not show.
    Tc,
}

/// Direction of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Arriving.
    Ingress,
    /// Leaving.
    Egress,
}

/// How a dispatcher is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// By a link at XDP in the driver.
    NativeXdp,
    /// By a tcx link (kernel 6.6).
    Tcx,
    /// As a filter of a clsact qdisc (before kernel 6.6).
    Clsact,
}

/// What came of attaching in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachReport {
    /// The direction.
    pub direction: Direction,
    /// How it is attached now.
    pub how: Attached,
    /// Why it is not the hook that was asked for.
    pub degraded_because: Option<String>,
}

/// A kind of link.
struct Hook {
    pin: &'static str,
    kind: bpf_attach_type,
    flags: u32,
}

const XDP: Hook = Hook { pin: "xdp", kind: BPF_XDP, flags: XDP_FLAGS_DRV_MODE };
// Before all others: a program that says TC_ACT_OK ends the chain, and what follows it would not see the packet.
const TCX_IN: Hook = Hook { pin: "tcx-in", kind: BPF_TCX_INGRESS, flags: BPF_F_BEFORE };
const TCX_OUT: Hook = Hook { pin: "tcx-out", kind: BPF_TCX_EGRESS, flags: BPF_F_BEFORE };
const HOOKS: [Hook; 3] = [XDP, TCX_IN, TCX_OUT];

impl Kernel {
    /// Brings a device into this state: judged on arrival at the hook asked for (`None`: not at all), and when leaving
    /// or not. What is attached already stays; a new hook is attached before an old one is detached, so that no packet
    /// slips through between them. After an error the device is as far as it got.
    pub fn attach(&self, device: Device<'_>, ingress: Option<IngressHook>, egress: bool) -> Result<Vec<AttachReport>> {
        let mut reports = Vec::new();
        if let Some(hook) = ingress {
            reports.push(self.attach_ingress(device, hook)?);
        } else {
            self.detach_hook(device.index, &XDP)?;
            self.detach_tc(device.index, Direction::Ingress)?;
        }
        if egress {
            let how = self.attach_tc(device, Direction::Egress)?;
            reports.push(AttachReport { direction: Direction::Egress, how, degraded_because: None });
        } else {
            self.detach_tc(device.index, Direction::Egress)?;
        }
        Ok(reports)
    }

    /// Detaches whatever of ours is attached to a device, which may be gone.
    pub fn detach(&self, ifindex: u32) -> Result<()> {
        self.detach_hook(ifindex, &XDP)?;
        self.detach_tc(ifindex, Direction::Ingress)?;
        self.detach_tc(ifindex, Direction::Egress)
    }

    /// Detaches from all devices.
    pub fn detach_all(&self) -> Result<()> {
        self.attached_devices()?.into_iter().try_for_each(|ifindex| self.detach(ifindex))
    }

    /// Numbers of the devices something of ours is attached to, or was when they disappeared.
    pub fn attached_devices(&self) -> Result<Vec<u32>> {
        let pinned = pins::names(&self.pins.links())?;
        let mut found: Vec<u32> = pinned.iter().filter_map(|name| name.split_once('-')?.0.parse().ok()).collect();
        if !self.tcx {
            found.extend(clsact::devices(|program| self.dispatchers.owns(program))?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn attach_ingress(&self, device: Device<'_>, hook: IngressHook) -> Result<AttachReport> {
        let report = |how, degraded_because| AttachReport { direction: Direction::Ingress, how, degraded_because };
        let degraded_because = match hook {
            IngressHook::Tc => None,
            IngressHook::Xdp if device.l3 => Some("the device has no Ethernet headers".to_owned()),
            IngressHook::Xdp => match self.link(device.index, &XDP, self.dispatchers.get(names::DISPATCH_XDP)?) {
                Ok(()) => {
                    self.detach_tc(device.index, Direction::Ingress)?;
                    return Ok(report(Attached::NativeXdp, None));
                }
                // Never generic XDP: it costs more than TC and sees less.
                Err(error) => Some(xdp_refusal(&error)),
            },
        };
        let how = self.attach_tc(device, Direction::Ingress)?;
        self.detach_hook(device.index, &XDP)?;
        Ok(report(how, degraded_because))
    }

    fn attach_tc(&self, device: Device<'_>, direction: Direction) -> Result<Attached> {
        let (hook, name) = match (direction, device.l3) {
            (Direction::Ingress, false) => (&TCX_IN, names::DISPATCH_TC_IN),
            (Direction::Ingress, true) => (&TCX_IN, names::DISPATCH_TC_IN_L3),
            (Direction::Egress, false) => (&TCX_OUT, names::DISPATCH_TC_OUT),
            (Direction::Egress, true) => (&TCX_OUT, names::DISPATCH_TC_OUT_L3),
        };
        let program = self.dispatchers.get(name)?;
        if self.tcx {
            let attached = self.link(device.index, hook, program);
            attached.context(|| format!("cannot attach to {} at tcx", device.name))?;
            return Ok(Attached::Tcx);
        }
        clsact::attach(device, direction, &self.pins.program(name), program.id, |id| self.formers.own(id))?;
        Ok(Attached::Clsact)
    }

    fn detach_tc(&self, ifindex: u32, direction: Direction) -> Result<()> {
        let hook = match direction {
            Direction::Ingress => &TCX_IN,
            Direction::Egress => &TCX_OUT,
        };
        self.detach_hook(ifindex, hook)?;
        if self.tcx { Ok(()) } else { clsact::detach(ifindex, direction, |id| self.dispatchers.owns(id)) }
    }

    /// Makes sure that a pinned link joins the program to the device.
    fn link(&self, ifindex: u32, hook: &Hook, program: &Dispatcher) -> io::Result<()> {
        let path = self.pins.link(ifindex, hook.pin);
        if let Some(link) = sys::open_pin(&path)? {
            // A link whose device is gone says 0, also when another device has its number now.
            if sys::link_info(link.as_fd())? == (sys::LinkInfo { program: program.id, ifindex }) {
                return Ok(());
            }
            std::fs::remove_file(&path)?;
        }
        if let Some(taken_over) = self.formers.take_over(ifindex, hook.pin, program)? {
            return taken_over.keep(&path);
        }
        let link = sys::link_create(program.fd.as_fd(), ifindex, hook.kind as u32, hook.flags)?;
        reach("attach/linked");
        // Not pinned, the link ends here.
        sys::pin(link.as_fd(), &path)?;
        reach("attach/pinned");
        Ok(())
    }

    fn detach_hook(&self, ifindex: u32, hook: &Hook) -> Result<()> {
        let path = self.pins.link(ifindex, hook.pin);
        let what = || format!("cannot detach {}", path.display());
        if let Some(link) = sys::open_pin(&path).context(what)? {
            // Detached at once, even if somebody looks at the link just now and so keeps it.
            match sys::link_detach(link.as_fd()) {
                Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => return Err(error).context(what),
                _ => {}
            }
        }
        pins::remove(&path)
    }

    /// What of ours the kernel still runs on a device, for `off`.
    pub(super) fn left_on(&self, ifindex: u32) -> bool {
        let at = |hook: &Hook| sys::attached(ifindex, hook.kind as u32).unwrap_or_default();
        HOOKS.iter().any(|hook| at(hook).iter().any(|id| self.dispatchers.owns(*id)))
    }
}

/// What a refusal of native XDP means, in the words of an administrator.
fn xdp_refusal(error: &io::Error) -> String {
    let meaning = match error.raw_os_error() {
        Some(libc::EBUSY) => "another XDP program is attached",
        Some(libc::EEXIST) => "a generic XDP program is attached",
        Some(libc::EOPNOTSUPP) => "the driver has no native XDP, or not with the device's present settings",
        Some(libc::ERANGE | libc::EINVAL) => "the driver refuses XDP with the device's present MTU or features",
        _ => "native XDP cannot be had",
    };
    format!("{meaning} ({error})")
}

impl From<Direction> for &'static str {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

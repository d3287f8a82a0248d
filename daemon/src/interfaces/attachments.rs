//! What is attached to which interface, and how it came to be so.

use std::collections::{BTreeMap, BTreeSet};

use super::ethtool::may_strip_vlan;
use super::link::Link;
use super::select::{Demand, Ingress, Unsupported, Wanted};
use super::watch::Network;
use crate::error::{Result, with_sources};
use crate::kernel::{AttachReport, Device, IngressHook, Kernel};

/// An interface that is covered.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What the policy asks for.
    pub wanted: Wanted,
    /// What came of it.
    pub reports: Vec<AttachReport>,
    /// Why it is not attached as wanted.
    pub failure: Option<String>,
}

/// All of them, by interface number.
#[derive(Clone, Debug, Default)]
pub struct Attachments {
    /// Covered interfaces.
    pub all: BTreeMap<u32, Attachment>,
    /// Covered by the policy, but nothing can judge them.
    pub unsupported: Vec<Unsupported>,
}

/// Which steps of bringing the interfaces to what a policy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Only what is safe for the old generation too: more interfaces, and TC instead of XDP.
    BeforeFlip,
    /// Everything, also taking away.
    Final,
}

impl Attachments {
    /// Brings the interfaces to what `demand` wants. Failures are kept, with the interface they belong to; the first is
    /// returned too.
    pub fn reconcile(&mut self, kernel: &Kernel, demand: &Demand, network: &Network, step: Step) -> Option<String> {
        let (mut wanted, unsupported) = demand.wanted(&network.links, &network.default_routes, may_strip_vlan);
        if step == Step::BeforeFlip {
            for (index, want) in &mut wanted {
                if let Some(now) = self.all.get(index).filter(|now| now.wanted.name == want.name) {
                    want.ingress = both(now.wanted.ingress, want.ingress);
                    want.egress |= now.wanted.egress;
                }
            }
        } else {
            self.unsupported = unsupported;
            let left: Vec<u32> = self.all.keys().copied().filter(|index| !wanted.contains_key(index)).collect();
            for index in left {
                self.detach(kernel, index, "the policy does not cover it");
            }
        }
        let mut first = None;
        for (index, want) in wanted {
            let settled = self.all.get(&index).is_some_and(|now| now.wanted == want && now.failure.is_none());
            if !settled && let Some(failure) = self.attach(kernel, index, want) {
                first.get_or_insert(failure);
            }
        }
        first
    }

    fn attach(&mut self, kernel: &Kernel, index: u32, wanted: Wanted) -> Option<String> {
        let device = Device { index, name: &wanted.name, l3: wanted.l3 };
        let hook = wanted.ingress.map(|ingress| match ingress {
            Ingress::Xdp => IngressHook::Xdp,
            Ingress::Tc(_) => IngressHook::Tc,
        });
        let (reports, failure) = match kernel.attach(device, hook, wanted.egress) {
            Ok(reports) => {
                tracing::info!(interface = wanted.name, index, ?reports, "attached");
                (reports, None)
            }
            Err(error) => {
                let reason = with_sources(&error);
                tracing::error!(interface = wanted.name, index, reason, "cannot attach");
                (Vec::new(), Some(reason))
            }
        };
        let told = failure.as_ref().map(|reason| format!("{}: {reason}", wanted.name));
        self.all.insert(index, Attachment { wanted, reports, failure });
        told
    }

    /// Detaches from an interface, which may be gone or have moved to another network namespace.
    pub fn detach(&mut self, kernel: &Kernel, index: u32, why: &str) {
        let Some(attachment) = self.all.remove(&index) else { return };
        match kernel.detach(index) {
            Ok(()) => tracing::info!(interface = attachment.wanted.name, index, why, "detached"),
            Err(error) => {
                let reason = with_sources(&error);
                tracing::warn!(interface = attachment.wanted.name, index, why, reason, "cannot detach");
            }
        }
    }

    /// After a restart: what an earlier daemon attached and this policy does not want goes; what it wants is attached
    /// again, which leaves in place what is right.
    pub fn adopt(&mut self, kernel: &Kernel, network: &Network) -> Result<()> {
        for index in kernel.attached_devices()? {
            if !network.links.contains_key(&index) {
                kernel.detach(index)?;
                continue;
            }
            // Unlike anything that is wanted, so that it is either attached anew or detached.
            let wanted = Wanted { name: String::new(), l3: false, ingress: None, egress: false };
            self.all.insert(index, Attachment { wanted, reports: Vec::new(), failure: None });
        }
        Ok(())
    }

    /// What is attached may have been lost unseen: look at everything again.
    pub fn doubt(&mut self) {
        for attachment in self.all.values_mut() {
            attachment.failure.get_or_insert_with(|| "not looked at again yet".to_owned());
        }
    }

    /// The interfaces that are covered.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        self.all.values().map(|attachment| attachment.wanted.name.as_str()).collect()
    }

    /// The covered interface of this name.
    #[must_use]
    pub fn of<'a>(&'a self, link: &Link) -> Option<&'a Attachment> {
        self.all.get(&link.index)
    }
}

/// Where both an old and a new policy see what they need: TC shows everything that XDP does.
fn both(old: Option<Ingress>, new: Option<Ingress>) -> Option<Ingress> {
    match (old, new) {
        (Some(Ingress::Tc(reason)), _) | (_, Some(Ingress::Tc(reason))) => Some(Ingress::Tc(reason)),
        (old, new) => old.or(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::select::TcReason;

    #[test]
    fn between_two_policies_a_hook_serves_both() {
        let tc = Some(Ingress::Tc(TcReason::Mark));
        let xdp = Some(Ingress::Xdp);
        assert_eq!(both(tc, xdp), tc);
        assert_eq!(both(xdp, tc), tc);
        assert_eq!(both(None, xdp), xdp);
        assert_eq!(both(xdp, None), xdp);
        assert_eq!(both(None, None), None);
    }
}

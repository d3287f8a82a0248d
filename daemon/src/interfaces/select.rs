//! Which interfaces a policy covers and where it is attached on each: a pure function of what is there.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_abi::chain::{MARK, VLAN};
use ringfence_policy::compile::Compiled;
use ringfence_policy::model::NameGlob;

use super::link::{Framing, Link};

/// Where arriving packets are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// XDP; the loader falls back to TC where the driver has none.
    Xdp,
    /// TC, for the reason given.
    Tc(TcReason),
}

/// Why a packet that arrives is judged at TC instead of XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcReason {
    /// `skb->mark` does not exist at XDP.
    Mark,
    /// The device may take the VLAN tag out of the frame before XDP sees it.
    VlanStripped,
    /// XDP programs expect an Ethernet header.
    NoEthernet,
    /// What XDP sends out of a veth arrives only where the other end polls.
    Answers,
}

impl TcReason {
    /// For `ringctl status`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Mark => "a rule reads `mark`, which XDP does not have",
            Self::VlanStripped => "a rule reads `vlan`, and the device may strip tags before XDP",
            Self::NoEthernet => "the device has no Ethernet header",
            Self::Answers => "a rule rejects or protects, and a veth may lose the answers that XDP sends",
        }
    }
}

/// What must be attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its frames begin at the IP header.
    pub l3: bool,
    /// `None`: the policy has no ingress chain.
    pub ingress: Option<Ingress>,
    /// Whether the policy has an egress chain.
    pub egress: bool,
}

/// An interface that the policy covers and no program can judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Its name.
    pub name: String,
    /// The kernel's `ARPHRD_*`.
    pub link_type: u16,
}

/// What a policy asks of interfaces.
#[expect(clippy::struct_excessive_bools, reason = "independent facts about a policy, not states of something")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// `network: interfaces:`; `None`: the default selection.
    pub interfaces: Option<Vec<NameGlob>>,
    /// There is an ingress chain.
    pub ingress: bool,
    /// There is an egress chain.
    pub egress: bool,
    /// A rule of the ingress chain reads `mark`.
    pub reads_mark: bool,
    /// A rule of the ingress chain reads `vlan`.
    pub reads_vlan: bool,
    /// The ingress chain rejects something, or gives SYN cookies.
    pub answers: bool,
}

impl Demand {
    /// What a compiled policy asks.
    #[must_use]
    pub fn of(interfaces: Option<Vec<NameGlob>>, compiled: &Compiled) -> Self {
        let reads = |field: usize| compiled.ingress.as_ref().is_some_and(|c| c.consts.active >> field & 1 == 1);
        Self {
            interfaces,
            ingress: compiled.ingress.is_some(),
            egress: compiled.egress.is_some(),
            reads_mark: reads(MARK),
            reads_vlan: reads(VLAN),
            answers: compiled.ingress.as_ref().is_some_and(|c| c.consts.answers | c.consts.cookies != 0),
        }
    }

    /// Whether the policy covers the interface. `default_routes` are the interfaces that carry one.
    #[must_use]
    pub fn covers(&self, link: &Link, default_routes: &BTreeSet<u32>) -> bool {
        if let Some(globs) = &self.interfaces {
            return globs.iter().any(|glob| glob.matches(&link.name));
        }
        let named_only = link.loopback || link.only_when_named;
        !named_only && link.master.is_none() && (link.hardware || default_routes.contains(&link.index))
    }

    /// What must be attached, by interface number, and what cannot be. `strips_vlan` is asked only where it matters.
    pub fn wanted(
        &self,
        links: &BTreeMap<u32, Link>,
        default_routes: &BTreeSet<u32>,
        strips_vlan: impl Fn(&str) -> bool,
    ) -> (BTreeMap<u32, Wanted>, Vec<Unsupported>) {
        let (mut wanted, mut unsupported) = (BTreeMap::new(), Vec::new());
        if !self.ingress && !self.egress {
            return (wanted, unsupported);
        }
        for link in links.values().filter(|link| self.covers(link, default_routes)) {
            if let Framing::Other(link_type) = link.framing {
                unsupported.push(Unsupported { name: link.name.clone(), link_type });
                continue;
            }
            let l3 = link.framing == Framing::Ip;
            let reason = if l3 {
                Some(TcReason::NoEthernet)
            } else if self.reads_mark {
                Some(TcReason::Mark)
            } else if self.reads_vlan && strips_vlan(&link.name) {
                Some(TcReason::VlanStripped)
            } else if self.answers && link.veth {
                Some(TcReason::Answers)
            } else {
                None
            };
            let ingress = self.ingress.then(|| reason.map_or(Ingress::Xdp, Ingress::Tc));
            wanted.insert(link.index, Wanted { name: link.name.clone(), l3, ingress, egress: self.egress });
        }
        (wanted, unsupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            framing: Framing::Ethernet,
            loopback: false,
            master: None,
            hardware: false,
            only_when_named: false,
            veth: false,
            address: [0; 6],
        }
    }

    fn machine() -> BTreeMap<u32, Link> {
        let links = [
            Link { loopback: true, ..link(1, "lo") },
            Link { hardware: true, ..link(2, "eth0") },
            Link { hardware: true, master: Some(4), ..link(3, "eth1") },
            Link { only_when_named: true, ..link(4, "br0") },
            Link { framing: Framing::Ip, ..link(5, "wg0") },
            Link { only_when_named: true, veth: true, ..link(6, "veth7") },
            link(7, "bond0"),
            Link { framing: Framing::Other(32), hardware: true, ..link(8, "ib0") },
        ];
        links.into_iter().map(|link| (link.index, link)).collect()
    }

    fn demand(globs: Option<&[&str]>) -> Demand {
        let interfaces = globs.map(|list| list.iter().map(|glob| NameGlob((*glob).into())).collect());
        Demand { interfaces, ingress: true, egress: true, reads_mark: false, reads_vlan: false, answers: false }
    }

    fn names(wanted: &BTreeMap<u32, Wanted>) -> Vec<&str> {
        wanted.values().map(|w| w.name.as_str()).collect()
    }

    #[test]
    fn the_default_takes_hardware_and_default_routes_without_masters_bridges_and_veths() {
        let routes = BTreeSet::from([4, 5, 6]);
        let (wanted, unsupported) = demand(None).wanted(&machine(), &routes, |_| false);
        assert_eq!(names(&wanted), ["eth0", "wg0"]);
        assert_eq!(unsupported, [Unsupported { name: "ib0".into(), link_type: 32 }]);
        // A bond counts when it carries the default route.
        let (wanted, _) = demand(None).wanted(&machine(), &BTreeSet::from([7]), |_| false);
        assert_eq!(names(&wanted), ["eth0", "bond0"]);
    }

    #[test]
    fn globs_take_what_they_name_and_nothing_else() {
        let (wanted, unsupported) =
            demand(Some(&["lo", "eth?", "veth*"])).wanted(&machine(), &BTreeSet::from([2, 5]), |_| false);
        assert_eq!(names(&wanted), ["lo", "eth0", "eth1", "veth7"]);
        assert!(unsupported.is_empty());
        assert!(demand(Some(&["ppp*"])).wanted(&machine(), &BTreeSet::new(), |_| false).0.is_empty());
    }

    #[test]
    fn the_ingress_hook_is_xdp_unless_something_speaks_against_it() {
        let hook = |demand: Demand, name: &str, strips: bool| {
            let (wanted, _) = demand.wanted(&machine(), &BTreeSet::new(), |_| strips);
            wanted.values().find(|w| w.name == name).and_then(|w| w.ingress)
        };
        let all = demand(Some(&["*"]));
        assert_eq!(hook(all.clone(), "eth0", true), Some(Ingress::Xdp));
        assert_eq!(hook(all.clone(), "wg0", false), Some(Ingress::Tc(TcReason::NoEthernet)));
        let vlan = Demand { reads_vlan: true, ..all.clone() };
        assert_eq!(hook(vlan.clone(), "eth0", true), Some(Ingress::Tc(TcReason::VlanStripped)));
        assert_eq!(hook(vlan, "eth0", false), Some(Ingress::Xdp));
        let mark = Demand { reads_mark: true, ..all.clone() };
        assert_eq!(hook(mark, "eth0", false), Some(Ingress::Tc(TcReason::Mark)));
        let answers = Demand { answers: true, ..all.clone() };
        assert_eq!(hook(answers.clone(), "veth7", false), Some(Ingress::Tc(TcReason::Answers)));
        assert_eq!(hook(answers, "eth0", false), Some(Ingress::Xdp));
        assert_eq!(hook(all.clone(), "veth7", false), Some(Ingress::Xdp));
        assert_eq!(hook(Demand { ingress: false, ..all.clone() }, "eth0", false), None);
        let neither = Demand { ingress: false, egress: false, ..all };
        assert!(neither.wanted(&machine(), &BTreeSet::new(), |_| false).0.is_empty());
    }
}

//! Interfaces, addresses and neighbours of a [`Host`], over rtnetlink.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, RawFd},
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    Handle, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, RouteMessageBuilder,
    packet_route::{
        address::AddressHeaderFlags,
        link::{InfoData, InfoVeth, LinkAttribute, LinkMessage, MacVlanMode},
    },
};

use super::Host;

impl Host {
    /// Connects two hosts by a veth pair: `name` here, `peer_name` in `peer`. Both ends are down.
    pub fn veth(&self, name: &str, peer: &Self, peer_name: &str) -> Result<()> {
        self.veth_of(1, name, peer, peer_name)
    }

    /// The same with this many queues each way: what that many CPUs send at once is received by as many.
    pub fn veth_of(&self, queues: u32, name: &str, peer: &Self, peer_name: &str) -> Result<()> {
        let message = veth(queues, name, peer_name, peer.network.as_raw_fd());
        self.netlink(async |handle| handle.link().add(message).execute().await)
            .with_context(|| format!("cannot add veth {name}"))
    }

    /// Adds the VLAN device `name` on top of `base`. Needs a kernel with 8021q.
    pub fn vlan(&self, base: &str, name: &str, id: u16) -> Result<()> {
        let message = LinkVlan::new(name, self.index(base)?, id).build();
        self.netlink(async |handle| handle.link().add(message).execute().await)
            .with_context(|| format!("cannot add vlan {name}"))
    }

    /// Adds the device `name` on top of `base`, with statistics of its own. It is up, and nothing of IPv6 is sent by it unasked.
    pub fn beside(&self, base: &str, name: &str) -> Result<()> {
        let message = LinkMacVlan::new(name, self.index(base)?, MacVlanMode::Private).build();
        self.netlink(async |handle| handle.link().add(message).execute().await)
            .with_context(|| format!("cannot add macvlan {name}"))?;
        self.run(|| fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1"))??;
        self.up(name)
    }

    /// A figure of an interface's statistics, such as `tx_dropped`.
    pub fn statistic(&self, name: &str, figure: &str) -> Result<u64> {
        let text = self.run(|| fs::read_to_string(format!("/sys/class/net/{name}/statistics/{figure}")))?;
        Ok(text.with_context(|| format!("no {figure} of {name}"))?.trim().parse()?)
    }

    /// Brings an interface up.
    pub fn up(&self, name: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(self.index(name)?).up().build();
        self.netlink(async |handle| handle.link().set(message).execute().await)
            .with_context(|| format!("cannot bring {name} up"))
    }

    /// Gives an interface another name.
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        // 6.1 renames no interface that is up (EBUSY), 6.12 does.
        let index = self.index(name)?;
        let steps = [LinkUnspec::new_with_index(index).down(), LinkUnspec::new_with_index(index).name(new)];
        for step in steps.into_iter().chain([LinkUnspec::new_with_index(index).up()]) {
            self.netlink(async |handle| handle.link().set(step.build()).execute().await)
                .with_context(|| format!("cannot rename {name}"))?;
        }
        Ok(())
    }

    /// Deletes an interface (and, of a veth pair, the other end).
    pub fn delete(&self, name: &str) -> Result<()> {
        let index = self.index(name)?;
        self.netlink(async |handle| handle.link().del(index).execute().await)
            .with_context(|| format!("cannot delete {name}"))
    }

    /// Adds an address to an interface. It can be used at once: no other host is asked whether it has it.
    pub fn address(&self, name: &str, address: impl Into<IpAddr>, prefix: u8) -> Result<()> {
        let (index, address) = (self.index(name)?, address.into());
        self.netlink(async |handle| {
            let mut request = handle.address().add(index, address, prefix);
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            request.execute().await
        })
        .with_context(|| format!("cannot add {address} to {name}"))
    }

    /// Sends what has no better route to this gateway.
    pub fn default_route(&self, gateway: IpAddr) -> Result<()> {
        let route = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
        };
        self.netlink(async |handle| handle.route().add(route).execute().await)
            .with_context(|| format!("cannot add a route by {gateway}"))
    }

    /// Adds a permanent neighbour: no ARP or neighbour discovery is needed to reach it.
    pub fn neighbour(&self, name: &str, address: impl Into<IpAddr>, mac: [u8; 6]) -> Result<()> {
        let (index, address) = (self.index(name)?, address.into());
        self.netlink(async |handle| {
            handle.neighbours().add(index, address).link_layer_address(&mac).replace().execute().await
        })
        .with_context(|| format!("cannot add neighbour {address} to {name}"))
    }

    /// The index of an interface.
    pub fn index(&self, name: &str) -> Result<u32> {
        self.run(|| if_nametoindex(name))?.with_context(|| format!("no interface {name}"))
    }

    /// The link-layer address of an interface.
    pub fn mac(&self, name: &str) -> Result<[u8; 6]> {
        let text = self.run(|| fs::read_to_string(format!("/sys/class/net/{name}/address")))??;
        let bytes: Vec<u8> =
            text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        bytes.try_into().ok().with_context(|| format!("{name} has the link-layer address {text}"))
    }

    /// Runs one rtnetlink conversation inside the host.
    pub(crate) fn netlink<T: Send, E: Send>(&self, talk: impl AsyncFnOnce(Handle) -> Result<T, E> + Send) -> Result<T>
    where
        anyhow::Error: From<E>,
    {
        self.run(|| -> Result<T> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                Ok(talk(handle).await?)
            })
        })?
    }
}

/// Both ends in one message, so that neither is ever seen in the other's namespace.
fn veth(queues: u32, name: &str, peer_name: &str, peer: RawFd) -> LinkMessage {
    let queues = [LinkAttribute::NumTxQueues(queues), LinkAttribute::NumRxQueues(queues)];
    let mut end = LinkMessageBuilder::<LinkUnspec>::new().name(peer_name).setns_by_fd(peer).build();
    end.attributes.extend(queues.clone());
    let mut message = LinkVeth::new(name, peer_name).set_info_data(InfoData::Veth(InfoVeth::Peer(end))).build();
    message.attributes.extend(queues);
    message
}

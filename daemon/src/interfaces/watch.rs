//! Follows links, addresses and routes by rtnetlink.
//!
//! Subscribed before the first dump, so nothing falls between. When the kernel says that messages were lost (ENOBUFS),
//! or the socket breaks, everything is read anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, pin_mut};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::link::Link;

/// How long changes of addresses and routes are gathered before they are read again: a routing daemon changes many.
const GATHER: Duration = Duration::from_millis(200);
/// Before a broken socket is opened again.
const RETRY: Duration = Duration::from_secs(1);
/// Room for a burst of messages, bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What the machine's network looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Interfaces by number.
    pub links: BTreeMap<u32, Link>,
    /// Interfaces that carry a default route.
    pub default_routes: BTreeSet<u32>,
    /// Addresses of this host, each with its interface.
    pub local: BTreeMap<IpAddr, u32>,
    /// Next hops of its routes.
    pub gateways: BTreeSet<IpAddr>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface is gone from this network namespace; its number may come again.
    Gone(u32),
    /// [`Network`] has changed.
    Changed,
    /// Messages may have been lost, everything was read anew.
    Resynced,
}

/// The network as last seen, and news of it.
pub type Shared = Arc<Mutex<Network>>;

/// Follows the network until the receiver is dropped.
pub async fn follow(shared: Shared, events: mpsc::Sender<Event>) {
    while !events.is_closed() {
        if let Err(error) = session(&shared, &events).await {
            tracing::warn!(%error, "lost the rtnetlink socket, reading everything anew");
        }
        sleep(RETRY).await;
    }
}

async fn session(shared: &Shared, events: &mpsc::Sender<Event>) -> Result<(), rtnetlink::Error> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let failed = |error: std::io::Error| rtnetlink::Error::NamespaceError(error.to_string());
    let (mut connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups).map_err(failed)?;
    if let Err(error) = connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER) {
        tracing::debug!(%error, "the rtnetlink receive buffer stays as it is");
    }
    let connection = tokio::spawn(connection);
    // The task ends with the session, whichever way that ends.
    let _guard = AbortOnDrop(connection);

    let fresh = read_all(&handle).await?;
    *lock(shared) = fresh;
    if events.send(Event::Resynced).await.is_err() {
        return Ok(());
    }
    let mut reread: Option<Instant> = None;
    loop {
        let due = reread.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
        tokio::select! {
            message = messages.next() => {
                let Some((message, _)) = message else { return Ok(()) };
                let event = match message.payload {
                    NetlinkPayload::Overrun(_) => {
                        let fresh = read_all(&handle).await?;
                        *lock(shared) = fresh;
                        Some(Event::Resynced)
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => new_link(shared, &link),
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => gone(shared, &link),
                    NetlinkPayload::InnerMessage(
                        RouteNetlinkMessage::NewAddress(_)
                        | RouteNetlinkMessage::DelAddress(_)
                        | RouteNetlinkMessage::NewRoute(_)
                        | RouteNetlinkMessage::DelRoute(_),
                    ) => {
                        reread.get_or_insert_with(|| Instant::now() + GATHER);
                        None
                    }
                    _ => None,
                };
                if let Some(event) = event && events.send(event).await.is_err() {
                    return Ok(());
                }
            }
            () = sleep_until(due), if reread.is_some() => {
                reread = None;
                let mut fresh = lock(shared).clone();
                read_addresses(&handle, &mut fresh).await?;
                read_routes(&handle, &mut fresh).await?;
                let changed = {
                    let mut network = lock(shared);
                    // Links that came or went while reading are in `shared` only.
                    fresh.links.clone_from(&network.links);
                    let changed = *network != fresh;
                    *network = fresh;
                    changed
                };
                if changed && events.send(Event::Changed).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The network; a panic elsewhere does not make what was read less true.
pub fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Network> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bridge speaks of its ports in messages of its own family, which hold half of a link, and says "deleted" when a
/// port only leaves it.
fn is_bridge_message(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Bridge
}

fn new_link(shared: &Shared, message: &LinkMessage) -> Option<Event> {
    if is_bridge_message(message) {
        return None;
    }
    let link = Link::read(message)?;
    let mut network = lock(shared);
    let known = network.links.insert(link.index, link.clone());
    (known.as_ref() != Some(&link)).then_some(Event::Changed)
}

fn gone(shared: &Shared, message: &LinkMessage) -> Option<Event> {
    if is_bridge_message(message) {
        return None;
    }
    lock(shared).links.remove(&message.header.index).map(|link| Event::Gone(link.index))
}

async fn read_all(handle: &Handle) -> Result<Network, rtnetlink::Error> {
    let mut network = Network::default();
    let links = handle.link().get().execute();
    pin_mut!(links);
    while let Some(message) = links.try_next().await? {
        if let Some(link) = Link::read(&message) {
            network.links.insert(link.index, link);
        }
    }
    read_addresses(handle, &mut network).await?;
    read_routes(handle, &mut network).await?;
    Ok(network)
}

async fn read_addresses(handle: &Handle, network: &mut Network) -> Result<(), rtnetlink::Error> {
    network.local.clear();
    let addresses = handle.address().get().execute();
    pin_mut!(addresses);
    while let Some(message) = addresses.try_next().await? {
        // On a point-to-point link `Address` is the peer's; `Local` is always this host's, but IPv6 has only the former.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let either = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        network.local.extend(local.or(either).map(|address| (address, message.header.index)));
    }
    Ok(())
}

async fn read_routes(handle: &Handle, network: &mut Network) -> Result<(), rtnetlink::Error> {
    network.default_routes.clear();
    network.gateways.clear();
    let queries = [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ];
    for query in queries {
        let routes = handle.route().get(query).execute();
        pin_mut!(routes);
        while let Some(message) = routes.try_next().await? {
            take_route(&message, network);
        }
    }
    Ok(())
}

fn take_route(message: &RouteMessage, network: &mut Network) {
    if message.header.kind != RouteType::Unicast {
        return;
    }
    let default = message.header.destination_prefix_length == 0;
    take_hop(&message.attributes, None, default, network);
    for attribute in &message.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            for hop in hops {
                take_hop(&hop.attributes, Some(hop.interface_index), default, network);
            }
        }
    }
}

fn take_hop(attributes: &[RouteAttribute], interface: Option<u32>, default: bool, network: &mut Network) {
    let mut interface = interface;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                network.gateways.insert((*address).into());
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) | RouteAttribute::Via(RouteVia::Inet6(address)) => {
                network.gateways.insert((*address).into());
            }
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    if default {
        network.default_routes.extend(interface);
    }
}

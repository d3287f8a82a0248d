//! Devices without an Ethernet header (VPNs, `tun`): judged at TC, by programs that begin at the IP header.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use ringfence_api::Status;
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, Frame, Host, SERVER, Transport, Tun, families},
    traffic::{PATIENCE, SILENCE},
};

const POLICY: &str = "ringfence: 1
network:
  interfaces: [tun0]
  ingress:
    default: accept
    rules:
      - drop: {proto: udp, port: 53}
        name: no-dns
      - drop: {vlan: 0-4095}
        name: no-vlans
  egress:
    default: accept
    rules:
      - drop: {proto: udp, port: 123}
        name: no-ntp
";

struct Scene {
    host: Arc<Host>,
    tun: Tun,
    daemon: Daemon,
}

impl Scene {
    fn new() -> Result<Self> {
        let host = Arc::new(Host::new()?);
        let tun = Tun::new(&host, "tun0")?;
        host.up("tun0")?;
        host.address("tun0", SERVER.0, 24)?;
        host.address("tun0", SERVER.1, 64)?;
        let daemon = Daemon::start(&host, POLICY)?;
        Ok(Self { host, tun, daemon })
    }
}

fn udp(from: IpAddr, to: IpAddr, port: u16) -> Result<Vec<u8>> {
    Frame::new(from, to, Transport::Udp { source: 4000, destination: port }).packet()
}

#[test]
fn arriving_packets_are_judged() -> Result<()> {
    let Scene { host, tun, daemon } = Scene::new()?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        for (port, line, arrives) in [(53, "no-dns", false), (54, "default", true)] {
            let socket = host.run(|| UdpSocket::bind((server, port)))??;
            socket.set_read_timeout(Some(if arrives { PATIENCE } else { SILENCE }))?;
            let before = daemon.counters()?;
            tun.send(&udp(client, server, port)?)?;
            ensure!(socket.recv(&mut [0; 64]).is_ok() == arrives, "{server} port {port}");
            daemon.counted(&before, "ingress", line, 1)?;
        }
    }
    // A device without Ethernet headers has no tags: the field is absent.
    ensure!(daemon.counters()?.packets("ingress", "no-vlans")? == 0, "{:?}", daemon.counters()?);
    Ok(())
}

#[test]
fn leaving_packets_are_judged() -> Result<()> {
    let Scene { host, tun, daemon } = Scene::new()?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let socket = host.run(|| UdpSocket::bind((server, 0)))??;
        let payload = format!("from {server}").into_bytes();
        let leaves = |packet: &[u8]| packet.ends_with(&payload);
        let before = daemon.counters()?;
        // The kernel may tell the sender of the drop at once.
        let _ = socket.send_to(&payload, (client, 123));
        daemon.counted(&before, "egress", "no-ntp", 1)?;
        ensure!(tun.receive(SILENCE, leaves)?.is_none(), "a packet to port 123 left");
        socket.send_to(&payload, (client, 124))?;
        tun.receive(PATIENCE, leaves)?.with_context(|| format!("the packet to {client} port 124 did not leave"))?;
    }
    Ok(())
}

#[test]
fn what_is_no_ip_packet_is_dropped_as_malformed() -> Result<()> {
    let Scene { host: _host, tun, daemon } = Scene::new()?;
    let before = daemon.counters()?;
    let mut packet = udp(CLIENT.0.into(), Ipv4Addr::new(192, 0, 2, 1).into(), 54)?;
    packet.truncate(19);
    tun.send(&packet)?;
    daemon.counted(&before, "ingress", "malformed/truncated-network", 1)
}

#[test]
fn status_says_where_and_why() -> Result<()> {
    let scene = Scene::new()?;
    let status: Status = scene.daemon.json(&["status"])?;
    let hooks = &status.halves.network.hooks;
    let hook = hooks.iter().find(|hook| hook.hook == "ingress").with_context(|| format!("{status:?}"))?;
    ensure!(hook.interface.as_deref() == Some("tun0"), "{hook:?}");
    ensure!(
        hook.how.as_deref().is_some_and(|how| ["tcx", "clsact"].contains(&how)) && hook.because.is_some(),
        "{hook:?}"
    );
    Ok(())
}

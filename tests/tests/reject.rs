//! Real sockets that are told of a rejection: at XDP, at TC, on arrival and before leaving.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, Direction, Host, SERVER, Site, Tap, Tun, families},
    places::{At, PLACES},
    traffic::{PATIENCE, connection},
};

fn scene(at: At, policy: &str) -> Result<(Site, Daemon)> {
    let site = at.site()?;
    let daemon = Daemon::start(&site.server, &policy.replace("RULES:\n", &format!("rules:\n{}", at.rule())))?;
    if policy.contains("reject") {
        at.is_where(&daemon)?;
    }
    Ok((site, daemon))
}

/// Answers to what arrives leave although nothing else may, and answers to what leaves arrive.
const BOTH: &str = "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: drop
    stateless: true
    RULES:
      - reject: {proto: [tcp, udp], port: 113}
        name: ident
  egress:
    default: drop
    stateless: true
    rules:
      - reject: {proto: [tcp, udp], port: 25}
        name: no-mail
      - reject: {proto: [tcp, udp], port: 113}
";

/// Fails unless the host's connection is refused.
fn refused(host: &Host, to: SocketAddr) -> Result<()> {
    let result = host.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    let kind = result.as_ref().err().map(std::io::Error::kind);
    ensure!(kind == Some(ErrorKind::ConnectionRefused), "{to}: {result:?}");
    Ok(())
}

/// Fails unless a connected UDP socket hears of the ICMP error.
fn unreachable(host: &Host, to: SocketAddr) -> Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = host.run(|| UdpSocket::bind((any, 0)))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(b"ping")?;
    let error = socket.recv(&mut [0; 16]).err().context("an answer")?.raw_os_error();
    // As Linux translates "administratively prohibited" in each family.
    let expected = if to.is_ipv4() { libc::EHOSTUNREACH } else { libc::EACCES };
    ensure!(error == Some(expected), "{to}: {error:?}");
    Ok(())
}

#[test]
fn who_asks_is_told_at_once() -> Result<()> {
    for at in PLACES {
        let (site, daemon) = scene(at, BOTH)?;
        let before = daemon.counters()?;
        for server in families(SERVER) {
            let to = SocketAddr::new(server, 113);
            refused(&site.client, to).with_context(|| format!("{at:?}"))?;
            unreachable(&site.client, to).with_context(|| format!("{at:?}"))?;
        }
        daemon.counted(&before, "ingress", "ident", 4)?;
        daemon.counted(&before, "ingress", "reject/answered", 4)?;
        daemon.counted(&before, "egress", "default", 0)?;
    }
    Ok(())
}

#[test]
fn who_sends_from_here_is_told_at_once() -> Result<()> {
    for at in PLACES {
        let (site, daemon) = scene(at, BOTH)?;
        let before = daemon.counters()?;
        for client in families(CLIENT) {
            let to = SocketAddr::new(client, 25);
            refused(&site.server, to).with_context(|| format!("{at:?}"))?;
            unreachable(&site.server, to).with_context(|| format!("{at:?}"))?;
        }
        daemon.counted(&before, "egress", "no-mail", 4)?;
        daemon.counted(&before, "egress", "reject/answered", 4)?;
        daemon.counted(&before, "ingress", "default", 0)?;
    }
    Ok(())
}

#[test]
fn who_sends_into_a_tunnel_is_told_at_once() -> Result<()> {
    let host = Arc::new(Host::new()?);
    let _tun = Tun::new(&host, "eth0")?;
    host.up("eth0")?;
    host.address("eth0", SERVER.0, 24)?;
    host.address("eth0", SERVER.1, 64)?;
    let _daemon = Daemon::start(&host, &BOTH.replace("RULES", "rules"))?;
    for client in families(CLIENT) {
        refused(&host, SocketAddr::new(client, 25))?;
        unreachable(&host, SocketAddr::new(client, 25))?;
    }
    Ok(())
}

#[test]
fn an_established_connection_is_reset_within_its_window() -> Result<()> {
    const OPEN: &str = "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: accept
    RULES:
      - count: {proto: 253}
  egress: {default: accept}
";
    for at in PLACES {
        for (arriving, rule) in [(true, "port"), (false, "source_port")] {
            let (site, daemon) = scene(at, OPEN)?;
            let mark = at.rule();
            let mut connections = Vec::new();
            for server in families(SERVER) {
                let (mut client, mut accepted) = connection(&site.client, &site.server, SocketAddr::new(server, 80))?;
                client.write_all(b"ping")?;
                accepted.read_exact(&mut [0; 4])?;
                accepted.write_all(b"pong")?;
                client.read_exact(&mut [0; 4])?;
                connections.push((client, accepted));
            }
            let rules = format!("default: accept\n    rules:\n{mark}      - reject: {{proto: tcp, {rule}: 80}}\n");
            let open = "{default: accept}\n";
            let rejects = format!("\n    {rules}");
            let (ingress, egress) = if arriving { (rejects.as_str(), open) } else { (open, rejects.as_str()) };
            daemon.apply(&format!(
                "ringfence: 1\nnetwork:\n  interfaces: [eth0]\n  ingress: {ingress}  egress: {egress}"
            ))?;
            for (client, accepted) in connections {
                let mut sender = if arriving { client } else { accepted };
                sender.set_nonblocking(false)?;
                // More than a segment: the kernel hands it over in one piece, which the wire would see cut.
                sender.write_all(&[0x52; 8000])?;
                let result = sender.read(&mut [0; 16]);
                let kind = result.as_ref().err().map(std::io::Error::kind);
                ensure!(kind == Some(ErrorKind::ConnectionReset), "{at:?} arriving {arriving}: {result:?}");
            }
        }
    }
    Ok(())
}

/// Fails unless the frame's checksums are right.
fn whole(frame: &[u8]) -> Result<()> {
    let packet = SlicedPacket::from_ethernet(frame)?;
    match (packet.net.context("no IP")?, packet.transport.context("no transport")?) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let header = ip.header().to_header();
            ensure!(header.header_checksum == header.calc_header_checksum(), "{header:?}");
            let expected = icmp.header().icmp_type.calc_checksum(icmp.payload());
            ensure!(icmp.checksum() == expected && icmp.bytes5to8() == [0; 4], "{frame:02x?}");
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let valid = icmp.is_checksum_valid(ip.header().source(), ip.header().destination());
            ensure!(valid && icmp.bytes5to8() == [0; 4], "{frame:02x?}");
        }
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let expected = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())?;
            ensure!(tcp.checksum() == expected && tcp.rst(), "{frame:02x?}");
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let expected = tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())?;
            ensure!(tcp.checksum() == expected && tcp.rst(), "{frame:02x?}");
        }
        other => anyhow::bail!("{other:?}"),
    }
    Ok(())
}

/// A kernel leaves checksums to the device. What it left unfinished in the packet must not end up in the answer.
#[test]
fn checksums_are_whole_where_those_of_the_packet_were_left_to_the_device() -> Result<()> {
    for direction in [Direction::ToServer, Direction::FromServer] {
        let (site, _daemon) = scene(At::Veth, BOTH)?;
        let (host, tap, port) = match direction {
            Direction::ToServer => (&site.client, Tap::new(&site.client, "eth0")?, 113),
            Direction::FromServer => (&site.server, Tap::new(&site.server, "eth0")?, 25),
        };
        let targets = if direction == Direction::ToServer { SERVER } else { CLIENT };
        for target in families(targets) {
            let to = SocketAddr::new(target, port);
            // From there, and not a copy of what is sent there.
            let mac = host.mac("eth0")?;
            let answer = |frame: &[u8]| {
                let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return false };
                frame[..6] == mac
                    && match packet.transport {
                        Some(TransportSlice::Tcp(tcp)) => tcp.source_port() == port,
                        Some(TransportSlice::Icmpv4(icmp)) => icmp.type_u8() == 3,
                        Some(TransportSlice::Icmpv6(icmp)) => icmp.type_u8() == 1,
                        _ => false,
                    }
            };
            refused(host, to)?;
            whole(&tap.receive(PATIENCE, answer)?.context("no reset")?).with_context(|| format!("{direction:?}"))?;
            unreachable(host, to)?;
            whole(&tap.receive(PATIENCE, answer)?.context("no error")?).with_context(|| format!("{direction:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn explain_and_the_tests_of_a_policy_say_reject() -> Result<()> {
    let tests = "tests:
  - packet: {proto: tcp, from: 192.0.2.2, to: 192.0.2.1, port: 113, interface: eth0}
    expect: reject
    rule: ident
";
    let (_site, daemon) = scene(At::Xdp, &format!("{BOTH}{tests}"))?;
    let before = daemon.counters()?;
    let packet = "interface=eth0 from=192.0.2.2 to=192.0.2.1 proto=tcp port=113";
    daemon.ctl(["explain", "--packet", packet, "--expect", "reject"])?.done()?;
    let reply = daemon.ctl(["explain", "--packet", packet])?;
    ensure!(reply.stdout.contains("reject") && reply.stdout.contains("ident"), "{reply:?}");
    daemon.counted(&before, "ingress", "reject/answered", 0)
}

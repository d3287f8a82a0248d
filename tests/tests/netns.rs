//! The test network itself: what the other tests stand on.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use ringfence_tests::{
    foreign::Foreign,
    netns::{Frame, Host, Tap, Transport},
};

const PATIENCE: Duration = Duration::from_secs(5);
const LEFT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const LEFT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const RIGHT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// Two hosts with an `eth0` each, connected, with an IPv4 and an IPv6 address.
fn pair() -> Result<(Host, Host)> {
    let (left, right) = (Host::new()?, Host::new()?);
    left.veth("eth0", &right, "eth0")?;
    for (host, v4, v6) in [(&left, LEFT, LEFT6), (&right, RIGHT, RIGHT6)] {
        host.up("eth0")?;
        host.address("eth0", v4, 24)?;
        host.address("eth0", v6, 64)?;
    }
    Ok((left, right))
}

#[test]
fn hosts_talk_over_both_families() -> Result<()> {
    let (left, right) = pair()?;
    for to in [IpAddr::V4(LEFT), IpAddr::V6(LEFT6)] {
        let listener = left.run(|| TcpListener::bind((to, 0)))??;
        let address = listener.local_addr()?;
        thread::scope(|scope| -> Result<()> {
            let echo = scope.spawn(move || -> Result<()> {
                let (mut stream, _) = listener.accept()?;
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes)?;
                Ok(stream.write_all(&bytes)?)
            });
            let mut stream = right.run(|| TcpStream::connect_timeout(&address, PATIENCE))??;
            stream.write_all(b"ping")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            assert_eq!(answer, "ping");
            echo.join().ok().context("the echo thread panicked")?
        })?;
    }
    Ok(())
}

#[test]
fn hand_made_frames_are_real_packets() -> Result<()> {
    let (left, right) = pair()?;
    let tap = Tap::new(&right, "eth0")?;
    for (from, to) in [(IpAddr::V4(RIGHT), IpAddr::V4(LEFT)), (IpAddr::V6(RIGHT6), IpAddr::V6(LEFT6))] {
        let socket = left.run(|| UdpSocket::bind((to, 0)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        let transport = Transport::Udp { source: 4000, destination: socket.local_addr()?.port() };
        tap.send(&Frame::new(from, to, transport).bytes(right.mac("eth0")?, left.mac("eth0")?)?)?;
        let mut bytes = [0; 100];
        let (length, sender) = socket.recv_from(&mut bytes).context("the kernel did not take the frame")?;
        assert_eq!((&bytes[..length], sender.ip(), sender.port()), (&[0x52; 8][..], from, 4000));
    }
    Ok(())
}

#[test]
fn a_tap_sees_the_frames_that_arrive() -> Result<()> {
    let (left, right) = pair()?;
    let (sender, receiver) = (Tap::new(&left, "eth0")?, Tap::new(&right, "eth0")?);
    let mut frame = Frame::new(LEFT.into(), RIGHT.into(), Transport::Other(253));
    frame.payload = b"a payload that no other packet has".to_vec();
    sender.send(&frame.bytes(left.mac("eth0")?, right.mac("eth0")?)?)?;
    let seen = receiver.receive(PATIENCE, |bytes| bytes.ends_with(&frame.payload))?;
    assert_eq!(seen.context("the frame did not arrive")?[23], 253);
    Ok(())
}

#[test]
fn a_host_is_gone_with_its_last_user_and_never_the_machines_own() -> Result<()> {
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let host = Host::new()?;
    let inside = host.run(|| std::fs::read_link("/proc/thread-self/ns/net"))??;
    assert_ne!(inside, own);
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net")?, own);
    // bpffs is visible inside and is the host's own.
    host.run(|| std::fs::create_dir("/sys/fs/bpf/ours"))??;
    assert!(!std::path::Path::new("/sys/fs/bpf/ours").exists());
    assert!(host.run(|| std::path::Path::new("/sys/fs/bpf/ours").exists())?);
    Ok(())
}

#[test]
fn foreign_programs_are_attached_and_found() -> Result<()> {
    let (left, _right) = pair()?;
    let xdp = Foreign::xdp(&left, "eth0")?;
    assert_eq!(left.xdp_program("eth0")?, Some(xdp.id()?));
    Ok(())
}

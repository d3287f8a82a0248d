//! Real sockets between the hosts of a site.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto, setsockopt, socket,
    sockopt::{Ipv4RecvErr, RcvBufForce},
};

use crate::netns::Host;

/// How long an answer may take that is expected: emulated machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for an answer that must not come.
pub const SILENCE: Duration = Duration::from_millis(300);

/// A server that answers what it is sent, on one address and port of both TCP and UDP, until it is dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Echo {
    /// Starts to answer on the host.
    pub fn start(host: &Host, address: IpAddr, port: u16) -> Result<Self> {
        let address = SocketAddr::new(address, port);
        let (tcp, udp) =
            host.run(|| Ok::<_, io::Error>((TcpListener::bind(address)?, UdpSocket::bind(address)?)))??;
        tcp.set_nonblocking(true)?;
        udp.set_read_timeout(Some(Duration::from_millis(20)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tcp_stop, udp_stop) = (Arc::clone(&stop), Arc::clone(&stop));
        let threads = vec![
            thread::spawn(move || answer_tcp(&tcp, &tcp_stop)),
            thread::spawn(move || answer_udp(&udp, &udp_stop)),
        ];
        Ok(Self { address, stop, threads })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that failed has left its client without an answer: the test has seen that.
            let _ = thread.join();
        }
    }
}

fn answer_tcp(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut bytes = [0; 64];
                // A client that resets its connection is its own business.
                if let Ok(length) = stream.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..length]);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn answer_udp(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let mut bytes = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) => drop(socket.send_to(&bytes[..length], from)?),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bytes of an [`inbox`]: enough for every packet of a test.
const BUFFER: usize = 64 << 20;

/// A UDP socket of the host's that loses nothing that comes as far as it, however late it is read.
pub fn inbox(host: &Host, at: SocketAddr) -> Result<UdpSocket> {
    let socket = host.run(|| UdpSocket::bind(at))??;
    setsockopt(&socket, RcvBufForce, &BUFFER).context("cannot have a large buffer")?;
    Ok(socket)
}

/// A UDP socket of the host's for [`send_surely`].
pub fn outbox(host: &Host, at: SocketAddrV4) -> Result<UdpSocket> {
    let socket = host.run(|| UdpSocket::bind(at))??;
    // Otherwise the call succeeds although the interface had no room: UDP loses packets anyway.
    setsockopt(&socket, Ipv4RecvErr, &true).context("cannot be told of errors")?;
    Ok(socket)
}

/// Sends one packet, again as long as the interface has no room for it: none is lost before it comes to the other end.
pub fn send_surely(outbox: &UdpSocket, packet: &[u8], to: SocketAddr) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match outbox.send_to(packet, to) {
            Ok(_) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) && Instant::now() < end => thread::yield_now(),
            Err(error) => return Err(error).context("cannot send"),
        }
    }
}

/// A TCP connection between two hosts: the end of whoever began it, and the other.
pub fn connection(from: &Host, to: &Host, at: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let listener = to.run(|| TcpListener::bind(at))??;
    let near = from.run(|| TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE))??;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_nodelay(true)?;
    }
    Ok((near, far))
}

/// Whether what is written at one end of a connection is read at the other within `patience`.
pub fn crosses(from: &mut TcpStream, to: &mut TcpStream, patience: Duration) -> Result<bool> {
    to.set_read_timeout(Some(patience))?;
    from.write_all(b"word")?;
    let mut bytes = [0; 4];
    match to.read_exact(&mut bytes) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Host {
    /// Whether a TCP connection to an [`Echo`] can be made and is answered, within `patience`.
    pub fn tcp_answers(&self, from: IpAddr, to: SocketAddr, patience: Duration) -> Result<bool> {
        let connect = || -> Result<bool> {
            let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            if socket.connect_timeout(&to.into(), patience).is_err() {
                return Ok(false);
            }
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(b"ping")?;
            let mut answer = [0; 4];
            Ok(stream.read_exact(&mut answer).is_ok() && &answer == b"ping")
        };
        self.run(connect)?
    }

    /// Whether a UDP packet to an [`Echo`] is answered within `patience`.
    pub fn udp_answers(&self, from: IpAddr, to: SocketAddr, patience: Duration) -> Result<bool> {
        let ask = || -> Result<bool> {
            let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
            socket.set_read_timeout(Some(patience))?;
            socket.connect(to)?;
            socket.send(b"ping")?;
            let mut answer = [0; 4];
            Ok(socket.recv(&mut answer).is_ok() && &answer == b"ping")
        };
        self.run(ask)?
    }

    /// Whether an ICMP echo request (what `ping` sends) is answered within `patience`.
    pub fn ping_answers(&self, to: IpAddr, patience: Duration) -> Result<bool> {
        let (family, protocol, request, reply) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
        };
        let ask = || -> Result<bool> {
            let socket = socket(family, SockType::Raw, SockFlag::SOCK_NONBLOCK, protocol)?;
            let mut message = vec![request, 0, 0, 0, 0x52, 0x46, 0, 1];
            // The kernel fills in the checksum of ICMPv6 only.
            if to.is_ipv4() {
                let sum = !(u16::from(request) * 256 + 0x5246 + 1);
                message[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            sendto(socket.as_raw_fd(), &message, &SockaddrStorage::from(SocketAddr::new(to, 0)), MsgFlags::empty())?;
            let end = Instant::now() + patience;
            let mut bytes = [0; 256];
            while Instant::now() < end {
                if let Ok(length) = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                    // A raw IPv4 socket sees the IP header too, which has no options here.
                    let body = &bytes[if to.is_ipv4() { 20 } else { 0 }..length];
                    if body.first() == Some(&reply) && body.get(4..8) == Some(&message[4..8]) {
                        return Ok(true);
                    }
                } else {
                    thread::sleep(Duration::from_millis(2));
                }
            }
            Ok(false)
        };
        self.run(ask)?
    }

    /// Fails unless an [`Echo`] at `to` is reached over TCP and UDP exactly as `expected`.
    pub fn reaches(&self, from: IpAddr, to: SocketAddr, expected: bool) -> Result<()> {
        let patience = if expected { PATIENCE } else { SILENCE };
        let tcp = self.tcp_answers(from, to, patience)?;
        let udp = self.udp_answers(from, to, patience).context("cannot ask over UDP")?;
        ensure!((tcp, udp) == (expected, expected), "{from} to {to}: TCP {tcp}, UDP {udp}, expected {expected}");
        Ok(())
    }
}

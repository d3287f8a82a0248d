//! A server with a listener on some ports, and clients that connect from addresses of their choice.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringfence_tests::{
    daemon::Daemon,
    netns::{Direction, Frame, Site, Transport, Wire},
    traffic::{PATIENCE, SILENCE},
};

const SYN: u8 = 2;

/// Both hosts and the daemon on the server.
pub struct Scene {
    pub site: Site,
    pub daemon: Daemon,
}

/// Both ends of a connection.
pub struct Pair {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Scene {
    pub fn new(policy: &str) -> Result<Self> {
        let site = Site::new()?;
        let daemon = Daemon::start(&site.server, policy)?;
        Ok(Self { site, daemon })
    }

    pub fn listen(&self, at: IpAddr, port: u16) -> Result<Listener<'_>> {
        let listener = self.site.server.run(|| TcpListener::bind((at, port)))??;
        listener.set_nonblocking(true)?;
        Ok(Listener { scene: self, listener })
    }

    pub fn wire(&self) -> Result<Wire> {
        self.site.wire(Direction::ToServer)
    }

    /// Packets that a line of the ingress chain has counted.
    pub fn packets(&self, name: &str) -> Result<u64> {
        self.daemon.counters()?.packets("ingress", name)
    }

    /// Waits until a line has counted as many packets, or more: who is sent an answer may reset what he did not begin.
    pub fn counts(&self, name: &str, packets: u64) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.packets(name)?;
            if found >= packets {
                return Ok(());
            }
            ensure!(Instant::now() < end, "`{name}` has {found} packets, expected {packets}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A port of the server.
pub struct Listener<'a> {
    scene: &'a Scene,
    listener: TcpListener,
}

impl Listener<'_> {
    /// Connects from an address; `None`: nothing came back.
    pub fn connect(&self, from: IpAddr) -> Result<Option<Pair>> {
        self.connect_within(from, SILENCE)
    }

    /// Connects, which must succeed.
    pub fn reach(&self, from: IpAddr) -> Result<Pair> {
        self.connect_within(from, PATIENCE)?.with_context(|| format!("no connection from {from}"))
    }

    /// Connects once what was in the way is gone, which the programs notice when they next look.
    pub fn reach_soon(&self, from: IpAddr) -> Result<Pair> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(pair) = self.connect(from)? {
                return Ok(pair);
            }
            ensure!(Instant::now() < end, "no connection from {from}");
        }
    }

    /// Connections cannot be made any more.
    pub fn refuses(&self, from: IpAddr) -> Result<()> {
        ensure!(self.connect(from)?.is_none(), "{from} was let in");
        Ok(())
    }

    fn connect_within(&self, from: IpAddr, patience: Duration) -> Result<Option<Pair>> {
        let to = self.listener.local_addr()?;
        let client = self.scene.site.client.run(|| -> Result<Option<TcpStream>> {
            let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            Ok(socket.connect_timeout(&to.into(), patience).is_ok().then(|| TcpStream::from(socket)))
        })??;
        let Some(client) = client else { return Ok(None) };
        client.set_nodelay(true)?;
        let own = client.local_addr()?;
        let end = Instant::now() + patience;
        loop {
            match self.listener.accept() {
                // One whose client has given up meanwhile is none.
                Ok((server, peer)) if peer == own => {
                    server.set_nonblocking(false)?;
                    return Ok(Some(Pair { client, server }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Pair {
    /// Whether a word of the client's arrives.
    pub fn crosses(&mut self, patience: Duration) -> Result<bool> {
        self.server.set_read_timeout(Some(patience))?;
        self.client.write_all(b"word")?;
        match self.server.read_exact(&mut [0; 4]) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends it from both sides.
    pub fn close(mut self) -> Result<()> {
        self.client.shutdown(std::net::Shutdown::Write)?;
        self.server.set_read_timeout(Some(PATIENCE))?;
        self.server.read_to_end(&mut Vec::new())?;
        drop(self.server);
        self.client.set_read_timeout(Some(PATIENCE))?;
        self.client.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

/// Segments that begin connections with somebody's address, from as many ports; none is ever answered.
pub fn spoof(wire: &Wire, from: IpAddr, to: IpAddr, port: u16, count: u16) -> Result<()> {
    for source in 0..count {
        let transport = Transport::Tcp { source: 20_000 + source, destination: port, flags: SYN };
        wire.send(&Frame::new(from, to, transport))?;
    }
    Ok(())
}

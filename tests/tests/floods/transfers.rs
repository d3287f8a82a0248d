//! Those who have business with the server: bytes of known content there and back, over connections that last and new ones.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use ringfence_tests::netns::{CLIENT, SERVER, Site, families};

/// How long one answer may take: a flood of all that a machine can send has the processors, too.
const PATIENCE: Duration = Duration::from_mins(1);
const CHUNK: usize = 16 * 1024;
/// Chunks of a new connection.
const CHUNKS: usize = 16;
const PORT: u16 = 80;

/// Transfers that go on until they are told to end.
pub struct Transfers {
    stop: Arc<AtomicBool>,
    stop_serving: Arc<AtomicBool>,
    lasting: Vec<JoinHandle<Result<Done>>>,
    new: JoinHandle<Result<Vec<Done>>>,
    servers: Vec<JoinHandle<Result<()>>>,
}

/// A connection whose bytes all came back as they were sent.
#[derive(Debug)]
pub struct Done {
    /// Whose it is.
    pub from: SocketAddr,
    pub bytes: usize,
}

impl Transfers {
    /// A connection of each family that has begun to talk, and a client that makes one after the other.
    pub fn start(site: &Site) -> Result<Self> {
        let (stop, stop_serving) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (mut servers, mut lasting) = (Vec::new(), Vec::new());
        for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
            let listener = site.server.run(|| TcpListener::bind((server, PORT)))??;
            listener.set_nonblocking(true)?;
            let done = Arc::clone(&stop_serving);
            servers.push(thread::spawn(move || serve(&listener, &done)));
            let mut stream = connect(site, client, server)?;
            exchange(&mut stream, 0)?;
            let stop = Arc::clone(&stop);
            lasting.push(thread::spawn(move || last(&mut stream, &stop)));
        }
        let client = Arc::clone(&site.client);
        let new = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || client.run(|| visit(&stop))?)
        };
        Ok(Self { stop, stop_serving, lasting, new, servers })
    }

    /// Ends in order; the connections that lasted and the new ones.
    pub fn end(self) -> Result<(Vec<Done>, Vec<Done>)> {
        self.stop.store(true, Ordering::Relaxed);
        let new = join(self.new)?.context("a new connection")?;
        let lasting = self.lasting.into_iter().map(join).collect::<Result<Result<Vec<_>>>>()?;
        self.stop_serving.store(true, Ordering::Relaxed);
        self.servers.into_iter().map(join).collect::<Result<Result<Vec<_>>>>()??;
        Ok((lasting.context("a connection that lasts")?, new))
    }
}

fn join<T>(thread: JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the transfers panicked"))
}

/// Gives back what it gets.
fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    let mut clients = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                clients.push(thread::spawn(move || echo(stream)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.into()),
        }
    }
    clients.into_iter().try_for_each(|client| join(client)?)
}

fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = vec![0; CHUNK];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            length => stream.write_all(&bytes[..length])?,
        }
    }
}

fn connect(site: &Site, from: IpAddr, to: IpAddr) -> Result<TcpStream> {
    site.client.run(|| open(from, to))?
}

/// In the client's network.
fn open(from: IpAddr, to: IpAddr) -> Result<TcpStream> {
    let to = SocketAddr::new(to, PORT);
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE).context("cannot connect")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Sends a chunk whose content is that of `seed` alone, and reads it back.
fn exchange(stream: &mut TcpStream, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let sent: Vec<u8> = (0..CHUNK).map(|_| random.u8(..)).collect();
    let mut back = vec![0; CHUNK];
    stream.write_all(&sent).context("cannot write")?;
    stream.read_exact(&mut back).context("cannot read")?;
    ensure!(sent == back, "chunk {seed} came back as another");
    Ok(())
}

fn last(stream: &mut TcpStream, stop: &AtomicBool) -> Result<Done> {
    let from = stream.local_addr()?;
    let mut chunks = 1;
    while !stop.load(Ordering::Relaxed) {
        exchange(stream, chunks)?;
        chunks += 1;
        // Business, not a flood of its own.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(Done { from, bytes: chunks as usize * CHUNK })
}

fn visit(stop: &AtomicBool) -> Result<Vec<Done>> {
    let mut done = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let family = done.len() % 2;
        let mut stream = open(families(CLIENT)[family], families(SERVER)[family])?;
        let from = stream.local_addr()?;
        for chunk in 0..CHUNKS {
            exchange(&mut stream, (done.len() * CHUNKS + chunk) as u64)?;
        }
        done.push(Done { from, bytes: CHUNKS * CHUNK });
        thread::sleep(Duration::from_millis(10));
    }
    Ok(done)
}

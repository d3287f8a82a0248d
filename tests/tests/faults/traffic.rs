//! Packets that flow during a test, each known by its number.

use std::{
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use ringfence_tests::{
    netns::{CLIENT, SERVER, Site},
    traffic::{PATIENCE, inbox, outbox, send_surely},
};

/// Every policy of these tests accepts it.
pub const OPEN: u16 = 1000;
/// One of two policies accepts the first and drops the second, the other the other way round.
pub const EITHER: [u16; 2] = [1001, 1002];
/// Every policy of these tests drops it.
pub const CLOSED: u16 = 9;

const PORTS: [u16; 4] = [OPEN, EITHER[0], EITHER[1], CLOSED];

/// A thread that sends one packet to each port, round after round, and one for each port that notes what arrives.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    /// Who receives ends after who sends, however long that takes.
    all_sent: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    newest: Arc<[AtomicUsize; 4]>,
    sender: JoinHandle<Result<()>>,
    receivers: Vec<JoinHandle<Result<Vec<bool>>>>,
}

/// What was sent and what arrived.
pub struct Seen {
    /// Rounds; each is a packet to each port.
    pub rounds: usize,
    arrived: Vec<Vec<bool>>,
}

impl Traffic {
    /// Begins.
    pub fn start(site: &Site) -> Result<Self> {
        let [stop, all_sent] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let rounds = Arc::new(AtomicUsize::new(0));
        let newest = Arc::new([const { AtomicUsize::new(0) }; 4]);
        site.client.neighbour("eth0", SERVER.0, site.server.mac("eth0")?)?;
        let mut receivers = Vec::new();
        for (index, port) in PORTS.into_iter().enumerate() {
            let socket = inbox(&site.server, SocketAddr::new(SERVER.0.into(), port))?;
            let (all_sent, newest) = (Arc::clone(&all_sent), Arc::clone(&newest));
            receivers.push(thread::spawn(move || receive(&socket, &all_sent, &newest[index])));
        }
        let socket = outbox(&site.client, SocketAddrV4::new(CLIENT.0, 0))?;
        let sender = {
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            thread::spawn(move || send(&socket, &stop, &rounds))
        };
        Ok(Self { stop, all_sent, rounds, newest, sender, receivers })
    }

    /// Waits until packets sent from now on have arrived, and says which of [`EITHER`] is accepted.
    pub fn accepted(&self) -> Result<usize> {
        let now = || self.rounds.load(Ordering::SeqCst) + 1;
        let mut begin = now();
        let end = Instant::now() + PATIENCE;
        loop {
            let newest = |index: usize| self.newest[index].load(Ordering::SeqCst);
            match [newest(1) > begin, newest(2) > begin] {
                [true, false] if newest(1) > begin + 20 => return Ok(0),
                [false, true] if newest(2) > begin + 20 => return Ok(1),
                // It has just changed; or both are, and then this never ends well.
                [true, true] => begin = now(),
                _ => {}
            }
            ensure!(Instant::now() < end, "both ports are accepted or neither, or nothing was sent");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets some packets pass.
    pub fn flow(&self) -> Result<()> {
        let begin = self.rounds.load(Ordering::SeqCst);
        let end = Instant::now() + PATIENCE;
        while self.rounds.load(Ordering::SeqCst) < begin + 50 {
            ensure!(Instant::now() < end, "the sender is stuck");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Ends, and says what was seen.
    pub fn end(self) -> Result<Seen> {
        self.flow()?;
        self.stop.store(true, Ordering::SeqCst);
        let panicked = |_| anyhow!("a thread of the traffic panicked");
        let ended = self.sender.join();
        self.all_sent.store(true, Ordering::SeqCst);
        ended.map_err(panicked)??;
        let arrived =
            self.receivers.into_iter().map(|receiver| receiver.join().map_err(panicked)?).collect::<Result<_>>()?;
        Ok(Seen { rounds: self.rounds.load(Ordering::SeqCst), arrived })
    }
}

impl Seen {
    /// What every policy accepts has arrived, nothing of what every policy drops, and of the two between them exactly one,
    /// but for a round that was under way at each of `flips`.
    pub fn is_whole(&self, flips: usize) -> Result<()> {
        let arrived = |index: usize, round: usize| self.arrived[index].get(round).copied().unwrap_or_default();
        let count = |index: usize| (0..self.rounds).filter(|&round| arrived(index, round)).count();
        ensure!(self.rounds > 40, "only {} rounds", self.rounds);
        ensure!(
            count(0) == self.rounds,
            "{} of {} packets that must pass were lost",
            self.rounds - count(0),
            self.rounds
        );
        ensure!(count(3) == 0, "{} packets got through that must not", count(3));
        let mixed: Vec<usize> = (0..self.rounds).filter(|&round| arrived(1, round) == arrived(2, round)).collect();
        ensure!(mixed.len() <= flips, "rounds {mixed:?} were not judged by one generation, {flips} flips");
        Ok(())
    }

    /// The part of [`Seen::is_whole`] that holds also while two generations judge one after the other: nothing got through
    /// that both refuse, nothing was lost that both accept, and never were both of [`EITHER`] accepted.
    #[allow(dead_code, reason = "the other test program that has this file uses it")]
    pub fn is_closed(&self) -> Result<()> {
        let arrived = |index: usize, round: usize| self.arrived[index].get(round).copied().unwrap_or_default();
        let count = |index: usize| (0..self.rounds).filter(|&round| arrived(index, round)).count();
        ensure!(count(0) == self.rounds && count(3) == 0, "{} of {}, {}", count(0), self.rounds, count(3));
        let both = (0..self.rounds).filter(|&round| arrived(1, round) && arrived(2, round)).count();
        ensure!(both == 0, "{both} rounds were let through whole");
        Ok(())
    }

    /// Whether everything arrived that every policy accepts.
    pub fn lost_nothing(&self) -> bool {
        (0..self.rounds).all(|round| self.arrived[0].get(round).copied().unwrap_or_default())
    }

    /// Whether everything was refused.
    pub fn nothing_arrived(&self) -> bool {
        self.rounds > 40 && self.arrived.iter().flatten().all(|&arrived| !arrived)
    }

    /// How many packets to [`EITHER`] arrived, one by one.
    pub fn arrived(&self) -> [u64; 2] {
        [1, 2].map(|index: usize| self.arrived[index].iter().filter(|&&arrived| arrived).count() as u64)
    }
}

fn send(socket: &UdpSocket, stop: &AtomicBool, rounds: &AtomicUsize) -> Result<()> {
    while !stop.load(Ordering::SeqCst) {
        let round = rounds.load(Ordering::SeqCst);
        for port in PORTS {
            send_surely(socket, &round.to_le_bytes(), SocketAddr::new(SERVER.0.into(), port))?;
        }
        rounds.store(round + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

fn receive(socket: &UdpSocket, all_sent: &AtomicBool, newest: &AtomicUsize) -> Result<Vec<bool>> {
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut arrived = Vec::new();
    let mut bytes = [0; 8];
    loop {
        match socket.recv(&mut bytes) {
            Ok(8) => {
                let round = usize::from_le_bytes(bytes);
                if arrived.len() <= round {
                    arrived.resize(round + 1, false);
                }
                ensure!(!std::mem::replace(&mut arrived[round], true), "round {round} arrived twice");
                newest.store(round, Ordering::SeqCst);
            }
            Ok(length) => return Err(anyhow!("{length} bytes from somebody else")),
            Err(_) if all_sent.load(Ordering::SeqCst) => return Ok(arrived),
            Err(_) => {}
        }
    }
}

//! An Ethernet made of two tap devices. Their driver judges at XDP what it receives, and sends what XDP sends back, which
//! a veth does only where its other end polls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

use super::Tun;

/// Carries frames both ways until it is dropped.
#[derive(Debug)]
pub struct Cable {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Cable {
    /// Joins the far ends of two tap devices.
    #[must_use]
    pub fn new(one: Tun, other: Tun) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = [Arc::new(one), Arc::new(other)];
        let threads = [(0, 1), (1, 0)].map(|(from, to)| {
            let (from, to, stop) = (Arc::clone(&ends[from]), Arc::clone(&ends[to]), Arc::clone(&stop));
            thread::spawn(move || carry(&from, &to, &stop))
        });
        Self { stop, threads: threads.into() }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A cable that broke has lost frames: the test has seen that.
            let _ = thread.join();
        }
    }
}

fn carry(from: &Tun, to: &Tun, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        if let Some(frame) = from.receive(Duration::from_millis(20), |_| true)? {
            // A device that is down takes nothing, as any other.
            let _ = to.send(&frame);
        }
    }
    Ok(())
}

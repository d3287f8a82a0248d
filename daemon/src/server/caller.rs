//! Who makes a request, for the records and for what would cut him off.

use super::peer::Peer;
use crate::dynamic::session::{Session, sessions_of};

/// The one who asks.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    /// A process at the other end of the socket.
    Peer(Peer),
    /// The daemon itself: at its start, on SIGHUP.
    Daemon,
}

impl Caller {
    /// User name, `uid N`, or `ringfenced`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Peer(peer) => peer.name(),
            Self::Daemon => "ringfenced".to_owned(),
        }
    }

    /// The connections that carry the caller's session.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        match self {
            Self::Peer(Peer { pid: Some(pid), .. }) => sessions_of(*pid),
            _ => Vec::new(),
        }
    }
}

//! Who asks, and what they may.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use super::accounts;
use crate::error::{Error, Result};

/// Members of this group may read.
pub const GROUP: &str = "ringfence";

/// The process at the other end of the socket, as it was when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user; `None` when the kernel did not say, who then may nothing.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: u32,
    /// Its process id.
    pub pid: Option<i32>,
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing.
    None,
    /// Look.
    Read,
    /// Look and change.
    Change,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(peer) => Self { uid: Some(peer.uid()), gid: peer.gid(), pid: peer.pid() },
            Err(_) => Self { uid: None, gid: u32::MAX, pid: None },
        }
    }
}

impl Peer {
    /// What it may, where members of the group with this number may read. A user counts as a member also when the
    /// process was started before he became one.
    #[must_use]
    pub fn access(&self, readers: Option<u32>) -> Access {
        let Some(uid) = self.uid else { return Access::None };
        if uid == 0 {
            return Access::Change;
        }
        let Some(readers) = readers else { return Access::None };
        let member = || accounts::user_name(uid).is_some_and(|name| accounts::is_member(&name, readers));
        if self.gid == readers || member() { Access::Read } else { Access::None }
    }

    /// Fails unless it may do what is wanted.
    pub fn demand(&self, wanted: Access, readers: Option<u32>) -> Result<()> {
        if self.access(readers) >= wanted {
            return Ok(());
        }
        tracing::warn!(uid = ?self.uid, pid = ?self.pid, ?wanted, "refused a peer");
        Err(Error::Forbidden(match wanted {
            Access::Change => "only root may change what is enforced".to_owned(),
            _ => format!("only root and members of the group `{GROUP}` may ask"),
        }))
    }

    /// Its user's name, `uid N` for one without.
    #[must_use]
    pub fn name(&self) -> String {
        let Some(uid) = self.uid else { return "unknown".to_owned() };
        accounts::user_name(uid).unwrap_or_else(|| format!("uid {uid}"))
    }
}

/// The number of the group whose members may read, if there is one.
#[must_use]
pub fn readers() -> Option<u32> {
    accounts::group_id(GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid: Some(uid), gid, pid: None }
    }

    #[test]
    fn root_changes_the_group_reads_and_others_may_nothing() {
        assert_eq!(peer(0, 0).access(None), Access::Change);
        assert_eq!(peer(65_534, 4_000_000).access(Some(4_000_000)), Access::Read);
        assert_eq!(peer(65_534, 65_534).access(Some(4_000_000)), Access::None);
        assert_eq!(peer(4_000_001, 1).access(None), Access::None, "no group, no readers");
        // Root's group alone makes nobody root.
        assert_eq!(peer(65_534, 0).access(Some(4_000_000)), Access::None);
        assert_eq!(Peer { uid: None, gid: 0, pid: None }.access(Some(0)), Access::None);
    }

    #[test]
    fn a_refusal_says_who_may() {
        let error = peer(65_534, 65_534).demand(Access::Read, Some(4_000_000)).unwrap_err();
        assert!(error.to_string().contains("members of the group `ringfence`"), "{error}");
        assert!(peer(0, 0).demand(Access::Change, None).is_ok());
        assert!(peer(65_534, 4_000_000).demand(Access::Change, Some(4_000_000)).is_err());
    }
}

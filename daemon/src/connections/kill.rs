//! `ringctl connections --kill`.

use std::net::SocketAddr;

use ringfence_abi::connection::KILLED;
use ringfence_api::{KillAnswer, KillRequest, Killed, MAX_KILLED_CONNECTIONS, SocketEnd};

use super::diag::Sockets;
use super::list::{Found, Wanted};
use super::{TCP, clock};
use crate::daemon::Daemon;
use crate::dynamic::session::Session;
use crate::error::{Error, Result, with_sources};
use crate::interfaces::watch;
use crate::server::caller::Caller;

/// How long the programs drop a killed connection's packets: longer than a peer goes on trying for good reason.
const SECONDS: u64 = 120;

impl Daemon {
    /// Ends connections: the programs drop their packets when this returns, and this host's sockets are closed.
    pub fn kill_connections(&self, request: &KillRequest, caller: &Caller) -> Result<KillAnswer> {
        let wanted = Wanted::new(&request.filter)?;
        // A generation that is being loaded may have copied the connections already.
        let one_at_a_time = self.applying();
        let control = self.control();
        let loaded = self.follower(&control)?;
        let now = clock();
        let mut found = Vec::new();
        let mut matched = 0_u64;
        loaded.for_each_connection(|pool, key, connection| {
            let alive = connection.expires > now && connection.state != KILLED;
            if alive && wanted.fits(pool, key, connection) {
                matched += 1;
                if found.len() <= MAX_KILLED_CONNECTIONS {
                    found.push(Found { pool, key: *key, connection: *connection });
                }
            }
        })?;
        check_number(matched, request.all)?;
        if !request.force
            && let Some(session) = carried(&found, &caller.sessions())
        {
            tracing::warn!(by = caller.name(), peer = %session.peer, "refused to kill a session of the caller's own");
            return Err(Error::NeedsForce(format!("this would end your own session from {}", session.peer)));
        }
        let marks: Vec<_> = found.iter().map(|one| (one.key, one.connection)).collect();
        self.kernel(|kernel| Ok(kernel.kill_connections(&control.loaded(), &marks, now + SECONDS * 1_000_000_000)?))?;
        drop((control, one_at_a_time));
        let network = watch::lock(&self.network).clone();
        let mut sockets = None;
        let killed: Vec<Killed> = found
            .iter()
            .map(|one| {
                let (socket, because) = close(one, &mut sockets);
                Killed { connection: one.shown(now, &network), socket, because }
            })
            .collect();
        tracing::info!(killed = killed.len(), by = caller.name(), "connections were killed");
        Ok(KillAnswer { killed, seconds: SECONDS })
    }
}

/// Fails unless this many may be ended.
fn check_number(matched: u64, all: bool) -> Result<()> {
    match matched {
        0 => Err(Error::No("no connection fits".to_owned())),
        1 => Ok(()),
        _ if !all => Err(Error::No(format!(
            "{matched} connections fit, and none was killed: say more about the one that is meant, or `--all`"
        ))),
        _ if matched > MAX_KILLED_CONNECTIONS as u64 => Err(Error::No(format!(
            "{matched} connections fit, and none was killed: {MAX_KILLED_CONNECTIONS} at a time"
        ))),
        _ => Ok(()),
    }
}

/// The first of these sessions that one of the connections carries.
fn carried(found: &[Found], sessions: &[Session]) -> Option<Session> {
    sessions.iter().find(|session| found.iter().any(|one| one.carries(session))).copied()
}

/// Closes what this host has of a connection.
fn close(one: &Found, sockets: &mut Option<Sockets>) -> (SocketEnd, Option<String>) {
    if one.key.proto != TCP {
        return (SocketEnd::None, None);
    }
    let [from, to] = one.ends().map(|(address, port)| SocketAddr::new(address, port));
    let ifindex = one.connection.ifindex;
    let mut attempt = || -> std::io::Result<bool> {
        let sockets = match sockets {
            Some(sockets) => sockets,
            None => sockets.insert(Sockets::open()?),
        };
        // One end is here, both are on the loopback device, or none where it is only forwarded.
        Ok(sockets.destroy(to, from, ifindex)? | sockets.destroy(from, to, ifindex)?)
    };
    match attempt() {
        Ok(true) => (SocketEnd::Destroyed, None),
        Ok(false) => (SocketEnd::None, None),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            (SocketEnd::Refused, Some("this kernel cannot (CONFIG_INET_DIAG_DESTROY)".to_owned()))
        }
        Err(error) => (SocketEnd::Refused, Some(with_sources(&error))),
    }
}

#[cfg(test)]
mod tests {
    use ringfence_abi::connection::{Connection, Key};
    use ringfence_abi::dynamic::V4;

    use super::*;
    use crate::kernel::Pool;

    #[test]
    fn exactly_one_unless_all_are_meant() {
        assert!(check_number(1, false).is_ok() && check_number(2, true).is_ok());
        let text = |matched, all| check_number(matched, all).unwrap_err().to_string();
        assert_eq!(text(0, true), "no connection fits");
        assert!(text(7, false).starts_with("7 connections fit, and none was killed"), "{}", text(7, false));
        assert!(text(100_000, true).contains("65536 at a time"), "{}", text(100_000, true));
    }

    #[test]
    fn the_callers_session_is_found_whoever_began_it() {
        let key = Key {
            low: [0xc000_0201 << 32, 0],
            high: [0xc000_0202 << 32, 0],
            low_port: 22,
            high_port: 4000,
            proto: TCP,
            family: V4,
            zero: 0,
        };
        let one = Found { pool: Pool::Established, key, connection: Connection::default() };
        let session = Session { local: "192.0.2.1:22".parse().unwrap(), peer: "192.0.2.2:4000".parse().unwrap() };
        let turned = Session { local: session.peer, peer: session.local };
        assert_eq!(carried(&[one], &[session]), Some(session));
        assert_eq!(carried(&[one], &[turned]), Some(turned));
        let other = Session { peer: "192.0.2.2:4001".parse().unwrap(), ..session };
        assert_eq!(carried(&[one], &[other]), None);
        let udp = Found { key: Key { proto: 17, ..key }, ..one };
        assert_eq!(carried(&[udp], &[session]), None);
    }
}

//! The caller's own way to this machine: the TCP connections that its ancestors hold.
//!
//! `sudo` strips `SSH_CONNECTION`, so the process tree is asked instead: some ancestor of the shell is the `sshd` that
//! holds the connection. Looking at another process's descriptors takes `CAP_SYS_PTRACE`.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{SockType, SockaddrStorage, getpeername, getsockname, getsockopt, sockopt};

use crate::kernel::{descriptor_of, pidfd};

/// A process tree is not this deep unless it is made to be.
const MAX_ANCESTORS: usize = 64;
/// State of an established connection in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";
/// State of a listening one.
const LISTENING: &str = "0A";

/// A connection that carries the caller's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

/// The sessions of process `pid`: connections to other machines that it or an ancestor holds, in the network namespace
/// of this process. What cannot be read (the process has ended) is left out.
#[must_use]
pub fn sessions_of(pid: i32) -> Vec<Session> {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let mut found = BTreeSet::new();
    let mut process = pid;
    for _ in 0..MAX_ANCESTORS {
        if process <= 0 {
            break;
        }
        let directory = PathBuf::from(format!("/proc/{process}"));
        if fs::read_link(directory.join("ns/net")).ok() == own {
            found.extend(sessions_in(process));
        }
        match fs::read_to_string(directory.join("stat")).ok().as_deref().and_then(parent) {
            Some(next) => process = next,
            None => break,
        }
    }
    found.into_iter().filter(|session| !session.peer.ip().is_loopback()).collect()
}

/// The parent's id from `/proc/PID/stat`, whose second field may hold blanks and brackets.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn sessions_in(pid: i32) -> Vec<Session> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return Vec::new() };
    // Numbers of descriptors that are sockets, and these sockets' inodes.
    let sockets: Vec<(i32, u64)> = descriptors
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let target = fs::read_link(&path).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
            Some((path.file_name()?.to_str()?.parse().ok()?, inode))
        })
        .collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    by_descriptors(pid, &sockets)
        .unwrap_or_else(|_| by_tables(&process, &sockets.iter().map(|(_, inode)| *inode).collect()))
}

/// Asks the sockets themselves. An error: this kernel does not let us (Yama's `ptrace_scope` 3).
fn by_descriptors(pid: i32, sockets: &[(i32, u64)]) -> io::Result<Vec<Session>> {
    let process = pidfd(pid.cast_unsigned())?;
    let mut found = Vec::new();
    for (number, _) in sockets {
        match descriptor_of(process.as_fd(), *number) {
            Ok(socket) => found.extend(session_of(&socket)),
            // Closed since.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::ESRCH)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The session that a TCP socket carries.
fn session_of(socket: &OwnedFd) -> Option<Session> {
    if getsockopt(socket, sockopt::SockType) != Ok(SockType::Stream) {
        return None;
    }
    let number = socket.as_raw_fd();
    let (local, peer) = (getsockname(number).ok()?, getpeername(number).ok()?);
    Some(Session { local: canonical(&local)?, peer: canonical(&peer)? })
}

fn canonical(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(IpAddr::V4(v4.ip()), v4.port()));
    }
    let v6 = address.as_sockaddr_in6()?;
    // A dual-stack socket shows an IPv4 peer so; on the wire it is IPv4.
    Some(SocketAddr::new(v6.ip().to_canonical(), v6.port()))
}

/// Looks the sockets up in the kernel's tables. Reading these walks the hash table of all connections of the machine, which
/// takes milliseconds where there is much memory.
fn by_tables(process: &Path, inodes: &HashSet<u64>) -> Vec<Session> {
    let tables = ["net/tcp", "net/tcp6"].map(|table| fs::read_to_string(process.join(table)).unwrap_or_default());
    tables
        .iter()
        .flat_map(|table| established(table))
        .filter(|(_, inode)| inodes.contains(inode))
        .map(|(s, _)| s)
        .collect()
}

/// Established connections of a `/proc/net/tcp` with the inodes of their sockets.
fn established(table: &str) -> impl Iterator<Item = (Session, u64)> {
    rows(table).filter(|(_, state, _)| *state == State::Established).map(|(session, _, inode)| (session, inode))
}

/// What a socket is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a peer.
    Established,
    /// It waits for connections.
    Listening,
    /// Anything else.
    Other,
}

/// The sockets of a `/proc/net/tcp` or `/proc/net/udp`.
pub fn sockets(table: &str) -> impl Iterator<Item = (Session, State)> {
    rows(table).map(|(session, state, _)| (session, state))
}

fn rows(table: &str) -> impl Iterator<Item = (Session, State, u64)> {
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, peer) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
        let inode = fields.get(9)?.parse().ok()?;
        let state = match *fields.get(3)? {
            ESTABLISHED => State::Established,
            LISTENING => State::Listening,
            _ => State::Other,
        };
        Some((Session { local, peer }, state, inode))
    })
}

/// `0100007F:0016`: each 32-bit word of the address is printed as a number, so its bytes are in host order.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let hex = address.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(hex, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            // A dual-stack socket shows an IPv4 peer so; on the wire it is IPv4.
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    use super::*;

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 017100CB:0016 057100CB:D431 01 00000000:00000000 02:000A7D9E 00000000     0        0 4711 2 0000 20 4 29 10 -1
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000 100 0 0 10 0
";

    #[test]
    fn the_kernels_table_is_read_as_it_is_printed() {
        let session = Session { local: "203.0.113.1:22".parse().unwrap(), peer: "203.0.113.5:54321".parse().unwrap() };
        assert_eq!(established(TABLE).collect::<Vec<_>>(), [(session, 4711)]);
        let mapped = "0000000000000000FFFF00000C7100CB:0016";
        assert_eq!(address(mapped), Some("203.0.113.12:22".parse().unwrap()));
        let v6 = "B80D0120000000000000000001000000:01BB";
        assert_eq!(address(v6), Some("[2001:db8::1]:443".parse().unwrap()));
        assert_eq!(address("nonsense"), None);
        assert_eq!(parent("12 (a) b)) S 7 12 12 0"), Some(7));
    }

    #[test]
    fn an_ancestors_connection_is_found_from_its_child() {
        // This test process is the ancestor; the loopback connection stands for a session.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let directory = PathBuf::from(format!("/proc/{}", child.id()));
        let stat = fs::read_to_string(directory.join("stat")).unwrap();
        assert_eq!(parent(&stat), Some(std::process::id().cast_signed()));
        let this = std::process::id().cast_signed();
        let own = sessions_in(this);
        let session = Session { local: client.local_addr().unwrap(), peer: client.peer_addr().unwrap() };
        assert!(own.contains(&session), "{own:?}");
        assert!(sessions_in(child.id().cast_signed()).is_empty(), "descriptors are closed on exec");
        // Both ways to it agree.
        let inode = |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
        let number = std::os::fd::AsRawFd::as_raw_fd(&client);
        let inode: u64 = inode(fs::read_link(format!("/proc/self/fd/{number}")).unwrap()).unwrap();
        assert_eq!(by_descriptors(this, &[(number, inode)]).unwrap(), [session]);
        assert_eq!(by_tables(Path::new("/proc/self"), &HashSet::from([inode])), [session]);
        assert!(
            !sessions_of(child.id().cast_signed()).contains(&session),
            "connections within this machine are no sessions"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

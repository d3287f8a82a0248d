//! The caller's own way to this machine: the TCP connections that its ancestors hold.
//!
//! `sudo` strips `SSH_CONNECTION`, so the process tree is asked instead: some ancestor of the shell is the `sshd` that
//! holds the connection. Looking at another process's descriptors takes `CAP_SYS_PTRACE`.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A process tree is not this deep unless it is made to be.
const MAX_ANCESTORS: usize = 64;
/// State of an established connection in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";

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
            found.extend(sessions_in(&directory));
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

fn sessions_in(process: &Path) -> Vec<Session> {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return Vec::new() };
    let inodes: HashSet<u64> = descriptors
        .filter_map(|entry| {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect();
    if inodes.is_empty() {
        return Vec::new();
    }
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
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, peer) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
        let inode = fields.get(9)?.parse().ok()?;
        (fields.get(3) == Some(&ESTABLISHED)).then_some((Session { local, peer }, inode))
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
        let own = sessions_in(&PathBuf::from("/proc/self"));
        let session = Session { local: client.local_addr().unwrap(), peer: client.peer_addr().unwrap() };
        assert!(own.contains(&session), "{own:?}");
        assert!(sessions_in(&directory).is_empty(), "descriptors are closed on exec");
        assert!(
            !sessions_of(child.id().cast_signed()).contains(&session),
            "connections within this machine are no sessions"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

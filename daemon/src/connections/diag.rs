//! Closing a socket of this host by `SOCK_DESTROY` (Linux 4.5, `CONFIG_INET_DIAG_DESTROY`).
//!
//! Only TCP. The lookup for UDP would also find a socket that serves everybody.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const LOOK: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
const TCP: u8 = 6;
/// `TCP_LISTEN`.
const LISTENING: u8 = 10;
/// `NLM_F_REQUEST`, and `NLM_F_ACK` of `linux/netlink.h`.
const ASKS: u16 = 1;
const WANTS_ANSWER: u16 = 4;
/// `NLM_F_DUMP`.
const DUMPS: u16 = 0x300;
/// `AF_INET`, `AF_INET6`.
const V4: u8 = 2;
const V6: u8 = 10;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2` behind it.
const REQUEST: usize = HEADER + 56;
/// `struct inet_diag_sockid` in a request, and its last part, the cookie.
const ID: usize = HEADER + 8;
const COOKIE: usize = 40;
const ID_LENGTH: usize = 48;
/// The same in an answer, `struct inet_diag_msg`, whose second byte is the state.
const ANSWER_STATE: usize = HEADER + 1;
const ANSWER_ID: usize = HEADER + 4;

/// The kernel's diagnostics of sockets, in this network namespace.
#[derive(Debug)]
pub struct Sockets(OwnedFd);

impl Sockets {
    /// Opens them.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let sockets = Self(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?);
        sockets.probe()?;
        Ok(sockets)
    }

    /// Fails where the kernel's module for TCP cannot be had: asked for one socket, it would say that there is none. So all
    /// sockets are asked for that are in no state.
    fn probe(&self) -> io::Result<()> {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut request = request(LOOK, nobody, nobody, 0);
        request[6..8].copy_from_slice(&(ASKS | DUMPS).to_ne_bytes());
        request[HEADER + 4..ID].fill(0);
        match code(&self.exchange(&request)?)? {
            0 => Ok(()),
            libc::ENOENT => Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel has no tcp_diag")),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Closes the TCP socket with these ends, if there is one; whether there was. `ifindex` is where its packets come in,
    /// for a socket that is bound to an interface.
    pub fn destroy(&self, local: SocketAddr, peer: SocketAddr, ifindex: u32) -> io::Result<bool> {
        let look = request(LOOK, local, peer, ifindex);
        let Some(found) = self.ask(&look)? else { return Ok(false) };
        let Some(id) = found.get(ANSWER_ID..ANSWER_ID + ID_LENGTH) else { return Err(malformed()) };
        // Where there is no such connection, the kernel finds the socket that listens: that one is to live.
        if found[ANSWER_STATE] == LISTENING || id[..4] != look[ID..ID + 4] {
            return Ok(false);
        }
        let mut destroy = request(DESTROY, local, peer, ifindex);
        // The cookie: this very socket, or none.
        destroy[ID + COOKIE..ID + ID_LENGTH].copy_from_slice(&id[COOKIE..]);
        Ok(self.ask(&destroy)?.is_some())
    }

    /// Asks about a socket; `None`: there is none.
    fn ask(&self, request: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let answer = self.exchange(request)?;
        let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]])).ok_or_else(malformed)?;
        if i32::from(kind) != libc::NLMSG_ERROR {
            return Ok(Some(answer));
        }
        match code(&answer)? {
            0 => Ok(Some(answer)),
            libc::ENOENT => Ok(None),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Sends a request, whose answer is there when that returns.
    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        send(self.0.as_raw_fd(), request, MsgFlags::empty())?;
        let mut answer = vec![0; 8192];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// The errno with which an answer ends that is an error or the end of a list.
fn code(answer: &[u8]) -> io::Result<i32> {
    let code = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)?;
    Ok(i32::from_ne_bytes(code).wrapping_neg())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer about a socket is too short")
}

/// A request about one TCP socket, whatever its cookie.
fn request(kind: u16, local: SocketAddr, peer: SocketAddr, ifindex: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &(REQUEST as u32).to_ne_bytes());
    put(4, &kind.to_ne_bytes());
    // What is looked up answers by itself.
    let flags = if kind == DESTROY { ASKS | WANTS_ANSWER } else { ASKS };
    put(6, &flags.to_ne_bytes());
    put(HEADER, &[if local.is_ipv4() { V4 } else { V6 }, TCP]);
    // Sockets in every state.
    put(HEADER + 4, &u32::MAX.to_ne_bytes());
    put(ID, &local.port().to_be_bytes());
    put(ID + 2, &peer.port().to_be_bytes());
    for (at, end) in [(ID + 4, local), (ID + 20, peer)] {
        match end.ip() {
            IpAddr::V4(address) => put(at, &address.octets()),
            IpAddr::V6(address) => put(at, &address.octets()),
        }
    }
    put(ID + 36, &ifindex.to_ne_bytes());
    put(ID + COOKIE, &[0xff; ID_LENGTH - COOKIE]);
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn one_connection_is_closed_and_whoever_listens_is_not() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let here = listener.local_addr().unwrap();
            let mut near = TcpStream::connect(here).unwrap();
            let (_far, peer) = listener.accept().unwrap();
            let sockets = Sockets::open().unwrap();
            // Nobody has this connection; the kernel finds who listens.
            let nobody = SocketAddr::new(peer.ip(), peer.port() ^ 1);
            assert!(!sockets.destroy(here, nobody, 1).unwrap(), "{address}");
            match sockets.destroy(peer, here, 1) {
                Ok(closed) => {
                    assert!(closed, "{address}");
                    let error = near.read(&mut [0; 1]).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{address}");
                    assert!(!sockets.destroy(peer, here, 1).unwrap(), "it is closed already");
                }
                // A kernel without it.
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}"),
            }
            TcpStream::connect(here).unwrap();
        }
    }
}

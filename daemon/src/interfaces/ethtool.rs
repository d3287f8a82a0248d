//! Whether a device takes VLAN tags out of the frames it receives.

use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// Whether the device may strip VLAN tags on receipt. Where it cannot be told, the answer is yes: the program then
/// goes where tags are always visible.
#[must_use]
pub fn may_strip_vlan(name: &str) -> bool {
    flags(name).is_none_or(|flags| flags & ETH_FLAG_RXVLAN != 0)
}

#[expect(unsafe_code, reason = "no library has this ioctl")]
fn flags(name: &str) -> Option<u32> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let mut value = EthtoolValue { command: ETHTOOL_GFLAGS, data: 0 };
    // SAFETY: `ifreq` holds bytes, integers and a pointer; all zero is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the name ends with a zero byte (it is shorter than the zeroed array), and `ifru_data` points to a
    // `struct ethtool_value` that outlives the call, which is all that ETHTOOL_GFLAGS reads and writes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    (result == 0).then_some(value.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_cannot_be_asked_is_taken_to_strip() {
        assert!(may_strip_vlan("no-such-device0"));
        assert!(may_strip_vlan(""));
        assert!(may_strip_vlan("a-name-that-no-device-can-have"));
        assert_eq!(
            flags("lo").map(|flags| flags & ETH_FLAG_RXVLAN),
            Some(0),
            "the loopback device has no such offload"
        );
    }
}

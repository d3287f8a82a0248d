//! Connections, as a policy speaks of them.

use ringfence_abi::connection::{Connection, DEFAULT_CAPACITY, Key, TIMEOUTS, half_in, half_out};

/// `connections:` of the network half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Established connections that are remembered.
    pub capacity: u32,
    /// Seconds that a connection is remembered after its last packet, by [`ringfence_abi::connection::TIMEOUT_NAMES`].
    pub timeouts: [u64; 8],
}

impl Default for Connections {
    fn default() -> Self {
        Self { capacity: DEFAULT_CAPACITY, timeouts: TIMEOUTS }
    }
}

impl Connections {
    /// Bytes of kernel memory that the pools take, as their maps are made: for each element of a hash map its key, its
    /// value and the kernel's own 48 bytes, and 16 bytes for each bucket, of which there is a power of two. (Linux 6.18
    /// says 86,510,672 of the default, this 86,507,520.)
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let element = (size_of::<Key>() + size_of::<Connection>()) as u64;
        let map = |entries: u32| u64::from(entries) * (element + 48) + 16 * u64::from(entries.next_power_of_two());
        map(self.capacity) + map(half_in(self.capacity)) + map(half_out(self.capacity))
    }
}

/// The states of a packet, by their direct index ([`ringfence_abi::chain::STATE_NEW`] and following).
pub const STATES: [&str; 4] = ["new", "established", "related", "invalid"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_takes_what_the_kernel_says() {
        // `memlock` of the three maps in /proc/self/fdinfo, Linux 6.18.
        const MEASURED: u64 = 86_510_672;
        assert!(Connections::default().bytes().abs_diff(MEASURED) < MEASURED / 1000);
    }
}

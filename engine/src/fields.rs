//! What the headers of a packet say, in the form the tables are indexed by.

use ringfence_abi::chain::{LENGTH_ABSENT, PORT_ABSENT, PROTO_ABSENT};

/// Address family of [`Fields::family`]: not IP.
pub const FAMILY_NONE: u32 = 0;
/// IPv4.
pub const FAMILY_V4: u32 = 1;
/// IPv6.
pub const FAMILY_V6: u32 = 2;

/// The fields of a packet. Direct indices are those of [`ringfence_abi::chain`], absent and unknown included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Source address, left-aligned (IPv4 in the high half of the first word).
    pub src: [u64; 2],
    /// Destination address.
    pub dst: [u64; 2],
    /// One of the `FAMILY_` constants.
    pub family: u32,
    /// Index of the field `IP`.
    pub ip: u32,
    /// Index of the field `PROTO`.
    pub proto: u32,
    /// Index of the field `SPORT`.
    pub sport: u32,
    /// Index of the field `DPORT`.
    pub dport: u32,
    /// Index of the field `VLAN`.
    pub vlan: u32,
    /// Index of the field `LENGTH`.
    pub length: u32,
    /// Ethertype behind the VLAN tags; 0 on devices without Ethernet headers.
    pub ethertype: u32,
    /// TTL or hop limit.
    pub hop_limit: u32,
    /// Offset of the network header.
    pub network: u32,
    /// Offset of the transport header, or of what is in its place.
    pub transport: u32,
    /// Offset of the end of the IP packet; 0 when there is none, or its protocol could not be reached.
    pub end: u32,
    /// 1 when a field is unknown.
    pub unknown: u32,
}

impl Fields {
    /// The fields of a frame of which nothing is known but the VLAN id outside it.
    ///
    /// One by one: `*self = Self { .. }` becomes a call of `memset`, a loop of its own in a kernel program.
    #[inline(always)]
    pub fn reset(&mut self, vlan: u32) {
        self.src[0] = 0;
        self.src[1] = 0;
        self.dst[0] = 0;
        self.dst[1] = 0;
        self.family = FAMILY_NONE;
        self.ip = 0;
        self.proto = PROTO_ABSENT;
        self.sport = PORT_ABSENT;
        self.dport = PORT_ABSENT;
        self.vlan = vlan;
        self.length = LENGTH_ABSENT;
        self.ethertype = 0;
        self.hop_limit = 0;
        self.network = 0;
        self.transport = 0;
        self.end = 0;
        self.unknown = 0;
    }
}

/// Why a packet cannot be parsed; the values are indices of [`ringfence_abi::counter::MALFORMED_NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Malformed {
    /// The frame ends inside the Ethernet header or a VLAN tag.
    TruncatedLink = 0,
    /// More than two VLAN tags in the frame.
    VlanDepth = 1,
    /// The frame ends inside the IP header or an extension header.
    TruncatedNetwork = 2,
    /// Version, header length or total length contradict themselves or the frame.
    BadNetwork = 3,
    /// The packet ends inside its transport header.
    TruncatedTransport = 4,
    /// The headers lie outside the part of the packet that can be read in place.
    Unreadable = 5,
}

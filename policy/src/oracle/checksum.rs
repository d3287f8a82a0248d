//! Checksums and lengths inside transport headers.

use std::net::IpAddr;

/// Writes the length (UDP) and the checksum into a transport header with all that follows it.
pub(super) fn fill(payload: &mut [u8], proto: u8, from: IpAddr, to: IpAddr) {
    let length = payload.len() as u32;
    let at = match proto {
        6 => 16,
        17 | 33 | 136 => 6,
        1 | 58 => 2,
        132 => {
            let sum = crc32c(payload);
            payload[8..12].copy_from_slice(&sum.to_le_bytes());
            return;
        }
        _ => return,
    };
    if proto == 17 {
        payload[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    }
    let mut summed = Vec::new();
    if proto != 1 {
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => summed.extend([from.octets(), to.octets()].concat()),
            (IpAddr::V6(from), IpAddr::V6(to)) => summed.extend([from.octets(), to.octets()].concat()),
            _ => {}
        }
        // The pseudo-headers of both families add up to the same.
        summed.extend(length.to_be_bytes());
        summed.extend(u32::from(proto).to_be_bytes());
    }
    summed.extend_from_slice(payload);
    let sum = match internet(&summed) {
        // In UDP zero means "no checksum".
        0 if matches!(proto, 17 | 136) => 0xffff,
        sum => sum,
    };
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071; zero when the bytes hold a valid checksum.
pub(super) fn internet(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// CRC-32C as SCTP uses it (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TestPacket;
    use crate::oracle::frame;

    #[test]
    fn checksums_are_valid() {
        for v6 in [false, true] {
            for proto in [6_u8, 17, 33, 136, 58] {
                let packet = TestPacket { length: Some(101), ..described(proto, v6) };
                let bytes = frame(&packet, true).unwrap();
                let (header, payload) = bytes.split_at(if v6 { 40 } else { 20 });
                assert!(v6 || internet(header) == 0);
                let mut summed = header[if v6 { 8 } else { 12 }..].to_vec();
                summed.extend([0, proto]);
                summed.extend((payload.len() as u16).to_be_bytes());
                summed.extend(payload);
                assert_eq!(internet(&summed), 0, "protocol {proto}");
            }
        }
        let ping = frame(&described(1, false), true).unwrap();
        assert_eq!(internet(&ping[20..]), 0);
        // The check value of CRC-32C, and RFC 1071's example.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(internet(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    fn described(proto: u8, v6: bool) -> TestPacket {
        let (from, to) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("203.0.113.5", "192.0.2.1") };
        TestPacket {
            from: Some(from.parse().unwrap()),
            to: Some(to.parse().unwrap()),
            proto: Some(proto),
            ..TestPacket::default()
        }
    }
}

//! What an attacker or a broken driver makes of a frame.

use super::{Packet, Rng, once_in, pick};

/// Breaks a frame, in one way or several.
pub fn mutate(rng: &mut Rng, packet: &mut Packet) {
    for _ in 0..=usize::from(once_in(rng, 4)) {
        once(rng, packet);
    }
}

fn once(rng: &mut Rng, packet: &mut Packet) {
    let network = if packet.context.l3 { 0 } else { 14 };
    let frame = &mut packet.frame;
    match rng.u8(..12) {
        // Cut off: anywhere, and near the headers.
        0 | 1 => frame.truncate(rng.usize(..=frame.len())),
        2 => frame.truncate(network + rng.usize(..60)),
        // Lying headers: version, header length, total length, payload length, next header.
        3 => put(frame, network, rng.u8(..)),
        4 => put(frame, network, pick(rng, &[0x40, 0x44, 0x4f, 0x46, 0x55, 0x60, 0x65])),
        5 => put(frame, network + 2 + rng.usize(..4), pick(rng, &[0, 1, 20, 255])),
        6 => put(frame, network + pick(rng, &[6, 9]), pick(rng, &[0, 43, 44, 60, 135, 139, 140, 6, 17, 58])),
        // A length field somewhere in the extension headers or the transport.
        7 => put(frame, network + rng.usize(20..100), pick(rng, &[0, 1, 0x40, 0xff])),
        // Another ethertype.
        8 => {
            let [high, low] = pick(rng, &[[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8], [0x91, 0], [8, 6]]);
            put(frame, 12, high);
            put(frame, 13, low);
        }
        // Bit flips.
        9 => {
            for _ in 0..rng.usize(1..6) {
                let at = rng.usize(..frame.len().max(1));
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << rng.u8(..8);
                }
            }
        }
        // Bytes that do not belong there.
        10 => {
            let at = rng.usize(..=frame.len());
            let noise: Vec<u8> = (0..rng.usize(1..20)).map(|_| rng.u8(..)).collect();
            frame.splice(at..at, noise);
        }
        _ => {
            let end = rng.usize(..120);
            frame.clear();
            frame.extend((0..end).map(|_| rng.u8(..)));
        }
    }
}

fn put(frame: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = value;
    }
}

/// The packet cut off after every byte.
pub fn truncations(packet: &Packet) -> impl Iterator<Item = Packet> + '_ {
    (0..packet.frame.len()).map(|end| Packet { context: packet.context.clone(), frame: packet.frame[..end].to_vec() })
}

//! Addresses as the kernel's keys have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_abi::dynamic::{ElementKey, V4, V6};
use ringfence_api::Prefix;

/// [`V4`] or [`V6`].
#[must_use]
pub fn family(prefix: Prefix) -> u8 {
    if prefix.address().is_ipv4() { V4 } else { V6 }
}

/// An address left-aligned in two words, each a number: IPv4 in the high 32 bits of the first.
#[must_use]
pub fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(a) => [u64::from(a.to_bits()) << 32, 0],
        IpAddr::V6(a) => [(a.to_bits() >> 64) as u64, a.to_bits() as u64],
    }
}

/// The address that these words hold.
#[must_use]
pub fn address(words: [u64; 2], v4: bool) -> IpAddr {
    if v4 {
        return Ipv4Addr::from_bits((words[0] >> 32) as u32).into();
    }
    Ipv6Addr::from_bits(u128::from(words[0]) << 64 | u128::from(words[1])).into()
}

/// The key of an element of the dynamic set with kernel id `set`.
#[must_use]
pub fn element(set: u16, prefix: Prefix) -> ElementKey {
    ElementKey { address: words(prefix.address()), set, family: family(prefix), length: prefix.length(), zero: 0 }
}

/// The element of a key; `None`: its family or length is none.
#[must_use]
pub fn prefix(key: &ElementKey) -> Option<Prefix> {
    let known = key.family == V4 || key.family == V6;
    known.then(|| Prefix::new(address(key.address, key.family == V4), key.length)).flatten()
}

/// Whether some address is in both.
#[must_use]
pub fn overlap(a: Prefix, b: Prefix) -> bool {
    a.contains(b.address()) || b.contains(a.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_the_address_left_aligned() {
        for (text, held) in [("10.1.2.0", [0x0a01_0200 << 32, 0]), ("2001:db8::1", [0x2001_0db8 << 32, 1])] {
            let parsed: IpAddr = text.parse().unwrap();
            assert_eq!((words(parsed), address(held, parsed.is_ipv4())), (held, parsed));
        }
    }

    #[test]
    fn keys_lead_back_to_what_they_were_made_of() {
        for text in ["10.1.2.0/24", "255.255.255.255", "2001:db8::1", "::/0"] {
            let element_of = |text: &str| text.parse::<Prefix>().unwrap();
            assert_eq!(prefix(&element(7, element_of(text))), Some(element_of(text)));
        }
        assert_eq!(prefix(&ElementKey { family: 5, ..ElementKey::default() }), None);
        assert_eq!(prefix(&ElementKey { family: V4, length: 33, ..ElementKey::default() }), None);
    }

    #[test]
    fn prefixes_overlap_within_a_family_only() {
        let p = |text: &str| text.parse::<Prefix>().unwrap();
        assert!(overlap(p("10.0.0.0/8"), p("10.1.0.0/16")) && overlap(p("10.1.0.0/16"), p("10.0.0.0/8")));
        assert!(!overlap(p("10.0.0.0/8"), p("11.0.0.0/8")) && !overlap(p("0.0.0.0/0"), p("::/0")));
    }
}

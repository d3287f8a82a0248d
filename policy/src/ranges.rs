//! Sorted, disjoint, inclusive ranges of numbers and of addresses.

use std::net::IpAddr;

/// Ranges of `u32`, sorted, disjoint and not touching each other; inclusive at both ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ranges(Vec<(u32, u32)>);

/// Ranges of addresses of both families: [`u128`] for IPv6, [`u32`] for IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressRanges {
    /// IPv4, as numbers.
    pub v4: Vec<(u32, u32)>,
    /// IPv6, as numbers.
    pub v6: Vec<(u128, u128)>,
}

/// A number that ranges are made of.
pub trait Number: Copy + Ord {
    /// The smallest.
    const MIN: Self;
    /// The largest.
    const MAX: Self;
    /// The number after, if any.
    fn after(self) -> Option<Self>;
    /// The number before, if any.
    fn before(self) -> Option<Self>;
}

macro_rules! number {
    ($($t:ty),+) => {$(
        impl Number for $t {
            const MIN: Self = <$t>::MIN;
            const MAX: Self = <$t>::MAX;
            fn after(self) -> Option<Self> { self.checked_add(1) }
            fn before(self) -> Option<Self> { self.checked_sub(1) }
        }
    )+};
}
number!(u32, u128);

/// Sorts and merges overlapping and touching ranges.
pub fn normalise<T: Number>(list: &mut Vec<(T, T)>) {
    list.sort_unstable();
    let mut kept = 0;
    for i in 0..list.len() {
        let (low, high) = list[i];
        if kept > 0 {
            let previous = &mut list[kept - 1];
            if previous.1.after().is_none_or(|next| low <= next) {
                previous.1 = previous.1.max(high);
                continue;
            }
        }
        list[kept] = (low, high);
        kept += 1;
    }
    list.truncate(kept);
}

/// The numbers that are in both; inputs and result normalised.
#[must_use]
pub fn intersection<T: Number>(a: &[(T, T)], b: &[(T, T)]) -> Vec<(T, T)> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while i < a.len() && j < b.len() {
        let low = a[i].0.max(b[j].0);
        let high = a[i].1.min(b[j].1);
        if low <= high {
            out.push((low, high));
        }
        if a[i].1 < b[j].1 { i += 1 } else { j += 1 }
    }
    out
}

/// The numbers from `min` to `max` that are not in `list`; input and result normalised.
#[must_use]
pub fn complement<T: Number>(list: &[(T, T)], min: T, max: T) -> Vec<(T, T)> {
    let mut out = Vec::with_capacity(list.len() + 1);
    let mut next = Some(min);
    for &(low, high) in list {
        if let (Some(from), Some(to)) = (next, low.before())
            && from <= to
        {
            out.push((from, to));
        }
        next = high.after();
    }
    if let Some(from) = next
        && from <= max
    {
        out.push((from, max));
    }
    out
}

fn find<T: Number>(list: &[(T, T)], value: T) -> bool {
    let at = list.partition_point(|&(_, high)| high < value);
    list.get(at).is_some_and(|&(low, _)| low <= value)
}

impl Ranges {
    /// From any list of inclusive ranges.
    #[must_use]
    pub fn new(mut list: Vec<(u32, u32)>) -> Self {
        normalise(&mut list);
        Self(list)
    }

    /// The ranges.
    #[must_use]
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `value` is in one.
    #[must_use]
    pub fn contains(&self, value: u32) -> bool {
        find(&self.0, value)
    }

    /// The numbers in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(intersection(&self.0, &other.0))
    }

    /// The numbers from 0 to `max` that are in none.
    #[must_use]
    pub fn complement(&self, max: u32) -> Self {
        Self(complement(&self.0, 0, max))
    }
}

impl AddressRanges {
    /// Adds one address with a prefix length (host bits may be set; they are ignored).
    pub fn push_prefix(&mut self, address: IpAddr, length: u8) {
        match address {
            IpAddr::V4(a) => {
                let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
                let low = u32::from(a) & !host;
                self.v4.push((low, low | host));
            }
            IpAddr::V6(a) => {
                let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
                let low = u128::from(a) & !host;
                self.v6.push((low, low | host));
            }
        }
    }

    /// Sorts and merges; call it after the last addition.
    pub fn normalise(&mut self) {
        normalise(&mut self.v4);
        normalise(&mut self.v6);
    }

    /// Whether the address is in a range. The ranges are normalised.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => find(&self.v4, a.into()),
            IpAddr::V6(a) => find(&self.v6, a.into()),
        }
    }

    /// Whether there is no address in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_intersect_and_complement() {
        let a = Ranges::new(vec![(5, 9), (1, 3), (4, 4), (20, 30)]);
        assert_eq!(a.as_slice(), [(1, 9), (20, 30)]);
        assert_eq!(a.complement(255).as_slice(), [(0, 0), (10, 19), (31, 255)]);
        assert_eq!(a.intersection(&Ranges::new(vec![(9, 21)])).as_slice(), [(9, 9), (20, 21)]);
        assert_eq!(Ranges::new(vec![(0, u32::MAX)]).complement(u32::MAX).as_slice(), []);
        assert!(a.contains(20) && !a.contains(19) && !a.contains(31));
    }

    #[test]
    fn prefixes_of_every_length_have_their_bounds() {
        let mut set = AddressRanges::default();
        set.push_prefix("10.1.2.3".parse().unwrap(), 0);
        set.push_prefix("2001:db8::1".parse().unwrap(), 128);
        set.normalise();
        assert_eq!(set.v4, [(0, u32::MAX)]);
        assert!(set.contains("2001:db8::1".parse().unwrap()) && !set.contains("2001:db8::2".parse().unwrap()));
    }
}

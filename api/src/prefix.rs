//! An address or a prefix.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// An address or prefix whose host bits are zero; as text `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, example = "203.0.113.0/24")]
pub struct Prefix(IpNet);

impl Prefix {
    /// The first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.addr()
    }

    /// How many leading bits are fixed: 0..=32 or 0..=128.
    #[must_use]
    pub fn length(self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether it is one address only.
    #[must_use]
    pub fn is_address(self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// The prefix of `length` bits that holds `address`; `None` when the length is too large for its family.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        IpNet::new(address, length).ok().map(|net| Self(net.trunc()))
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self(address.into())
    }
}

/// Why a text is no [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePrefixError {
    /// Neither an address nor a prefix.
    #[error("`{0}` is not an address or prefix such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32")]
    Syntax(String),
    /// Bits are set that the length leaves open: the author may have meant one of two things.
    #[error(
        "`{given}` has bits set beyond its prefix length: write `{prefix}` for the prefix or `{address}` for the address"
    )]
    HostBits {
        /// What was given.
        given: String,
        /// The prefix it lies in.
        prefix: Prefix,
        /// The address alone.
        address: IpAddr,
    },
    /// An IPv4 address written as IPv6: no packet carries it.
    #[error("`{given}` is an IPv4 address written as IPv6: write `{address}`")]
    Mapped {
        /// What was given.
        given: String,
        /// The IPv4 address.
        address: std::net::Ipv4Addr,
    },
}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: IpNet = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| ParsePrefixError::Syntax(text.to_owned()))?;
        if let IpAddr::V6(v6) = net.addr()
            && let Some(address) = v6.to_ipv4_mapped()
        {
            return Err(ParsePrefixError::Mapped { given: text.to_owned(), address });
        }
        if net.trunc() != net {
            return Err(ParsePrefixError::HostBits {
                given: text.to_owned(),
                prefix: Self(net.trunc()),
                address: net.addr(),
            });
        }
        Ok(Self(net))
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_address() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_without_a_length() {
        for (text, written) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:DB8:0::/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1/128", "::1"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        for text in ["", "192.0.2.1/33", "192.0.2", "192.0.2.1/-1", "2001:db8::/129", "host.example", "192.0.2.1 "] {
            assert_eq!(text.parse::<Prefix>(), Err(ParsePrefixError::Syntax(text.into())));
        }
        let error = "192.0.2.7/24".parse::<Prefix>().unwrap_err().to_string();
        assert!(error.contains("`192.0.2.0/24`") && error.contains("`192.0.2.7`"), "{error}");
        let error = "::ffff:192.0.2.7".parse::<Prefix>().unwrap_err().to_string();
        assert!(error.ends_with("write `192.0.2.7`"), "{error}");
    }
}

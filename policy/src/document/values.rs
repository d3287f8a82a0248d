//! Single values: text to number, range, address, port, flag set... They know no places; the caller adds them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::problems::{Complaint, quote};
use crate::model::{FlagSet, IcmpMatch, NameGlob, Rate, STATES};
use crate::services;

type Parsed<T> = Result<T, Complaint>;

/// A number, decimal or `0x`.
pub(super) fn number(text: &str, max: u32) -> Parsed<u32> {
    Ok(number64(text, max.into())? as u32)
}

/// A number of up to 64 bits, decimal or `0x`.
pub(super) fn number64(text: &str, max: u64) -> Parsed<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    if digits.contains('_') && digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Complaint::new(format!("{} is not a number: digits are written without `_`", quote(text))));
    }
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(Complaint::new(format!("expected a number, found {}", quote(text))));
    }
    if radix == 10 && digits.len() > 1 && digits.starts_with('0') {
        let help = "write it without the zero, or `0x` before hexadecimal digits";
        return Err(Complaint::new(format!("{} begins with a zero, which could mean octal", quote(text))).help(help));
    }
    match u64::from_str_radix(digits, radix) {
        Ok(number) if number <= max => Ok(number),
        _ => Err(Complaint::new(format!("{} is out of range, the largest is {max}", quote(text)))),
    }
}

/// A number, or `LOW-HIGH`.
pub(super) fn number_range(text: &str, max: u32) -> Parsed<(u32, u32)> {
    let Some((low, high)) = text.split_once('-') else {
        let number = number(text, max)?;
        return Ok((number, number));
    };
    ordered(number(low.trim_end(), max)?, number(high.trim_start(), max)?, text)
}

fn ordered<T: PartialOrd>(low: T, high: T, text: &str) -> Parsed<(T, T)> {
    if low > high {
        return Err(Complaint::new(format!("the range {} ends before it begins", quote(text)))
            .help("the smaller one comes first"));
    }
    Ok((low, high))
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Complaint::new(format!("expected `true` or `false`, found {}", quote(text)))),
    }
}

// Ten years: more is a mistake, and the kernel's clock arithmetic stays far from its limits.
const MAX_DURATION: u64 = 3650 * 86_400;

/// A duration in seconds: `90s`, `5m`, `1h`, `7d`, `2w`.
pub(super) fn state(text: &str) -> Parsed<u8> {
    match STATES.iter().position(|state| *state == text) {
        Some(index) => Ok(index as u8),
        None => Err(Complaint::unknown("state", text, STATES)),
    }
}

pub(super) fn duration(text: &str) -> Parsed<u64> {
    let expected =
        || Complaint::new(format!("expected a duration such as `90s`, `5m`, `1h` or `7d`, found {}", quote(text)));
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(expected()),
    };
    let total = number64(digits, MAX_DURATION).map_err(|_| expected())?.saturating_mul(seconds);
    if total == 0 || total > MAX_DURATION {
        return Err(Complaint::new(format!("the duration {} is out of range, 1 second to 3650 days", quote(text))));
    }
    Ok(total)
}

/// A service or a number or a range of ports.
pub(super) fn port(text: &str) -> Parsed<(u32, u32)> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return number_range(text, 65_535);
    }
    match services::service(text) {
        Some(port) => Ok((port.into(), port.into())),
        None => Err(Complaint::new(format!("expected a port, a range or a service, found {}", quote(text)))
            .near(text, services::SERVICES.iter().map(|(name, _)| *name))),
    }
}

/// A protocol's name or number.
pub(super) fn protocol(text: &str) -> Parsed<u8> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(number(text, 255)? as u8);
    }
    services::protocol(text)
        .ok_or_else(|| Complaint::unknown("protocol", text, services::PROTOCOLS.iter().map(|(name, _)| *name)))
}

/// An inclusive range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    V4(u32, u32),
    V6(u128, u128),
}

/// One address.
pub(super) fn address(text: &str) -> Parsed<IpAddr> {
    text.parse().map_err(|_| not_an_address(text))
}

fn not_an_address(text: &str) -> Complaint {
    let complaint = Complaint::new(format!("expected an address, a prefix or a range `a-b`, found {}", quote(text)));
    if text.contains('%') {
        return complaint.help("an address has no zone here; use `interface:` beside it");
    }
    let octets: Vec<&str> = text.split('.').collect();
    if octets.len() == 4 && octets.iter().any(|octet| octet.len() > 1 && octet.starts_with('0')) {
        return complaint.help("the parts of an IPv4 address have no leading zeros");
    }
    if text.starts_with('!') {
        return complaint.help("to negate, write `{not: ...}`");
    }
    match text {
        "any" | "all" => complaint.help("leave the key out to match any address"),
        "local" | "gateways" | "resolvers" => complaint.help(format!("did you mean `${text}`?")),
        _ if text.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') => {
            complaint.help("names are not looked up; a set is written `$name`")
        }
        _ => complaint,
    }
}

/// An address, a prefix or a range; and whether a prefix had bits set past its length.
pub(super) fn addresses_loosely(text: &str) -> Parsed<(Addresses, bool)> {
    if let Some((base, length)) = text.split_once('/') {
        let base: IpAddr = address(base).map_err(|_| not_an_address(text))?;
        return prefix(base, length, text);
    }
    if let Some((low, high)) = text.split_once('-') {
        let ends = (low.trim_end().parse(), high.trim_start().parse());
        let (Ok(low), Ok(high)): (Result<IpAddr, _>, Result<IpAddr, _>) = ends else {
            return Err(not_an_address(text));
        };
        return match (low, high) {
            (IpAddr::V4(low), IpAddr::V4(high)) => {
                ordered(u32::from(low), u32::from(high), text).map(|(low, high)| (Addresses::V4(low, high), false))
            }
            (IpAddr::V6(low), IpAddr::V6(high)) => {
                ordered(u128::from(low), u128::from(high), text).map(|(low, high)| (Addresses::V6(low, high), false))
            }
            _ => Err(Complaint::new(format!("the ends of the range {} are of different families", quote(text)))),
        };
    }
    Ok((
        match address(text)? {
            IpAddr::V4(address) => Addresses::V4(address.into(), address.into()),
            IpAddr::V6(address) => Addresses::V6(address.into(), address.into()),
        },
        false,
    ))
}

fn prefix(base: IpAddr, length: &str, text: &str) -> Parsed<(Addresses, bool)> {
    let bits = if base.is_ipv4() { 32 } else { 128 };
    let length = if length.starts_with("0x") { None } else { number(length, bits).ok() };
    let length =
        length.ok_or_else(|| Complaint::new(format!("{} has no valid prefix length, 0 to {bits}", quote(text))))?;
    Ok(match base {
        IpAddr::V4(base) => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            let base = u32::from(base);
            (Addresses::V4(base & !host, base | host), base & host != 0)
        }
        IpAddr::V6(base) => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            let base = u128::from(base);
            (Addresses::V6(base & !host, base | host), base & host != 0)
        }
    })
}

/// An address, a prefix without bits past its length, or a range.
pub(super) fn addresses(text: &str) -> Parsed<Addresses> {
    let (addresses, host_bits) = addresses_loosely(text)?;
    if !host_bits {
        return Ok(addresses);
    }
    let base = match addresses {
        Addresses::V4(low, _) => IpAddr::V4(Ipv4Addr::from(low)),
        Addresses::V6(low, _) => IpAddr::V6(Ipv6Addr::from(low)),
    };
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    Err(Complaint::new(format!("{} has bits set past its prefix length", quote(text)))
        .help(format!("for the network write `{base}/{length}`, for the one address `{address}`")))
}

/// An interface name or a glob over names.
pub(super) fn interface_glob(text: &str) -> Parsed<NameGlob> {
    let bad = |why: &str| Err(Complaint::new(format!("{} is not an interface name: {why}", quote(text))));
    if text.starts_with('$') {
        return bad("there are no sets of interfaces");
    }
    if text.is_empty() || text == "." || text == ".." {
        return bad("expected a name such as `eth0`, or a glob such as `\"wg*\"`");
    }
    if text.len() > 15 {
        return bad("names have at most 15 bytes");
    }
    if text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return bad("names have no `/`, `:` or blanks");
    }
    if text.contains(['[', ']', '{', '}']) {
        return bad("a glob has `*` and `?` only");
    }
    Ok(NameGlob(text.to_owned()))
}

/// `syn`, `syn,!ack`: the flag bytes with all of these set or not.
pub(super) fn flags(text: &str) -> Parsed<FlagSet> {
    let (mut set, mut clear) = (0_u8, 0_u8);
    for word in text.split(',') {
        let word = word.trim();
        let (negated, name) = word.strip_prefix('!').map_or((false, word), |name| (true, name));
        let bit = flag(name)?;
        *(if negated { &mut clear } else { &mut set }) |= bit;
    }
    if set & clear != 0 {
        return Err(Complaint::new(format!("{} wants a flag both set and not set", quote(text))));
    }
    let mut all = FlagSet::default();
    (0..=255_u8).filter(|byte| byte & set == set && byte & clear == 0).for_each(|byte| all.insert(byte));
    Ok(all)
}

/// The byte with exactly these flags: `syn,ack`.
pub(super) fn flag_byte(text: &str) -> Parsed<u8> {
    text.split(',').try_fold(0, |byte, word| Ok(byte | flag(word.trim())?))
}

fn flag(name: &str) -> Parsed<u8> {
    services::tcp_flag(name)
        .ok_or_else(|| Complaint::unknown("TCP flag", name, services::TCP_FLAGS.iter().map(|(name, _)| *name)))
}

/// An ICMP message: what a name means in each family, or a number that needs a protocol beside it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Icmp {
    Named { v4: Option<services::Message>, v6: Option<services::Message> },
    Number(services::Message),
}

/// `echo-request`, `8`, `3/1`.
pub(super) fn icmp(text: &str) -> Parsed<Icmp> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let (kind, code) = text.split_once('/').map_or((text, None), |(kind, code)| (kind, Some(code)));
        let code = code.map(|code| number(code, 255)).transpose()?.map(|code| code as u8);
        return Ok(Icmp::Number((number(kind, 255)? as u8, code)));
    }
    let (v4, v6) = services::icmp_message(text).ok_or_else(|| {
        Complaint::new(format!("expected an ICMP message, its type or `type/code`, found {}", quote(text)))
            .near(text, services::ICMP_MESSAGES.iter().map(|(name, ..)| *name))
    })?;
    Ok(Icmp::Named { v4, v6 })
}

impl Icmp {
    /// Adds the message to the accepted ones. A number goes to both: the protocol beside it tells them apart.
    pub fn add_to(&self, v4: &mut Vec<(u32, u32)>, v6: &mut Vec<(u32, u32)>) {
        let (in_v4, in_v6) = match self {
            Self::Named { v4, v6 } => (*v4, *v6),
            Self::Number(message) => (Some(*message), Some(*message)),
        };
        v4.extend(in_v4.map(codes));
        v6.extend(in_v6.map(codes));
    }
}

fn codes((kind, code): services::Message) -> (u32, u32) {
    let kind = u32::from(kind) * 256;
    code.map_or((kind, kind + 255), |code| (kind + u32::from(code), kind + u32::from(code)))
}

/// All messages but these.
pub(super) fn icmp_complement(of: &IcmpMatch) -> IcmpMatch {
    IcmpMatch { v4: of.v4.complement(65_535), v6: of.v6.complement(65_535) }
}

/// A name that people give: to rules, groups, sets. It needs no quotes in YAML and stands in the shell.
pub(super) fn given_name(text: &str) -> Parsed<&str> {
    let valid = text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if valid {
        return Ok(text);
    }
    Err(Complaint::new(format!("{} is not a name", quote(text)))
        .help("a name begins with a letter and has letters, digits, `-`, `_` and `.`, at most 64"))
}

/// `10/minute`, `5MiB/s`.
pub(super) fn rate(text: &str) -> Parsed<Rate> {
    let expected =
        || Complaint::new(format!("expected a rate such as `10/minute` or `10MiB/s`, found {}", quote(text)));
    let (amount, unit) = text.split_once('/').ok_or_else(expected)?;
    let (digits, size) = amount.split_at(amount.find(|c: char| !c.is_ascii_digit()).unwrap_or(amount.len()));
    let seconds = match unit.trim() {
        "s" | "second" => 1,
        "m" | "minute" => 60,
        "h" | "hour" => 3600,
        "d" | "day" => 86_400,
        _ => return Err(expected()),
    };
    let bytes = !size.is_empty();
    let size = match size {
        "" | "B" => 1,
        "kB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return Err(expected()),
    };
    match number64(digits, u32::MAX.into()) {
        Ok(count @ 1..) => Ok(Rate { amount: count * size, seconds, bytes }),
        _ => Err(expected()),
    }
}

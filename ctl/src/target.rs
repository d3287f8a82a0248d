//! WHAT of `deny`, `allow` and `undo`.

use ringfence_api::{Prefix, Target};

/// Parses an address, a prefix, `ADDR:PORT` or `[V6]:PORT`.
pub fn parse(text: &str) -> Result<Target, String> {
    if text.starts_with(['/', '~', '*', '.']) {
        return Err("paths belong to the host half, which this version does not have".to_owned());
    }
    let (address, port) = split(text)?;
    let address: Prefix = address.parse().map_err(|error: ringfence_api::ParsePrefixError| error.to_string())?;
    Ok(Target { address, port })
}

/// Address and port. An IPv6 address needs brackets to have a port: `2001:db8::1:22` is an address.
fn split(text: &str) -> Result<(&str, Option<u16>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or("the `[` has no `]`")?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((address, Some(parse_port(port)?))),
            None if after.is_empty() => Ok((address, None)),
            None => Err(format!("expected `:PORT` after the `]`, found `{after}`")),
        };
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => Ok((address, Some(parse_port(port)?))),
        _ => Ok((text, None)),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { ringfence_policy::services::service(text) };
    number.ok_or_else(|| format!("expected a port (0 to 65535, or a service such as `ssh`), found `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_comes_back_as_it_is_shown() {
        for text in ["192.0.2.1", "192.0.2.0/24", "192.0.2.1:22", "2001:db8::/32", "[2001:db8::1]:22", "10.0.0.0/8:443"]
        {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("[2001:db8::1]").unwrap().to_string(), "2001:db8::1");
        assert_eq!(parse("192.0.2.1:ssh").unwrap().port, Some(22));
        // Without brackets the last group belongs to the address.
        assert_eq!(parse("2001:db8::1:22").unwrap().port, None);
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        for (text, says) in [
            ("192.0.2.1:70000", "expected a port"),
            ("192.0.2.1:", "expected a port"),
            ("192.0.2.1:+22", "expected a port"),
            ("[2001:db8::1", "no `]`"),
            ("[2001:db8::1]22", "expected `:PORT`"),
            ("host.example", "not an address or prefix"),
            ("192.0.2.7/24", "bits set beyond"),
            ("/etc/shadow", "host half"),
            ("", "not an address or prefix"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}

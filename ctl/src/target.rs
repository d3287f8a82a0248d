//! WHAT of `deny`, `allow` and `undo`.

use ringfence_api::{Prefix, Target};

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Packets.
    Packets(Target),
    /// A host path, or `DIR/**`.
    Path(String),
}

/// Parses an address, a prefix, `ADDR:PORT`, `[V6]:PORT`, or a path.
pub fn parse(text: &str) -> Result<Typed, String> {
    if text.starts_with('/') {
        return Ok(Typed::Path(text.to_owned()));
    }
    if text.starts_with(['~', '*', '.', '@']) {
        return Err("a path begins with `/`; `DIR/**` is a directory and all below it".to_owned());
    }
    let (address, port) = split(text)?;
    let address: Prefix = address.parse().map_err(|error: ringfence_api::ParsePrefixError| error.to_string())?;
    Ok(Typed::Packets(Target { address, port }))
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

    fn packets(text: &str) -> Target {
        match parse(text).unwrap() {
            Typed::Packets(target) => target,
            Typed::Path(path) => panic!("{path} is no path"),
        }
    }

    #[test]
    fn what_is_typed_comes_back_as_it_is_shown() {
        for text in ["192.0.2.1", "192.0.2.0/24", "192.0.2.1:22", "2001:db8::/32", "[2001:db8::1]:22", "10.0.0.0/8:443"]
        {
            assert_eq!(packets(text).to_string(), text);
        }
        assert_eq!(packets("[2001:db8::1]").to_string(), "2001:db8::1");
        assert_eq!(packets("192.0.2.1:ssh").port, Some(22));
        // Without brackets the last group belongs to the address.
        assert_eq!(packets("2001:db8::1:22").port, None);
        assert_eq!(parse("/srv/data/**"), Ok(Typed::Path("/srv/data/**".to_owned())));
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
            ("./shadow", "begins with `/`"),
            ("", "not an address or prefix"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}

//! Users by name, from `/etc/passwd` and nowhere else: name services would let a directory server say who is meant.

/// A user id: a number, or the name of a local user.
pub fn uid(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|error| format!("cannot read /etc/passwd: {error}"))?;
    uid_in(&passwd, text).ok_or_else(|| format!("/etc/passwd has no user `{text}`"))
}

fn uid_in(passwd: &str, name: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_taken_and_nothing_else() {
        assert_eq!(uid("1000"), Ok(1000));
        assert_eq!(uid("root"), Ok(0));
        assert!(uid("no such user").unwrap_err().contains("no user"));
        assert_eq!(uid_in("a:x:7:7::/:/bin/sh\nbroken\n", "broken"), None);
    }
}

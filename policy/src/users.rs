//! Names of users and groups, from `/etc/passwd` and `/etc/group` and nowhere else: a directory server must not decide
//! what a policy means.

use std::path::PathBuf;

/// Where names are looked up.
#[derive(Clone, Debug)]
pub struct Users {
    passwd: PathBuf,
    group: PathBuf,
}

impl Default for Users {
    fn default() -> Self {
        Self { passwd: "/etc/passwd".into(), group: "/etc/group".into() }
    }
}

impl Users {
    /// From other files of the same form.
    #[must_use]
    pub fn from_files(passwd: PathBuf, group: PathBuf) -> Self {
        Self { passwd, group }
    }

    /// A user's number.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<u32> {
        number(&std::fs::read_to_string(&self.passwd).ok()?, name)
    }

    /// A group's number.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<u32> {
        number(&std::fs::read_to_string(&self.group).ok()?, name)
    }
}

/// The third field of the line whose first is the name; both files have it there.
fn number(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_the_third_field() {
        let text = "root:x:0:0:root:/root:/bin/bash\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\nbad:x:many:\n";
        assert_eq!((number(text, "root"), number(text, "ann")), (Some(0), Some(1000)));
        assert_eq!((number(text, "an"), number(text, "broken"), number(text, "bad")), (None, None, None));
    }
}

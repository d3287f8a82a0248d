//! Users and groups, from `/etc/passwd` and `/etc/group` and nowhere else.
//!
//! Not through libc: its name services load libraries (which a static program cannot: it crashes), ask the network,
//! and so would let a directory server decide who may read the policy.

use std::fs;

/// A user's name; `None` for one that `/etc/passwd` does not have.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    name_of(&read("/etc/passwd")?, uid)
}

/// A group's number; `None` for one that `/etc/group` does not have.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    id_of(&read("/etc/group")?, name)
}

/// Whether a group lists a user as a member. Primary groups are not listed.
#[must_use]
pub fn is_member(user: &str, gid: u32) -> bool {
    read("/etc/group").is_some_and(|groups| lists(&groups, user, gid))
}

/// A file's text. A full name may be in any encoding, and must not hide the other lines.
fn read(path: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

/// The fields of each line; one with fewer than `N` is passed over, as libc does.
fn entries<const N: usize>(text: &str) -> impl Iterator<Item = [&str; N]> {
    text.lines().filter_map(|line| line.splitn(N, ':').collect::<Vec<_>>().try_into().ok())
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let found = entries(passwd).find(|[_, _, number, _]: &[&str; 4]| number.parse() == Ok(uid));
    found.map(|[name, ..]| name.to_owned())
}

fn id_of(group: &str, wanted: &str) -> Option<u32> {
    entries(group).find(|[name, ..]: &[&str; 4]| *name == wanted)?[2].parse().ok()
}

fn lists(group: &str, user: &str, gid: u32) -> bool {
    entries(group)
        .filter(|[_, _, number, _]: &[&str; 4]| number.parse() == Ok(gid))
        .any(|[.., members]| members.split(',').any(|member| member == user))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken line\nann:x:1000:1000::/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nringfence:x:990:bob,ann\nempty:x:991:\n";

    #[test]
    fn users_and_groups_are_found_by_number_and_name() {
        assert_eq!(name_of(PASSWD, 1000).as_deref(), Some("ann"));
        assert_eq!(name_of(PASSWD, 7), None);
        assert_eq!(id_of(GROUP, "ringfence"), Some(990));
        assert_eq!(id_of(GROUP, "ring"), None);
    }

    #[test]
    fn members_are_those_listed_whole() {
        assert!(lists(GROUP, "ann", 990) && lists(GROUP, "bob", 990));
        assert!(!lists(GROUP, "an", 990) && !lists(GROUP, "ann", 991));
    }
}

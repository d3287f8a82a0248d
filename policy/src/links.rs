//! Symbolic links in the patterns of a host half. The kernel sees where a path leads and never the link, so a pattern
//! through a link would match nothing.
//!
//! What depends on the machine is looked at through a function of the caller's, [`on_this_machine`] for one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;

use crate::model::{Location, PathGlob, PathMatch, Policy};

/// What is at a path of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Missing,
    /// It cannot be told.
    Unknown,
    /// Something, with the path after all links.
    There {
        /// The path.
        real: String,
        /// An executable file that begins with `#!`.
        script: bool,
    },
}

/// Something to be said about a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The rule.
    pub rule: String,
    /// Where it stands.
    pub at: Location,
    /// What is to be said.
    pub message: String,
    /// What may be done about it.
    pub help: Option<String>,
}

/// [`Found`] on the machine this runs on.
#[must_use]
pub fn on_this_machine(path: &str) -> Found {
    match fs::canonicalize(path) {
        Ok(real) => match real.to_str() {
            Some(real) => Found::There { real: real.to_owned(), script: is_script(real) },
            None => Found::Unknown,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Missing,
        Err(_) => Found::Unknown,
    }
}

fn is_script(path: &str) -> bool {
    let Ok(meta) = fs::metadata(path) else { return false };
    // Only plain files are opened: opening others may wait, or do something.
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return false;
    }
    let mut start = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
}

/// Adds to every pattern that leads through a link the one for where it leads, and says what is noticeable: links,
/// literal paths that do not exist, executables that are scripts.
pub fn follow(policy: &mut Policy, look: &dyn Fn(&str) -> Found) -> Vec<Remark> {
    let mut remarks = BTreeSet::new();
    for rule in &mut policy.host.rules {
        let mut remark = |message: String, help: Option<&str>| {
            let help = help.map(str::to_owned);
            remarks.insert(Remark { rule: rule.name.clone(), at: rule.at, message, help });
        };
        let matches = &mut rule.matches;
        for list in matches.path.iter_mut().flat_map(lists) {
            follow_list(list, look, &mut remark);
        }
        let programs = [&mut matches.exe, &mut matches.ancestor, &mut matches.target];
        for list in programs.into_iter().flatten().flat_map(lists) {
            follow_list(list, look, &mut remark);
            for pattern in list.iter().filter_map(literal) {
                if matches!(look(pattern), Found::There { script: true, .. }) {
                    let message = format!("`{pattern}` is a script: the executable of who runs it is its interpreter");
                    remark(message, Some("confine it by `unit`, or by its interpreter"));
                }
            }
        }
    }
    remarks.into_iter().collect()
}

fn lists(condition: &mut PathMatch) -> impl Iterator<Item = &mut Vec<PathGlob>> {
    condition.any_of.iter_mut().chain([&mut condition.none_of])
}

fn follow_list(list: &mut Vec<PathGlob>, look: &dyn Fn(&str) -> Found, remark: &mut impl FnMut(String, Option<&str>)) {
    let mut more = Vec::new();
    for pattern in list.iter() {
        let PathGlob::Path(text) = pattern else { continue };
        let Some((fixed, rest)) = split(text) else { continue };
        match look(fixed) {
            Found::There { real, .. } if real != fixed => {
                let followed = format!("{}{rest}", real.trim_end_matches('/'));
                remark(format!("`{text}` leads through a symbolic link: followed as `{followed}`"), None);
                more.push(PathGlob::Path(followed));
            }
            Found::Missing => {
                remark(format!("`{fixed}` does not exist"), Some("a name that appears later is judged all the same"));
                more.extend(through_ancestor(fixed, rest, look).map(PathGlob::Path));
            }
            Found::There { .. } | Found::Unknown => {}
        }
    }
    for pattern in more {
        if !list.contains(&pattern) {
            list.push(pattern);
        }
    }
}

/// Where a path would lead that does not exist, when a directory on the way to it is a link.
fn through_ancestor(fixed: &str, rest: &str, look: &dyn Fn(&str) -> Found) -> Option<String> {
    let ancestors =
        fixed.match_indices('/').map(|(at, _)| fixed.split_at(at)).filter(|(directory, _)| !directory.is_empty());
    let there = ancestors.rev().find_map(|(directory, below)| match look(directory) {
        Found::There { real, .. } => Some((directory, real, below)),
        Found::Missing | Found::Unknown => None,
    });
    let (directory, real, below) = there?;
    (real != directory).then(|| format!("{}{below}{rest}", real.trim_end_matches('/')))
}

/// The components before the first wildcard, and the rest. `None` for what names no fixed place: abstract sockets,
/// `**/` patterns, wildcards right below the root.
fn split(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with('/') {
        return None;
    }
    let wild = text.find(['*', '?', '[', '{', '\\']).unwrap_or(text.len());
    let end = if wild == text.len() { wild } else { text[..wild].rfind('/')? };
    let (fixed, rest) = text.split_at(end);
    (!fixed.is_empty()).then_some((fixed, rest))
}

/// The pattern as a path, if it is nothing else.
fn literal(pattern: &PathGlob) -> Option<&str> {
    let PathGlob::Path(text) = pattern else { return None };
    split(text).filter(|(_, rest)| rest.is_empty()).map(|(fixed, _)| fixed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HostMatch, HostRule, Verdict};

    /// `/var/run` is a link to `/run`, `/bin` one to `/usr/bin`; `/usr/bin/tool` is a script.
    fn look(path: &str) -> Found {
        let real = match path {
            "/var/run" => "/run",
            "/bin" => "/usr/bin",
            "/bin/sh" => "/usr/bin/dash",
            "/etc" | "/etc/shadow" | "/usr/bin/dash" | "/usr/bin/tool" | "/home" | "/run" => path,
            "/secret/x" => return Found::Unknown,
            _ => return Found::Missing,
        };
        Found::There { real: real.to_owned(), script: path == "/usr/bin/tool" }
    }

    fn one(patterns: &[&str]) -> Vec<PathMatch> {
        let any_of = patterns.iter().map(|&text| PathGlob::Path(text.to_owned())).collect();
        vec![PathMatch { any_of: Some(any_of), none_of: Vec::new() }]
    }

    fn followed(path: &[&str], exe: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut policy = Policy::empty();
        policy.host.rules.push(HostRule {
            name: "r".to_owned(),
            named: true,
            at: Location { file: 0, line: 3, column: 1 },
            verdict: Verdict::Drop,
            audit: false,
            matches: HostMatch { ops: 1, path: one(path), exe: one(exe), ..HostMatch::default() },
        });
        let remarks = follow(&mut policy, &look).into_iter().map(|remark| remark.message).collect();
        let matches = &policy.host.rules[0].matches;
        let lists = [&matches.path, &matches.exe].into_iter().flatten().filter_map(|one| one.any_of.as_ref()).flatten();
        let patterns = lists.map(|pattern| match pattern {
            PathGlob::Path(text) | PathGlob::Unit(text) => text.clone(),
        });
        (patterns.collect(), remarks)
    }

    #[test]
    fn where_a_link_leads_is_judged_too() {
        let (patterns, remarks) = followed(&["/var/run/**", "/etc/shadow"], &["/bin/sh"]);
        assert_eq!(patterns, ["/var/run/**", "/etc/shadow", "/run/**", "/bin/sh", "/usr/bin/dash"]);
        assert_eq!(remarks.len(), 2);
        assert!(remarks.iter().all(|remark| remark.contains("symbolic link")), "{remarks:?}");
        let (patterns, remarks) = followed(&["/var/run/not/yet/*.sock"], &["/usr/bin/dash"]);
        assert_eq!(patterns[1], "/run/not/yet/*.sock");
        assert!(remarks[0].contains("`/var/run/not/yet` does not exist"), "{remarks:?}");
    }

    #[test]
    fn what_names_no_fixed_place_is_left_alone() {
        let patterns = ["/home/*/.ssh/**", "**/x", "@name", "/**", "/secret/x"];
        assert_eq!(followed(&patterns, &[]).1, [""; 0]);
        assert_eq!(followed(&patterns, &[]).0, patterns);
    }

    #[test]
    fn the_machine_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap().to_str().unwrap().to_owned();
        let (script, link) = (format!("{root}/script"), format!("{root}/link"));
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(&script, &link).unwrap();
        assert_eq!(on_this_machine(&link), Found::There { real: script.clone(), script: true });
        fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(on_this_machine(&script), Found::There { real: script, script: false });
        assert_eq!(on_this_machine(&format!("{root}/nothing")), Found::Missing);
    }

    #[test]
    fn scripts_and_missing_files_are_remarked() {
        let (patterns, remarks) = followed(&["/etc/nothing"], &["/usr/bin/tool"]);
        assert_eq!(patterns.len(), 2);
        assert_eq!(remarks.len(), 2);
        assert!(
            remarks[0].contains("`/etc/nothing` does not exist") && remarks[1].contains("is a script"),
            "{remarks:?}"
        );
    }
}

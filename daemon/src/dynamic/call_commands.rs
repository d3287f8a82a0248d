//! `ringctl deny PATH` and `allow PATH`: what is changed in the kernel and on the disk.

use std::fs;
use std::path::{Component, Path, PathBuf};

use ringfence_abi::host::{EXE_PATH, MAX_PATH_ENTRIES};
use ringfence_api::Calls;

use super::Dynamic;
use super::calls::{CallEntry, operations, split};
use super::journal::Event;
use crate::error::{Error, Result, with_sources};
use crate::kernel::{Kernel, Loaded};

/// The kernel follows no longer path.
const MAX_PATH: usize = 4096;

impl Dynamic {
    /// Adds an entry about system calls. It is in force in all of `loaded` when this returns; without a kernel it is
    /// only kept.
    pub fn add_call(&mut self, kernel: Option<&Kernel>, loaded: &[&Loaded], entry: CallEntry) -> Result<()> {
        if self.calls.len() >= MAX_PATH_ENTRIES as usize {
            return Err(Error::No(format!("there are {MAX_PATH_ENTRIES} entries about paths, the most there can be")));
        }
        let number = kernel.map(|kernel| kernel.add_path_rule(&entry.rule(), loaded)).transpose()?;
        if let Err(error) = self.log.append(&[Event::Call(entry.clone())]) {
            if let (Some(kernel), Some(number)) = (kernel, number)
                && let Err(error) = kernel.remove_path_rule(number)
            {
                tracing::error!(id = entry.id, error = with_sources(&error), "cannot take back an entry that failed");
            }
            return Err(error.into());
        }
        self.entries.reserve(entry.id + 1);
        if let Some(number) = number {
            self.calls.set_number(entry.id, number);
        }
        self.calls.insert(entry);
        self.tidy();
        Ok(())
    }

    /// Takes an entry about system calls back.
    pub fn remove_call(&mut self, kernel: Option<&Kernel>, id: u64) -> Result<Option<CallEntry>> {
        if self.calls.get(id).is_none() {
            return Ok(None);
        }
        // Written first: what the disk no longer has is not restored, and the kernel is told right after.
        self.log.append(&[Event::Undo { id }])?;
        let Some((entry, number)) = self.calls.remove(id) else { return Ok(None) };
        if let (Some(kernel), Some(number)) = (kernel, number) {
            kernel.remove_path_rule(number)?;
        }
        self.tidy();
        Ok(Some(entry))
    }

    pub(super) fn expire_calls(&mut self, kernel: Option<&Kernel>, now: u64) -> Result<()> {
        for id in self.calls.expired(now) {
            let Some((entry, number)) = self.calls.remove(id) else { continue };
            tracing::info!(id, what = %entry.what, "a dynamic entry has expired");
            if let (Some(kernel), Some(number)) = (kernel, number) {
                kernel.remove_path_rule(number)?;
            }
        }
        Ok(())
    }

    /// The kernel's entries about paths are gone, all of them.
    pub fn forget_calls_in_kernel(&mut self) {
        self.calls.forget_numbers();
        self.calls_restored = false;
    }

    /// Brings the kernel's entries about paths to what is kept, once. Those that are there already keep their counts.
    pub fn restore_calls(&mut self, kernel: &Kernel, loaded: &[&Loaded]) -> Result<()> {
        if self.calls_restored {
            return Ok(());
        }
        self.calls.forget_numbers();
        for (number, present) in kernel.path_entries()? {
            match self.calls.get(present.id).filter(|_| present.id != 0) {
                Some(entry) if self.calls.number(entry.id).is_none() => self.calls.set_number(present.id, number),
                _ => kernel.remove_path_rule(number)?,
            }
        }
        let missing: Vec<CallEntry> =
            self.calls.iter().filter(|entry| self.calls.number(entry.id).is_none()).cloned().collect();
        for entry in missing {
            let number = kernel.add_path_rule(&entry.rule(), loaded)?;
            self.calls.set_number(entry.id, number);
        }
        self.calls_restored = true;
        Ok(())
    }
}

/// What an entry is about, checked, with the links of its paths resolved: the kernel sees where they lead.
pub fn resolved(what: Calls) -> Result<Calls> {
    if what.op.is_empty() {
        return Err(Error::BadInput("an entry about a path needs operations: `--op read,write,exec`".to_owned()));
    }
    if let Some(word) = what.op.iter().find(|word| operations(word).is_none()) {
        return Err(Error::BadInput(format!("`{word}` is no operation; some are read, write, exec, connect, all")));
    }
    let path = resolved_path(&what.path)?;
    let exe = match &what.exe {
        Some(exe) if exe.len() >= EXE_PATH => {
            return Err(Error::BadInput(format!("an executable's path has at most {} bytes", EXE_PATH - 1)));
        }
        Some(exe) => Some(resolve(&checked(exe)?)),
        None => None,
    };
    Ok(Calls { path, exe, ..what })
}

/// A path or `DIR/**`, its links resolved.
pub fn resolved_path(typed: &str) -> Result<String> {
    let (path, tree) = split(typed);
    let mut path = resolve(&checked(path)?);
    if tree {
        path.truncate(path.trim_end_matches('/').len());
        path.push_str("/**");
    }
    Ok(path)
}

/// An absolute path without `.`, `..`, doubled slashes, wildcards and control characters.
fn checked(text: &str) -> Result<PathBuf> {
    let bad = |what: &str| Err(Error::BadInput(format!("`{}`: {what}", text.escape_debug())));
    if !text.starts_with('/') {
        return bad("a path begins with `/`");
    }
    if text.len() > MAX_PATH || text.chars().any(char::is_control) {
        return bad("too long, or with control characters");
    }
    if text.contains(['*', '?', '[', '{']) {
        return bad("no wildcard but `/**` at the end: others belong into the policy");
    }
    let path = Path::new(text);
    if path.components().any(|part| matches!(part, Component::ParentDir)) {
        return bad("`..` is not followed; write where it leads");
    }
    Ok(path.components().collect())
}

/// Follows the links as far as there is something; the rest is taken as it is.
fn resolve(path: &Path) -> String {
    let mut rest = Vec::new();
    let mut there = path;
    loop {
        if let Ok(real) = fs::canonicalize(there)
            && let Some(real) = rest.iter().rev().fold(real, |path, name| path.join(name)).to_str()
        {
            return real.to_owned();
        }
        match (there.parent(), there.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name);
                there = parent;
            }
            _ => return path.to_string_lossy().into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(path: &str, op: &[&str]) -> Calls {
        Calls { path: path.into(), op: op.iter().map(|&word| word.to_owned()).collect(), exe: None, uid: None }
    }

    #[test]
    fn links_are_followed_as_far_as_they_lead_somewhere() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        let link = root.join("link");
        let real = |end: &str| format!("{}/real{end}", root.display());
        let typed = |end: &str| resolved(calls(&format!("{}{end}", link.display()), &["read"])).unwrap().path;
        assert_eq!(typed(""), real(""));
        assert_eq!(typed("/**"), real("/**"));
        assert_eq!(typed("/not/there"), real("/not/there"));
        assert_eq!(typed("//x/./y/"), real("/x/y"));
        assert_eq!(resolved(calls("/**", &["read"])).unwrap().path, "/**");
        let exe = Calls { exe: Some(link.display().to_string()), ..calls("/x", &["exec"]) };
        assert_eq!(resolved(exe).unwrap().exe, Some(real("")));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for (what, says) in [
            (calls("/etc/shadow", &[]), "needs operations"),
            (calls("/etc/shadow", &["reed"]), "no operation"),
            (calls("etc", &["read"]), "begins with"),
            (calls("/home/*/.ssh", &["read"]), "no wildcard"),
            (calls("/a/../b", &["read"]), "`..`"),
            (calls("/a\nb", &["read"]), "control"),
            (Calls { exe: Some("/".repeat(300)), ..calls("/a", &["read"]) }, "at most 255"),
        ] {
            let error = resolved(what).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}

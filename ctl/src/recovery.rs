//! `ringctl off` where no daemon answers: files are removed, nothing else is needed. A program stays attached as long as
//! its link is pinned or open; with the last pin it is detached.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::Failure;

/// Directories of pinned links: of devices, and of the host half's hooks.
const LINKS: [&str; 2] = ["links", "hooks"];

/// What went, and what file removal does not reach.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// One line for each link.
    pub things: Vec<String>,
    /// Packets are judged by TC filters, which have no pins: this kernel has no tcx (before 6.6).
    pub clsact: bool,
}

/// Removes every pinned link of every version of Ringfence below `bpffs`.
pub fn remove_links(bpffs: &Path) -> Result<Removed, Failure> {
    let mut removed = Removed::default();
    let cannot = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| Failure::Missing(format!("cannot remove {path}: {error}"))
    };
    for version in directories(bpffs).map_err(cannot(bpffs))? {
        owned_by_nobody(&version)?;
        removed.clsact |= !has_tcx() && judges_at_tc(&version);
        for place in directories(&version).map_err(cannot(&version))? {
            if !LINKS.iter().any(|links| place.ends_with(links)) {
                continue;
            }
            for entry in fs::read_dir(&place).map_err(cannot(&place))? {
                let path = entry.map_err(cannot(&place))?.path();
                fs::remove_file(&path).map_err(cannot(&path))?;
                removed.things.push(format!("link {}", path.file_name().unwrap_or_default().to_string_lossy()));
            }
        }
    }
    removed.things.sort_unstable();
    Ok(removed)
}

/// A daemon that hangs holds the lock of its pins, and would attach again.
fn owned_by_nobody(version: &Path) -> Result<(), Failure> {
    let Ok(directory) = File::open(version) else { return Ok(()) };
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Failure::Missing(format!(
            "a ringfenced owns {} and does not answer: end it first (`systemctl kill -s KILL ringfenced`)",
            version.display()
        ))),
        _ => Ok(()),
    }
}

/// Removes all pins.
pub fn remove_pins(bpffs: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(bpffs) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::Missing(format!("cannot remove {}: {error}", bpffs.display())))
        }
        _ => Ok(()),
    }
}

/// Notes that it is off, so that the next start, or boot, enforces nothing. A state directory that is not there says
/// so by itself.
pub fn stay_off(state: &Path) -> Result<(), Failure> {
    let path = state.join("standing.json");
    let cannot = |error: io::Error| Failure::Missing(format!("cannot note it in {}: {error}", path.display()));
    if !state.exists() {
        return Ok(());
    }
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => "{}".to_owned(),
        Err(error) => return Err(cannot(error)),
    };
    let mut standing: serde_json::Value = serde_json::from_str(&text).map_err(|error| cannot(error.into()))?;
    standing["off"] = true.into();
    let next = state.join("standing.json.off");
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(standing.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, &path)
    };
    write().map_err(cannot)
}

fn directories(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether some generation has a program for TC.
fn judges_at_tc(version: &Path) -> bool {
    let generations = directories(&version.join("gen")).unwrap_or_default();
    let pins = generations.iter().filter_map(|generation| fs::read_dir(generation).ok()).flatten().flatten();
    pins.map(|pin| pin.file_name()).any(|name| name.to_string_lossy().starts_with("tc_"))
}

/// tcx came with Linux 6.6.
fn has_tcx() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn links_go_first_and_nothing_else_with_them() {
        let bpffs = tempfile::tempdir().unwrap();
        let at = |name: &str| bpffs.path().join(name);
        for name in ["v1/links/7-xdp", "v1/hooks/file_open", "v1/maps/CELL", "v2/links/7-tcx", "v1/gen/3-0/ARENA"] {
            touch(&at(name));
        }
        let removed = remove_links(bpffs.path()).unwrap();
        assert_eq!(removed.things, ["link 7-tcx", "link 7-xdp", "link file_open"]);
        assert!(at("v1/maps/CELL").exists() && at("v1/gen/3-0/ARENA").exists() && !at("v1/links/7-xdp").exists());
        remove_pins(bpffs.path()).unwrap();
        remove_pins(bpffs.path()).unwrap();
        assert!(!bpffs.path().exists());
    }

    #[test]
    fn only_generations_with_rules_for_packets_leave_filters_behind() {
        let bpffs = tempfile::tempdir().unwrap();
        touch(&bpffs.path().join("gen/1-0/ARENA"));
        touch(&bpffs.path().join("gen/1-0/h_file_open"));
        assert!(!judges_at_tc(bpffs.path()));
        touch(&bpffs.path().join("gen/2-1/tc_egress"));
        assert!(judges_at_tc(bpffs.path()));
    }

    #[test]
    fn pins_of_a_living_daemon_are_left_to_it() {
        let bpffs = tempfile::tempdir().unwrap();
        touch(&bpffs.path().join("v1/links/7-xdp"));
        let lock = Flock::lock(File::open(bpffs.path().join("v1")).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        let refused = remove_links(bpffs.path()).unwrap_err();
        assert!(matches!(refused, Failure::Missing(_)), "{refused:?}");
        assert!(bpffs.path().join("v1/links/7-xdp").exists());
        drop(lock);
        remove_links(bpffs.path()).unwrap();
    }

    #[test]
    fn the_next_start_is_told_and_nothing_else_is_changed() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("standing.json");
        let read = || serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&path).unwrap()).unwrap();
        stay_off(state.path()).unwrap();
        assert_eq!(read(), serde_json::json!({"off": true}));
        fs::write(&path, r#"{"running": 7, "off": false, "boot": "x"}"#).unwrap();
        stay_off(state.path()).unwrap();
        assert_eq!(read(), serde_json::json!({"running": 7, "off": true, "boot": "x"}));
        stay_off(Path::new("/nonexistent/ringfence")).unwrap();
    }
}

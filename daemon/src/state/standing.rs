//! What must be known after a reboot, when the kernel has forgotten everything.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StateError;
use super::files::{read_json, write_json};
use crate::clock::{Expiry, boot_id, boot_now, wall_now};

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// The generation in force.
    pub running: Option<u64>,
    /// The one before it, which a rollback goes back to.
    pub previous: Option<u64>,
    /// The highest number ever given.
    pub last_number: u64,
    /// `ringctl off`.
    pub off: bool,
    /// `ringctl mode audit`.
    pub audit: Option<Audit>,
    /// The boot in which this was written: its boot times mean nothing in another.
    pub boot: String,
}

/// `ringctl mode audit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Until when; `None`: until `ringctl mode enforce`.
    pub until: Option<Expiry>,
}

/// [`Standing`] with its file.
#[derive(Debug)]
pub struct StandingFile {
    path: PathBuf,
    now: Standing,
    // The disk does not say it yet.
    unwritten: bool,
}

impl StandingFile {
    /// Reads it; where there is none yet, nothing stands.
    pub fn open(state: &Path) -> Result<Self, StateError> {
        let path = state.join("standing.json");
        let mut now: Standing = read_json(&path)?.unwrap_or_default();
        let boot = boot_id();
        if now.boot != boot {
            if let Some(until) = now.audit.as_mut().and_then(|audit| audit.until.as_mut()) {
                *until = until.rebooted(boot_now(), wall_now());
            }
            now.boot = boot;
        }
        Ok(Self { path, now, unwritten: false })
    }

    /// What is written.
    #[must_use]
    pub fn get(&self) -> &Standing {
        &self.now
    }

    /// Changes it; on the disk when this returns. After an error it is as before.
    pub fn change(&mut self, change: impl FnOnce(&mut Standing)) -> Result<(), StateError> {
        let mut next = self.now.clone();
        change(&mut next);
        if next != self.now || self.unwritten {
            write_json(&self.path, &next)?;
            self.now = next;
            self.unwritten = false;
        }
        Ok(())
    }

    /// Changes it to what is so already, whether it can be written or not; [`StandingFile::retry`] writes it later.
    pub fn follow(&mut self, change: impl FnOnce(&mut Standing)) -> Result<(), StateError> {
        let before = self.now.clone();
        change(&mut self.now);
        self.unwritten |= self.now != before;
        self.retry()
    }

    /// Writes what could not be written.
    pub fn retry(&mut self) -> Result<(), StateError> {
        if self.unwritten {
            write_json(&self.path, &self.now)?;
            self.unwritten = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_so_is_known_also_when_it_cannot_be_written_and_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let mut file = StandingFile::open(&state).unwrap();
        std::fs::remove_dir(&state).unwrap();
        assert!(file.change(|standing| standing.off = true).is_err());
        assert!(!file.get().off, "what was asked for and failed is not so");
        assert!(file.follow(|standing| standing.running = Some(7)).is_err());
        assert_eq!(file.get().running, Some(7));
        assert!(file.retry().is_err());
        std::fs::create_dir(&state).unwrap();
        file.retry().unwrap();
        assert_eq!(StandingFile::open(&state).unwrap().get().running, Some(7));
    }
}

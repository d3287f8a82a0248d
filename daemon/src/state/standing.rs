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
        Ok(Self { path, now })
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
        if next != self.now {
            write_json(&self.path, &next)?;
            self.now = next;
        }
        Ok(())
    }
}

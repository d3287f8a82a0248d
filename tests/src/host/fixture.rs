//! Files for attempts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{make_directory, put};
use crate::daemon::binary;

/// A directory with files in it. In the steps of an attempt these words stand for their paths: `FILE` and `OTHER`
/// (files), `PROGRAM` (the actor), `SUB` (a directory, with a file `FILE` in it named `SUB/file`), `NEW` (a name that is
/// not used), `HERE` (the directory itself).
#[derive(Debug)]
pub struct Fixture {
    directory: PathBuf,
}

impl Fixture {
    /// One that was made.
    #[must_use]
    pub fn at(directory: impl AsRef<Path>) -> Self {
        Self { directory: directory.as_ref().to_path_buf() }
    }

    /// Makes it. To be done before there are rules about it.
    pub fn new(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref().to_path_buf();
        for file in ["file", "other", "sub/file"] {
            put(directory.join(file), "secret")?;
        }
        make_directory(directory.join("empty"))?;
        Ok(Self { directory })
    }

    /// Adds a name for the actor. A hard link where that can be: it is large.
    pub fn with_program(self) -> Result<Self> {
        let place = self.directory.join("program");
        if fs::hard_link(binary("actor"), &place).is_err() {
            fs::copy(binary("actor"), &place)?;
        }
        Ok(self)
    }

    /// A path below it.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The steps with paths in place of the words.
    pub fn steps<S: AsRef<str>>(&self, steps: &[S]) -> Vec<String> {
        let replaced = |word: &str| match word {
            "FILE" => self.path("file"),
            "OTHER" => self.path("other"),
            "PROGRAM" => self.path("program"),
            "SUB" => self.path("sub"),
            "EMPTY" => self.path("empty"),
            "NEW" => self.path("new"),
            "HERE" => self.directory.display().to_string(),
            "unix:FILE" => format!("unix:{}", self.path("file")),
            "unix:SOCKET" => format!("unix:{}", self.path("socket")),
            "unix:NEW" => format!("unix:{}", self.path("new")),
            other => other
                .strip_prefix("EMPTY/")
                .map_or_else(|| other.to_owned(), |rest| self.path(&format!("empty/{rest}"))),
        };
        steps.iter().map(|step| step.as_ref().split(' ').map(replaced).collect::<Vec<_>>().join(" ")).collect()
    }
}

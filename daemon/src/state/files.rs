//! Files that are either the old or the new whole, also after a crash.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StateError;

/// Writes a file in one step: a temporary one beside it, synced, renamed over it, and the directory synced.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let failed = |error| StateError::write(path, error);
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_directory(directory)
}

/// [`write()`] of a value as JSON.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(value).map_err(|error| StateError::write(path, error.into()))?;
    write(path, &bytes)
}

/// Reads a file of JSON; `None` where there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StateError::Damaged { path: path.to_owned(), reason: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::Read { path: path.to_owned(), error }),
    }
}

/// Makes renames and new names in a directory durable.
pub fn sync_directory(path: &Path) -> Result<(), StateError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| StateError::write(path, error))
}

/// A file of one JSON record a line that only grows, until it is written anew.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    writable: bool,
    lines: usize,
    bytes: u64,
}

impl Journal {
    /// Opens the journal and reads its records. A last line without an end was being written at a crash: it was never
    /// confirmed to anybody, and is cut off.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), StateError> {
        let read = |error| StateError::Read { path: path.to_owned(), error };
        let writable = File::options().create(true).append(true).read(true).open(path);
        let (file, writable) = match writable {
            Ok(file) => (file, true),
            // What was kept holds also where nothing can be written.
            Err(error) => (File::open(path).map_err(|_| read(error))?, false),
        };
        let mut reader = BufReader::new(&file);
        let (mut records, mut whole, mut line) = (Vec::new(), 0, String::new());
        loop {
            line.clear();
            let length = reader.read_line(&mut line).map_err(read)?;
            if length == 0 || !line.ends_with('\n') {
                break;
            }
            records.push(serde_json::from_str(&line).map_err(|error| StateError::Damaged {
                path: path.to_owned(),
                reason: format!("line {}: {error}", records.len() + 1),
            })?);
            whole += length as u64;
        }
        if writable {
            file.set_len(whole).map_err(|error| StateError::write(path, error))?;
        }
        let lines = records.len();
        Ok((Self { path: path.to_owned(), file, writable, lines, bytes: whole }, records))
    }

    /// Adds records; they are on the disk when this returns.
    pub fn append<T: Serialize>(&mut self, records: &[T]) -> Result<(), StateError> {
        if records.is_empty() {
            return Ok(());
        }
        let failed = |error| StateError::write(&self.path, error);
        let bytes = lines(records).map_err(failed)?;
        if !self.writable {
            self.file = File::options().append(true).read(true).open(&self.path).map_err(failed)?;
            // What a crash left of a last record.
            self.file.set_len(self.bytes).map_err(failed)?;
            self.writable = true;
        }
        let before = self.bytes;
        if let Err(error) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            // What was not confirmed must not be read again, nor run into the next record.
            let _ = self.file.set_len(before);
            return Err(failed(error));
        }
        self.lines += records.len();
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// How long the file is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many records the file has.
    #[must_use]
    pub fn records(&self) -> usize {
        self.lines
    }

    /// Replaces all records.
    pub fn rewrite<T: Serialize>(&mut self, records: &[T]) -> Result<(), StateError> {
        let failed = |error| StateError::write(&self.path, error);
        let bytes = lines(records).map_err(failed)?;
        write(&self.path, &bytes)?;
        self.file = File::options().append(true).read(true).open(&self.path).map_err(failed)?;
        self.writable = true;
        self.lines = records.len();
        self.bytes = bytes.len() as u64;
        Ok(())
    }
}

fn lines<T: Serialize>(records: &[T]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for record in records {
        serde_json::to_writer(&mut bytes, record)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_keeps_what_was_confirmed_and_cuts_what_was_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("j");
        let (mut journal, records) = Journal::open::<u32>(&path).unwrap();
        assert!(records.is_empty());
        journal.append(&[1, 2]).unwrap();
        drop(journal);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"77").unwrap();

        let (mut journal, records) = Journal::open::<u32>(&path).unwrap();
        assert_eq!(records, [1, 2]);
        journal.append(&[3]).unwrap();
        assert_eq!(Journal::open::<u32>(&path).unwrap().1, [1, 2, 3]);

        journal.rewrite(&[9]).unwrap();
        journal.append(&[10]).unwrap();
        assert_eq!(journal.records(), 2);
        assert_eq!(Journal::open::<u32>(&path).unwrap().1, [9, 10]);
    }

    #[test]
    fn damage_in_the_middle_is_an_error_and_not_a_loss() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("j");
        fs::write(&path, "1\nx\n3\n").unwrap();
        let error = Journal::open::<u32>(&path).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write_json(&path, &[1, 2]).unwrap();
        write_json(&path, &[3]).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![3]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(read_json::<Vec<u32>>(&directory.path().join("none")).unwrap(), None);
    }
}

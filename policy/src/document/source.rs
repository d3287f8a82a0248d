//! Where a policy's text comes from: files and directories, read with bounds, and the places in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::problems::Problems;

/// Policy text that a policy may have in all its files, bytes.
pub const MAX_TEXT: usize = 16 << 20;
/// Files in a policy directory.
pub const MAX_FILES: usize = 1024;
// A line longer than this is not shown in diagnostics: finding a column in it would cost its length each time.
const MAX_SHOWN_LINE: usize = 4096;

/// One file's worth of policy text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// What to call it in reports, and (its last component) in the names of rules without one.
    pub name: String,
    /// The text.
    pub text: String,
    /// Directory from which relative paths in it start.
    pub base: PathBuf,
}

/// A range of columns in one line of one source. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Span {
    pub file: u32,
    pub line: u32,
    pub column: u32,
    /// The column after the last.
    pub end: u32,
}

/// Byte offsets of a text's lines.
#[derive(Default)]
pub(super) struct Lines(Vec<u32>);

impl Lines {
    /// YAML's line breaks: `\n`, `\r\n` and a lone `\r`.
    pub fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let breaks = (0..bytes.len())
            .filter(|&i| bytes[i] == b'\n' || bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n'))
            .map(|i| i as u32 + 1);
        Self(std::iter::once(0).chain(breaks).collect())
    }

    /// The text of a line, counted from 1, without its break; `None` past the end or when it is too long to show.
    pub fn get<'t>(&self, text: &'t str, line: u32) -> Option<&'t str> {
        let index = (line as usize).checked_sub(1)?;
        let start = *self.0.get(index)? as usize;
        let end = self.0.get(index + 1).map_or(text.len(), |&next| next as usize);
        if end - start > MAX_SHOWN_LINE {
            return None;
        }
        text.get(start..end).map(|line| line.trim_end_matches(['\n', '\r']))
    }
}

/// Reads a policy file, or the `*.yaml` of a directory in the order of their names. What cannot be read is reported
/// and left out.
pub(super) fn read(path: &Path, problems: &mut Problems) -> Vec<SourceText> {
    match path.metadata() {
        Err(error) => {
            problems.file_error(&path.display().to_string(), describe(&error));
            Vec::new()
        }
        Ok(kind) if kind.is_dir() => read_directory(path, problems),
        Ok(_) => read_file(path, MAX_TEXT, problems).into_iter().collect(),
    }
}

fn read_directory(path: &Path, problems: &mut Problems) -> Vec<SourceText> {
    let name = path.display().to_string();
    let mut files = Vec::new();
    let entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(error) => {
            problems.file_error(&name, describe(&error));
            return Vec::new();
        }
    };
    for entry in entries.map_while(Result::ok) {
        let file = entry.path();
        // Editors keep swap files under names that begin with a dot.
        if file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("yaml") => files.push(file),
            Some("yml") => {
                problems
                    .file_warning(&file.display().to_string(), "not read: the names of policy files end in `.yaml`");
            }
            _ => {}
        }
    }
    if files.is_empty() {
        problems.file_error(&name, "the directory holds no `*.yaml` file");
    }
    if files.len() > MAX_FILES {
        problems.file_error(&name, format!("{} policy files, the limit is {MAX_FILES}", files.len()));
        return Vec::new();
    }
    files.sort();
    let mut left = MAX_TEXT;
    let mut texts = Vec::new();
    for file in files {
        if let Some(text) = read_file(&file, left, problems) {
            left -= text.text.len();
            texts.push(text);
        }
    }
    texts
}

fn read_file(path: &Path, limit: usize, problems: &mut Problems) -> Option<SourceText> {
    let name = path.display().to_string();
    let read = || -> Result<String, String> {
        let file = open(path)?;
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|error| describe(&error))?;
        if bytes.len() > limit {
            return Err(format!("the policy is larger than {} MiB of text", MAX_TEXT >> 20));
        }
        text(bytes)
    };
    match read() {
        Ok(text) => {
            let base = path.parent().map(Path::to_owned).unwrap_or_default();
            Some(SourceText { name, text, base })
        }
        Err(message) => {
            problems.file_error(&name, message);
            None
        }
    }
}

/// Opens a regular file and nothing else. Without blocking: a FIFO would wait for a writer.
pub(super) fn open(path: &Path) -> Result<File, String> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| describe(&error))?;
    let kind = file.metadata().map_err(|error| describe(&error))?;
    if kind.is_dir() {
        return Err("a directory, expected a file".into());
    }
    if !kind.is_file() {
        return Err("not a regular file".into());
    }
    Ok(file)
}

/// The text of a file, or why it is none.
fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|&byte| byte == b'\n').count();
        format!("not UTF-8 text (byte {at}, line {line})")
    })
}

/// An I/O error in the words of this report: without the number, lowercase.
pub(super) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => format!("cannot be read: {error}"),
    }
}

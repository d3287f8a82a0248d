//! What is written about a generation, and what it was made from.

use std::path::PathBuf;

use ringfence_policy::compile::Line;
use ringfence_policy::{Feed, SetFile};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What is known of a generation beside its texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub generation: u64,
    /// When it was applied first, milliseconds since 1970.
    pub applied: u64,
    /// Who applied it.
    pub by: String,
    /// Why it came to be: `apply`, `start`, `reload`.
    pub why: String,
    /// The file or directory, or the names of the texts that came by the socket.
    pub policy: String,
    /// Whether it may be loaded at a start: applied without a deadline, or confirmed.
    pub confirmed: bool,
    /// How many rules it has.
    pub rules: u64,
    /// [`Sources::digest`].
    pub digest: String,
    /// Its policy files: name and base directory.
    pub texts: Vec<(String, String)>,
    /// Names its tables, which another version of the compiler may make otherwise from the same texts.
    pub tables: String,
    /// Its set files.
    pub sets: Vec<SetRecord>,
}

/// A set file of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRecord {
    /// The set.
    pub set: String,
    /// The file.
    pub path: PathBuf,
    /// How many elements it had.
    pub elements: usize,
    /// How it was read.
    #[serde(default)]
    pub feed: Feed,
    /// Lines of it that could not be used.
    #[serde(default)]
    pub refused: usize,
    /// The first of them, and why.
    #[serde(default)]
    pub refusal: Option<String>,
}

impl From<SetFile> for SetRecord {
    fn from(file: SetFile) -> Self {
        let SetFile { set, path, feed, elements, refused, refusal, .. } = file;
        Self { set, path, elements, feed, refused, refusal }
    }
}

/// The whole input of a compilation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Policy files in order.
    pub texts: Vec<SourceText>,
    /// Contents of the set files that the texts name, by path; `None`: there is none, and it was optional.
    pub sets: Vec<(PathBuf, Option<Vec<u8>>)>,
}

/// A policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// Its name in diagnostics.
    pub name: String,
    /// Where relative paths in it start.
    pub base: String,
    /// Its content.
    pub text: String,
}

impl Sources {
    /// SHA-256 over names and contents, each with its length before it, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for text in &self.texts {
            add(text.name.as_bytes());
            add(text.base.as_bytes());
            add(text.text.as_bytes());
        }
        add(b"sets");
        for (path, content) in &self.sets {
            add(path.as_os_str().as_encoded_bytes());
            add(content.as_deref().unwrap_or_default());
        }
        hexadecimal(&hash.finalize())
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A [`Line`] as it is kept, its place by file name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLine {
    /// [`Line::name`].
    pub name: String,
    /// [`Line::named`].
    pub named: bool,
    /// [`Line::chain`].
    pub chain: String,
    /// [`Line::verb`].
    pub verb: String,
    /// File and line; `None` for built-in lines.
    pub at: Option<(String, u32)>,
    /// [`Line::content`].
    pub content: u64,
}

impl KeptLine {
    /// Of a compiled policy's lines.
    #[must_use]
    pub fn all(lines: &[Line], files: &[String]) -> Vec<Self> {
        let place = |line: &Line| {
            let at = line.at?;
            Some((files.get(at.file as usize).cloned().unwrap_or_default(), at.line))
        };
        let keep = |line: &Line| Self {
            name: line.name.clone(),
            named: line.named,
            chain: line.chain.to_owned(),
            verb: line.verb.to_owned(),
            at: place(line),
            content: line.content,
        };
        lines.iter().map(keep).collect()
    }

    /// Whether it stands for a rule of the policy, not for a built-in line.
    #[must_use]
    pub fn is_rule(&self) -> bool {
        self.at.is_some() && self.name != "default"
    }
}

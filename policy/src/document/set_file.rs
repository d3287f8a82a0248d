//! A set in a file of its own: one address, prefix or range a line, `#` and `;` begin comments.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::problems::{Complaint, Problems, quote};
use super::sets::{MAX_ELEMENTS, push};
use super::source::{self, Span};
use super::values;
use crate::ranges::AddressRanges;

// Bytes a set file may have: comments and all, 64 for each element there can be.
const MAX_BYTES: u64 = 64 * MAX_ELEMENTS as u64;
// An IPv6 range has 80 bytes; the rest is comment.
const MAX_LINE: usize = 4096;
// A file in a wrong format has an error in each line.
const MAX_SHOWN: usize = 20;

/// A set file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFile {
    /// Name of the set.
    pub set: String,
    /// The file.
    pub path: PathBuf,
    /// What was read: the file, or the copy that stood in for it.
    pub read_from: PathBuf,
    /// SHA-256 of its contents, hexadecimal; `None` for an optional file that does not exist.
    pub sha256: Option<String>,
    /// Elements as written, before overlapping ones are merged.
    pub elements: usize,
}

/// A set file as the policy names it.
pub(super) struct Named<'a> {
    /// Name of the set.
    pub set: &'a str,
    /// The file.
    pub path: &'a Path,
    /// What is read in its place.
    pub copy: Option<&'a Path>,
}

/// Reads a set file of at most `room` elements. `span` is where the policy names it.
pub(super) fn read(
    named: &Named<'_>,
    optional: bool,
    room: usize,
    span: Span,
    problems: &mut Problems,
) -> Option<(AddressRanges, SetFile)> {
    let Named { set, path, copy } = *named;
    let name = path.display().to_string();
    let read_from = copy.unwrap_or(path);
    if optional && !read_from.exists() {
        problems.warning(span, format!("the optional set file {} does not exist: the set is empty", quote(&name)));
        let file = SetFile {
            set: set.to_owned(),
            path: path.to_owned(),
            read_from: read_from.to_owned(),
            sha256: None,
            elements: 0,
        };
        return Some((AddressRanges::default(), file));
    }
    let file = match source::open(read_from) {
        Ok(file) => file,
        Err(reason) => {
            let complaint = Complaint::new(format!("set file {}: {reason}", quote(&name)));
            problems.error(span, complaint.help("a file that may be missing is `{file: ..., optional: true}`"));
            return None;
        }
    };
    let mut reader = Reader {
        lines: 0,
        elements: 0,
        bad: 0,
        host_bits: None,
        hash: Sha256::new(),
        ranges: AddressRanges::default(),
    };
    if let Err(reason) = reader.run(file, room, &name, problems) {
        problems.error(span, format!("set file {}: {reason}", quote(&name)));
        return None;
    }
    if reader.bad > MAX_SHOWN {
        problems.file_error(
            &name,
            format!("{} more lines that are not an address, a prefix or a range", reader.bad - MAX_SHOWN),
        );
    }
    if reader.bad > 0 {
        return None;
    }
    if reader.elements == 0 && !optional {
        let complaint = Complaint::new(format!("set file {} holds no address", quote(&name)));
        problems.error(span, complaint.help("a set that may be empty is `{file: ..., optional: true}`"));
        return None;
    }
    if let Some((line, count)) = reader.host_bits {
        let what = "prefixes with bits set past their length are taken as the network";
        problems.file_warning(&name, format!("{count} {what}, first in line {line}"));
    }
    reader.ranges.normalise();
    reader.ranges.v4.shrink_to_fit();
    reader.ranges.v6.shrink_to_fit();
    let sha256 = Some(hex(&reader.hash.finalize()));
    Some((
        reader.ranges,
        SetFile {
            set: set.to_owned(),
            path: path.to_owned(),
            read_from: read_from.to_owned(),
            sha256,
            elements: reader.elements,
        },
    ))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

struct Reader {
    lines: usize,
    elements: usize,
    bad: usize,
    // First such line, and how many.
    host_bits: Option<(usize, usize)>,
    hash: Sha256,
    ranges: AddressRanges,
}

impl Reader {
    fn run(&mut self, file: File, room: usize, name: &str, problems: &mut Problems) -> Result<(), String> {
        let mut input = BufReader::with_capacity(1 << 16, file);
        let mut line = Vec::new();
        let mut bytes = 0;
        loop {
            line.clear();
            let read = std::io::Read::take(&mut input, MAX_LINE as u64 + 1)
                .read_until(b'\n', &mut line)
                .map_err(|error| source::describe(&error))?;
            if read == 0 {
                return Ok(());
            }
            self.lines += 1;
            bytes += read as u64;
            if read > MAX_LINE {
                return Err(format!("line {} has more than {MAX_LINE} bytes", self.lines));
            }
            if bytes > MAX_BYTES {
                return Err(format!("larger than {} MiB", MAX_BYTES >> 20));
            }
            self.hash.update(&line);
            self.line(&line, name, problems)?;
            if self.elements > room {
                return Err(format!("the sets have more than {MAX_ELEMENTS} elements together"));
            }
        }
    }

    fn line(&mut self, line: &[u8], name: &str, problems: &mut Problems) -> Result<(), String> {
        if line.contains(&0) {
            return Err(format!("binary data in line {}", self.lines));
        }
        let text = std::str::from_utf8(line).map_err(|_| format!("line {} is not UTF-8 text", self.lines))?;
        let element = text.split(['#', ';']).next().unwrap_or_default().trim();
        if element.is_empty() {
            return Ok(());
        }
        self.elements += 1;
        match values::addresses_loosely(element) {
            Ok((range, host_bits)) => {
                push(&mut self.ranges, range);
                if host_bits {
                    self.host_bits.get_or_insert((self.lines, 0)).1 += 1;
                }
            }
            Err(complaint) => {
                self.bad += 1;
                if self.bad <= MAX_SHOWN {
                    problems.file_line_error(name, self.lines as u32, text.trim_end(), complaint);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::{Copies, SourceText, load_texts_with_copies};

    #[test]
    fn a_copy_is_read_in_place_of_a_file_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("kept-copy");
        fs::write(&copy, "192.0.2.0/24\n198.51.100.7\n").unwrap();
        let text = "ringfence: 1\nsets:\n  bad: {file: bad.txt}\nnetwork:\n  ingress:\n    default: accept\n    rules:\n      - drop: {from: $bad}\n";
        let texts = || vec![SourceText { name: "p.yaml".into(), text: text.into(), base: directory.path().to_owned() }];
        assert!(load_texts_with_copies(texts(), &Copies::new()).is_err());
        let named = directory.path().join("bad.txt");
        let loaded = load_texts_with_copies(texts(), &Copies::from([(named.clone(), copy.clone())])).unwrap();
        let file = &loaded.set_files[0];
        assert_eq!((&file.path, &file.read_from, file.elements), (&named, &copy, 2));
    }
}

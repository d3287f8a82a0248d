//! A set in a file of its own: a list by hand, or a feed in one of the formats that others write.
//!
//! What cannot be used of a feed is left out and counted, so that one bad line does not cost the rest; a file of which
//! most cannot be used is in another format than the policy says, and is not taken at all.

mod csv;
mod feed;
mod ipset;
mod nft;
mod spamhaus;
mod taken;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use self::csv::Csv;
pub(super) use self::feed::keys;
pub(crate) use self::feed::{BAD_LINES, FORMATS, KEYS, SEPARATORS};
pub use self::feed::{BadLines, Column, Feed, Format};
use self::ipset::Ipset;
use self::nft::Nft;
use self::spamhaus::Spamhaus;
use self::taken::Taken;
use super::problems::{Complaint, Problems, quote};
use super::sets::MAX_ELEMENTS;
use super::source::{self, Span};
use crate::diagnostic::{Report, Severity};
use crate::ranges::AddressRanges;

// Bytes a set file may have: comments and all, 64 for each element there can be.
const MAX_BYTES: u64 = 64 * MAX_ELEMENTS as u64;
// An IPv6 range has 80 bytes; the rest is comment.
const MAX_LINE: usize = 4096;

/// A set file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFile {
    /// Name of the set.
    pub set: String,
    /// The file.
    pub path: PathBuf,
    /// How it is read.
    pub feed: Feed,
    /// What was read: the file, or the copy that stood in for it.
    pub read_from: PathBuf,
    /// SHA-256 of its contents, hexadecimal; `None` for an optional file that does not exist.
    pub sha256: Option<String>,
    /// Elements as written, before overlapping ones are merged.
    pub elements: usize,
    /// Lines that could not be used.
    pub refused: usize,
    /// The first of them, and why.
    pub refusal: Option<String>,
}

/// A set file as the policy names it.
pub(super) struct Named<'a> {
    /// Name of the set.
    pub set: &'a str,
    /// The file.
    pub path: &'a Path,
    /// How it is read.
    pub feed: &'a Feed,
    /// What is read in its place.
    pub copy: Option<&'a Path>,
}

/// Reads a set file by itself, as the loader would: whether it may take the place of what was read before.
pub fn check_set_file(set: &str, path: &Path, feed: &Feed) -> Result<SetFile, Report> {
    let mut problems = Problems::default();
    let named = Named { set, path, feed, copy: None };
    match read_file(&named, MAX_ELEMENTS, &mut problems) {
        Ok((_, file)) if problems.errors() == 0 => Ok(file),
        Ok(_) => Err(problems.into_report(&[], &[])),
        Err(complaint) => {
            problems.file_error(&path.display().to_string(), complaint.message);
            let mut report = problems.into_report(&[], &[]);
            report.diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
            Err(report)
        }
    }
}

/// Reads a set file of at most `room` elements. `span` is where the policy names it.
pub(super) fn read(
    named: &Named<'_>,
    room: usize,
    span: Span,
    problems: &mut Problems,
) -> Option<(AddressRanges, SetFile)> {
    let name = quote(&named.path.display().to_string());
    let before = problems.errors();
    match read_file(named, room, problems) {
        Ok((ranges, file)) if problems.errors() == before => {
            if file.sha256.is_none() {
                problems.warning(span, format!("the optional set file {name} does not exist: the set is empty"));
            }
            Some((ranges, file))
        }
        Ok(_) => None,
        Err(complaint) => {
            problems.error(span, Complaint { message: format!("set file {name}: {}", complaint.message), ..complaint });
            None
        }
    }
}

/// What is wrong with single lines goes to `problems`, what is wrong with the whole is the error.
fn read_file(named: &Named<'_>, room: usize, problems: &mut Problems) -> Result<(AddressRanges, SetFile), Complaint> {
    let Named { set, path, feed, copy } = *named;
    let read_from = copy.unwrap_or(path);
    let mut read = SetFile {
        set: set.to_owned(),
        path: path.to_owned(),
        feed: feed.clone(),
        read_from: read_from.to_owned(),
        sha256: None,
        elements: 0,
        refused: 0,
        refusal: None,
    };
    if feed.optional && !read_from.exists() {
        return Ok((AddressRanges::default(), read));
    }
    let missing = |reason| Complaint::new(reason).help("a file that may be missing is `{file: ..., optional: true}`");
    let file = source::open(read_from).map_err(missing)?;
    let mut reader = Reader { format: Parser::new(feed), skips: feed.skips(), hash: Sha256::new(), bytes: 0 };
    let mut taken = reader.run(file, room)?;
    let name = path.display().to_string();
    if taken.refused > 0 && (!feed.skips() || taken.refused > taken.elements) {
        let message = format!(
            "{} of {} lines cannot be used, as `{}` at least",
            taken.refused,
            taken.refused + taken.elements,
            feed.format
        );
        let skips = feed.skips();
        taken.report_errors(&name, problems);
        // Where every bad line is an error, these say it all.
        return if skips { Err(message.into()) } else { Ok((AddressRanges::default(), read)) };
    }
    if taken.elements == 0 && !feed.optional {
        let complaint = Complaint::new("it holds no address");
        return Err(complaint.help("a set that may be empty is `{file: ..., optional: true}`"));
    }
    (read.elements, read.refused, read.refusal) = (taken.elements, taken.refused, taken.first_refusal());
    taken.report_warnings(&name, problems);
    let mut ranges = taken.ranges;
    ranges.normalise();
    ranges.v4.shrink_to_fit();
    ranges.v6.shrink_to_fit();
    read.sha256 = Some(hex(&reader.hash.finalize()));
    Ok((ranges, read))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

enum Parser {
    Plain,
    Csv(Csv),
    Spamhaus(Spamhaus),
    Ipset(Ipset),
    Nft(Nft),
}

impl Parser {
    fn new(feed: &Feed) -> Self {
        match feed.format {
            Format::Plain => Self::Plain,
            Format::Csv => Self::Csv(Csv::new(feed)),
            Format::SpamhausJson => Self::Spamhaus(Spamhaus::default()),
            Format::Ipset => Self::Ipset(Ipset::new(feed.name.clone())),
            Format::Nft => Self::Nft(Nft::new(feed.name.clone())),
        }
    }

    fn line(&mut self, line: &str, taken: &mut Taken) -> Result<(), String> {
        match self {
            Self::Plain => match line.split(['#', ';']).next().unwrap_or_default().trim() {
                "" => Ok(()),
                element => taken.take(element),
            },
            Self::Csv(csv) => csv.line(line, taken),
            Self::Spamhaus(spamhaus) => spamhaus.line(line, taken),
            Self::Ipset(ipset) => ipset.line(line, taken),
            Self::Nft(nft) => nft.piece(line.as_bytes(), taken),
        }
    }

    /// The file is at its end.
    fn end(&self) -> Result<(), String> {
        match self {
            Self::Plain | Self::Csv(_) => Ok(()),
            Self::Spamhaus(spamhaus) => spamhaus.end(),
            Self::Ipset(ipset) => ipset.end(),
            Self::Nft(nft) => nft.end(),
        }
    }
}

struct Reader {
    format: Parser,
    skips: bool,
    hash: Sha256,
    bytes: u64,
}

impl Reader {
    fn run(&mut self, file: File, room: usize) -> Result<Taken, String> {
        let mut input = BufReader::with_capacity(1 << 16, file);
        let mut line = Vec::new();
        let (mut taken, mut number, mut whole) = (Taken::new(room), 0, true);
        loop {
            number += usize::from(whole);
            if self.piece(&mut input, &mut line)? == 0 {
                self.format.end()?;
                return Ok(taken);
            }
            let long = line.len() > MAX_LINE;
            whole = !long || line.ends_with(b"\n");
            taken.begin(number, "");
            if let Parser::Nft(nft) = &mut self.format {
                nft.piece(&line, &mut taken)?;
                continue;
            }
            let reason = match std::str::from_utf8(&line) {
                _ if long => format!("line {number} has more than {MAX_LINE} bytes"),
                _ if line.contains(&0) => format!("binary data in line {number}"),
                Err(_) => format!("line {number} is not UTF-8 text"),
                Ok(text) => {
                    // Exports of spreadsheets begin with a mark of the byte order.
                    let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text };
                    taken.begin(number, text);
                    self.format.line(text, &mut taken)?;
                    continue;
                }
            };
            if !self.skips {
                return Err(reason);
            }
            taken.refuse(Complaint::new(reason));
            while !whole {
                whole = self.piece(&mut input, &mut line)? == 0 || line.ends_with(b"\n");
            }
        }
    }

    /// Reads to the end of the line or, of a line that is too long, a piece; its length.
    fn piece(&mut self, input: &mut BufReader<File>, line: &mut Vec<u8>) -> Result<usize, String> {
        line.clear();
        let mut limited = std::io::Read::take(input, MAX_LINE as u64 + 1);
        let read = limited.read_until(b'\n', line).map_err(|error| source::describe(&error))?;
        self.bytes += read as u64;
        if self.bytes > MAX_BYTES {
            return Err(format!("larger than {} MiB", MAX_BYTES >> 20));
        }
        self.hash.update(&*line);
        Ok(read)
    }
}

//! How the policy says that a set file is to be read: `{file: X, format: csv, column: 2}`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::node::{flag, parse, text};
use super::super::problems::{Complaint, Problems, quote};
use super::super::source::Span;
use super::super::tree::Entry;
use super::super::values;

/// The keys of a set in a file.
pub(crate) const KEYS: [&str; 9] =
    ["file", "format", "column", "separator", "header", "name", "bad_lines", "optional", "shrink"];
/// The words for [`Format`].
pub(crate) const FORMATS: [&str; 5] = ["plain", "csv", "spamhaus-json", "ipset", "nft"];
/// The words for [`BadLines`].
pub(crate) const BAD_LINES: [&str; 2] = ["error", "skip"];
/// The words for [`Feed::separator`].
pub(crate) const SEPARATORS: [&str; 5] = [",", ";", "|", "tab", "\t"];
const MAX_COLUMN: u32 = 1000;

/// The format of a set file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One address, prefix or range a line.
    #[default]
    Plain,
    /// A column of lines with separators.
    Csv,
    /// Objects with a member `cidr`, one a line.
    SpamhausJson,
    /// What `ipset save` prints.
    Ipset,
    /// What `nft list set` prints.
    Nft,
}

impl Format {
    /// Its word in the policy.
    #[must_use]
    pub fn word(self) -> &'static str {
        FORMATS[self as usize]
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which column of a CSV file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Column {
    /// Counted from 1.
    Number(u32),
    /// As the header calls it.
    Name(String),
}

/// What becomes of lines that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadLines {
    /// The file is not taken.
    Error,
    /// They are left out and counted, as long as they are fewer than the others.
    Skip,
}

/// How a set file is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feed {
    /// Its format.
    pub format: Format,
    /// CSV: where the address is. Always given there.
    pub column: Option<Column>,
    /// CSV: what is between the columns; a comma unless said.
    pub separator: Option<char>,
    /// CSV: the first line names the columns.
    pub header: bool,
    /// `ipset`, `nft`: which set of the file.
    pub name: Option<String>,
    /// What becomes of lines that cannot be used; [`Self::skips`] knows what is meant where nothing is said.
    pub bad_lines: Option<BadLines>,
    /// The file may be missing or empty.
    pub optional: bool,
    /// The file may lose over half of its elements at once.
    pub shrink: bool,
}

impl Feed {
    /// Whether bad lines are left out: unless said otherwise, in what other programs write and not in a list by hand.
    #[must_use]
    pub fn skips(&self) -> bool {
        self.bad_lines.unwrap_or(if self.format == Format::Plain { BadLines::Error } else { BadLines::Skip })
            == BadLines::Skip
    }
}

/// Reads the keys of a set in a file: its path as written, and how it is read. `None`: reported. `at` is the set's own
/// place, `name` its name.
pub(in super::super) fn keys<'n>(
    name: &str,
    entries: &'n [Entry<'_>],
    at: Span,
    problems: &mut Problems,
) -> Option<(&'n str, Span, Feed)> {
    let before = problems.errors();
    let (mut path, mut feed, mut spans) = (None, Feed::default(), Vec::new());
    for Entry { key, at, value } in entries {
        spans.push((&**key, *at));
        match &**key {
            "file" => path = text(value, "a path", problems).map(|path| (path, value.span)),
            "optional" => feed.optional = flag(value, problems).unwrap_or_default(),
            "shrink" => feed.shrink = flag(value, problems).unwrap_or_default(),
            "header" => feed.header = flag(value, problems).unwrap_or_default(),
            "format" => feed.format = parse(value, "a format", format, problems).unwrap_or_default(),
            "column" => feed.column = parse(value, "a column", column, problems),
            "separator" => feed.separator = parse(value, "a character", separator, problems),
            "name" => feed.name = text(value, "the name of a set", problems).map(str::to_owned),
            "bad_lines" => feed.bad_lines = parse(value, "`error` or `skip`", bad_lines, problems),
            _ => problems.error(*at, Complaint::unknown("key in a set", key, KEYS.into_iter().chain(["dynamic"]))),
        }
    }
    if path.is_none() && !spans.iter().any(|(key, _)| *key == "file") {
        problems.error(at, format!("the set `{name}` has neither values nor `file:` nor `dynamic: true`"));
    }
    for (key, span) in &spans {
        let (fits, formats) = match *key {
            "column" | "separator" | "header" => (feed.format == Format::Csv, "`format: csv`"),
            "name" => (matches!(feed.format, Format::Ipset | Format::Nft), "`format: ipset` and `format: nft`"),
            _ => continue,
        };
        if !fits {
            problems.error(*span, format!("`{key}` is for {formats}, this file is `{}`", feed.format));
        }
    }
    if feed.format == Format::Csv && !spans.iter().any(|(key, _)| *key == "column") {
        let complaint = Complaint::new("`format: csv` needs `column`: where the address is");
        problems.error(at, complaint.help("a number, counted from 1, or the name that the first line gives it"));
    }
    let (path, span) = path?;
    (problems.errors() == before).then_some((path, span, feed))
}

fn format(text: &str) -> Result<Format, Complaint> {
    use Format::{Csv, Ipset, Nft, Plain, SpamhausJson};
    let known = [Plain, Csv, SpamhausJson, Ipset, Nft];
    let found = known.into_iter().find(|format| format.word() == text);
    found.ok_or_else(|| Complaint::unknown("format", text, FORMATS))
}

fn column(text: &str) -> Result<Column, Complaint> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(Column::Name(text.to_owned()));
    }
    match values::number(text, MAX_COLUMN)? {
        0 => Err(Complaint::new("columns are counted from 1")),
        number => Ok(Column::Number(number)),
    }
}

fn separator(text: &str) -> Result<char, Complaint> {
    match text {
        "tab" => Ok('\t'),
        _ if SEPARATORS.contains(&text) => Ok(text.chars().next().unwrap_or(',')),
        _ => Err(Complaint::new(format!("expected `,`, `;`, `|` or `tab` as separator, found {}", quote(text)))),
    }
}

fn bad_lines(text: &str) -> Result<BadLines, Complaint> {
    match text {
        "error" => Ok(BadLines::Error),
        "skip" => Ok(BadLines::Skip),
        _ => Err(Complaint::unknown("value of `bad_lines`", text, BAD_LINES)),
    }
}

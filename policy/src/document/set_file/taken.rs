//! What is taken of a set file, and what is not.

use super::super::problems::{Complaint, Problems};
use super::super::sets::{MAX_ELEMENTS, push};
use super::super::values;
use crate::ranges::AddressRanges;

// A file in a wrong format has an error in each line.
const SHOWN_ERRORS: usize = 20;
// Of lines that are left out a few show what is wrong with the feed.
const SHOWN_WARNINGS: usize = 5;

/// A line that is not taken.
struct Refused {
    line: usize,
    text: String,
    complaint: Complaint,
}

/// The addresses so far.
pub(super) struct Taken {
    pub ranges: AddressRanges,
    /// Elements as written, before overlapping ones are merged.
    pub elements: usize,
    /// Lines that are not taken.
    pub refused: usize,
    /// Elements of a source that forgets them after a time.
    pub timeouts: usize,
    // First such line, and how many.
    host_bits: Option<(usize, usize)>,
    shown: Vec<Refused>,
    room: usize,
    line: usize,
    text: String,
}

impl Taken {
    pub fn new(room: usize) -> Self {
        Self {
            ranges: AddressRanges::default(),
            elements: 0,
            refused: 0,
            timeouts: 0,
            host_bits: None,
            shown: Vec::new(),
            room,
            line: 0,
            text: String::new(),
        }
    }

    /// The line that is read, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The next line is read, which has this text.
    pub fn begin(&mut self, line: usize, text: &str) {
        self.line = line;
        self.text.clear();
        self.text.push_str(text);
    }

    /// Takes an element of the current line. An error concerns the whole file.
    pub fn take(&mut self, element: &str) -> Result<(), String> {
        let text = std::mem::take(&mut self.text);
        let taken = self.take_at(self.line, &text, element);
        self.text = text;
        taken
    }

    /// Takes an element that stands in this line.
    pub fn take_at(&mut self, line: usize, text: &str, element: &str) -> Result<(), String> {
        match values::addresses_loosely(element) {
            Ok((range, host_bits)) => {
                push(&mut self.ranges, range);
                self.elements += 1;
                if host_bits {
                    self.host_bits.get_or_insert((line, 0)).1 += 1;
                }
            }
            Err(complaint) => self.refuse_at(line, text, complaint),
        }
        // Lines that are not taken are bounded too: each of them was read.
        if self.elements > self.room {
            return Err(format!("the sets have more than {MAX_ELEMENTS} elements together"));
        }
        Ok(())
    }

    /// Does not take the current line.
    pub fn refuse(&mut self, complaint: Complaint) {
        let text = std::mem::take(&mut self.text);
        self.refuse_at(self.line, &text, complaint);
        self.text = text;
    }

    /// Does not take what stands in this line.
    pub fn refuse_at(&mut self, line: usize, text: &str, complaint: Complaint) {
        self.refused += 1;
        if self.shown.len() < SHOWN_ERRORS {
            let text = text.trim_end().chars().take(200).collect();
            self.shown.push(Refused { line, text, complaint });
        }
    }

    /// Why the first line was not taken.
    pub fn first_refusal(&self) -> Option<String> {
        self.shown.first().map(|first| format!("line {}: {}", first.line, first.complaint.message))
    }

    /// Reports what was refused as errors.
    pub fn report_errors(self, name: &str, problems: &mut Problems) {
        let more = self.refused - self.shown.len();
        for Refused { line, text, complaint } in self.shown {
            problems.file_line_error(name, line as u32, &text, complaint);
        }
        if more > 0 {
            problems.file_error(name, format!("{more} more lines that cannot be used"));
        }
    }

    /// Reports what is worth knowing of a file that is taken.
    pub fn report_warnings(&mut self, name: &str, problems: &mut Problems) {
        if let Some((line, count)) = self.host_bits {
            let what = "prefixes with bits set past their length are taken as the network";
            problems.file_warning(name, format!("{count} {what}, first in line {line}"));
        }
        if self.timeouts > 0 {
            let what = "elements have a timeout; in this set they stay until the file changes";
            problems.file_warning(name, format!("{} {what}", self.timeouts));
        }
        if self.refused > 0 {
            let total = self.refused + self.elements;
            let first = self.first_refusal().unwrap_or_default();
            problems.file_warning(name, format!("{} of {total} lines cannot be used; {first}", self.refused));
            for Refused { line, text, complaint } in self.shown.drain(..).take(SHOWN_WARNINGS) {
                problems.file_line_warning(name, line as u32, &text, complaint);
            }
        }
    }
}

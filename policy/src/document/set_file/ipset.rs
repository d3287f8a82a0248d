//! What `ipset save` prints: `create NAME TYPE ...` and `add NAME ELEMENT ...`.

use std::collections::BTreeSet;

use super::super::problems::{Complaint, quote};
use super::nft::chosen;
use super::taken::Taken;

/// Types of which an element is an address, a prefix or a range.
const TYPES: [&str; 3] = ["hash:ip", "hash:net", "bitmap:ip"];

/// The sets of the file.
#[derive(Default)]
pub(super) struct Ipset {
    name: Option<String>,
    seen: BTreeSet<String>,
    // What `netmask` of the set says: its elements stand for networks of so many bits.
    netmask: Option<String>,
}

impl Ipset {
    pub fn new(name: Option<String>) -> Self {
        Self { name, ..Self::default() }
    }

    pub fn line(&mut self, line: &str, taken: &mut Taken) -> Result<(), String> {
        let words = words(line);
        let mut words = words.iter().map(String::as_str).filter(|word| !matches!(*word, "-exist" | "-!"));
        match words.next() {
            None | Some("COMMIT") => Ok(()),
            Some(comment) if comment.starts_with('#') => Ok(()),
            Some("create" | "n" | "-N" | "--create") => self.create(&words.collect::<Vec<_>>(), taken),
            Some("add" | "a" | "-A" | "--add") => self.add(&words.collect::<Vec<_>>(), taken),
            Some(other) => {
                taken.refuse(Complaint::new(format!("expected `create` or `add`, found {}", quote(other))));
                Ok(())
            }
        }
    }

    fn is_wanted(&mut self, set: &str) -> bool {
        // Bounded: a hostile file may have a set in each line.
        if self.seen.len() < 20 && !self.seen.contains(set) {
            self.seen.insert(set.to_owned());
        }
        self.name.as_deref().is_none_or(|name| name == set)
    }

    fn create(&mut self, words: &[&str], taken: &mut Taken) -> Result<(), String> {
        let [set, kind, options @ ..] = words else {
            taken.refuse(Complaint::new("expected `create NAME TYPE`"));
            return Ok(());
        };
        if !self.is_wanted(set) {
            return Ok(());
        }
        let bad = |what: String| Err(format!("line {}: the set {} {what}", taken.line(), quote(set)));
        if !TYPES.contains(kind) {
            return bad(format!(
                "is of type {}, whose elements are not addresses alone; {} can be read",
                quote(kind),
                TYPES.map(|name| format!("`{name}`")).join(", ")
            ));
        }
        if options.contains(&"bitmask") {
            return bad("has a `bitmask`, which no prefix says".to_owned());
        }
        let netmask = options.iter().position(|option| *option == "netmask");
        self.netmask = netmask.and_then(|at| options.get(at + 1)).map(|bits| (*bits).to_owned());
        Ok(())
    }

    fn add(&mut self, words: &[&str], taken: &mut Taken) -> Result<(), String> {
        let [set, element, options @ ..] = words else {
            taken.refuse(Complaint::new("expected `add NAME ELEMENT`"));
            return Ok(());
        };
        if !self.is_wanted(set) {
            return Ok(());
        }
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match *option {
                "timeout" => {
                    // 0 is for ever.
                    if options.next().is_some_and(|seconds| *seconds != "0") {
                        taken.timeouts += 1;
                    }
                }
                "comment" | "packets" | "bytes" | "skbmark" | "skbprio" | "skbqueue" => drop(options.next()),
                "nomatch" => {
                    return Err(format!(
                        "line {}: {} is an exception (`nomatch`), which a list of addresses cannot hold; take such lines \
                         out of the file, and write `{{in: $set, not: ...}}` where the set is used",
                        taken.line(),
                        quote(element)
                    ));
                }
                other => {
                    taken.refuse(Complaint::new(format!("unknown option {}", quote(other))));
                    return Ok(());
                }
            }
        }
        match &self.netmask {
            Some(bits) if !element.contains(['/', '-']) => taken.take(&format!("{element}/{bits}")),
            _ => taken.take(element),
        }
    }

    pub fn end(&self) -> Result<(), String> {
        chosen(self.name.as_deref(), &self.seen)
    }
}

/// Words with blanks between them; what is in quotes is one.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for character in line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            blank if blank.is_whitespace() && !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            other => {
                word.push(other);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

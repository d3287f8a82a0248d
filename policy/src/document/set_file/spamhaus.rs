//! Spamhaus DROP: one JSON object a line, `{"cidr": "192.0.2.0/24", ...}`, and one that describes the others.

use serde::Deserialize;

use super::super::problems::Complaint;
use super::taken::Taken;

#[derive(Deserialize)]
struct Record {
    cidr: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    records: Option<u64>,
}

/// What the metadata say.
#[derive(Default)]
pub(super) struct Spamhaus {
    records: u64,
    promised: Option<u64>,
}

impl Spamhaus {
    pub fn line(&mut self, line: &str, taken: &mut Taken) -> Result<(), String> {
        let text = line.trim();
        if text.is_empty() {
            return Ok(());
        }
        match serde_json::from_str::<Record>(text) {
            Ok(Record { cidr: Some(cidr), .. }) => {
                self.records += 1;
                return taken.take(&cidr);
            }
            Ok(Record { kind: Some(kind), records, .. }) if kind == "metadata" => {
                self.promised = records.or(self.promised);
            }
            Ok(_) => taken.refuse(Complaint::new("an object without `cidr`")),
            Err(error) => {
                let what = if error.is_syntax() || error.is_eof() {
                    "not a JSON object"
                } else {
                    "not an object with a text as `cidr`"
                };
                taken.refuse(Complaint::new(format!("{what} (column {})", error.column())));
            }
        }
        Ok(())
    }

    /// What to say of the file as a whole: metadata that promise more than there is are what a broken download has.
    pub fn end(&self) -> Result<(), String> {
        match self.promised {
            Some(promised) if promised > self.records => {
                Err(format!("its metadata say {promised} records, it has {}: the file is cut off", self.records))
            }
            _ => Ok(()),
        }
    }
}

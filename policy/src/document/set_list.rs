//! The values of one inline set, which must be of one kind.

use std::collections::HashSet;
use std::sync::Arc;

use super::problems::{Complaint, Problems, quote};
use super::sets::{SetValue, push};
use super::source::Span;
use super::values;
use crate::model::{AddressList, PathGlob};
use crate::ranges::{AddressRanges, Ranges};

// The values of one set while its list is read.
#[derive(Default)]
pub(super) struct Parts {
    kind: Option<&'static str>,
    addresses: AddressRanges,
    list: AddressList,
    ports: Vec<(u32, u32)>,
    paths: Vec<PathGlob>,
    known: HashSet<*const AddressRanges>,
    pub bad: bool,
}

impl Parts {
    pub fn add(&mut self, text: &str, span: Span, problems: &mut Problems) {
        let path = text.starts_with(['/', '@']) || text.starts_with("**/");
        let address = !path && text.contains(['.', ':']);
        let kind = if path {
            "paths"
        } else if address {
            "addresses"
        } else {
            "ports"
        };
        let result = if path {
            super::host::path(text).map(|glob| self.paths.push(glob))
        } else if address {
            values::addresses(text).map(|range| push(&mut self.addresses, range))
        } else {
            values::port(text).map(|range| self.ports.push(range)).map_err(|complaint| Complaint {
                message: format!("expected an address, a port, a service or a path, found {}", quote(text)),
                ..complaint
            })
        };
        match result {
            Ok(()) => self.of_kind(kind, span, problems),
            Err(complaint) => {
                problems.error(span, complaint);
                self.bad = true;
            }
        }
    }

    pub fn add_set(&mut self, value: SetValue, span: Span, problems: &mut Problems) {
        if matches!(value, SetValue::Bad) {
            self.bad = true;
            return;
        }
        self.of_kind(value.noun(), span, problems);
        match value {
            SetValue::Addresses(list) => {
                for ranges in list.fixed {
                    if self.known.insert(Arc::as_ptr(&ranges)) {
                        self.list.fixed.push(ranges);
                    }
                }
                self.list.dynamic.extend(list.dynamic);
            }
            SetValue::Ports(ranges) => self.ports.extend_from_slice(ranges.as_slice()),
            SetValue::Paths(paths) => self.paths.extend(paths.iter().cloned()),
            SetValue::Bad => {}
        }
    }

    fn of_kind(&mut self, kind: &'static str, span: Span, problems: &mut Problems) {
        let first = *self.kind.get_or_insert(kind);
        if first != kind {
            problems.error(span, format!("{kind} in a set that begins with {first}; a set holds one kind"));
            self.bad = true;
        }
    }

    pub fn finish(mut self) -> SetValue {
        match self.kind {
            _ if self.bad => SetValue::Bad,
            Some("ports") => SetValue::Ports(Arc::new(Ranges::new(self.ports))),
            Some("paths") => SetValue::Paths(Arc::new(self.paths)),
            Some(_) => {
                self.addresses.normalise();
                if !self.addresses.is_empty() {
                    self.list.fixed.push(Arc::new(self.addresses));
                }
                self.list.dynamic.sort_unstable();
                self.list.dynamic.dedup();
                SetValue::Addresses(self.list)
            }
            None => SetValue::Bad,
        }
    }
}

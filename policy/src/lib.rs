//! The policy language: YAML to model to tables, its diagnostics, and the naive evaluator that tests compare with.
//!
//! Pure: no I/O beyond reading the files it is given.

pub mod compile;
pub mod diagnostic;
pub mod document;
pub mod evaluate;
pub mod generate;
pub mod glob;
pub mod lockout;
pub mod model;
pub mod oracle;
pub mod paths;
pub mod ranges;
pub mod schema;
pub mod services;
pub mod users;

pub use diagnostic::{Diagnostic, Report, Severity};
pub use document::{
    BadLines, Column, Copies, Feed, Format, Loaded, SetFile, SourceText, check_set_file, load, load_texts,
    load_texts_with_copies, load_with_copies, parse_access_spec, parse_packet_spec,
};
pub use schema::schema;

//! The policy language: YAML to model to tables, its diagnostics, and the naive evaluator that tests compare with.
//!
//! Pure: no I/O beyond reading the files it is given.

pub mod compile;
pub mod evaluate;
pub mod model;
pub mod oracle;
pub mod ranges;

//! Generations in force: how one comes there, is kept, and gives way to another.

pub mod access;
pub mod active;
pub mod candidate;
pub mod change;
pub mod diff;
pub mod explain;
pub mod fallback;
pub mod feeds;
pub mod history;
pub mod host;
pub mod lockout;
pub mod off;
pub mod own;
pub mod session;
pub mod start;
pub mod subject;
pub mod switch;
pub mod upgrade;

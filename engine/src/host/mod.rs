//! The host half: what a system call is about, and what the tables say of it.

pub mod access;
pub mod automaton;
pub mod quick;

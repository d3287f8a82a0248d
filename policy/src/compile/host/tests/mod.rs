//! The compiled host chain against the oracle, and what is promised of its automaton.

mod differential;
mod paths;
mod quick;

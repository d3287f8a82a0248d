//! A program for each hook.

mod open;

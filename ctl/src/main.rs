//! `ringctl`, the command people type.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringctl::main()
}

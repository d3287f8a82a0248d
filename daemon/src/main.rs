//! The control daemon's program.

use std::process::ExitCode;

use clap::Parser;
use ringfenced::cli::Arguments;
use ringfenced::error::with_sources;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    ringfenced::logging::start();
    match ringfenced::run::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringfenced: {}", with_sources(&error));
            for diagnostic in
                error.body().diagnostics.iter().filter(|_| matches!(error, ringfenced::error::Error::Tests(_)))
            {
                eprintln!("{}:{}: {}", diagnostic.file, diagnostic.line.unwrap_or_default(), diagnostic.message);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

//! What every command works with: the daemon, and where results go.

use std::io::{BufWriter, Write};

use ringfence_api::{Client, ClientError};
use serde::Serialize;

use crate::{Cli, Failure};

/// The daemon's client and standard output. Colours written to it are removed unless it is a terminal that wants them.
pub struct Context {
    /// The daemon.
    pub client: Client,
    runtime: tokio::runtime::Runtime,
    output: Box<dyn Write>,
}

impl Context {
    /// For a command line. Connects to nothing yet.
    pub fn new(cli: &Cli) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Missing(format!("cannot start the event loop: {error}")))?;
        let output = Box::new(BufWriter::new(anstream::stdout()));
        Ok(Self { client: Client::new(&cli.socket), runtime, output })
    }

    /// Waits for an answer of the daemon.
    pub fn ask<A>(&self, answer: impl Future<Output = Result<A, ClientError>>) -> Result<A, ClientError> {
        self.runtime.block_on(answer)
    }

    /// Writes a value as JSON.
    pub fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.output, value).map_err(std::io::Error::from)?;
        Ok(writeln!(self.output)?)
    }

    /// Brings what was written so far to the screen, before something that takes time or cuts the connection.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.output.flush()?)
    }
}

impl Write for Context {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}

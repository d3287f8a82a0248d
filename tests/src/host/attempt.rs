//! System calls by the program `actor`, in a process of its own. Its steps are described in `bin/actor`.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::binary;

/// Steps to do.
#[derive(Clone, Debug)]
pub struct Attempt {
    program: PathBuf,
    steps: Vec<String>,
    environment: Vec<(String, String)>,
}

/// An actor that waits in a step, or acts on its own.
#[derive(Debug)]
pub struct Waiting {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    what: String,
}

/// Does these steps. The outcome: `ok`, or the step that failed and its error, as `open: EACCES`.
pub fn attempt<S: AsRef<str>>(steps: impl IntoIterator<Item = S>) -> Result<String> {
    Attempt::new(steps).run()
}

impl Attempt {
    /// These steps, by the program where it was built.
    pub fn new<S: AsRef<str>>(steps: impl IntoIterator<Item = S>) -> Self {
        let steps = steps.into_iter().map(|step| step.as_ref().to_owned()).collect();
        Self { program: binary("actor"), steps, environment: Vec::new() }
    }

    /// By a copy of the program.
    #[must_use]
    pub fn by(mut self, program: impl AsRef<Path>) -> Self {
        self.program = program.as_ref().to_path_buf();
        self
    }

    /// With this in its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Does the steps.
    pub fn run(&self) -> Result<String> {
        let output = self.command().output().with_context(|| format!("cannot start {self:?}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{self:?} ended with {}: {errors}", output.status);
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// Starts, and returns when the first waiting step is reached.
    pub fn start(&self) -> Result<Waiting> {
        let mut waiting = self.start_running()?;
        waiting.wait()?;
        Ok(waiting)
    }

    /// Starts, and returns at once.
    pub fn start_running(&self) -> Result<Waiting> {
        let mut child = self.command().spawn().with_context(|| format!("cannot start {self:?}"))?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Waiting { child, input, output, what: format!("{self:?}") })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.steps).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Waiting {
    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a waiting step is reached.
    pub fn wait(&mut self) -> Result<()> {
        let line = self.line()?;
        let errors = self.errors();
        ensure!(line == "waiting", "{} ended early: `{line}`{errors}", self.what);
        Ok(())
    }

    /// Lets the step end.
    pub fn go_on(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"\n")?)
    }

    /// Lets the step end, and gives the outcome of those after it.
    pub fn finish(mut self) -> Result<String> {
        self.go_on()?;
        self.outcome()
    }

    /// The outcome of all steps.
    pub fn outcome(&mut self) -> Result<String> {
        let line = self.line()?;
        if line.is_empty() {
            let errors = self.errors();
            bail!("{} gave no outcome{errors}", self.what);
        }
        Ok(line)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// What it says of itself, when it has ended.
    fn errors(&mut self) -> String {
        let mut text = String::new();
        if let (Ok(Some(_)), Some(stderr)) = (self.child.try_wait(), self.child.stderr.take()) {
            // Best effort, for a message.
            let _ = std::io::Read::read_to_string(&mut BufReader::new(stderr), &mut text);
        }
        text
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

//! Performs system calls, one after the other, and prints how it went: what the tests of the host half refuse or let go.
//!
//! Each argument is a step: a word and its operands, `{N}` in an operand standing for the Nth descriptor opened so far.
//! The first step that fails ends the run. Printed is one line, `ok` or `STEP: ERRNO`; the exit code is 0 either way, and
//! 2 for a step that cannot be understood. A step that waits prints `waiting` and goes on with the next line of its
//! standard input.

mod files;
mod kernel;
mod mounts;
mod processes;
mod programs;
mod raw;
mod sockets;
mod subject;
mod uring;

use std::{
    collections::VecDeque,
    env, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// What is left to do, and what was opened so far.
#[derive(Default)]
struct Actor {
    steps: VecDeque<String>,
    descriptors: Vec<OwnedFd>,
    handle: Vec<u8>,
    succeeded: Option<u32>,
}

/// Operands of a step.
struct Operands(Vec<String>);

fn main() -> ExitCode {
    let mut actor = Actor { steps: env::args().skip(1).collect(), ..Actor::default() };
    match actor.run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("actor: {error:#}");
            ExitCode::from(2)
        }
    }
}

impl Actor {
    /// Does what is left; the line that says how it went.
    fn run(&mut self) -> Result<String> {
        while let Some(step) = self.steps.pop_front() {
            match self.step(&step) {
                Ok(()) => {}
                Err(error) => match error.downcast_ref::<Errno>() {
                    Some(errno) => {
                        let word = step.split_whitespace().next().unwrap_or_default();
                        return Ok(format!("{word}: {errno:?}"));
                    }
                    None => return Err(error.context(format!("step `{step}`"))),
                },
            }
        }
        Ok(self.succeeded.map_or_else(|| "ok".to_owned(), |times| format!("ok: {times}")))
    }

    /// `COUNT STEP...`: the step so many times, whether it fails or not. How often it did not is printed at the end.
    fn repeat(&mut self, operands: &Operands) -> Result<()> {
        let (times, step): (u32, _) = (operands.number(0)?, operands.0[1..].join(" "));
        let mut succeeded = 0;
        for _ in 0..times {
            match self.step(&step) {
                Ok(()) => succeeded += 1,
                Err(error) if error.is::<Errno>() => {}
                Err(error) => return Err(error),
            }
            self.descriptors.clear();
        }
        self.succeeded = Some(succeeded);
        Ok(())
    }

    /// `STEP...`: the step again and again, whether it fails or not, until a line comes on standard input. How often it
    /// did not is printed at the end.
    fn keep_on(&mut self, operands: &Operands) -> Result<()> {
        let (step, mut succeeded) = (operands.0.join(" "), 0);
        println!("waiting");
        loop {
            match self.step(&step) {
                Ok(()) => succeeded += 1,
                Err(error) if error.is::<Errno>() => {}
                Err(error) => return Err(error),
            }
            let input = io::stdin();
            if poll(&mut [PollFd::new(input.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO)? > 0 {
                self.succeeded = Some(succeeded);
                return Ok(());
            }
        }
    }

    fn step(&mut self, step: &str) -> Result<()> {
        let mut words = step.split_whitespace().map(|word| self.resolve(word));
        let word = words.next().context("an empty step")?;
        let operands = Operands(words.collect());
        if word == "repeat" {
            return self.repeat(&operands);
        }
        if word == "keep-on" {
            return self.keep_on(&operands);
        }
        for family in [
            files::step,
            mounts::step,
            sockets::step,
            programs::step,
            processes::step,
            kernel::step,
            subject::step,
            uring::step,
        ] {
            if let Some(done) = family(self, &word, &operands) {
                return done;
            }
        }
        bail!("there is no such step")
    }

    /// An operand with `{N}` replaced by the number of the Nth descriptor.
    fn resolve(&self, word: &str) -> String {
        let mut resolved = word.to_owned();
        for (index, descriptor) in self.descriptors.iter().enumerate() {
            resolved = resolved.replace(&format!("{{{index}}}"), &descriptor.as_raw_fd().to_string());
        }
        resolved
    }

    /// The descriptor opened last.
    fn last(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.descriptors.last().context("nothing was opened")?.as_fd())
    }

    fn keep(&mut self, descriptor: impl Into<OwnedFd>) {
        self.descriptors.push(descriptor.into());
    }
}

impl Operands {
    fn get(&self, index: usize) -> Result<&str> {
        self.0.get(index).map(String::as_str).with_context(|| format!("operand {index} is missing"))
    }

    /// An optional operand.
    fn word(&self, index: usize) -> &str {
        self.0.get(index).map_or("", String::as_str)
    }

    fn number<T: std::str::FromStr>(&self, index: usize) -> Result<T> {
        let text = self.get(index)?;
        text.parse().ok().with_context(|| format!("`{text}` is not a number in range"))
    }
}

/// The error number of a failed call of the standard library.
trait OrErrno<T> {
    fn or_errno(self) -> Result<T>;
}

impl<T> OrErrno<T> for io::Result<T> {
    fn or_errno(self) -> Result<T> {
        Ok(self.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?)
    }
}

/// Lets the caller of the test know, and waits for it.
fn wait() -> Result<()> {
    println!("waiting");
    let mut line = String::new();
    ensure!(io::stdin().read_line(&mut line)? > 0, "nobody answered");
    Ok(())
}

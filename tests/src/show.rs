//! What the demonstrations print.

use std::io::IsTerminal as _;

use anyhow::{Result, bail};

use crate::daemon::{Daemon, Reply};

/// A heading.
pub fn say(title: &str) {
    println!("\n{}", paint(title, 1));
}

/// Text in a colour (an SGR code), on a terminal that wants it.
#[must_use]
pub fn paint(text: &str, code: u8) -> String {
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A command and what it answered.
pub fn answer(command: &[&str], reply: &Reply) {
    let quoted = |word: &&str| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() };
    println!("$ {}", command.iter().map(quoted).collect::<Vec<_>>().join(" "));
    for line in reply.stdout.lines().chain(reply.stderr.lines()) {
        println!("  {line}");
    }
}

/// Runs `ringctl` and shows what it says; exit code 1 is one of its good answers.
pub fn ctl(daemon: &Daemon, arguments: &[&str]) -> Result<Reply> {
    let reply = daemon.ctl(arguments)?;
    answer(&[&["ringctl"], arguments].concat(), &reply);
    if reply.code <= 1 { Ok(reply) } else { bail!("ringctl ended with exit code {}", reply.code) }
}

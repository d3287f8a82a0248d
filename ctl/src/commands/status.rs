use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ringfence_api::{ClientError, Half, Hook, State, Status as Answer};

use super::Listing;
use crate::context::Context;
use crate::table::{Table, clean, word, word_style};
use crate::{Exit, Failure, units};

/// Print what is enforced, where and how
///
/// Each hook on each interface, the security hooks, rules that this kernel cannot enforce as written, what was lost, and
/// what could not be judged as the policy says.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes:
  0  as the policy asks
  1  degraded, audit, something lost, a pending confirmation; or ringfenced is down and what it pinned enforces
  3  not enforcing")]
pub struct Status {
    /// One line
    #[arg(long)]
    brief: bool,
    /// Where ringfenced pins what enforces; looked at when it is down
    #[arg(long, value_name = "DIR", default_value = ringfence_api::DEFAULT_BPFFS)]
    bpffs: PathBuf,
    #[command(flatten)]
    listing: Listing,
}

impl Status {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let status = match context.ask(context.client.status()) {
            Ok(status) => status,
            Err(error) if error.daemon_is_down() => return Err(down(error, &self.bpffs)),
            Err(error) => return Err(error.into()),
        };
        if self.listing.json {
            context.json(&status)?;
        } else if self.brief {
            writeln!(context, "{}", brief(&status))?;
        } else {
            write_status(&status, context)?;
        }
        Ok(Exit::from_code(status.exit_code()))
    }
}

/// Enforcement outlives the daemon: what is pinned says whether it did.
fn down(error: ClientError, bpffs: &Path) -> Failure {
    match bpffs.read_dir().map(|mut pins| pins.next().is_some()) {
        Ok(true) => Failure::No(format!(
            "ringfenced is not running; what it pinned below {} keeps enforcing the last policy",
            bpffs.display()
        )),
        Ok(false) => error.into(),
        Err(reading) if reading.kind() == std::io::ErrorKind::NotFound => error.into(),
        Err(reading) => Failure::Missing(format!("{error}; and cannot look for its pins: {reading}")),
    }
}

fn brief(status: &Answer) -> String {
    let generation = status.generation.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let halves = &status.halves;
    let mut words = vec![
        format!("generation={generation}"),
        format!("mode={}", status.mode.word()),
        format!("network={}", halves.network.state.word()),
        format!("host={}", halves.host.state.word()),
    ];
    words.extend(status.pending.map(|pending| format!("pending={}s", pending.seconds)));
    if !status.problems.is_empty() {
        words.push(format!("problems={}", status.problems.len()));
    }
    words.push(format!("lost={}", status.lost.values().sum::<u64>()));
    words.join(" ")
}

fn write_status(status: &Answer, out: &mut Context) -> Result<(), Failure> {
    match (status.generation, &status.policy) {
        (None, _) => writeln!(out, "no policy is in force")?,
        (Some(number), None) => writeln!(out, "generation {number}")?,
        (Some(number), Some(policy)) => writeln!(out, "generation {number} from {}", clean(policy))?,
    }
    let mode = status.mode.word();
    let style = word_style(mode);
    let end = status.mode_until.map_or_else(String::new, |until| format!(" until {}", units::timestamp(until)));
    writeln!(out, "mode {style}{mode}{style:#}{end}")?;
    if let Some(pending) = &status.pending {
        let back = pending
            .previous
            .map_or_else(|| "nothing is enforced".to_owned(), |previous| format!("generation {previous} comes back"));
        let left = units::duration(pending.seconds);
        writeln!(out, "generation {} waits for `ringctl confirm`: {back} in {left}", pending.generation)?;
    }
    for problem in &status.problems {
        let style = word_style("degraded");
        writeln!(out, "{style}problem{style:#}: {}", clean(problem))?;
    }
    writeln!(out)?;
    halves(status).write(out)?;
    for one in &status.halves.host.left_out {
        let style = word_style("unavailable");
        let place = format!("{}:{}", clean(&one.file), one.line);
        let rule = clean(&one.rule);
        writeln!(out, "{style}unavailable{style:#}: rule `{rule}` ({place}): {}", clean(&one.because))?;
    }
    remedies(status, out)?;
    set_files(status, out)?;
    let figures: Vec<String> =
        status.halves.host.figures.iter().map(|(name, value)| format!("{value} {}", clean(name))).collect();
    if !figures.is_empty() {
        writeln!(out, "host: {}", figures.join(", "))?;
    }
    write_counts(status, out)
}

/// So many security hooks of which the same is to be said are listed one by one; `--json` lists all.
const ALIKE: usize = 3;

fn halves(status: &Answer) -> Table {
    let mut table = Table::new(["HALF", "INTERFACE", "HOOK", "STATE", "HOW", "WHY"], &[]);
    for (name, half) in [("network", &status.halves.network), ("host", &status.halves.host)] {
        rows(name, half, &mut table);
    }
    table
}

fn rows(name: &str, half: &Half, table: &mut Table) {
    let because = |because: &Option<String>| because.clone().unwrap_or_default().into();
    table.row([name.into(), "".into(), "".into(), word(half.state.word()), "".into(), because(&half.because)]);
    for like in half.hooks.chunk_by(is_like) {
        let (shown, more) = if like.len() > ALIKE { (&like[..1], like.len() - 1) } else { (like, 0) };
        for hook in shown {
            let name = if more > 0 { format!("{} and {more} more", hook.hook) } else { hook.hook.clone() };
            table.row([
                "".into(),
                hook.interface.as_deref().unwrap_or("-").into(),
                name.as_str().into(),
                word(hook.state.word()),
                hook.how.as_deref().unwrap_or("-").into(),
                because(&hook.because),
            ]);
        }
    }
}

/// Whether two security hooks have the same to say.
fn is_like(one: &Hook, other: &Hook) -> bool {
    let said = |hook: &Hook| (hook.interface.clone(), hook.state, hook.how.clone(), hook.because.clone());
    one.interface.is_none() && said(one) == said(other)
}

/// The set files, and why not all of them are taken as they are.
fn set_files(status: &Answer, out: &mut Context) -> Result<(), Failure> {
    if status.set_files.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["SET", "FILE", "FORMAT", "ELEMENTS", "REFUSED", "WHY"], &[3, 4]);
    for file in &status.set_files {
        table.row([
            file.set.as_str().into(),
            file.file.as_str().into(),
            file.format.as_str().into(),
            file.elements.to_string().into(),
            file.refused.to_string().into(),
            file.stale.as_deref().or(file.because.as_deref()).unwrap_or_default().into(),
        ]);
    }
    writeln!(out)?;
    table.write(out).map_err(Into::into)
}

/// What to do, once for each different advice.
fn remedies(status: &Answer, out: &mut Context) -> Result<(), Failure> {
    let (network, host) = (&status.halves.network, &status.halves.host);
    let hooks = network.hooks.iter().chain(&host.hooks).filter(|hook| hook.state != State::Enforced);
    let advice = hooks.filter_map(|hook| hook.remedy.as_deref());
    let mut said: Vec<&str> = Vec::new();
    for remedy in advice.chain(host.left_out.iter().filter_map(|one| one.remedy.as_deref())) {
        if !said.contains(&remedy) {
            writeln!(out, "help: {}", clean(remedy))?;
            said.push(remedy);
        }
    }
    Ok(())
}

fn write_counts(status: &Answer, out: &mut Context) -> Result<(), Failure> {
    writeln!(out)?;
    let lost: Vec<String> =
        status.lost.iter().filter(|&(_, &count)| count > 0).map(|(kind, count)| format!("{count} {kind}")).collect();
    writeln!(out, "lost: {}", if lost.is_empty() { "nothing".to_owned() } else { lost.join(", ") })?;
    let taken: Vec<_> = status.fail_directions.iter().filter(|direction| direction.packets > 0).collect();
    if !taken.is_empty() {
        let mut table = Table::new(["CHAIN", "COULD NOT BE JUDGED AS WRITTEN", "GETS", "PACKETS"], &[3]);
        for direction in taken {
            table.row([
                direction.chain.as_str().into(),
                direction.name.as_str().into(),
                word(&direction.gets),
                direction.packets.to_string().into(),
            ]);
        }
        table.write(out)?;
    }
    Ok(())
}

//! Time and memory from YAML text to tables.

use std::{
    io::Write as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use ringfence_policy::{
    compile::{Compiled, compile},
    load,
};

use crate::workload;

/// Reads and compiles a policy.
pub fn compiled(file: &Path) -> Result<Compiled> {
    let loaded = load(file).map_err(|report| anyhow!(report.render(false)))?;
    Ok(compile(&loaded.policy)?)
}

/// Compiles one policy and prints what it took.
pub fn measure(file: &Path) -> Result<()> {
    let start = Instant::now();
    let loaded = load(file).map_err(|report| anyhow!(report.render(false)))?;
    let read = start.elapsed();
    let compiled = compile(&loaded.policy)?;
    let total = start.elapsed();
    let arena = compiled.ingress.as_ref().map_or(0, |chain| chain.arena.len());
    let peak = getrusage(UsageWho::RUSAGE_SELF)?.max_rss().cast_unsigned() * 1024;
    println!(
        "read {:>7}  compiled {:>7}  peak {:>6}  tables {:>6}",
        seconds(read),
        seconds(total.saturating_sub(read)),
        mebibytes(peak),
        mebibytes(arena as u64)
    );
    Ok(())
}

/// All sizes.
pub fn report() -> Result<()> {
    println!("From YAML to tables (each in a process of its own)");
    let directory = tempfile::tempdir()?;
    let mut cases = Vec::new();
    for rules in [10, 1_000, 10_000, 65_536] {
        let file = directory.path().join(format!("{rules}.yaml"));
        std::fs::write(&file, workload::rules(rules))?;
        cases.push((format!("{rules} rules"), file));
    }
    let feed = directory.path().join("feed.txt");
    std::fs::write(&feed, workload::prefixes(1_000_000))?;
    let file = directory.path().join("set.yaml");
    std::fs::write(&file, workload::big_set(&feed))?;
    cases.push(("a set of 1,000,000 prefixes".into(), file));
    for (name, file) in cases {
        print!("  {name:<28}");
        std::io::stdout().flush()?;
        let status = Command::new(std::env::current_exe()?).arg("compile").arg(file).status().context("start")?;
        ensure!(status.success(), "{name} does not compile");
    }
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

fn mebibytes(bytes: u64) -> String {
    // Tenths, in whole numbers.
    let tenths = (bytes * 10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

//! `ringfence-bench`: what packets and policies cost, as ratios within one run. See `README.md` beside this crate.

mod compile;
mod dynamic;
mod network;
mod workload;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["network"] => {
            compile::report()?;
            network::report()?;
            dynamic::report()
        }
        ["dynamic"] => dynamic::report(),
        // One measurement of memory in a process of its own: the peak of a process never falls again.
        ["compile", file] => compile::measure(file.as_ref()),
        _ => bail!("usage: ringfence-bench [network|dynamic]"),
    }
    .context("benchmark")
}

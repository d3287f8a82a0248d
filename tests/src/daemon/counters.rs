//! The answers of `ringctl rules --json`, to compare.

use anyhow::{Context, Result};
use ringfence_api::RuleLine;

/// All counters at one moment.
#[derive(Clone, Debug)]
pub struct Counters {
    lines: Vec<RuleLine>,
}

impl Counters {
    pub(super) fn new(lines: Vec<RuleLine>) -> Self {
        Self { lines }
    }

    /// All lines, in order of judgement.
    #[must_use]
    pub fn lines(&self) -> &[RuleLine] {
        &self.lines
    }

    /// The line of a rule, or of a built-in such as `default` or `floor/arp`.
    pub fn line(&self, chain: &str, name: &str) -> Result<&RuleLine> {
        let found = self.lines.iter().find(|line| line.chain == chain && line.name == name);
        found.with_context(|| format!("no line {chain} {name} in {:?}", self.names()))
    }

    /// Packets that a line has counted.
    pub fn packets(&self, chain: &str, name: &str) -> Result<u64> {
        Ok(self.line(chain, name)?.packets)
    }

    /// The lines that have counted since `before`: chain, name, packets, bytes.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<(String, String, u64, u64)> {
        let grown = self.lines.iter().filter_map(|line| {
            let old = before.line(&line.chain, &line.name).map_or((0, 0), |old| (old.packets, old.bytes));
            let (packets, bytes) = (line.packets.saturating_sub(old.0), line.bytes.saturating_sub(old.1));
            (packets > 0).then(|| (line.chain.clone(), line.name.clone(), packets, bytes))
        });
        grown.collect()
    }

    fn names(&self) -> Vec<String> {
        self.lines.iter().map(|line| format!("{} {}", line.chain, line.name)).collect()
    }
}

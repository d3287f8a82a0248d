//! Rebuilds the committed BPF objects.

/// Arguments of `cargo xtask bpf`.
#[derive(clap::Args)]
pub struct Args {
    /// Do not write the objects: fail when a rebuild gives other bytes than the committed ones
    #[arg(long)]
    pub check: bool,
}

/// Rebuilds the objects, or compares a rebuild with them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("there are no BPF objects yet (check: {})", args.check)
}

//! Where the programs under test are.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

/// Names a directory with built programs, for machines without cargo.
const DIRECTORY: &str = "RINGFENCE_BINARIES";

/// The path of a program of this workspace, built from the sources as they are now.
///
/// # Panics
/// When the programs cannot be built: no test can say anything then.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| match env::var_os(DIRECTORY) {
        Some(directory) => PathBuf::from(directory),
        None => build().unwrap_or_else(|error| panic!("{error:#}")),
    });
    directory.join(name)
}

/// Cargo gives a test only the programs of its own package; so they are built here, in the profile of the test itself.
/// That takes a moment when `cargo test` has just built them.
fn build() -> Result<PathBuf> {
    let test = env::current_exe()?;
    // .../target/PROFILE/deps/TEST
    let profile = test.parent().and_then(Path::parent).context("the test has no build directory")?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--workspace", "--bins", "--locked"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    ensure!(cargo.status()?.success(), "cannot build the programs under test");
    Ok(profile.to_path_buf())
}

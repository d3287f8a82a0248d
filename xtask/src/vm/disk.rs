//! What the machines hold beside our own programs.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};

use super::copy;
use crate::shell;

/// Bytes of a disk image: the largest that a disk in memory (`brd`) holds unless told otherwise.
const DISK: u64 = 16 << 20;
/// Programs and libraries of the machine that runs this: dynamically linked, as most are.
const FOREIGN: [&str; 5] =
    ["/usr/bin/cat", "/usr/bin/dash", "/lib64/ld-linux-x86-64.so.2", LIBC, "/lib/x86_64-linux-gnu/libm.so.6"];
const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";

/// Makes an image of each kind of file system that the tests mount, named after it.
pub fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for (kind, program, arguments) in [("ext4", "mkfs.ext4", ["-q", "-F"].as_slice()), ("vfat", "mkfs.vfat", &[])] {
        let image = directory.join(kind);
        File::create(&image)?.set_len(DISK)?;
        // mkfs.vfat has no option for silence.
        shell::output(Command::new(program).args(arguments).arg(&image))?;
    }
    Ok(())
}

/// Copies dynamically linked programs and what they need, to where they are here.
pub fn copy_foreign(root: &Path) -> Result<()> {
    for file in FOREIGN {
        copy(Path::new(file), &root.join(file.trim_start_matches('/')))?;
    }
    std::os::unix::fs::symlink("/usr/bin/dash", root.join("bin/sh")).context("cannot link bin/sh")
}

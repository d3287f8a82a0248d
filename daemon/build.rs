//! Tells the kernel module where the BPF objects are: `bpf/`, or the directory in `RINGFENCE_BPF_DIR`, by which
//! objects that were rebuilt with another toolchain are tested (`cargo xtask bpf --check`).

use std::{env, path::PathBuf};

fn main() {
    let directory = env::var_os("RINGFENCE_BPF_DIR").map_or_else(
        || PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("bpf"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-env-changed=RINGFENCE_BPF_DIR");
    println!("cargo::rustc-env=RINGFENCE_BPF_DIR={}", directory.display());
}

//! Tells the kernel module where the BPF objects are: `bpf/`, or the directory in `RINGFENCE_BPF_DIR`, by which
//! objects that were rebuilt with another toolchain are tested (`cargo xtask bpf --check`).

use std::{env, path::PathBuf};

fn main() {
    let directory = env::var_os("RINGFENCE_BPF_DIR").map_or_else(
        || PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("bpf"),
        PathBuf::from,
    );
    // Until the host half's objects are in the repository: what is missing cannot be loaded, and says so.
    let host = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for object in ["lsm_dispatch.o", "lsm.o", "cgroup.o"] {
        let bytes = std::fs::read(directory.join(object)).unwrap_or_default();
        println!("cargo::rerun-if-changed={}", directory.join(object).display());
        if let Err(error) = std::fs::write(host.join(object), bytes) {
            println!("cargo::error=cannot write {object}: {error}");
        }
    }
    println!("cargo::rustc-env=RINGFENCE_HOST_BPF_DIR={}", host.display());
    println!("cargo::rerun-if-env-changed=RINGFENCE_BPF_DIR");
    println!("cargo::rustc-env=RINGFENCE_BPF_DIR={}", directory.display());
}

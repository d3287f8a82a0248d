//! `cargo xtask bpf`: builds the BPF objects that are committed in `daemon/bpf`, or checks that they are what the
//! sources give.
//!
//! The toolchain is Debian's where there is one (`rustc-web` brings `core` for the BPF target), otherwise nightly with
//! `build-std`. The bytes do not depend on where the sources or cargo's registry lie, only on the toolchain; so
//! `daemon/bpf/TOOLCHAIN` records which it was, and the objects' checksums.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{setup, shell};

const TARGET: &str = "bpfel-unknown-none";
const OBJECTS: [&str; 5] = ["dispatch", "network", "cgroup", "lsm_dispatch", "lsm"];
/// The directories they are built in, each a workspace of its own.
const SOURCES: [&str; 2] = ["datapath-ebpf", "lsm-ebpf"];
/// Those of the project's crates that the objects are made of besides themselves.
const OWN_CRATES: [&str; 2] = ["ringfence_abi", "ringfence_engine"];
const LINKER: &str = "0.13.0";
const RECORD: &str = "TOOLCHAIN";

/// Arguments of `cargo xtask bpf`.
#[derive(clap::Args)]
pub struct Args {
    /// Do not write the objects: fail when a rebuild gives other bytes than the committed ones
    #[arg(long)]
    pub check: bool,
}

/// Rebuilds the objects, or compares a rebuild with them.
pub fn run(args: &Args) -> Result<()> {
    if args.check { check().map(drop) } else { build() }
}

/// Set for cargo when this program is its compiler wrapper.
const WRAPPED: &str = "RINGFENCE_RUSTC_WRAPPER";

/// Whether cargo runs this program in place of the compiler (see [`rustc`]).
pub fn is_rustc() -> bool {
    std::env::var_os(WRAPPED).is_some()
}

/// Runs the compiler that the arguments name. Symbols and BTF carry a hash of what cargo passes as `metadata`, and for a
/// crate outside of its workspace's directory that depends on where the sources lie: the project's own crates, whose
/// names differ, get a fixed one.
pub fn rustc() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let compiler = arguments.next().context("cargo names the compiler first")?;
    let arguments: Vec<OsString> = arguments.collect();
    let own = |name: &OsString| name.to_str().is_some_and(|name| OWN_CRATES.contains(&name) || OBJECTS.contains(&name));
    let is_own = arguments.windows(2).any(|pair| pair[0] == "--crate-name" && own(&pair[1]));
    let fixed = |argument: OsString| {
        let replace = is_own && argument.to_str().is_some_and(|text| text.starts_with("metadata="));
        if replace { "metadata=ringfence".into() } else { argument }
    };
    let status = Command::new(compiler).args(arguments.into_iter().map(fixed)).status()?;
    std::process::exit(status.code().unwrap_or(1));
}

/// Builds the objects into `daemon/bpf`.
fn build() -> Result<()> {
    let committed = shell::root().join("daemon/bpf");
    let toolchain = Toolchain::obtain()?;
    toolchain.build(&committed)?;
    fs::write(committed.join(RECORD), record(&toolchain, &committed)?)?;
    println!("built with {}", toolchain.describe()?.replace('\n', ", "));
    for name in OBJECTS {
        let path = committed.join(format!("{name}.o"));
        println!("  {} {} bytes", path.display(), fs::metadata(&path)?.len());
    }
    Ok(())
}

/// Rebuilds the objects elsewhere. With the recorded toolchain they must equal the committed ones; with another one
/// they cannot be compared, and the answer is the directory to test instead (`RINGFENCE_BPF_DIR`, which the daemon's
/// build script reads).
pub fn check() -> Result<Option<PathBuf>> {
    let root = shell::root();
    let committed = root.join("daemon/bpf");
    let recorded = fs::read_to_string(committed.join(RECORD)).context("daemon/bpf/TOOLCHAIN")?;
    ensure!(
        recorded.lines().filter(|line| line.contains("sha256")).eq(checksums(&committed)?.lines()),
        "daemon/bpf/*.o are not the objects that {RECORD} records: run `cargo xtask bpf` and commit all of them"
    );
    let toolchain = Toolchain::obtain()?;
    let rebuilt = root.join("target/bpf/check");
    toolchain.build(&rebuilt)?;
    let current = toolchain.describe()?;
    if !recorded.starts_with(&current) {
        println!("the toolchain is not the recorded one, so the bytes cannot be compared:");
        println!("recorded:\n{recorded}here:\n{current}\nrebuilt objects: {}", rebuilt.display());
        println!("test them with RINGFENCE_BPF_DIR={}", rebuilt.display());
        return Ok(Some(rebuilt));
    }
    let mut different = Vec::new();
    for name in OBJECTS {
        let file = format!("{name}.o");
        if fs::read(committed.join(&file))? != fs::read(rebuilt.join(&file))? {
            different.push(file);
        }
    }
    ensure!(
        different.is_empty(),
        "not what the sources give: daemon/bpf/{}; run `cargo xtask bpf` and commit the result",
        different.join(", daemon/bpf/")
    );
    println!("daemon/bpf/*.o are byte for byte what the sources give");
    Ok(None)
}

/// What turns sources into BPF objects.
struct Toolchain {
    // Debian's compiler; `None`: rustup's nightly.
    rustc: Option<PathBuf>,
    // Where LLVM of the compiler's major version lives.
    llvm: PathBuf,
}

impl Toolchain {
    /// Finds the toolchain, installing what is missing.
    fn obtain() -> Result<Self> {
        let debian = PathBuf::from("/usr/bin/rustc");
        if !has_bpf_core(&debian) && apt_offers("rustc-web") && apt_offers("libstd-rust-web-dev-bpf") {
            setup::apt(&["rustc-web", "libstd-rust-web-dev-bpf"])?;
        }
        let rustc = has_bpf_core(&debian).then_some(debian);
        if rustc.is_none() {
            println!("this system has no rustc with the BPF target: using nightly");
            shell::run(&mut shell::command("rustup", &["toolchain", "install", "nightly", "-c", "rust-src"]))?;
        }
        let major = llvm_major(rustc.as_ref())?;
        let llvm = match llvm_prefix(major) {
            Ok(found) => found,
            Err(_) if apt_offers(&format!("llvm-{major}-dev")) => {
                setup::apt(&[&format!("llvm-{major}-dev"), &format!("llvm-{major}"), "libzstd-dev"])?;
                llvm_prefix(major)?
            }
            Err(missing) => return Err(missing),
        };
        let toolchain = Self { rustc, llvm };
        if linker_version().is_none_or(|version| version != LINKER) {
            println!("installing bpf-linker {LINKER} with cargo");
            let feature = format!("llvm-{major}");
            let mut install = cargo(&["install", "--quiet", "--locked", "--force", "bpf-linker", "--version", LINKER]);
            install.args(["--no-default-features", "--features", &feature]);
            shell::run(install.env("LLVM_PREFIX", &toolchain.llvm))?;
        }
        Ok(toolchain)
    }

    /// Builds and strips the objects into `into`.
    fn build(&self, into: &Path) -> Result<()> {
        let target = shell::root().join("target/bpf");
        // Built anew each time: what is compared must come from these sources and this toolchain.
        if target.join(TARGET).exists() {
            fs::remove_dir_all(target.join(TARGET))?;
        }
        for sources in SOURCES {
            let mut build = cargo(&["build", "--quiet", "--release", "--locked", "--target", TARGET]);
            match &self.rustc {
                // aya-ebpf needs `asm_experimental_arch`, which a stable compiler has but does not offer.
                Some(rustc) => build.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1"),
                None => build.env("RUSTUP_TOOLCHAIN", "nightly"),
            };
            if self.rustc.is_none() {
                build.args(["-Z", "build-std=core"]);
            }
            let flags = flags(sources)?.join("\u{1f}");
            build.arg("--target-dir").arg(&target).env("CARGO_ENCODED_RUSTFLAGS", flags);
            build.env("RUSTC_WRAPPER", std::env::current_exe()?).env(WRAPPED, "1");
            shell::run(build.current_dir(shell::root().join(sources)))?;
        }
        fs::create_dir_all(into)?;
        for name in OBJECTS {
            // Debug sections go, BTF and its line information stay.
            let mut strip = Command::new(self.llvm.join("bin/llvm-strip"));
            strip.args(["-g", "-o"]).arg(into.join(format!("{name}.o")));
            shell::run(strip.arg(target.join(TARGET).join("release").join(name)))?;
        }
        Ok(())
    }

    /// What the bytes depend on besides the sources, a line each.
    fn describe(&self) -> Result<String> {
        let version = rustc_version(self.rustc.as_ref())?;
        let first = version.lines().next().unwrap_or_default();
        let llvm = llvm_version(&version)?;
        let tools = output(Command::new(self.llvm.join("bin/llvm-config")).arg("--version"))?;
        Ok(format!("{first}\nLLVM {llvm}, bpf-linker {LINKER} with LLVM {}\n", tools.trim()))
    }
}

/// Compiler flags; paths of this machine are replaced, because BTF names the source files.
fn flags(sources: &str) -> Result<Vec<String>> {
    // Zeroing and copying is a few stores in place, not a call of a byte-wise loop: calls cost time, and inside loops the
    // verifier of 6.1 refuses them.
    const IN_PLACE: &str = "-Clink-arg=--disable-expand-memcpy-in-order";
    let fixed = ["-Clinker=bpf-linker", "-Clink-arg=--btf", IN_PLACE, "-Cdebuginfo=2"];
    let mut flags: Vec<String> = fixed.map(str::to_owned).into();
    flags.push(format!("--remap-path-prefix={}=ringfence", shell::root().display()));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).context("no cargo home")?;
    let registry = home.join("registry/src");
    // Fetching creates the registry's directory, whose name differs with the registry.
    shell::run(cargo(&["fetch", "--quiet", "--locked"]).current_dir(shell::root().join(sources)))?;
    for source in fs::read_dir(&registry).with_context(|| registry.display().to_string())? {
        flags.push(format!("--remap-path-prefix={}=registry", source?.path().display()));
    }
    Ok(flags)
}

fn record(toolchain: &Toolchain, directory: &Path) -> Result<String> {
    Ok(toolchain.describe()? + &checksums(directory)?)
}

fn checksums(directory: &Path) -> Result<String> {
    let sum = |name: &str| {
        let text = output(Command::new("sha256sum").arg(directory.join(format!("{name}.o"))))?;
        let sum = text.split_whitespace().next().context("sha256sum prints no sum")?;
        Ok(format!("{name}.o sha256 {sum}\n"))
    };
    OBJECTS.iter().map(|name| sum(name)).collect()
}

/// Whether a compiler has `core` for the BPF target.
fn has_bpf_core(rustc: &Path) -> bool {
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]));
    sysroot.is_ok_and(|root| Path::new(root.trim()).join("lib/rustlib").join(TARGET).join("lib").exists())
}

fn rustc_version(rustc: Option<&PathBuf>) -> Result<String> {
    match rustc {
        Some(path) => output(Command::new(path).arg("-vV")),
        None => output(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"])),
    }
}

fn llvm_version(rustc: &str) -> Result<&str> {
    rustc.lines().find_map(|line| line.strip_prefix("LLVM version: ")).context("rustc does not name its LLVM")
}

fn llvm_major(rustc: Option<&PathBuf>) -> Result<u32> {
    let version = rustc_version(rustc)?;
    let version = llvm_version(&version)?;
    version.split('.').next().and_then(|major| major.parse().ok()).with_context(|| format!("LLVM version {version}"))
}

/// Where LLVM of this major version is installed, with its development files.
fn llvm_prefix(major: u32) -> Result<PathBuf> {
    for config in [format!("/usr/lib/llvm-{major}/bin/llvm-config"), "llvm-config".to_owned()] {
        let Ok(found) = output(Command::new(&config).args(["--version", "--prefix"])) else { continue };
        if let Some((version, prefix)) = found.split_once('\n')
            && version.split('.').next() == Some(&major.to_string())
        {
            let prefix = PathBuf::from(prefix.trim());
            if prefix.join("bin/llvm-strip").exists() {
                return Ok(prefix);
            }
        }
    }
    bail!("LLVM {major} with llvm-config and llvm-strip is needed, of the same major version as rustc's")
}

fn linker_version() -> Option<String> {
    let version = output(Command::new("bpf-linker").arg("--version")).ok()?;
    Some(version.trim().strip_prefix("bpf-linker ")?.to_owned())
}

/// Whether this is a Debian whose package lists have the package.
fn apt_offers(package: &str) -> bool {
    let show = || output(Command::new("apt-cache").args(["show", "--no-all-versions", package]));
    setup::update().is_ok() && show().is_ok_and(|text| !text.is_empty())
}

/// cargo as it is outside `cargo run`: what that exports, and profiles set for other builds, would change the bytes.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = shell::cargo(arguments);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let keep = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_"];
        if text.starts_with("RUSTFLAGS") || text.starts_with("RUSTC") || text == "CARGO" || {
            text.starts_with("CARGO_") && !keep.iter().any(|prefix| text.starts_with(prefix))
        } {
            command.env_remove(&name);
        }
    }
    command
}

/// What a program prints; probes whether there is such a program, so nothing reaches the screen.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

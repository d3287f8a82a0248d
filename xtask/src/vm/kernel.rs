//! Debian's kernels, from the mirror that the machine itself uses, kept below `target/vm`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::copy;
use crate::{setup, shell};

/// An unpacked kernel package.
pub struct Kernel {
    /// Its version, as the modules' directory is named.
    pub release: String,
    /// The compressed kernel.
    pub file: PathBuf,
    /// Where it and all that is made from it is kept.
    pub directory: PathBuf,
}

impl Kernel {
    /// The current kernel of a Debian suite: fetched once, then kept.
    pub fn fetch(suite: &str) -> Result<Self> {
        let directory = shell::target_dir().join("vm").join(suite);
        let package = directory.join("package");
        if !package.exists() {
            fs::create_dir_all(&directory)?;
            download(suite, &directory).with_context(|| format!("cannot fetch the kernel of {suite}"))?;
            // Last, so that an interrupted download is begun again.
            fs::rename(directory.join("unpacked"), &package)?;
        }
        let boot = fs::read_dir(package.join("boot"))?.filter_map(Result::ok).map(|entry| entry.path());
        let prefixed = boot.filter_map(|path| {
            let release = path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            Some(Self { release, file: path, directory: directory.clone() })
        });
        prefixed.last().with_context(|| format!("no kernel in {}", package.display()))
    }

    /// Copies modules and those they depend on, uncompressed, named in the order in which they must be loaded.
    pub fn copy_modules(&self, names: &[&str], to: &Path) -> Result<()> {
        let base = self.directory.join("package");
        let base = base.to_str().context("the directory's name is not UTF-8")?;
        let mut files: Vec<String> = Vec::new();
        for name in names {
            let mut modprobe = shell::command("modprobe", &["--show-depends", "--dirname", base]);
            let order = shell::output(modprobe.args(["--set-version", &self.release, name]))?;
            // Lines are `insmod /path/of/module.ko`; what is built into the kernel is `builtin NAME`.
            for file in order.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = file.trim().to_owned();
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        for (number, file) in files.iter().enumerate() {
            let name = Path::new(file).file_name().context("a module without a name")?.display().to_string();
            let place = to.join(format!("{number:02}-{name}"));
            copy(Path::new(file), &place)?;
            if place.extension().is_some_and(|extension| extension == "xz") {
                shell::output(Command::new("xz").arg("--decompress").arg(&place))?;
            }
        }
        Ok(())
    }
}

/// Downloads and unpacks the suite's kernel into `directory/unpacked`, with apt directories of its own: the machine's
/// own package lists stay as they are.
fn download(suite: &str, directory: &Path) -> Result<()> {
    let apt = directory.join("apt");
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(apt.join("cache/archives/partial"))?;
    let sources = apt.join("sources.list");
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(&sources, format!("deb [signed-by={keys}] {} {suite} main\n", mirror()?))?;
    shell::run(&mut with_directories("apt-get", &apt, &["-qq", "update"]))?;
    let depends = shell::output(&mut with_directories("apt-cache", &apt, &["depends", "linux-image-amd64"]))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.context("linux-image-amd64 depends on no kernel")?;
    println!("fetching {package} from Debian {suite}");
    // As the user _apt nothing could be written here.
    let arguments = ["-qq", "-o", "APT::Sandbox::User=root", "download", package];
    shell::run(with_directories("apt-get", &apt, &arguments).current_dir(directory))?;
    unpack(directory, package)
}

fn unpack(directory: &Path, package: &str) -> Result<()> {
    let files = fs::read_dir(directory)?.filter_map(Result::ok).map(|entry| entry.path());
    let archive = files.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).last();
    let archive = archive.context("apt-get downloaded nothing")?;
    let unpacked = directory.join("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    shell::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&unpacked))?;
    fs::remove_file(archive)?;
    // From trixie on packages rely on `/lib` being a link.
    if !unpacked.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", unpacked.join("lib"))?;
    }
    let release = package.strip_prefix("linux-image-").context("not a kernel package")?;
    shell::run(Command::new("depmod").arg("--basedir").arg(&unpacked).arg(release))
}

/// The address of the machine's own mirror.
fn mirror() -> Result<String> {
    setup::update()?;
    let format = "$(ORIGIN) $(COMPONENT) $(REPO_URI)";
    let targets = shell::output(&mut shell::command("apt-get", &["indextargets", "--format", format]))?;
    let mirror = targets.lines().find_map(|line| line.strip_prefix("Debian main "));
    let mirror = mirror.context("the machine has no Debian mirror: run apt-get update")?;
    ensure!(mirror.contains("://"), "the machine's Debian mirror has no address");
    Ok(mirror.to_owned())
}

fn with_directories(program: &str, apt: &Path, arguments: &[&str]) -> Command {
    let mut command = shell::command(program, &[]);
    for (setting, value) in [
        ("Dir::State", apt.display().to_string()),
        ("Dir::State::status", "/dev/null".into()),
        ("Dir::Cache", apt.join("cache").display().to_string()),
        ("Dir::Etc::sourcelist", apt.join("sources.list").display().to_string()),
        ("Dir::Etc::sourceparts", "/dev/null".into()),
    ] {
        command.arg("-o").arg(format!("{setting}={value}"));
    }
    command.args(arguments);
    command
}

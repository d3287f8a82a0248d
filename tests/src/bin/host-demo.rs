//! Ringfence's other half at work: a file that one program may read and nobody else, root included. Run by `cargo xtask
//! demo` on this machine if its kernel has security hooks to give, else in a virtual machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use ringfence_api::{State, Status};
use ringfence_tests::{
    daemon::Daemon,
    netns::Host,
    show::{answer, ctl, say},
};

const SECRET: &str = "the key to everything";
/// What the kernel makes of EACCES.
const REFUSED: &str = "Permission denied";
/// Exit code where the kernel has no security hooks to give, as Ringfence's own programs have it.
const NO_HOOKS: u8 = 3;

fn main() -> Result<ExitCode> {
    let demo = Demo::new()?;
    if demo.status()?.halves.host.state == State::Unavailable {
        return Ok(NO_HOOKS.into());
    }
    demo.tell()?;
    Ok(ExitCode::SUCCESS)
}

struct Demo {
    daemon: Daemon,
    secret: PathBuf,
    /// Another `cat`, at a path of its own: the one that may.
    reader: PathBuf,
}

impl Demo {
    fn new() -> Result<Self> {
        let mut daemon = Daemon::new(&Arc::new(Host::new()?))?;
        daemon.hide_log();
        let (secret, reader) = (daemon.write("secret.txt", format!("{SECRET}\n"))?, daemon.path("backup/cat"));
        fs::create_dir(daemon.path("backup"))?;
        fs::copy(cat()?, &reader)?;
        let policy = format!(
            "ringfence: 1\nhost:\n  default: allow\n  rules:\n    - deny: {{op: read, path: {}, exe: {{not: {}}}}}\n      name: secret\n",
            secret.display(),
            reader.display()
        );
        daemon.write("policy.yaml", policy)?;
        daemon.restart()?;
        Ok(Self { daemon, secret, reader })
    }

    fn tell(mut self) -> Result<()> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        say(&format!("A file that one program may read and nobody else, root included. Linux {}", kernel.trim()));
        let policy = self.daemon.path("policy.yaml");
        self.run(&["cat".as_ref(), &policy], true, "ringfence: 1")?;

        say("Who is not named is refused by the kernel, whatever name the file gets");
        let cat = cat()?;
        self.run(&["cat".as_ref(), &self.secret], false, REFUSED)?;
        self.run(&["backup/cat".as_ref(), &self.secret], true, SECRET)?;
        let other = self.daemon.path("other.txt");
        let renamed = fs::rename(&self.secret, &other).err().context("the file was renamed")?;
        println!("  renaming it: {renamed}");
        let linked = fs::hard_link(&self.secret, &other).err().context("the file got another name")?;
        println!("  a hard link to it: {linked}");

        say("What is enforced, and which rule it was");
        ctl(&self.daemon, &["status"])?;
        let hits = self.hits()?;
        ensure!(hits >= 3, "{hits} refusals were counted");
        ctl(&self.daemon, &["rules"])?;
        let access = format!("op=read path={} exe={} uid=0", self.secret.display(), cat.display());
        let told = ctl(&self.daemon, &["explain", "--access", &access])?.stdout;
        ensure!(told.contains("deny by secret") && told.contains("policy.yaml:5"), "explain names another rule");

        say("kill -9 of the daemon: the kernel goes on enforcing");
        self.daemon.kill()?;
        self.run(&["cat".as_ref(), &self.secret], false, REFUSED)?;
        self.run(&["backup/cat".as_ref(), &self.secret], true, SECRET)?;
        self.daemon.restart()?;
        let now = self.hits()?;
        ensure!(now == hits + 1, "{now} refusals were counted, not {}", hits + 1);
        println!("  back again, with its counters: {now} refused");

        ctl(&self.daemon, &["off"])?;
        self.run(&["cat".as_ref(), &self.secret], true, SECRET)?;
        ensure!(self.daemon.stop()?.success(), "the daemon did not end well");
        Ok(())
    }

    /// Runs a program and shows its answer, which must be this one.
    fn run(&self, words: &[&Path], succeeds: bool, says: &str) -> Result<()> {
        let program = if words[0] == Path::new("cat") { words[0].into() } else { self.reader.clone() };
        let reply = self.daemon.reply(Command::new(program).args(&words[1..]).env("LC_ALL", "C"))?;
        let shown: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        answer(&shown.iter().map(AsRef::as_ref).collect::<Vec<_>>(), &reply);
        let said = [reply.stdout.as_str(), &reply.stderr].concat();
        ensure!((reply.code == 0) == succeeds && said.contains(says), "the demo expected `{says}`");
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        self.daemon.json(&["status"])
    }

    fn hits(&self) -> Result<u64> {
        Ok(self.daemon.counters()?.line("host", "secret")?.hits)
    }
}

/// The machine's `cat`, as the kernel has its path.
fn cat() -> Result<PathBuf> {
    let found = ["/usr/bin/cat", "/bin/cat"].into_iter().find(|path| Path::new(path).exists());
    Ok(fs::canonicalize(found.context("there is no cat")?)?)
}

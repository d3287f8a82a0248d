//! What the host half costs, in instructions of the guest: run by `cargo xtask bench host` on a machine whose clock counts
//! them (one instruction, one nanosecond).

use std::{
    fs::File,
    hint::black_box,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_tests::host::{Machine, put};

/// Six components.
const FILE: &str = "/b/one/two/three/four/file";
const OPENS: u32 = 2_000;
const PROGRAMS: u32 = 40;
/// Of so many rounds the median is taken: timer interrupts fall into some.
const ROUNDS: usize = 7;

/// Instructions of one `open` and `close`, and of starting a dynamically linked program and waiting for its end.
#[derive(Clone, Copy)]
struct Cost {
    open: f64,
    program: f64,
}

fn main() -> Result<()> {
    put(FILE, "x")?;
    let kernel = measure()?;
    println!("{:14} {:>12} {:>8} {:>14} {:>8}", "instructions", "open+close", "", "fork+exec", "");
    print("bare kernel", kernel, kernel);
    // With the daemon and without a hook the same calls take a little less. That is what is compared with.
    let machine = Machine::new("ringfence: 1\n")?;
    let bare = measure()?;
    print("no rules", bare, bare);
    drop(machine);
    // The last time with a pattern that any name may match.
    let everywhere = "    - deny: {op: read, path: \"**/.netrc\"}\n";
    for (rules, more) in [(10, ""), (1_000, ""), (10_000, ""), (10, everywhere)] {
        let machine = Machine::new(&(policy(rules) + more))?;
        let before = machine.hits()?.of("default")?;
        let cost = measure()?;
        // A machine that judged nothing would be as fast as the bare one.
        let judged = machine.hits()?.of("default")? - before;
        ensure!(judged >= u64::from(OPENS) * ROUNDS as u64, "only {judged} calls were judged");
        print(&format!("{rules} rules{}", if more.is_empty() { "" } else { ", **/" }), cost, bare);
    }
    Ok(())
}

fn print(name: &str, cost: Cost, bare: Cost) {
    let ratio = |now: f64, bare: f64| format!("{:+.1} %", (now / bare - 1.0) * 100.0);
    let (open, program) = (ratio(cost.open, bare.open), ratio(cost.program, bare.program));
    println!("{name:14} {:12.0} {open:>8} {:14.0} {program:>8}", cost.open, cost.program);
}

fn measure() -> Result<Cost> {
    wait_for_quiet()?;
    // Warm.
    open(200)?;
    start(10)?;
    let open = median(|| open(OPENS))? / f64::from(OPENS);
    wait_for_quiet()?;
    let program = median(|| start(PROGRAMS))? / f64::from(PROGRAMS);
    Ok(Cost { open, program })
}

/// Waits until nobody else has anything to do: there is one processor, and the daemon tidies up after an apply.
fn wait_for_quiet() -> Result<()> {
    for _ in 0..100 {
        let (idle, begin) = (idle()?, Instant::now());
        sleep(Duration::from_millis(200));
        if self::idle()?.saturating_sub(idle) > begin.elapsed().mul_f64(0.95) {
            return Ok(());
        }
    }
    bail!("the machine is never idle")
}

/// How long the machine has been idle.
fn idle() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let idle = stat.split_whitespace().nth(4).context("/proc/stat has too few columns")?;
    // Hundredths of a second.
    Ok(Duration::from_millis(10 * idle.parse::<u64>()?))
}

/// Nanoseconds, that is instructions, that an action takes.
fn median(mut action: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        action()?;
        rounds.push(begin.elapsed().as_secs_f64() * 1e9);
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}

fn open(times: u32) -> Result<()> {
    for _ in 0..times {
        drop(black_box(File::open(FILE)?));
    }
    Ok(())
}

fn start(times: u32) -> Result<()> {
    for _ in 0..times {
        let status = Command::new("/usr/bin/dash").args(["-c", ":"]).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "dash ended with {status}");
    }
    Ok(())
}

/// Rules of the ordinary kinds, none of which decides about what is measured.
fn policy(rules: usize) -> String {
    let mut text = "ringfence: 1\nhost:\n  default: allow\n  rules:\n".to_owned();
    for number in 0..rules {
        let rule = match number % 5 {
            0 => format!("op: [read, write], path: /srv/tenant-{number}/private/**"),
            1 => format!("op: read, path: /etc/app-{number}/key.pem, uid: {{not: 0}}"),
            2 => format!("op: write, path: /b/one/two/*/x{number}"),
            3 => format!("op: [read, write], path: /home/user-{number}/.ssh/**, exe: {{not: /usr/sbin/sshd}}"),
            _ => format!("op: exec, path: /opt/app-{number}/bin/*"),
        };
        text.extend(["    - deny: {", &rule, "}\n"]);
    }
    text
}

//! Nanoseconds a packet, by `BPF_PROG_TEST_RUN` of the attached programs (dispatcher and generation).

use std::{net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ringfence_abi::counter::{BUILTINS, FLOOR, MALFORMED};
use ringfenced::kernel::{Hook, Kernel, Loaded, mount_bpffs};

use crate::{compile::compiled, workload};

const REPEAT: u32 = 1_000_000;
/// Different sources per policy; the median of their times is reported.
const SOURCES: u32 = 15;

/// All sizes.
pub fn report() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let pins = directory.path().join("bpf");
    std::fs::create_dir(&pins)?;
    mount_bpffs(&pins)?;
    let mount = Unmount(&pins);
    let kernel = Kernel::open(&pins, None)?;
    let measured = measure(&kernel, directory.path());
    kernel.off()?;
    drop(mount);
    measured
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        // The directory is temporary; what stays mounted is in its removal's way and will be said there.
        let _ = nix::mount::umount(self.0);
    }
}

fn measure(kernel: &Kernel, directory: &Path) -> Result<()> {
    let bare = kernel.time_bare(&workload::udp(Ipv4Addr::LOCALHOST, 1), REPEAT)?;
    println!("\nNanoseconds a packet (UDP over IPv4, hot caches, {REPEAT} runs each, median of {SOURCES} sources)");
    println!("  {:<34}{:>8}{:>12}{:>10}", "", "XDP", "TC ingress", "ratio");
    println!("  {:<34}{:>8.1}{:>12}{:>10.1}", "a program that only passes", nanoseconds(bare), "", 1.0);
    let mut sizes = Vec::new();
    let mut number = 0;
    let mut case = |name: String, text: String, established: bool| -> Result<()> {
        let file = directory.join("policy.yaml");
        std::fs::write(&file, text)?;
        number += 1;
        let loaded = kernel.load(&compiled(&file)?, number, |set| set.0).with_context(|| name.clone())?;
        kernel.flip(loaded.slot, loaded.slot, 0);
        if established {
            for (source, port) in sources() {
                let (key, connection) = workload::connection(source, port);
                loaded.adopt_connection(&key, &connection)?;
            }
        }
        let xdp = median(kernel, Hook::XdpIngress)?;
        let tc = median(kernel, Hook::TcIngress)?;
        // A test run's packets come from `lo`, which the floor would let through before any rule is asked.
        let counters = loaded.counters()?;
        let packets = |line: u32| counters.get(line as usize).map_or(0, |counter| counter.packets);
        let floor: u64 = (FLOOR..MALFORMED).map(packets).sum();
        ensure!(floor == 0, "{name}: {floor} packets were judged by the floor");
        if established {
            // The first rule is the one about connections.
            let known = packets(BUILTINS);
            ensure!(
                known + 2 * SOURCES as u64 >= 2 * u64::from(REPEAT),
                "{name}: only {known} packets were taken for a connection's"
            );
        }
        let ratio = nanoseconds(xdp) / nanoseconds(bare);
        println!("  {name:<34}{:>8.1}{:>12.1}{ratio:>10.1}", nanoseconds(xdp), nanoseconds(tc));
        sizes = program_sizes(kernel, &loaded)?;
        kernel.flip(ringfence_abi::generation::NO_SLOT, ringfence_abi::generation::NO_SLOT, 0);
        kernel.unload(loaded)?;
        Ok(())
    };
    for rules in [10, 1_000, 10_000, 65_536] {
        case(format!("{rules} rules"), workload::rules(rules), false)?;
    }
    for rules in [10, 65_000] {
        let text = workload::stateful(rules);
        case(format!("{rules} rules and states, refused"), text.clone(), false)?;
        case(format!("{rules} rules and states, known"), text, true)?;
    }
    let feed = directory.join("feed.txt");
    std::fs::write(&feed, workload::prefixes(1_000_000))?;
    case("a set of 1,000,000 prefixes".into(), workload::big_set(&feed), false)?;
    println!("\nPrograms (the last policy's)");
    for line in sizes {
        println!("  {line}");
    }
    Ok(())
}

/// Sources with the ports that they send to.
fn sources() -> impl Iterator<Item = (Ipv4Addr, u16)> {
    workload::sources(SOURCES).into_iter().enumerate().map(|(index, source)| (source, 1 + index as u16 * 4_000))
}

fn median(kernel: &Kernel, hook: Hook) -> Result<Duration> {
    let mut times = Vec::new();
    for (source, port) in sources() {
        times.push(kernel.time(hook, &workload::udp(source, port), REPEAT / SOURCES)?);
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn program_sizes(kernel: &Kernel, loaded: &Loaded) -> Result<Vec<String>> {
    let (programs, _) = kernel.generation_sizes(loaded)?;
    let line = |program: ringfenced::kernel::ProgramSize| {
        let verified = program.verified.map_or("unknown".into(), |count| count.to_string());
        format!(
            "{:<16}{:>8} bytes of instructions{:>8} bytes of machine code{verified:>9} instructions verified",
            program.name, program.translated, program.jitted
        )
    };
    Ok(programs.into_iter().map(line).collect())
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

//! The loaded programs, asked by the kernel's own test run.
#![expect(clippy::expect_used, reason = "what the kernel refuses here is a failed test")]

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use ringfence_abi::dynamic::{Element, ElementKey, Entry, EntryKey, V4, V6};
use ringfence_abi::explain::Question;
use ringfence_abi::interface::{Interface, LOOPBACK_IFINDEX};
use ringfence_policy::compile::{CompileError, Compiled, compile};
use ringfence_policy::model::{Policy, SetId};
use ringfence_policy::oracle::Hook as At;
use ringfenced::kernel::{Hook, Kernel, Loaded, mount_bpffs};

use super::{Answer, Evaluator, entry_map};
use crate::generate::{Packet, World};

/// A bpffs of its own with Ringfence's programs in it; nothing is attached anywhere.
pub struct Programs {
    kernel: Option<Kernel>,
    directory: tempfile::TempDir,
    generation: u64,
    loaded: Option<(Loaded, Compiled)>,
    entries: Vec<EntryKey>,
    sets: Vec<SetId>,
    interfaces: HashMap<String, u32>,
}

impl Programs {
    /// Mounts the bpffs and takes it over.
    ///
    /// # Panics
    /// Where the kernel refuses either.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        mount_bpffs(directory.path()).expect("a bpffs");
        let kernel = Kernel::open(directory.path(), Some(directory.path())).expect("a kernel that can");
        Self {
            kernel: Some(kernel),
            directory,
            generation: 0,
            loaded: None,
            entries: Vec::new(),
            sets: Vec::new(),
            interfaces: HashMap::new(),
        }
    }

    fn kernel(&self) -> &Kernel {
        self.kernel.as_ref().expect("the kernel is given up only on drop")
    }

    /// Makes the maps of dynamic entries and elements what the world says.
    fn settle(&mut self, policy: &Policy, world: &World) {
        for key in std::mem::take(&mut self.entries) {
            self.kernel().remove_entry(&key).expect("an entry can be removed");
        }
        for set in std::mem::take(&mut self.sets) {
            self.kernel().flush_set(set.0).expect("a set can be flushed");
        }
        for (key, entry) in entry_map(&world.entries) {
            let entry = Entry { id: entry.id, verdict: entry.verdict.into(), ..Entry::default() };
            self.kernel().add_entry(&key, &entry).expect("an entry can be added");
            self.entries.push(key);
        }
        for set in (0..policy.dynamic_sets.len() as u16).map(SetId) {
            let of_set = world.members.iter().filter(|member| member.0 == set);
            let elements: Vec<_> =
                of_set.map(|&(_, address, length)| (element(address, length), Element::default())).collect();
            self.kernel().add_elements(set.0, &elements).expect("elements can be added");
            self.sets.push(set);
        }
    }

    /// A number for an interface name, with its classes entered in the generation.
    fn ifindex(&mut self, name: &str, loopback: bool) -> u32 {
        let key = format!("{loopback} {name}");
        if let Some(&known) = self.interfaces.get(&key) {
            return known;
        }
        let ifindex = if loopback { LOOPBACK_IFINDEX } else { 100 + self.interfaces.len() as u32 };
        let Some((loaded, compiled)) = &self.loaded else { return ifindex };
        let class = |chain: &Option<ringfence_policy::compile::CompiledChain>| {
            chain.as_ref().map_or(0, |chain| chain.interfaces.class(name))
        };
        let interface =
            Interface { ingress: class(&compiled.ingress), egress: class(&compiled.egress), ..Interface::default() };
        loaded.set_interface(ifindex, &interface).expect("an interface can be entered");
        // Two names may share the loopback's number: it is entered again for each packet.
        if !loopback {
            self.interfaces.insert(key, ifindex);
        }
        ifindex
    }
}

impl Default for Programs {
    fn default() -> Self {
        Self::new()
    }
}

fn element(address: IpAddr, length: u8) -> ElementKey {
    let (bits, family) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, V4),
        IpAddr::V6(address) => (address.to_bits(), V6),
    };
    let kept = bits & !u128::MAX.checked_shr(length.into()).unwrap_or(0);
    ElementKey { address: [(kept >> 64) as u64, kept as u64], family, length, ..ElementKey::default() }
}

impl Evaluator for Programs {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn load(&mut self, policy: &Policy, world: &World) -> Result<(), CompileError> {
        let compiled = compile(policy)?;
        if let Some((loaded, _)) = self.loaded.take() {
            self.kernel().unload(loaded).expect("an idle generation can be unloaded");
        }
        self.generation += 1;
        self.interfaces.clear();
        let loaded = self.kernel().load(&compiled, self.generation, |set| set.0).unwrap_or_else(|error| {
            panic!("the kernel refuses a generation: {error}: {:?}", std::error::Error::source(&error))
        });
        self.loaded = Some((loaded, compiled));
        self.settle(policy, world);
        Ok(())
    }

    fn judge(&mut self, packet: &Packet) -> Option<Answer> {
        let context = &packet.context;
        let ifindex = self.ifindex(&context.interface, context.loopback);
        let (loaded, compiled) = self.loaded.as_ref()?;
        let chain = if context.ingress { &compiled.ingress } else { &compiled.egress };
        chain.as_ref()?;
        let hook = match (context.ingress, context.hook, context.l3) {
            (true, At::Xdp, _) => Hook::XdpIngress,
            (true, At::Tc, false) => Hook::TcIngress,
            (true, At::Tc, true) => Hook::TcIngressL3,
            (false, _, false) => Hook::TcEgress,
            (false, _, true) => Hook::TcEgressL3,
        };
        let question = Question {
            ifindex,
            mark: context.mark.unwrap_or(0),
            vlan: context.tag.map_or(0, |tag| 0x1_0000 | u32::from(tag)),
            state: context.state.into(),
        };
        let answer = self.kernel().explain(loaded, hook, &packet.frame, &question).expect("a test run");
        Some(Answer {
            verdict: answer.verdict,
            line: answer.line,
            entry: answer.entry,
            continued: answer.continued[..answer.continued_len as usize].to_vec(),
            unknown: answer.unknown != 0,
        })
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        self.loaded = None;
        if let Some(kernel) = self.kernel.take() {
            let _ = kernel.off();
        }
        let _ = nix::mount::umount2(self.directory.path() as &Path, nix::mount::MntFlags::MNT_DETACH);
    }
}

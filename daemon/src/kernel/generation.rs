//! Loading, adopting and unloading generations.

use std::{
    fs,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use aya::programs::ProgramInfo;
use aya_obj::generated::{
    BPF_F_MMAPABLE,
    bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY},
};
use ringfence_abi::{
    chain::ChainConsts, connection::TrackConsts, counter::Counter, generation::SLOTS, interface::Interface, names,
};
use ringfence_policy::{
    compile::{AddedSet, Compiled, CompiledChain},
    model::SetId,
};

use super::{
    Kernel,
    added::{self, Rings},
    connections::{POOLS, Pools},
    entrances::{ENTRANCES, Entrance},
    error::{Context as _, KernelError, Result},
    explain::Explainer,
    host::{self, AccessExplainer, generation::HostPart},
    limits,
    mapped::Words,
    maps,
    objects::NETWORK,
    pins, sys,
    table::{PerCpu, Table},
};
use crate::faults::reach;

/// Most interfaces of one machine that a generation knows.
const MAX_INTERFACES: u32 = 16_384;
/// A chain's arena has at least this many bytes; also that of a chain the policy does not have.
const MIN_ARENA: usize = 64;
/// Keeps the constants for the programs that explain, which may be loaded by a later daemon.
const RECORD: &str = "CHAINS";
/// The same for the constants of tracking and limits.
const RECORD_TRACK: &str = "TRACK";

/// A generation in the kernel. Dropping it leaves it there; see [`Kernel::unload`].
#[derive(Debug)]
pub struct Loaded {
    /// Its number.
    pub number: u64,
    /// Its place in the program arrays, which the cell names.
    pub slot: u8,
    pub(super) directory: PathBuf,
    pub(super) chains: [ChainConsts; 2],
    pub(super) track: TrackConsts,
    pub(super) explainer: Mutex<Option<Explainer>>,
    pub(super) host: HostPart,
    pub(super) access_explainer: Mutex<Option<AccessExplainer>>,
    counters: PerCpu<Counter>,
    interfaces: Table<u32, Interface>,
    pub(super) connections: Pools,
    rings: Option<Arc<Rings>>,
}

impl Loaded {
    fn open(number: u64, slot: u8, directory: PathBuf) -> Result<Self> {
        let open = |name: &str| {
            let path = directory.join(name);
            let map = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))?;
            map.ok_or(KernelError::Foreign { path })
        };
        let record: Table<u32, TrackConsts> = maps::table(open(RECORD_TRACK)?)?;
        let track = record.get(&0).context(|| "cannot read the record of a generation".to_owned())?.unwrap_or_default();
        let record: Table<u32, ChainConsts> = maps::table(open(RECORD)?)?;
        let chain = |index: u32| {
            let consts = record.get(&index).context(|| "cannot read the record of a generation".to_owned())?;
            Ok(consts.unwrap_or_else(sys::zeroed))
        };
        let counters = PerCpu::new(open(names::COUNTERS)?).context(|| "cannot open the counters".to_owned())?;
        let chains = [chain(0)?, chain(1)?];
        let interfaces = maps::table(open(names::INTERFACES)?)?;
        let host = HostPart::open(&directory)?;
        let connections = Pools::open(&directory)?;
        let rings = Rings::open(&directory, &track)?;
        let (explainer, access_explainer) = (Mutex::new(None), Mutex::new(None));
        Ok(Self {
            number,
            slot,
            directory,
            chains,
            track,
            explainer,
            host,
            access_explainer,
            counters,
            interfaces,
            connections,
            rings,
        })
    }

    /// What its rules add to sets; `None`: nothing.
    pub fn rings(&self) -> Option<Arc<Rings>> {
        self.rings.clone()
    }

    /// Whether the policy has this chain; 0 is ingress, 1 egress.
    pub(super) fn has(&self, chain: usize) -> bool {
        has(&self.chains[chain])
    }

    /// Ids of its programs.
    pub(super) fn program_ids(&self) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for entrance in ENTRANCES.iter().filter(|entrance| self.has(entrance.chain)) {
            let path = self.directory.join(entrance.program);
            ids.push(ProgramInfo::from_pin(&path).map_err(|_| KernelError::Foreign { path })?.id());
        }
        for name in pins::names(&self.directory)?.iter().filter(|name| name.starts_with("h_")) {
            let path = self.directory.join(name);
            ids.push(ProgramInfo::from_pin(&path).map_err(|_| KernelError::Foreign { path })?.id());
        }
        Ok(ids)
    }

    /// All counters by counter index, summed over CPUs.
    pub fn counters(&self) -> Result<Vec<Counter>> {
        let sum = |cpus: Vec<Counter>| {
            cpus.into_iter().fold(Counter::default(), |sum, one| Counter {
                packets: sum.packets.wrapping_add(one.packets),
                bytes: sum.bytes.wrapping_add(one.bytes),
                last_hit: sum.last_hit.max(one.last_hit),
            })
        };
        let all = self.counters.read().context(|| format!("cannot read the counters of generation {}", self.number))?;
        Ok(all.into_iter().map(sum).collect())
    }

    /// Says what an interface is to this generation.
    pub fn set_interface(&self, ifindex: u32, interface: &Interface) -> Result<()> {
        match self.interfaces.set(&ifindex, interface) {
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
                Err(KernelError::Full { what: "the table of interfaces", limit: MAX_INTERFACES })
            }
            result => result.context(|| format!("cannot enter interface {ifindex}")),
        }
    }

    /// Forgets an interface; it then has the class of names that no rule mentions.
    pub fn forget_interface(&self, ifindex: u32) -> Result<()> {
        let removed = self.interfaces.remove(&ifindex);
        removed.map(drop).context(|| format!("cannot forget interface {ifindex}"))
    }
}

impl Kernel {
    /// Loads a policy into a free slot, beside what is in force. `set_ids` gives the kernel's ids of dynamic sets.
    /// After an error nothing of it is left.
    pub fn load(&self, compiled: &Compiled, number: u64, set_ids: impl Fn(SetId) -> u16) -> Result<Loaded> {
        self.keep_pins()?;
        let slot = self.free_slot()?;
        // Before there is a directory that is being built: looking at the others removes such.
        let before = self.current_directory()?;
        let pools = before.as_deref().map(Pools::open).transpose()?;
        let staging = Staging { kernel: self, slot, directory: self.pins.loading(slot), done: false };
        pins::remove(&staging.directory)?;
        fs::create_dir(&staging.directory).context(|| format!("cannot make {}", staging.directory.display()))?;
        reach("load/directory-made");
        let chains = [constants(compiled.ingress.as_ref(), &set_ids), constants(compiled.egress.as_ref(), &set_ids)];
        let mut host = host::generation::constants(&compiled.host, self.maps.cell.next_serial());
        host.keeps |= self.entry_keeps()?;
        let mut track = TrackConsts { slot: slot.into(), ..compiled.track };
        for AddedSet { set, .. } in &compiled.added {
            track.sets[usize::from(set.0)] = set_ids(*set);
        }
        staging.make_maps(compiled, &chains, &track)?;
        limits::make(&staging.directory, compiled, before.as_deref())?;
        added::record(&staging.directory, &compiled.added, &track)?;
        reach("load/maps-made");
        host::generation::make_maps(&staging.directory, &compiled.host, &host)?;
        reach("load/host-maps-made");
        Pools::make(&staging.directory, compiled.connections, pools.as_ref())?;
        staging.load_programs(&chains, &track)?;
        reach("load/programs-loaded");
        self.load_host(slot, &staging.directory, &host)?;
        reach("load/host-loaded");
        let directory = staging.publish(number)?;
        reach("load/published");
        Loaded::open(number, slot, directory)
    }

    /// The generations in the kernel, by number: those that an earlier daemon loaded and did not unload.
    pub fn adopt(&self) -> Result<Vec<Loaded>> {
        let found = self.pins.generations()?;
        found.into_iter().map(|(number, slot, directory)| Loaded::open(number, slot, directory)).collect()
    }

    /// Removes a generation that is neither current nor previous.
    pub fn unload(&self, loaded: Loaded) -> Result<()> {
        let Loaded { number, slot, directory, .. } = loaded;
        let word = self.cell();
        if [word.current, word.previous].contains(&slot) {
            return Err(KernelError::InForce { generation: number });
        }
        self.clear_slot(slot)?;
        reach("unload/slot-cleared");
        pins::remove(&directory)
    }

    /// Clears the slots that belong to no whole generation, as a killed daemon may leave them; a slot that the cell
    /// names is left alone.
    pub(super) fn clear_strays(&self) -> Result<()> {
        let word = self.cell();
        let mut used: Vec<u8> = self.pins.generations()?.iter().map(|(_, slot, _)| *slot).collect();
        used.extend([word.current, word.previous]);
        (0..SLOTS as u8).filter(|slot| !used.contains(slot)).try_for_each(|slot| self.clear_slot(slot))
    }

    /// Where the generation in force is pinned.
    fn current_directory(&self) -> Result<Option<PathBuf>> {
        let current = self.cell().current;
        let found = self.pins.generations()?.into_iter().find(|(_, slot, _)| *slot == current);
        Ok(found.map(|(_, _, directory)| directory))
    }

    fn free_slot(&self) -> Result<u8> {
        let word = self.cell();
        let mut used: Vec<u8> = self.pins.generations()?.iter().map(|(_, slot, _)| *slot).collect();
        used.extend([word.current, word.previous]);
        (0..SLOTS as u8).find(|slot| !used.contains(slot)).ok_or(KernelError::NoSlot)
    }
}

/// A generation that is not whole yet; dropping it removes what there is of it.
struct Staging<'a> {
    kernel: &'a Kernel,
    slot: u8,
    directory: PathBuf,
    done: bool,
}

impl Staging<'_> {
    fn make_maps(&self, compiled: &Compiled, chains: &[ChainConsts; 2], track: &TrackConsts) -> Result<()> {
        let arenas = [(names::ARENA_INGRESS, &compiled.ingress), (names::ARENA_EGRESS, &compiled.egress)];
        for (name, chain) in arenas {
            let bytes = chain.as_ref().map_or(&[][..], |chain| &chain.arena);
            let size = bytes.len().max(MIN_ARENA);
            let shape = maps::shape(
                BPF_MAP_TYPE_ARRAY,
                4,
                u32::try_from(size).map_err(|_| KernelError::Full { what: "the arena", limit: u32::MAX })?,
                1,
                BPF_F_MMAPABLE,
            );
            let map = maps::create(name, &shape)?;
            Words::new(map.as_fd(), size.next_multiple_of(8)).context(|| format!("cannot map {name}"))?.fill(bytes);
            self.pin(map.as_fd(), name)?;
        }
        let counters = compiled.lines.len().max(1) as u32;
        let shape = maps::shape(BPF_MAP_TYPE_PERCPU_ARRAY, 4, size_of::<Counter>() as u32, counters, 0);
        self.pin(maps::create(names::COUNTERS, &shape)?.as_fd(), names::COUNTERS)?;
        let interfaces = maps::create(names::INTERFACES, &maps::hash::<u32, Interface>(MAX_INTERFACES))?;
        self.pin(interfaces.as_fd(), names::INTERFACES)?;

        let map = maps::create(RECORD, &maps::array::<ChainConsts>(2, 0))?;
        self.pin(map.as_fd(), RECORD)?;
        let tracking = maps::create(RECORD_TRACK, &maps::array::<TrackConsts>(1, 0))?;
        self.pin(tracking.as_fd(), RECORD_TRACK)?;
        let record: Table<u32, TrackConsts> = maps::table(tracking)?;
        record.set(&0, track).context(|| "cannot record the constants".to_owned())?;
        let record: Table<u32, ChainConsts> = maps::table(map)?;
        for (chain, consts) in (0_u32..).zip(chains) {
            record.set(&chain, consts).context(|| "cannot record the constants".to_owned())?;
        }
        Ok(())
    }

    fn load_programs(&self, chains: &[ChainConsts; 2], track: &TrackConsts) -> Result<()> {
        let kernel = self.kernel;
        let (own, passing): (Vec<&Entrance>, Vec<_>) =
            ENTRANCES.iter().partition(|entrance| has(&chains[entrance.chain]));
        for entrance in passing {
            kernel.set_program(entrance, self.slot, kernel.dispatchers.get(entrance.pass)?.fd.as_fd())?;
        }
        if own.is_empty() {
            return Ok(());
        }
        let mut ebpf = open_object(kernel, &self.directory, chains, track, false)?;
        let names: Vec<&str> = own.iter().map(|entrance| entrance.program).collect();
        for (entrance, program) in own.iter().zip(NETWORK.load_all(&mut ebpf, &names)?) {
            self.pin(program.as_fd(), entrance.program)?;
            reach("load/program-pinned");
            kernel.set_program(entrance, self.slot, program.as_fd())?;
        }
        Ok(())
    }

    fn pin(&self, object: BorrowedFd<'_>, name: &str) -> Result<()> {
        let path = self.directory.join(name);
        sys::pin(object, &path).context(|| format!("cannot pin {}", path.display()))
    }

    /// The generation is whole: a daemon that finds it will adopt it.
    fn publish(mut self, number: u64) -> Result<PathBuf> {
        let directory = self.kernel.pins.generation(number, self.slot);
        fs::rename(&self.directory, &directory).context(|| format!("cannot make {}", directory.display()))?;
        self.done = true;
        Ok(directory)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // The error that led here is the one to report; what cannot be removed now is removed by the next start.
        for result in [self.kernel.clear_slot(self.slot), pins::remove(&self.directory)] {
            if let Err(error) = result {
                tracing::warn!(%error, "cannot remove what was loaded of a generation");
            }
        }
    }
}

/// Opens the generation's object over the maps that are pinned in `directory`.
pub(super) fn open_object(
    kernel: &Kernel,
    directory: &Path,
    chains: &[ChainConsts; 2],
    track: &TrackConsts,
    explain: bool,
) -> Result<aya::Ebpf> {
    let [established, half_in, half_out] = POOLS;
    let [ingress, egress] = [names::ARENA_INGRESS, names::ARENA_EGRESS];
    let own = [ingress, egress, names::COUNTERS, names::INTERFACES, established, half_in, half_out];
    let own: Vec<&str> = own.into_iter().chain(limits::MAPS).collect();
    let paths: Vec<PathBuf> = own.iter().map(|name| directory.join(name)).collect();
    let pinned: Vec<(&str, &Path)> = own.into_iter().zip(paths.iter().map(PathBuf::as_path)).collect();
    // Explanations look nothing up.
    let track = TrackConsts { on: if explain { 0 } else { track.on }, ..*track };
    let explain = u32::from(explain);
    let globals = [
        (names::CHAINS, sys::slice_bytes(chains)),
        (names::TRACK, sys::bytes(&track)),
        (names::EXPLAIN, sys::bytes(&explain)),
    ];
    NETWORK.open(&kernel.pins, &pinned, &globals)
}

/// No chain has the verdict 0: it stands for a chain that the policy does not have.
fn has(chain: &ChainConsts) -> bool {
    chain.default_verdict != 0
}

fn constants(chain: Option<&CompiledChain>, set_ids: &impl Fn(SetId) -> u16) -> ChainConsts {
    // The programs of the other chain may contain code for this one; it must be as safe for the verifier.
    let Some(chain) = chain else { return ChainConsts { arena: MIN_ARENA as u32, ..sys::zeroed() } };
    let mut consts = chain.consts;
    let sources = consts.src_set_count as usize;
    let destinations = consts.dst_set_count as usize;
    for id in consts.src_sets.iter_mut().take(sources).chain(consts.dst_sets.iter_mut().take(destinations)) {
        *id = set_ids(SetId(*id));
    }
    consts
}

//! Random policies, packets and dynamic members, drawn from the same small pools so that they meet.
//!
//! Everything is a function of a seed: [`case`] is the same for ever for the same seed, shape and count. What makes a
//! case worth drawing is measured and asserted in `tests/generators.rs`.

mod addresses;
mod frame;
mod hostile;
mod policy;
mod pool;
mod shrink;

use std::fmt;
use std::net::IpAddr;

use ringfence_policy::model::{Policy, SetId};
use ringfence_policy::oracle::{Context, DynamicEntry};

pub use hostile::{mutate, truncations};
pub use pool::Pool;
pub use shrink::{CaseTree, Cases};

/// The source of randomness: small, seeded, the same on every machine.
pub type Rng = fastrand::Rng;

/// How large a policy is, which decides how its tables are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A few dozen rules: at most 64 positions.
    Narrow,
    /// Some hundred rules: one block of rows.
    Wide,
    /// Several thousand rules: more than one block.
    Huge,
}

/// A packet as a program sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// What is known beside the bytes.
    pub context: Context,
    /// The bytes.
    pub frame: Vec<u8>,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} frame ", self.context)?;
        self.frame.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What changes while a policy is in force: the members of its dynamic sets and the `ringctl deny` and `allow`s.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Elements: set, address, prefix length.
    pub members: Vec<(SetId, IpAddr, u8)>,
    /// Dynamic entries.
    pub entries: Vec<DynamicEntry>,
}

impl World {
    /// Whether an address is in a dynamic set.
    #[must_use]
    pub fn contains(&self, set: SetId, address: IpAddr) -> bool {
        self.members.iter().any(|&(of, prefix, length)| of == set && in_prefix(address, prefix, length))
    }
}

fn in_prefix(address: IpAddr, prefix: IpAddr, length: u8) -> bool {
    let same = |difference: u128, width: u32| difference.checked_shr(width - u32::from(length)).unwrap_or(0) == 0;
    match (address, prefix) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same((a.to_bits() ^ b.to_bits()).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits() ^ b.to_bits(), 128),
        _ => false,
    }
}

/// A policy, its surroundings, and packets to judge by it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The policy.
    pub policy: Policy,
    /// Dynamic members and entries.
    pub world: World,
    /// The packets.
    pub packets: Vec<Packet>,
}

/// Draws a case: three in four packets are whole, the others hostile; half are aimed at some rule.
#[must_use]
pub fn case(seed: u64, shape: Shape, packets: usize) -> Case {
    let rng = &mut Rng::with_seed(seed);
    let pool = Pool::new(rng, shape);
    let policy = policy::policy(rng, &pool, shape);
    let world = pool.world(rng, policy.dynamic_sets.len());
    let packets = (0..packets)
        .map(|_| {
            let mut packet = frame::packet(rng, &pool, &policy, &world);
            if rng.u8(..4) == 0 {
                mutate(rng, &mut packet);
            }
            packet
        })
        .collect();
    Case { policy, world, packets }
}

/// True once in `n` draws.
fn once_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}

/// One of a list that is not empty.
fn pick<T: Copy>(rng: &mut Rng, list: &[T]) -> T {
    list[rng.usize(..list.len())]
}

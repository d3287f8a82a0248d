//! The pools of connections. A generation's programs have them from the generation before, unless the policy wants another
//! number of connections; then they are copied.

use std::{os::fd::AsFd as _, path::Path};

use ringfence_abi::{
    connection::{Connection, KILLED, Key, half_in, half_out},
    names,
};

use super::{
    Kernel,
    error::{Context as _, KernelError, Result},
    generation::Loaded,
    maps,
    sys::{self, Shape},
    table::Table,
};

/// The maps of a generation, in the order of [`Pools`].
pub const POOLS: [&str; 3] = [names::CONNECTIONS, names::HALF_IN, names::HALF_OUT];
/// What a generation that follows no connections has, because its programs name the maps all the same.
const NONE: u32 = 16;

/// Which pool a connection is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Proven.
    Established,
    /// Came in, not proven.
    In,
    /// This host began it, nobody has answered.
    Out,
}

/// A generation's three maps.
#[derive(Debug)]
pub struct Pools {
    maps: [Table<Key, Connection>; 3],
    /// Established connections that there is room for.
    capacity: u32,
}

impl Pools {
    /// Opens what is pinned in a generation's directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let open = |name: &str| {
            let path = directory.join(name);
            let map = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))?;
            map.ok_or(KernelError::Foreign { path })
        };
        let [established, half_in, half_out] = POOLS.map(open);
        let established = established?;
        let capacity = sys::map_shape(established.as_fd()).context(|| "cannot look at a map".to_owned())?.entries;
        Ok(Self { maps: [maps::table(established)?, maps::table(half_in?)?, maps::table(half_out?)?], capacity })
    }

    /// Pins the pools of a new generation in its directory: those of the one before where they have the right size,
    /// otherwise new ones with the same connections. `capacity` 0: none are followed.
    pub fn make(directory: &Path, capacity: u32, before: Option<&Self>) -> Result<Self> {
        let shapes = shapes(capacity);
        let same = before.filter(|before| capacity != 0 && before.capacity == shapes[0].entries);
        for (index, (name, shape)) in POOLS.into_iter().zip(&shapes).enumerate() {
            let path = directory.join(name);
            let what = || format!("cannot pin {}", path.display());
            match same {
                Some(before) => sys::pin(before.maps[index].as_fd(), &path).context(what)?,
                None => sys::pin(maps::create(name, shape)?.as_fd(), &path).context(what)?,
            }
        }
        let pools = Self::open(directory)?;
        if let (Some(before), None) = (before, same)
            && capacity != 0
        {
            pools.take(before)?;
        }
        Ok(pools)
    }

    /// Calls `each` for every connection, expired ones too. What comes or goes meanwhile may be seen or not.
    pub fn for_each(&self, mut each: impl FnMut(Pool, &Key, &Connection)) -> Result<()> {
        for pool in [Pool::Established, Pool::In, Pool::Out] {
            self.map(pool).for_each(|key, connection| each(pool, &key, &connection)).context(list)?;
        }
        Ok(())
    }

    /// Copies the connections of other pools that are not here. What does not fit stays out.
    fn take(&self, other: &Self) -> Result<()> {
        // Pools of one size are the same ones.
        if other.capacity == NONE || self.capacity == NONE || other.capacity == self.capacity {
            return Ok(());
        }
        for (own, other) in self.maps.iter().zip(&other.maps) {
            let mut all = Vec::new();
            other.for_each(|key, connection| all.push((key, connection))).context(list)?;
            for (key, connection) in all {
                match own.add(&key, &connection) {
                    Err(error) if error.raw_os_error() == Some(libc::E2BIG) => break,
                    result => result.map(drop).context(|| "cannot copy a connection".to_owned())?,
                }
            }
        }
        Ok(())
    }

    /// The same maps by descriptors of their own.
    fn again(&self) -> Result<Self> {
        let again = |pool: Pool| {
            let fd = self.map(pool).as_fd().try_clone_to_owned();
            maps::table(fd.context(|| "cannot open a map once more".to_owned())?)
        };
        let maps = [again(Pool::Established)?, again(Pool::In)?, again(Pool::Out)?];
        Ok(Self { maps, capacity: self.capacity })
    }

    fn is_none(&self) -> bool {
        self.capacity == NONE
    }

    fn map(&self, pool: Pool) -> &Table<Key, Connection> {
        &self.maps[pool as usize]
    }
}

fn list() -> String {
    "cannot list the connections".to_owned()
}

fn shapes(capacity: u32) -> [Shape; 3] {
    let (established, incoming, outgoing) =
        if capacity == 0 { (NONE, NONE, NONE) } else { (capacity, half_in(capacity), half_out(capacity)) };
    let lru = maps::lru::<Key, Connection>;
    [maps::ready::<Key, Connection>(established), lru(incoming), lru(outgoing)]
}

impl Kernel {
    /// Gives a generation the connections that another one has and it has not.
    pub fn carry_connections(&self, from: &Loaded, to: &Loaded) -> Result<()> {
        to.connections.take(&from.connections)
    }

    /// Has the programs of these generations drop the packets of connections until `expires` (nanoseconds of
    /// `CLOCK_MONOTONIC`), in whatever pool each is by now.
    pub fn kill_connections(&self, generations: &[&Loaded], all: &[(Key, Connection)], expires: u64) -> Result<()> {
        let mark = || -> Result<()> {
            for (key, connection) in all {
                let killed = Connection { state: KILLED, expires, cached: [0; 4], ..*connection };
                for loaded in generations.iter().filter(|loaded| loaded.tracks()) {
                    for pool in [Pool::Established, Pool::In, Pool::Out] {
                        loaded.set_connection(pool, key, &killed)?;
                    }
                }
            }
            Ok(())
        };
        let marked = mark();
        // Later fragments of its packets are known by the first one.
        self.maps.cell.advance();
        marked?;
        // A program that was just promoting one of them has put it where it was not marked.
        self.grace.wait()?;
        mark()
    }
}

impl Loaded {
    /// Whether its programs follow connections.
    pub fn tracks(&self) -> bool {
        !self.connections.is_none()
    }

    /// Established connections that there is room for.
    pub fn connection_capacity(&self) -> u32 {
        self.connections.capacity
    }

    /// See [`Pools::for_each`].
    pub fn for_each_connection(&self, each: impl FnMut(Pool, &Key, &Connection)) -> Result<()> {
        self.connections.for_each(each)
    }

    /// Its pools once more, for who reads them for long and is not to keep the generation from others meanwhile.
    pub fn pools(&self) -> Result<Pools> {
        self.connections.again()
    }

    /// Enters a connection unless it is known; whether there was room.
    pub fn adopt_connection(&self, key: &Key, connection: &Connection) -> Result<bool> {
        match self.connections.map(Pool::Established).add(key, connection) {
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Ok(false),
            result => result.map(|_| true).context(|| "cannot enter a connection".to_owned()),
        }
    }

    /// Replaces a connection that is there; whether it was.
    pub fn set_connection(&self, pool: Pool, key: &Key, connection: &Connection) -> Result<bool> {
        self.connections.map(pool).replace(key, connection).context(|| "cannot change a connection".to_owned())
    }

    /// Takes out the established connections that expired before `now` (nanoseconds of `CLOCK_MONOTONIC`); how many there
    /// were. The others push each other out.
    pub fn expire_connections(&self, now: u64) -> Result<usize> {
        let pool = self.connections.map(Pool::Established);
        let mut expired = Vec::new();
        pool.for_each(|key, connection| {
            if connection.expires <= now {
                expired.push(key);
            }
        })
        .context(list)?;
        let gone = expired.iter().map(|key| pool.remove(key)).filter(|gone| matches!(gone, Ok(true))).count();
        Ok(gone)
    }
}

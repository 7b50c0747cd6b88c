//! What is measured: a size, a direction, an order, a number of requests in flight, and what the
//! caches hold at the start.

/// Reads of a hundred requests, in a mix.
pub const READS_PERCENT: u64 = 70;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
const SIZES: [u32; 3] = [4 * KIB, 128 * KIB, MIB];
const DEPTHS: [u32; 3] = [1, 4, 32];

/// What the requests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// All read.
    Read,
    /// All write.
    Write,
    /// [`READS_PERCENT`] read, the others write.
    Mixed,
}

/// What caches hold when the time begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heat {
    /// Whatever they have; the volume is much larger. Not for modes with a cache.
    Steady,
    /// Nothing: each block is requested once after the attach.
    Cold,
    /// What one such pass has left there.
    Warm,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Bytes of a request.
    pub len: u32,
    /// Reads, writes, or both.
    pub direction: Direction,
    /// At random places, or else one behind the other.
    pub random: bool,
    /// Requests in flight.
    pub depth: u32,
    /// The caches.
    pub heat: Heat,
}

/// The cases that a run without options measures: those of the project's targets, and one of
/// each kind besides.
pub fn usual() -> Vec<Case> {
    use Direction::{Mixed, Read, Write};
    [
        random(4 * KIB, Read, 1),
        random(4 * KIB, Read, 32),
        random(4 * KIB, Write, 1),
        random(4 * KIB, Write, 32),
        random(4 * KIB, Mixed, 32),
        random(128 * KIB, Read, 4),
        sequential(Read, 1),
        sequential(Read, 4),
        sequential(Write, 4),
    ]
    .into_iter()
    .chain(cached())
    .collect()
}

/// Every size, depth, order and direction.
pub fn full() -> Vec<Case> {
    use Direction::{Mixed, Read, Write};
    let kinds = [(true, Read), (true, Write), (true, Mixed), (false, Read), (false, Write)];
    let kinds = kinds.into_iter().flat_map(|kind| SIZES.map(|len| (kind, len)));
    let cases = kinds.flat_map(|(kind, len)| DEPTHS.map(|depth| (kind, len, depth)));
    let steady = cases.map(|((random, direction), len, depth)| Case {
        len,
        direction,
        random,
        depth,
        heat: Heat::Steady,
    });
    steady.chain(cached()).collect()
}

/// Reads, before and after the caches have been filled.
fn cached() -> impl Iterator<Item = Case> {
    let reads = [random(4 * KIB, Direction::Read, 32), sequential(Direction::Read, 4)];
    let heats = |case| [Heat::Cold, Heat::Warm].map(|heat| Case { heat, ..case });
    reads.into_iter().flat_map(heats)
}

/// Reads of 1 MiB, one behind the other. Four in flight are one or two objects, and so few nodes;
/// 32 are eight and more.
pub fn streams() -> [Case; 2] {
    [sequential(Direction::Read, 4), sequential(Direction::Read, 32)]
}

const fn random(len: u32, direction: Direction, depth: u32) -> Case {
    Case { len, direction, random: true, depth, heat: Heat::Steady }
}

const fn sequential(direction: Direction, depth: u32) -> Case {
    Case { len: MIB, direction, random: false, depth, heat: Heat::Steady }
}

impl Case {
    /// For example `4 KiB random write, depth 32`.
    pub fn name(&self) -> String {
        let size = match self.len {
            len if len < MIB => format!("{} KiB", len / KIB),
            len => format!("{} MiB", len / MIB),
        };
        let order = if self.random { "random" } else { "sequential" };
        let direction = match self.direction {
            Direction::Read => "read",
            Direction::Write => "write",
            Direction::Mixed => "70/30",
        };
        let heat = match self.heat {
            Heat::Steady => "",
            Heat::Cold => ", cold",
            Heat::Warm => ", warm",
        };
        format!("{size} {order} {direction}, depth {}{heat}", self.depth)
    }

    /// Small requests are counted, large ones weighed.
    pub fn unit(&self) -> &'static str {
        if self.in_mib() { "MiB/s" } else { "requests/s" }
    }

    /// Requests per second, in [`Case::unit`].
    pub fn scaled(&self, per_second: f64) -> f64 {
        if self.in_mib() { per_second * f64::from(self.len) / f64::from(MIB) } else { per_second }
    }

    fn in_mib(&self) -> bool {
        self.len > 64 * KIB
    }
}

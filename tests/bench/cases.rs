//! What is measured: a size, a direction, an order and a number of requests in flight.

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Bytes of a request.
    pub len: u32,
    /// Writes, or else reads.
    pub write: bool,
    /// At random places, or else one behind the other.
    pub random: bool,
    /// Requests in flight.
    pub depth: u32,
}

/// The cases, in the order of the table.
pub const ALL: [Case; 8] = [
    small(false, 1),
    small(false, 32),
    small(true, 1),
    small(true, 32),
    large(false, 1),
    large(false, 4),
    large(true, 1),
    large(true, 4),
];

const fn small(write: bool, depth: u32) -> Case {
    Case { len: 4096, write, random: true, depth }
}

const fn large(write: bool, depth: u32) -> Case {
    Case { len: 1 << 20, write, random: false, depth }
}

impl Case {
    /// For example `4 KiB random write, depth 32`.
    pub fn name(&self) -> String {
        let size = if self.len < 1 << 20 { "4 KiB" } else { "1 MiB" };
        let order = if self.random { "random" } else { "sequential" };
        let direction = if self.write { "write" } else { "read" };
        format!("{size} {order} {direction}, depth {}", self.depth)
    }

    /// fio's word for direction and order.
    pub fn fio_mode(&self) -> &'static str {
        match (self.random, self.write) {
            (true, true) => "randwrite",
            (true, false) => "randread",
            (false, true) => "write",
            (false, false) => "read",
        }
    }
}

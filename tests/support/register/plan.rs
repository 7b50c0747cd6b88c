//! Where registers lie, and how many threads there are for them.

/// A load of registers.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many registers.
    pub registers: u64,
    /// Bytes of each, a multiple of 4096.
    pub block: usize,
    /// Bytes from one to the next.
    pub stride: u64,
    /// Threads that write; each has its own registers, in turn.
    pub writers: u64,
    /// Threads that read any register.
    pub readers: u64,
}

/// Neighbours in number are so many places apart: a prime, so that no place is met twice.
const SCATTER: u64 = 61;

impl Plan {
    /// Few objects of 4 MiB with many registers in each, soon all allocated: after a failover,
    /// any write may be to an object with a write unanswered.
    pub const SHARED: Self =
        Self { registers: 64, block: 4096, stride: 128 << 10, writers: 16, readers: 4 };

    /// Many objects of [`Plan::CREATES_SHIFT`], four registers in each, that are allocated little
    /// by little: creates and overwrites of the same object meet all the time.
    pub const CREATES: Self =
        Self { registers: 4096, block: 4096, stride: 16 << 10, writers: 16, readers: 4 };

    /// log2 of the size of the objects that [`Plan::CREATES`] is made for.
    pub const CREATES_SHIFT: u8 = 16;

    /// Bytes of the volume that it needs.
    pub fn size(&self) -> u64 {
        self.registers * self.stride
    }

    /// Where a register lies.
    pub fn offset(&self, register: u64) -> u64 {
        register * SCATTER % self.registers * self.stride
    }

    /// log2 of the size of the objects that it is made for.
    pub fn object_shift(&self) -> u8 {
        if self.stride < 32 << 10 { Self::CREATES_SHIFT } else { 22 }
    }

    /// The object that a register lies in.
    pub fn object(&self, register: u64) -> u64 {
        self.offset(register) >> self.object_shift()
    }

    /// How many registers a writer has.
    pub fn registers_of(&self, writer: u64) -> u64 {
        (self.registers - writer).div_ceil(self.writers)
    }
}

//! What a register's block looks like: one cell of 32 bytes, repeated to its end. A cell says
//! which register, writer and write it is of, how long the block is, and its own checksum.

use std::iter;

const CELL: usize = 32;
/// What direct I/O wants buffers to be aligned to.
const ALIGNMENT: usize = 4096;

/// A buffer that direct I/O takes.
#[derive(Debug)]
pub struct Aligned {
    store: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn new(len: usize) -> Self {
        let store = vec![0; len + ALIGNMENT];
        let start = store.as_ptr().align_offset(ALIGNMENT);
        Self { store, start, len }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.store[self.start..][..self.len]
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.store[self.start..][..self.len]
    }
}

/// Fills a block with a write.
pub fn encode(register: u64, writer: u64, write: u64, block: &mut [u8]) {
    let cell = cell(register, writer, write, block.len());
    block.chunks_exact_mut(CELL).for_each(|room| room.copy_from_slice(&cell));
}

/// The number of the write that a block holds; 0 when it was never written.
///
/// # Errors
/// What is wrong with it, in words.
pub fn decode(register: u64, block: &[u8]) -> Result<u64, String> {
    let first = &block[..CELL];
    if let Some(other) = block.chunks_exact(CELL).position(|cell| cell != first) {
        let (one, other) = (words_of(first), words_of(&block[other * CELL..][..CELL]));
        return Err(format!("register {register} is torn: {one:x?} and {other:x?}"));
    }
    if first.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let [_, write, writer, _] = words_of(first);
    if first == cell(register, writer & 0xffff, write, block.len()) {
        return Ok(write);
    }
    Err(format!("register {register} holds something else: {:x?}", words_of(first)))
}

/// Register, write, length and writer, checksum.
fn cell(register: u64, writer: u64, write: u64, len: usize) -> [u8; CELL] {
    let facts = [register, write, (len as u64) << 16 | writer];
    let mut words = facts.into_iter().chain(iter::once(checksum(&facts))).map(u64::to_le_bytes);
    let mut cell = [0; CELL];
    cell.chunks_exact_mut(8).for_each(|room| room.copy_from_slice(&words.next().unwrap()));
    cell
}

fn words_of(cell: &[u8]) -> [u64; 4] {
    let mut words = cell.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    [(); 4].map(|()| words.next().unwrap())
}

/// FNV-1a over words: no other cell of a test has it by chance.
fn checksum(facts: &[u64]) -> u64 {
    let step = |hash: u64, word: &u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    facts.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

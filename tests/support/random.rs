//! Random numbers for the tests: small, seeded, the same everywhere. A test that uses them
//! prints its seed, and `SHEEPFS_TEST_SEED` repeats it.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of random numbers: `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// With the seed that the environment asks for, else a new one; it is printed, and the
    /// test harness shows that when the test fails.
    pub fn announced() -> Self {
        let asked = std::env::var("SHEEPFS_TEST_SEED").ok();
        let seed = asked.map_or_else(from_clock, |text| text.parse().expect("SHEEPFS_TEST_SEED"));
        println!("SHEEPFS_TEST_SEED={seed}");
        Self(seed)
    }

    /// With that seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number in `range`.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(len).collect()
    }
}

fn from_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs() << 20 ^ u64::from(since.subsec_micros())
}

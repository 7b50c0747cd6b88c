//! A region of small records of fixed size, each there or not there at any instant.
//!
//! A record's first word is its key; 0 says that there is none. It is written last
//! and cleared first, so a record that is there is complete, however its writer
//! ended.

use super::memory::Memory;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A region of records of `N` words.
#[derive(Clone, Debug)]
pub struct Records<const N: usize> {
    memory: Arc<Memory>,
    at: usize,
    count: usize,
}

impl<const N: usize> Records<N> {
    /// The region of `count` records that begins at that word.
    pub fn new(memory: Arc<Memory>, at: usize, count: usize) -> Self {
        Self { memory, at, count }
    }

    /// How many there can be.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Puts a record in a place, instead of the one that is there.
    pub fn set(&self, place: usize, record: [u64; N]) {
        let words = self.memory.words(self.at + place * N, N);
        words[0].store(0, Ordering::Release);
        for (word, value) in words.iter().zip(record).skip(1) {
            word.store(value, Ordering::Release);
        }
        words[0].store(record[0], Ordering::Release);
    }

    /// Takes a record away.
    pub fn clear(&self, place: usize) {
        self.memory.words(self.at + place * N, 1)[0].store(0, Ordering::Release);
    }

    /// Takes all away.
    pub fn clear_all(&self) {
        (0..self.count).for_each(|place| self.clear(place));
    }

    /// Those that are there, with their places.
    pub fn all(&self) -> Vec<(usize, [u64; N])> {
        let read = |place: usize| {
            let words = self.memory.words(self.at + place * N, N);
            let record: [u64; N] = std::array::from_fn(|at| words[at].load(Ordering::Acquire));
            (record[0] != 0).then_some((place, record))
        };
        (0..self.count).filter_map(read).collect()
    }
}

/// Records whose places nobody chooses.
#[derive(Debug)]
pub struct Slab<const N: usize> {
    records: Records<N>,
    free: Vec<usize>,
}

impl<const N: usize> Slab<N> {
    /// What is free in that region now.
    pub fn new(records: Records<N>) -> Self {
        let mut is_free = vec![true; records.count()];
        for (place, _) in records.all() {
            is_free[place] = false;
        }
        let free = (0..records.count()).rev().filter(|place| is_free[*place]).collect();
        Self { records, free }
    }

    /// Adds a record and gives its place. `None`: there is no room.
    pub fn add(&mut self, record: [u64; N]) -> Option<usize> {
        let place = self.free.pop()?;
        self.records.set(place, record);
        Some(place)
    }

    /// Takes a record away, which must be there.
    pub fn remove(&mut self, place: usize) {
        self.records.clear(place);
        self.free.push(place);
    }

    /// The records.
    pub fn records(&self) -> &Records<N> {
        &self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Records<2> {
        Records::new(Arc::new(Memory::create(512).unwrap()), 100, 8)
    }

    #[test]
    fn a_record_without_a_key_is_not_there() {
        let records = records();
        records.set(3, [7, 1]);
        records.set(5, [8, 2]);
        records.clear(3);
        assert_eq!(records.all(), [(5, [8, 2])]);
        records.clear_all();
        assert_eq!(records.all(), []);
    }

    #[test]
    fn a_slab_goes_on_with_what_another_left() {
        let records = records();
        let mut first = Slab::new(records.clone());
        let places: Vec<usize> = (1..=8).map(|key| first.add([key, 0]).unwrap()).collect();
        assert_eq!(first.add([9, 0]), None, "there is no room");
        first.remove(places[2]);
        let mut second = Slab::new(records);
        assert_eq!(second.add([9, 0]), Some(places[2]));
        assert_eq!(second.add([10, 0]), None);
        assert_eq!(second.records().all().len(), 8);
    }
}

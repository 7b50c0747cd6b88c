//! The object cache behind `-o`: clean blocks of data objects.
//!
//! It holds what reads brought and what writes left, in blocks of 4 KiB, by the vid
//! that owns the object, the object, and the block in it; never anything dirty. So
//! volumes that were made from one snapshot share what they read of it. Which blocks
//! stay when it is full is left to the crate, whose algorithm is scan-resistant (a
//! Clock-PRO close to S3-FIFO).
//!
//! # Why it never answers with something old (hazard 7)
//!
//! - *Own writes.* A write forgets its blocks before it is sent. The volume's queue of
//!   the object lets nothing that overlaps run meanwhile, so no read can bring back
//!   what was before. Once the write was answered with success, with its index entry
//!   where it created the object, the blocks that it covers whole are kept; those that
//!   it covers in part stay forgotten, since another write may be in their rest.
//!   A write that fails leaves its blocks forgotten.
//! - *Other volumes' writes.* A working VDI's vid is claimed by its volume, and as long
//!   as it is, no other volume reads or brings anything under it: neither one that shows
//!   the snapshot which that vid has become unnoticed, nor one whose read began before.
//!   Objects of other vids are those of snapshots, which never change.
//! - *Copy on write.* The new object has another owner, and so other keys.
//! - *A snapshot under the volume.* The volume moves to a new vid once the wire is
//!   empty. What it has under the old one is a snapshot's from then on, and stays
//!   true; the new vid starts with nothing.
//! - *Discard by others, then a write.* The write creates the object anew, and a create
//!   forgets the whole object.
//! - *A VDI deleted, rolled back, or made again.* Its volume fails when it sees that,
//!   at the latest by its regular look at the header, which hits don't put off; then its
//!   blocks go. Until then it shows its own data of before.
//! - *Vids used again.* Only clusters formatted so do that, and only when a whole family
//!   of VDIs is gone. There nothing is shared: an owner's blocks are of one volume, and
//!   a volume that claims a vid finds nothing under it.
//! - *Death.* The cache dies with its worker. What orphans of earlier workers do
//!   afterwards is done again by their replay, which is a write like any other.
//!
//! An owner's blocks go with the last volume that used them.

mod owners;
mod slab;

use owners::Owners;
use quick_cache::unsync::Cache as Blocks;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use sheepfs::ipc::{Arena, CacheUsage, Span, VolumeId};
use sheepfs::wire::VdiId;
use sheepfs::wire::request::Extent;
use slab::{ENTRY_LEN, PAGE_LEN, Page, Slab};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a block; as many as a page of the machines sheepfs runs on.
const BLOCK_LEN: u32 = 4096;
const _: () = assert!(BLOCK_LEN as usize == PAGE_LEN);
/// What the crate needs for each place of its table besides key and value.
const PLACE_LEN: usize = 21;

/// Names a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Key {
    owner: u32,
    object: u32,
    block: u32,
}

/// Hears of the blocks that the crate drops by itself.
#[derive(Clone, Debug, Default)]
struct Evicted(Arc<Mutex<Vec<(Key, Page)>>>);

impl Evicted {
    fn pop(&self) -> Option<(Key, Page)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Lifecycle<Key, Page> for Evicted {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: Key, page: Page) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((key, page));
    }
}

type Table = Blocks<Key, Page, UnitWeighter, DefaultHashBuilder, Evicted>;

/// A piece of a data object.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Who owns the object.
    pub owner: VdiId,
    /// Its number in the volume.
    pub object: u32,
    /// Where in it.
    pub extent: Extent,
}

/// The memory, while the cache is on.
struct Store {
    table: Table,
    evicted: Evicted,
    slab: Slab,
    /// Blocks at most.
    limit: usize,
}

/// The cache; with no room it holds nothing and costs nothing.
pub struct Cache {
    store: Option<Store>,
    owners: Owners,
    hits: u64,
    misses: u64,
}

impl Cache {
    /// A cache of that many bytes, all told; 0 is off. `shared` says that volumes may
    /// share blocks, since the cluster never uses a vid twice.
    pub fn new(bytes: u64, shared: bool) -> Self {
        let store = Store::new(blocks_in(bytes));
        Self { store, owners: Owners::new(shared), hits: 0, misses: 0 }
    }

    /// Gives it another size. What has room stays.
    pub fn resize(&mut self, bytes: u64) {
        let limit = blocks_in(bytes);
        let before = self.store.take().filter(|_| limit > 0);
        self.store = match before {
            Some(store) => Some(store.resized(limit, &mut self.owners)),
            None => Store::new(limit),
        };
        if self.store.is_none() {
            self.owners.forget_pages();
        }
    }

    /// How it fares.
    pub fn usage(&self) -> CacheUsage {
        let used = self.store.as_ref().map_or(0, |store| store.slab.used());
        CacheUsage { hits: self.hits, misses: self.misses, bytes: (used * PAGE_LEN) as u64 }
    }

    /// A working VDI is a volume's: nobody else may use what is under its vid, and
    /// nothing that is there from before counts.
    pub fn claim(&mut self, volume: VolumeId, vid: VdiId) {
        self.drop_owner(vid);
        self.owners.claim(volume, vid.get());
    }

    /// A volume's vid became a snapshot, which never changes.
    pub fn release_claim(&mut self, volume: VolumeId, vid: VdiId) {
        self.owners.release_claim(volume, vid.get());
    }

    /// Whether a volume may use what is kept of an owner's objects.
    pub fn may_use(&self, volume: VolumeId, owner: VdiId) -> bool {
        self.owners.may_use(volume, owner.get())
    }

    /// Whether all of a piece is there, whoever may use it.
    pub fn holds(&self, piece: &Piece) -> bool {
        let there = |store: &Store| keys(piece).all(|key| store.table.peek(&key).is_some());
        self.store.as_ref().is_some_and(there)
    }

    /// Whether what a volume reads of an owner's objects from now on may be kept.
    pub fn may_learn(&self, volume: VolumeId, owner: VdiId) -> bool {
        self.store.is_some() && self.may_use(volume, owner)
    }

    /// Fills `span` when all of its bytes are known. `false`: it is untouched.
    pub fn read(&mut self, volume: VolumeId, piece: &Piece, span: Span, arena: &Arena) -> bool {
        let Some(store) = &self.store else { return false };
        let owner = piece.owner.get();
        let found = self.owners.may_use(volume, owner) && store.read(piece, span, arena);
        if found {
            self.owners.note_user(volume, owner);
            self.hits += 1;
        }
        found
    }

    /// A read had to go to the cluster.
    pub fn note_miss(&mut self) {
        self.misses += u64::from(self.store.is_some());
    }

    /// Takes the whole blocks of what a read brought or a write left.
    pub fn learn(&mut self, volume: VolumeId, piece: &Piece, span: Span, arena: &Arena) {
        let Some(store) = &mut self.store else { return };
        if !self.owners.may_use(volume, piece.owner.get()) {
            return;
        }
        self.owners.note_user(volume, piece.owner.get());
        let (start, len) = (piece.extent.offset(), piece.extent.len().min(span.len()));
        let first = start.next_multiple_of(BLOCK_LEN);
        let whole = arena.bytes(span).get((first - start) as usize..len as usize);
        for (block, bytes) in (first / BLOCK_LEN..).zip(whole.unwrap_or(&[]).chunks_exact(PAGE_LEN))
        {
            let key = Key { owner: piece.owner.get(), object: piece.object, block };
            store.put(key, bytes, &mut self.owners);
        }
    }

    /// Forgets what a write is about to change.
    pub fn forget(&mut self, piece: &Piece) {
        let Some(store) = &mut self.store else { return };
        for key in keys(piece) {
            store.remove(key, &mut self.owners);
        }
    }

    /// Forgets an object of `1 << shift` bytes, which is about to be created: there may
    /// have been one before it.
    pub fn forget_object(&mut self, owner: VdiId, object: u32, shift: u8) {
        let Some(store) = &mut self.store else { return };
        if self.owners.first_page(owner.get()).is_none() {
            return;
        }
        for block in 0..(1u32 << shift).div_ceil(BLOCK_LEN) {
            store.remove(Key { owner: owner.get(), object, block }, &mut self.owners);
        }
    }

    /// A volume is gone: forgets what no other has used.
    pub fn drop_volume(&mut self, volume: VolumeId) {
        for owner in self.owners.remove_volume(volume) {
            self.drop_pages(owner);
            self.owners.forget_unused(owner);
        }
    }

    fn drop_owner(&mut self, vid: VdiId) {
        self.drop_pages(vid.get());
        self.owners.forget_users(vid.get());
    }

    fn drop_pages(&mut self, owner: u32) {
        let Some(store) = &mut self.store else { return };
        while let Some(page) = self.owners.first_page(owner)
            && let Some(key) = store.slab.key(page)
            && store.remove(key, &mut self.owners)
        {}
    }
}

impl Store {
    fn new(limit: usize) -> Option<Self> {
        let evicted = Evicted::default();
        let table = (limit > 0).then(|| table_of(limit, &evicted))?;
        Some(Self { table, evicted, slab: Slab::default(), limit })
    }

    /// The crate's table is made anew, so that it has the size that was counted.
    fn resized(mut self, limit: usize, owners: &mut Owners) -> Self {
        self.table.set_capacity(limit as u64);
        self.take_evicted(owners);
        let mut table = table_of(limit, &self.evicted);
        self.table.drain().for_each(|(key, page)| table.insert(key, page));
        (self.table, self.limit) = (table, limit);
        self.take_evicted(owners);
        let table = &mut self.table;
        self.slab.compact(|key, page, first| {
            if let Some(mut value) = table.peek_mut(&key) {
                *value = page;
            }
            if first {
                owners.set_first_page(key.owner, Some(page));
            }
        });
        self
    }

    fn read(&self, piece: &Piece, span: Span, arena: &Arena) -> bool {
        let mut keys = keys(piece);
        // Most reads are of one block, which is looked up once.
        let (Some(first), second) = (keys.next(), keys.next()) else { return false };
        if second.is_none() {
            let page = self.table.get(&first);
            page.inspect(|page| self.copy_out(&first, **page, piece, span, arena)).is_some()
        } else if self::keys(piece).all(|key| self.table.peek(&key).is_some()) {
            for key in self::keys(piece) {
                if let Some(page) = self.table.get(&key) {
                    self.copy_out(&key, *page, piece, span, arena);
                }
            }
            true
        } else {
            false
        }
    }

    fn copy_out(&self, key: &Key, page: Page, piece: &Piece, span: Span, arena: &Arena) {
        let (block, start) = (key.block * BLOCK_LEN, piece.extent.offset());
        let bytes = self.slab.bytes(page);
        let tail = bytes.get(start.saturating_sub(block) as usize..).unwrap_or(&[]);
        arena.fill(span.part(block.saturating_sub(start), BLOCK_LEN), tail);
    }

    fn put(&mut self, key: Key, bytes: &[u8], owners: &mut Owners) {
        if let Some(page) = self.table.peek(&key) {
            return self.slab.bytes_mut(*page).copy_from_slice(bytes);
        }
        let head = owners.first_page(key.owner);
        // One more than the table holds, since it drops blocks only as others come.
        let Some(page) = self.slab.take(key, head, self.limit + 1) else { return };
        owners.set_first_page(key.owner, Some(page));
        self.slab.bytes_mut(page).copy_from_slice(bytes);
        self.table.insert(key, page);
        self.take_evicted(owners);
    }

    /// `true`: it was there.
    fn remove(&mut self, key: Key, owners: &mut Owners) -> bool {
        let removed = self.table.remove(&key);
        removed.inspect(|(key, page)| self.give_back(*key, *page, owners)).is_some()
    }

    fn take_evicted(&mut self, owners: &mut Owners) {
        while let Some((key, page)) = self.evicted.pop() {
            self.give_back(key, page, owners);
        }
    }

    fn give_back(&mut self, key: Key, page: Page, owners: &mut Owners) {
        if let Some(head) = self.slab.give_back(page) {
            owners.set_first_page(key.owner, head);
        }
    }
}

fn table_of(limit: usize, evicted: &Evicted) -> Table {
    let hasher = DefaultHashBuilder::default();
    Blocks::with(limit, limit as u64, UnitWeighter, hasher, evicted.clone())
}

/// The blocks that a piece touches.
fn keys(piece: &Piece) -> impl Iterator<Item = Key> + use<> {
    let (owner, object) = (piece.owner.get(), piece.object);
    let (start, len) = (piece.extent.offset(), piece.extent.len());
    // An extent lies in an object, and objects are of at most 2 GiB.
    let blocks = start / BLOCK_LEN..(start + len).div_ceil(BLOCK_LEN);
    blocks.map(move |block| Key { owner, object, block })
}

/// How many blocks fit in so much memory, with what is kept of each. The crate's table
/// has half as many places again as blocks, rounded up to a power of two.
fn blocks_in(bytes: u64) -> usize {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let places = (bytes / PAGE_LEN * 3 / 2).next_power_of_two();
    let table = places * (size_of::<Key>() + size_of::<Page>() + PLACE_LEN);
    bytes.saturating_sub(table) / (PAGE_LEN + ENTRY_LEN)
}

#[cfg(test)]
mod tests;

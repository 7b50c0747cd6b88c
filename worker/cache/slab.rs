//! The memory of the object cache: pages of 4 KiB in a few large mappings, so that
//! what is taken and given back for years does not fragment, and what is given up
//! goes back to the system.
//!
//! Each page in use belongs to one owner's list, so that all of an owner's pages are
//! found without looking at others.

use super::Key;
use memmap2::MmapMut;

/// Bytes of a page.
pub const PAGE_LEN: usize = 4096;
/// Pages of a mapping: 1 MiB.
const CHUNK_PAGES: usize = 256;

/// A page's number.
pub type Page = u32;

/// What is known of a page beside its bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    /// Neighbours in its owner's list; of a free page, `next` is the next free one.
    previous: Option<Page>,
    next: Option<Page>,
}

impl Entry {
    /// No object's owner is 0.
    fn is_free(&self) -> bool {
        self.key.owner == 0
    }
}

/// Bytes that a page costs here besides its own.
pub const ENTRY_LEN: usize = size_of::<Entry>();

/// The pages.
#[derive(Debug, Default)]
pub struct Slab {
    chunks: Vec<MmapMut>,
    entries: Vec<Entry>,
    free: Option<Page>,
    used: usize,
}

impl Slab {
    /// Pages in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Takes a page for `key` and puts it before `head`, the first of the owner's list,
    /// if at most `limit` are in use afterwards and the system has memory.
    pub fn take(&mut self, key: Key, head: Option<Page>, limit: usize) -> Option<Page> {
        if self.used >= limit {
            return None;
        }
        let page = match self.free {
            Some(page) => {
                self.free = self.entry(page)?.next;
                page
            }
            None => self.extend()?,
        };
        *self.entry_mut(page)? = Entry { key, previous: None, next: head };
        if let Some(second) = head.and_then(|head| self.entry_mut(head)) {
            second.previous = Some(page);
        }
        self.used += 1;
        Some(page)
    }

    /// Gives a page back. When it was the first of its owner's list, gives the one that
    /// is so now.
    pub fn give_back(&mut self, page: Page) -> Option<Option<Page>> {
        let Entry { previous, next, .. } = *self.entry(page)?;
        if let Some(entry) = next.and_then(|next| self.entry_mut(next)) {
            entry.previous = previous;
        }
        if let Some(entry) = previous.and_then(|previous| self.entry_mut(previous)) {
            entry.next = next;
        }
        let free = self.free.replace(page);
        *self.entry_mut(page)? = Entry { key: Key::default(), previous: None, next: free };
        self.used -= 1;
        previous.is_none().then_some(next)
    }

    /// What a page in use holds.
    pub fn key(&self, page: Page) -> Option<Key> {
        self.entry(page).map(|entry| entry.key)
    }

    /// A page's bytes.
    pub fn bytes(&self, page: Page) -> &[u8] {
        let (chunk, at) = place(page);
        self.chunks.get(chunk).and_then(|chunk| chunk.get(at..at + PAGE_LEN)).unwrap_or(&[])
    }

    /// A page's bytes, to be set.
    pub fn bytes_mut(&mut self, page: Page) -> &mut [u8] {
        let (chunk, at) = place(page);
        let chunk = self.chunks.get_mut(chunk);
        chunk.and_then(|chunk| chunk.get_mut(at..at + PAGE_LEN)).unwrap_or(&mut [])
    }

    /// Gives all memory back that is not needed for the pages in use, which are moved
    /// together. `moved` hears of each that is elsewhere now: what it holds, where it is,
    /// and whether it is the first of its owner's list.
    pub fn compact(&mut self, mut moved: impl FnMut(Key, Page, bool)) {
        let (low, high) = self.entries.split_at(self.used.min(self.entries.len()));
        let free = (0..).zip(low).filter(|(_, entry)| entry.is_free()).map(|(page, _)| page);
        let taken = (low.len()..).zip(high).filter(|(_, entry)| !entry.is_free());
        let taken = taken.filter_map(|(page, _)| Page::try_from(page).ok());
        let moves: Vec<(Page, Page)> = taken.zip(free).collect();
        for (from, to) in moves {
            if let Some(Entry { key, previous, .. }) = self.relocate(from, to) {
                moved(key, to, previous.is_none());
            }
        }
        self.free = None;
        self.entries.truncate(self.used);
        self.entries.shrink_to_fit();
        self.chunks.truncate(self.used.div_ceil(CHUNK_PAGES));
    }

    fn relocate(&mut self, from: Page, to: Page) -> Option<Entry> {
        let mut bytes = [0; PAGE_LEN];
        bytes.copy_from_slice(self.bytes(from));
        self.bytes_mut(to).copy_from_slice(&bytes);
        let entry = *self.entry(from)?;
        *self.entry_mut(to)? = entry;
        if let Some(next) = entry.next.and_then(|next| self.entry_mut(next)) {
            next.previous = Some(to);
        }
        if let Some(previous) = entry.previous.and_then(|previous| self.entry_mut(previous)) {
            previous.next = Some(to);
        }
        Some(entry)
    }

    fn extend(&mut self) -> Option<Page> {
        let page = self.entries.len();
        if page.is_multiple_of(CHUNK_PAGES) {
            let chunk = MmapMut::map_anon(CHUNK_PAGES * PAGE_LEN);
            let failed =
                |error: &std::io::Error| tracing::warn!("no memory for the cache: {error}");
            self.chunks.push(chunk.inspect_err(failed).ok()?);
            self.entries.reserve_exact(CHUNK_PAGES);
        }
        self.entries.push(Entry { key: Key::default(), previous: None, next: None });
        Page::try_from(page).ok()
    }

    fn entry(&self, page: Page) -> Option<&Entry> {
        self.entries.get(page as usize)
    }

    fn entry_mut(&mut self, page: Page) -> Option<&mut Entry> {
        self.entries.get_mut(page as usize)
    }
}

fn place(page: Page) -> (usize, usize) {
    let page = page as usize;
    (page / CHUNK_PAGES, page % CHUNK_PAGES * PAGE_LEN)
}

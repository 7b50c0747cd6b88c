//! The VDIs of the cluster, as the inodes say, and who holds their locks (protocol 7.2, 13).
//!
//! Lock order, for the whole server: [`Table::operation`], then one VDI's
//! [`Vdi::index_lock`], then its [`Vdi::meta`], then the ledgers. A data write holds `meta` for
//! reading while it runs, so a VDI never becomes a snapshot in the middle of a write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::wire::Status;
use crate::wire::cluster::{Lock, VdiBitmap, VdiState};
use crate::wire::inode::InodeHeader;
use crate::wire::oid::{VDI_ID_COUNT, VdiId, vid_candidate};

/// What is known of a VDI without reading its inode.
#[derive(Clone, Debug)]
pub struct Meta {
    /// The inode's header.
    pub header: InodeHeader,
    /// It was deleted; its vid stays in use (protocol 12.3).
    pub deleted: bool,
    /// Who holds it; not kept over a restart, as in the original.
    pub lock: Lock,
}

/// One VDI.
#[derive(Debug)]
pub struct Vdi {
    vid: VdiId,
    meta: RwLock<Meta>,
    index: Mutex<()>,
}

impl Vdi {
    /// Its number.
    #[must_use]
    pub fn vid(&self) -> VdiId {
        self.vid
    }

    /// What is known of it.
    pub fn meta(&self) -> RwLockReadGuard<'_, Meta> {
        self.meta.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of it, to be changed.
    pub fn meta_mut(&self) -> RwLockWriteGuard<'_, Meta> {
        self.meta.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while the inode changes.
    pub fn index_lock(&self) -> MutexGuard<'_, ()> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> VdiState {
        let meta = self.meta();
        let header = &meta.header;
        VdiState {
            vid: self.vid.get(),
            nr_copies: header.nr_copies,
            snapshot: header.is_snapshot(),
            deleted: meta.deleted,
            copy_policy: header.copy_policy,
            block_size_shift: header.block_size_shift,
            parent_vid: header.parent_vdi_id,
            lock: meta.lock.clone(),
        }
    }
}

/// Which generation of a name is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The one that can be written.
    Working,
    /// A snapshot by its number or by its tag.
    Snapshot {
        /// The number; 0 is none's.
        snapid: u32,
        /// The tag; empty is none's.
        tag: &'a [u8],
    },
}

/// All VDIs.
#[derive(Debug, Default)]
pub struct Table {
    vdis: RwLock<BTreeMap<VdiId, Arc<Vdi>>>,
    operation: Mutex<()>,
}

impl Table {
    /// Held by each operation on VDIs: a cluster does one at a time (protocol 1.8).
    pub fn operation(&self) -> MutexGuard<'_, ()> {
        self.operation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VDI of that number.
    #[must_use]
    pub fn get(&self, vid: u32) -> Option<Arc<Vdi>> {
        self.read().get(&VdiId::new(vid)?).cloned()
    }

    /// Adds a VDI, or replaces what was known of it.
    pub fn insert(&self, vid: VdiId, header: InodeHeader) -> Arc<Vdi> {
        let deleted = header.name.is_empty() && header.vdi_size == 0;
        let meta = RwLock::new(Meta { header, deleted, lock: Lock::Unlocked });
        let vdi = Arc::new(Vdi { vid, meta, index: Mutex::new(()) });
        self.write().insert(vid, Arc::clone(&vdi));
        vdi
    }

    /// Forgets a VDI; its vid is free again.
    pub fn remove(&self, vid: VdiId) {
        self.write().remove(&vid);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.write().clear();
    }

    /// All VDIs, by number.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Vdi>> {
        self.read().values().cloned().collect()
    }

    /// Their states, by number.
    #[must_use]
    pub fn states(&self) -> Vec<VdiState> {
        self.read().values().map(|vdi| vdi.state()).collect()
    }

    /// The vids in use, or those of deleted VDIs only.
    #[must_use]
    pub fn bitmap(&self, deleted_only: bool) -> VdiBitmap {
        let mut bitmap = VdiBitmap::new();
        for vdi in self.read().values().filter(|vdi| !deleted_only || vdi.meta().deleted) {
            bitmap.insert(vdi.vid);
        }
        bitmap
    }

    /// All generations of a name, oldest first.
    #[must_use]
    pub fn chain(&self, name: &[u8]) -> Vec<Arc<Vdi>> {
        let vdis = self.read();
        let named = vdis.values().filter(|vdi| vdi.meta().header.name == name);
        let mut chain: Vec<_> = named.cloned().collect();
        chain.sort_by_key(|vdi| (vdi.meta().header.snap_id, vdi.vid));
        chain
    }

    /// Finds a VDI as the original does.
    ///
    /// # Errors
    /// `NoVdi` or `NoTag`.
    pub fn find(&self, name: &[u8], wanted: Wanted<'_>) -> Result<Arc<Vdi>, Status> {
        let chain = self.chain(name);
        let mut newest_first = chain.iter().rev();
        let found = newest_first.find(|vdi| matches(&vdi.meta().header, wanted));
        match (found, wanted) {
            (Some(vdi), _) => Ok(Arc::clone(vdi)),
            (None, Wanted::Snapshot { .. }) if !chain.is_empty() => Err(Status::NoTag),
            (None, _) => Err(Status::NoVdi),
        }
    }

    /// The vid that a new VDI gets: the first one free, from the name's hash upwards, or from 1
    /// where vids are used again (protocol 3).
    #[must_use]
    pub fn free_vid(&self, name: &[u8], recycle: bool) -> Option<VdiId> {
        let vdis = self.read();
        let start = if recycle { 1 } else { vid_candidate(name) };
        let candidates = (start..VDI_ID_COUNT).chain(1..start);
        candidates.filter_map(VdiId::new).find(|vid| !vdis.contains_key(vid))
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<VdiId, Arc<Vdi>>> {
        self.vdis.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<VdiId, Arc<Vdi>>> {
        self.vdis.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matches(header: &InodeHeader, wanted: Wanted<'_>) -> bool {
    match wanted {
        Wanted::Working => !header.is_snapshot(),
        Wanted::Snapshot { snapid, tag } => {
            let by_tag = !tag.is_empty() && header.tag == tag;
            header.is_snapshot() && (header.snap_id == snapid || by_tag)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::inode::INODE_HEADER_LEN;

    fn add(table: &Table, vid: u32, name: &[u8], snap_id: u32, tag: Option<&[u8]>) {
        let mut header = InodeHeader::decode(&[0; INODE_HEADER_LEN]).unwrap();
        header.name = name.to_vec();
        header.snap_id = snap_id;
        header.vdi_size = 1;
        header.snap_ctime = u64::from(tag.is_some());
        header.tag = tag.unwrap_or_default().to_vec();
        table.insert(VdiId::new(vid).unwrap(), header);
    }

    fn found(table: &Table, name: &[u8], wanted: Wanted<'_>) -> Result<u32, Status> {
        table.find(name, wanted).map(|vdi| vdi.vid().get())
    }

    #[test]
    fn names_are_resolved_as_the_original_does() {
        let table = Table::default();
        add(&table, 10, b"a", 1, Some(b"t"));
        add(&table, 11, b"a", 2, Some(b"t"));
        add(&table, 12, b"a", 3, None);
        add(&table, 20, b"b", 1, Some(b""));
        let snapshot = |snapid, tag| Wanted::Snapshot { snapid, tag };
        assert_eq!(found(&table, b"a", Wanted::Working), Ok(12));
        assert_eq!(found(&table, b"a", snapshot(1, b"")), Ok(10));
        assert_eq!(found(&table, b"a", snapshot(0, b"t")), Ok(11));
        assert_eq!(found(&table, b"a", snapshot(1, b"wrong")), Ok(10));
        assert_eq!(found(&table, b"a", snapshot(3, b"")), Err(Status::NoTag));
        assert_eq!(found(&table, b"b", Wanted::Working), Err(Status::NoVdi));
        assert_eq!(found(&table, b"c", snapshot(1, b"")), Err(Status::NoVdi));
    }

    #[test]
    fn a_new_vid_is_the_first_one_free() {
        let table = Table::default();
        let first = vid_candidate(b"v1");
        add(&table, first, b"v1", 1, None);
        assert_eq!(table.free_vid(b"v1", false).map(VdiId::get), Some(first + 1));
        assert_eq!(table.free_vid(b"v1", true).map(VdiId::get), Some(1));
        assert!(table.bitmap(false).contains(VdiId::new(first).unwrap()));
        assert!(!table.bitmap(true).contains(VdiId::new(first).unwrap()));
    }
}

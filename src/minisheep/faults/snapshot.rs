//! Snapshots that come at a given moment, and lose index entries as the original's do.

use tracing::{error, info};

use super::parse::Filter;
use crate::minisheep::sheep::Sheep;
use crate::minisheep::table::Wanted;
use crate::minisheep::vdis;
use crate::wire::inode::{GREF_OFFSET, INDEX_OFFSET, gref_offset, index_offset};
use crate::wire::oid::ObjectKind;
use crate::wire::{ObjectId, Opcode, RequestHeader, Status, VdiId};

/// Index updates remembered for a snapshot that loses some.
const RECENT_MAX: usize = 64;

/// What a snapshot of `name` waits for, where a line does not say it.
pub fn complete(filter: &mut Filter, sheep: &Sheep, name: &str) -> Result<(), Status> {
    filter.count = filter.count.or(Some(1));
    let vdi = sheep.table.find(name.as_bytes(), Wanted::Working)?;
    filter.vid = filter.vid.or(Some(vdi.vid().get()));
    if filter.opcode.is_none() && filter.kind.is_none() {
        filter.kind = Some(ObjectKind::Data);
    }
    Ok(())
}

/// Remembers the block of an index update.
pub fn remember(recent: &mut Vec<(u32, u32)>, request: &RequestHeader) {
    let fields = request.obj();
    let oid = ObjectId::from_raw(fields.oid);
    let in_index = (INDEX_OFFSET..GREF_OFFSET).contains(&fields.offset);
    if request.opcode == Opcode::WriteObj.code() && oid.kind() == ObjectKind::Inode && in_index {
        recent.push((oid.vid_raw(), (fields.offset - INDEX_OFFSET) / 4));
        if recent.len() > RECENT_MAX {
            recent.remove(0);
        }
    }
}

/// Takes a snapshot; the `lost` entries are overwritten by it, as the original's race does.
pub fn take(sheep: &Sheep, name: &str, tag: &str, lost: &[(u32, u32)]) {
    let old = sheep.table.find(name.as_bytes(), Wanted::Working);
    let taken = vdis::take_snapshot(sheep, name.as_bytes(), tag.as_bytes());
    let new = sheep.table.find(name.as_bytes(), Wanted::Working);
    match (old, taken, new) {
        (Ok(old), Ok(()), Ok(new)) => {
            info!(old = %old.vid(), new = %new.vid(), lost = lost.len(), "took a snapshot");
            for (_, block) in lost.iter().filter(|(vid, _)| *vid == old.vid().get()) {
                forget(sheep, old.vid(), *block);
                forget(sheep, new.vid(), *block);
            }
        }
        (old, taken, _) => {
            error!("no snapshot of {name}: {:?} {taken:?}", old.map(|vdi| vdi.vid()))
        }
    }
}

fn forget(sheep: &Sheep, vid: VdiId, block: u32) {
    let inode = ObjectId::inode(vid);
    let entry = sheep.store.write(inode, index_offset(block).into(), &[0; 4]);
    let gref = sheep.store.write(inode, gref_offset(block).into(), &[0; 8]);
    if let Err(error) = entry.and(gref) {
        error!("could not lose an entry: {error}");
    }
}

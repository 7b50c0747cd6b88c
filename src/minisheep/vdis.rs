//! Making, finding, locking and deleting VDIs (protocol 7, 12, 13).

use std::io;
use std::sync::Arc;

use super::image::InodeImage;
use super::sheep::{Answer, Incoming, Sheep, status_of};
use super::state::{Format, now};
use super::table::{Vdi, Wanted};
use crate::wire::cluster::{Lock, VDI_BITMAP_LEN, VDI_STATE_LEN};
use crate::wire::header::{VdiFields, VdiReply};
use crate::wire::inode::InodeHeader;
use crate::wire::name::{NAME_FIELD_LEN, field_bytes};
use crate::wire::{ObjectId, Status, VdiId};

const STORE_POLICY_HYPER: u8 = 1;
const LOCK_NORMAL: u32 = 0;

/// GET_VDI_INFO.
pub fn look_up(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let _operation = sheep.table.operation();
    let vdi = find(sheep, request)?;
    Ok(found(request, &vdi))
}

/// LOCK_VDI: a lookup that locks where the cluster was formatted so. The owner is the node
/// that was asked, and a second lock is refused to everybody, for as long as the cluster lives.
pub fn lock(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let _operation = sheep.table.operation();
    let vdi = find(sheep, request)?;
    if sheep.format().is_some_and(|format| format.uses_locks()) {
        let mut meta = vdi.meta_mut();
        if meta.lock != Lock::Unlocked || request.header.vdi().lock_type != LOCK_NORMAL {
            return Err(Status::VdiLocked);
        }
        meta.lock = Lock::Locked(sheep.node_of(request));
    }
    Ok(found(request, &vdi))
}

/// RELEASE_VDI: anybody's lock, and never refused.
pub fn release(sheep: &Sheep, request: &Incoming) -> Answer {
    let _operation = sheep.table.operation();
    let fields = request.header.vdi();
    if let Some(vdi) = sheep.table.get(fields.base_vdi_id)
        && fields.lock_type == LOCK_NORMAL
    {
        vdi.meta_mut().lock = Lock::Unlocked;
    }
    Answer::new(&request.header, Status::Success)
}

/// GET_VDI_COPIES: the states of all VDIs.
pub fn states(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let states = sheep.table.states();
    let room = usize::try_from(request.header.data_length).map_err(|_| Status::NoMem)?;
    if states.len() * VDI_STATE_LEN > room {
        return Err(Status::BufferSmall);
    }
    let bytes: Vec<u8> = states.iter().flat_map(|state| state.encode()).collect();
    Ok(Answer::with_payload(&request.header, bytes))
}

/// READ_VDIS and READ_DEL_VDIS.
pub fn bitmap(sheep: &Sheep, request: &Incoming, deleted: bool) -> Result<Answer, Status> {
    if usize::try_from(request.header.data_length) != Ok(VDI_BITMAP_LEN) {
        return Err(Status::InvalidParms);
    }
    let bitmap = sheep.table.bitmap(deleted);
    Ok(Answer::with_payload(&request.header, bitmap.as_bytes().to_vec()))
}

/// NEW_VDI: a fresh VDI, a snapshot, or a clone.
pub fn create(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    if request.payload.len() != NAME_FIELD_LEN {
        return Err(Status::InvalidParms);
    }
    let fields = request.header.vdi();
    let vdi = make(sheep, field_bytes(&request.payload), &fields)?;
    Ok(found(request, &vdi))
}

/// Makes a VDI as NEW_VDI does.
///
/// # Errors
/// The status to answer.
pub fn make(sheep: &Sheep, name: &[u8], fields: &VdiFields) -> Result<Arc<Vdi>, Status> {
    let _operation = sheep.table.operation();
    let format = sheep.format().ok_or(Status::WaitForFormat)?;
    let working = sheep.table.find(name, Wanted::Working).ok();
    let frozen = match (fields.snapid, working) {
        (0, Some(_)) => return Err(Status::VdiExist),
        (0, None) => None,
        (_, None) => return Err(Status::NoVdi),
        (_, working) => working,
    };
    let vid = sheep.table.free_vid(name, format.recycles_vids()).ok_or(Status::FullVdi)?;
    let header = new_header(sheep, name, fields, &format, vid);
    let made = match frozen {
        Some(working) if working.vid().get() == fields.base_vdi_id => {
            snapshot(sheep, &working, &header)
        }
        // A snapshot that goes on from another generation than the working one.
        Some(working) => freeze(sheep, &working, header.create_time)
            .and_then(|()| derive(sheep, fields.base_vdi_id, &header)),
        None if fields.base_vdi_id == 0 => save(sheep, &InodeImage::new(&header), vid),
        None => derive(sheep, fields.base_vdi_id, &header),
    };
    made.map_err(|error| new_vdi_status(&error, fields))?;
    Ok(sheep.table.insert(vid, header))
}

fn new_vdi_status(error: &io::Error, fields: &VdiFields) -> Status {
    match status_of(error) {
        Status::NoObj if fields.base_vdi_id != 0 => Status::BaseVdiRead,
        Status::NoSpace => Status::NoSpace,
        _ => Status::VdiWrite,
    }
}

fn new_header(
    sheep: &Sheep,
    name: &[u8],
    fields: &VdiFields,
    format: &Format,
    vid: VdiId,
) -> InodeHeader {
    let chain = sheep.table.chain(name);
    let last = chain.iter().map(|vdi| vdi.meta().header.snap_id).max();
    let or = |asked: u8, default: u8| if asked == 0 { default } else { asked };
    InodeHeader {
        name: name.to_vec(),
        tag: Vec::new(),
        create_time: now(),
        snap_ctime: 0,
        vdi_size: fields.vdi_size,
        copy_policy: or(
            fields.copy_policy,
            if fields.copies == 0 { format.copy_policy } else { 0 },
        ),
        store_policy: fields.store_policy,
        nr_copies: or(fields.copies, format.copies),
        block_size_shift: or(fields.block_size_shift, format.block_size_shift),
        snap_id: last.map_or(1, |last| last + 1),
        vdi_id: vid.get(),
        parent_vdi_id: fields.base_vdi_id,
    }
}

fn save(sheep: &Sheep, image: &InodeImage, vid: VdiId) -> io::Result<()> {
    image.save(&sheep.store, ObjectId::inode(vid))
}

/// The new working inode is written first: a death before the old one is frozen is undone at the
/// next start. Both are whole files that are renamed, so there is no state between.
fn snapshot(sheep: &Sheep, working: &Vdi, header: &InodeHeader) -> io::Result<()> {
    let _index = working.index_lock();
    let mut meta = working.meta_mut();
    let mut old = sheep.load_inode(working.vid())?;
    let mut new = InodeImage::new(header);
    old.hand_down(&mut new);
    old.freeze(header.create_time);
    save_new(sheep, &new, header)?;
    save(sheep, &old, working.vid())?;
    meta.header.snap_ctime = header.create_time;
    Ok(())
}

fn freeze(sheep: &Sheep, working: &Vdi, time: u64) -> io::Result<()> {
    let _index = working.index_lock();
    let mut meta = working.meta_mut();
    let mut image = sheep.load_inode(working.vid())?;
    image.freeze(time);
    save(sheep, &image, working.vid())?;
    meta.header.snap_ctime = time;
    Ok(())
}

/// The parent's counts are raised first: a death before the child is there wastes space only.
fn derive(sheep: &Sheep, base: u32, header: &InodeHeader) -> io::Result<()> {
    let base = sheep.table.get(base).ok_or(io::ErrorKind::NotFound)?;
    let _index = base.index_lock();
    let mut parent = sheep.load_inode(base.vid())?;
    let mut child = InodeImage::new(header);
    parent.hand_down(&mut child);
    save(sheep, &parent, base.vid())?;
    save_new(sheep, &child, header)
}

fn save_new(sheep: &Sheep, image: &InodeImage, header: &InodeHeader) -> io::Result<()> {
    let vid = VdiId::new(header.vdi_id).ok_or(io::ErrorKind::InvalidInput)?;
    save(sheep, image, vid)
}

/// DEL_VDI: of a VDI whose index its deleter has cleared.
pub fn delete(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let _operation = sheep.table.operation();
    let vdi = find(sheep, request)?;
    clear_inode(sheep, &vdi).map_err(|error| status_of(&error))?;
    vdi.meta_mut().deleted = true;
    if sheep.format().is_some_and(|format| format.recycles_vids()) {
        recycle(sheep, &vdi).map_err(|error| status_of(&error))?;
    }
    let reply = VdiReply { vdi_id: vdi.vid().get(), ..VdiReply::default() };
    Ok(Answer::with_vdi(&request.header, &reply))
}

/// An array volume with entries left stays as it is, but is no longer listed (protocol 12.3).
fn clear_inode(sheep: &Sheep, vdi: &Vdi) -> io::Result<()> {
    let _index = vdi.index_lock();
    let mut image = sheep.load_inode(vdi.vid())?;
    if vdi.meta().header.store_policy == STORE_POLICY_HYPER {
        remove_blocks(sheep, vdi.vid())?;
    } else if !image.is_empty() {
        return Ok(());
    }
    image.clear();
    save(sheep, &image, vdi.vid())?;
    let mut meta = vdi.meta_mut();
    meta.header.name.clear();
    meta.header.vdi_size = 0;
    Ok(())
}

/// Hyper volumes can't be snapshots' parents, so their objects are their own, tree and all.
fn remove_blocks(sheep: &Sheep, vid: VdiId) -> io::Result<()> {
    let inode = ObjectId::inode(vid);
    let all = sheep.store.list()?.into_iter();
    for oid in all.filter(|oid| oid.vid_raw() == vid.get() && *oid != inode) {
        sheep.store.remove(oid)?;
    }
    Ok(())
}

/// Frees the vids of a family when all of it is deleted (protocol 12.3).
fn recycle(sheep: &Sheep, deleted: &Vdi) -> io::Result<()> {
    let family = family(sheep, deleted.vid().get());
    if !family.iter().all(|vdi| vdi.meta().deleted) {
        return Ok(());
    }
    for vdi in family {
        sheep.store.remove(ObjectId::inode(vdi.vid()))?;
        sheep.table.remove(vdi.vid());
        sheep.lives.forget(vdi.vid());
    }
    Ok(())
}

/// All VDIs that descend from the ancestor that `vid` has.
fn family(sheep: &Sheep, vid: u32) -> Vec<Arc<Vdi>> {
    let all = sheep.table.all();
    let parent = |vid: u32| {
        let vdi = all.iter().find(|vdi| vdi.vid().get() == vid)?;
        let parent = vdi.meta().header.parent_vdi_id;
        all.iter().any(|vdi| vdi.vid().get() == parent).then_some(parent)
    };
    // Parents come from a client's bytes: a ring of them ends after as many steps as there are VDIs.
    let root = |vid| std::iter::successors(Some(vid), |vid| parent(*vid)).take(all.len()).last();
    let wanted = root(vid);
    all.iter().filter(|vdi| root(vdi.vid().get()) == wanted).cloned().collect()
}

fn find(sheep: &Sheep, request: &Incoming) -> Result<Arc<Vdi>, Status> {
    let (name, tag) = name_and_tag(&request.payload)?;
    sheep.table.find(name, wanted(request.header.vdi().snapid, tag))
}

/// What a lookup asks for.
pub fn wanted(snapid: u32, tag: &[u8]) -> Wanted<'_> {
    if snapid == 0 && tag.is_empty() { Wanted::Working } else { Wanted::Snapshot { snapid, tag } }
}

fn name_and_tag(payload: &[u8]) -> Result<(&[u8], &[u8]), Status> {
    let (name, tag) = payload.split_at_checked(NAME_FIELD_LEN).ok_or(Status::InvalidParms)?;
    if tag.is_empty() || tag.len() == NAME_FIELD_LEN {
        Ok((field_bytes(name), field_bytes(tag)))
    } else {
        Err(Status::InvalidParms)
    }
}

fn found(request: &Incoming, vdi: &Vdi) -> Answer {
    let meta = vdi.meta();
    let reply = VdiReply {
        vdi_id: vdi.vid().get(),
        attr_id: 0,
        copies: meta.header.nr_copies,
        block_size_shift: meta.header.block_size_shift,
    };
    Answer::with_vdi(&request.header, &reply)
}

/// Takes a snapshot as `dog` does: the tag, then the new generation (protocol 7.3).
///
/// # Errors
/// The status that `dog` would be answered.
pub fn take_snapshot(sheep: &Sheep, name: &[u8], tag: &[u8]) -> Result<(), Status> {
    let working = sheep.table.find(name, Wanted::Working)?;
    let header = {
        let _index = working.index_lock();
        let mut field = [0; NAME_FIELD_LEN];
        let len = tag.len().min(NAME_FIELD_LEN);
        field[..len].copy_from_slice(&tag[..len]);
        let inode = ObjectId::inode(working.vid());
        let tagged = sheep.store.write(inode, NAME_FIELD_LEN as u64, &field);
        tagged.map_err(|error| status_of(&error))?;
        let mut meta = working.meta_mut();
        meta.header.tag = tag[..len].to_vec();
        meta.header.clone()
    };
    let fields = VdiFields {
        vdi_size: header.vdi_size,
        base_vdi_id: working.vid().get(),
        copies: header.nr_copies,
        copy_policy: header.copy_policy,
        store_policy: header.store_policy,
        block_size_shift: header.block_size_shift,
        snapid: 1,
        lock_type: 0,
    };
    make(sheep, name, &fields).map(|_| ())
}

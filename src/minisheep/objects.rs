//! Reading and writing objects (protocol 8).

use super::buffer::Buffer;
use super::index;
use super::lives::Life;
use super::rules::Rule;
use super::sheep::{Answer, Incoming, Sheep, status_of};
use super::table::{Meta, Vdi};
use super::tree;
use crate::wire::btree::NODE_LEN;
use crate::wire::header::flags;
use crate::wire::inode::{BLOCK_SHIFT_MAX, INODE_LEN};
use crate::wire::oid::ObjectKind;
use crate::wire::{ObjectId, Status, VdiId};
use std::sync::Arc;

/// The unit of erasure coding (protocol 6.1).
pub const STRIPE_LEN: u64 = 512;

/// READ_OBJ: as many bytes as asked for, zeros where nothing is stored.
pub fn read(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let place = Place::of(request);
    place.check_bounds(sheep, request);
    let len = usize::try_from(place.len).map_err(|_| Status::NoMem)?;
    let mut payload = Buffer::with_len(len);
    let read = sheep.store.read(place.oid, place.offset, &mut payload);
    read.map_err(|error| status_of(&error))?;
    Ok(Answer::with_payload(&request.header, payload))
}

/// WRITE_OBJ: a part of an object that exists.
pub fn write(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let place = Place::of(request);
    place.check_bounds(sheep, request);
    match place.oid.kind() {
        ObjectKind::Inode => index::write_inode(sheep, request)?,
        ObjectKind::Data => write_data(sheep, request, &place)?,
        ObjectKind::Btree => write_leaf(sheep, request, &place)?,
        _ => place.store(sheep, request)?,
    }
    Ok(Answer::new(&request.header, Status::Success))
}

fn write_leaf(sheep: &Sheep, request: &Incoming, place: &Place) -> Result<(), Status> {
    let before = tree::before(sheep, place.oid);
    place.store(sheep, request)?;
    if let Some(before) = before {
        before.check(sheep, request);
    }
    Ok(())
}

fn write_data(sheep: &Sheep, request: &Incoming, place: &Place) -> Result<(), Status> {
    let Some(vdi) = sheep.table.get(place.oid.vid_raw()) else {
        return place.store(sheep, request);
    };
    let meta = vdi.meta();
    refuse_frozen(&meta)?;
    let aligned = (place.offset | place.len).is_multiple_of(STRIPE_LEN);
    if meta.header.is_erasure_coded() && !aligned && !sheep.store.exists(place.oid) {
        sheep.broken(Rule::StripeAbsent, request);
        return Err(Status::InvalidParms);
    }
    let in_front = place.offset.is_multiple_of(STRIPE_LEN) && (1..STRIPE_LEN).contains(&place.len);
    if meta.header.is_erasure_coded() && in_front {
        sheep.broken(Rule::StripeFront, request);
    }
    place.store(sheep, request)
}

/// CREATE_AND_WRITE_OBJ: a whole new object, of zeros or of another's content.
pub fn create(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let place = Place::of(request);
    place.check_bounds(sheep, request);
    let base = base(request)?;
    match place.oid.kind() {
        ObjectKind::Data => create_data(sheep, request, &place, base)?,
        ObjectKind::Inode => create_inode(sheep, request, &place)?,
        _ => place.make(sheep, request, base)?,
    }
    Ok(Answer::new(&request.header, Status::Success))
}

/// The object to copy from; with the flag but without an object there is none to be found.
fn base(request: &Incoming) -> Result<Option<ObjectId>, Status> {
    if request.header.flags & flags::COW == 0 {
        return Ok(None);
    }
    match request.header.obj().cow_oid {
        0 => Err(Status::NoObj),
        oid => Ok(Some(ObjectId::from_raw(oid))),
    }
}

fn create_data(
    sheep: &Sheep,
    request: &Incoming,
    place: &Place,
    base: Option<ObjectId>,
) -> Result<(), Status> {
    let Some(vdi) = sheep.table.get(place.oid.vid_raw()) else {
        return place.make(sheep, request, base);
    };
    let meta = vdi.meta();
    refuse_frozen(&meta)?;
    if base.is_some() && place.end() > object_len(&meta) {
        sheep.broken(Rule::CowBounds, request);
        return Err(Status::InvalidParms);
    }
    let own = index::entry(sheep, &vdi, &meta, place.oid.index()) == Some(vdi.vid().get());
    if own && !is_again(sheep, request, place) {
        sheep.broken(Rule::CreateOverOwn, request);
    }
    place.make(sheep, request, base)
}

/// Whether a create repeats what another life of its client did, or is a dead life's own. Nothing
/// of the present life is lost by it then, if only that waits for its create, and fences.
fn is_again(sheep: &Sheep, request: &Incoming, place: &Place) -> bool {
    let life = Life::of(&request.header);
    request.origin.is_gone() || sheep.lives.is_of_another(place.oid, life)
}

fn create_inode(sheep: &Sheep, request: &Incoming, place: &Place) -> Result<(), Status> {
    let vid = VdiId::new(place.oid.vid_raw()).ok_or(Status::InvalidParms)?;
    let _operation = sheep.table.operation();
    place.make(sheep, request, None)?;
    let header = sheep.read_header(vid).map_err(|error| status_of(&error))?;
    sheep.table.insert(vid, header);
    Ok(())
}

/// REMOVE_OBJ: touches no index.
pub fn remove(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let oid = Place::of(request).oid;
    let names_it =
        |vdi: &Arc<Vdi>| index::entry(sheep, vdi, &vdi.meta(), oid.index()) == Some(oid.vid_raw());
    // What a dead life has sent is carried out before anything newer, or never.
    let newest = !request.origin.is_gone();
    if newest && oid.kind() == ObjectKind::Data && sheep.table.all().iter().any(names_it) {
        sheep.broken(Rule::RemoveNeeded, request);
    }
    let removed = sheep.store.remove(oid);
    removed.map_err(|error| status_of(&error))?;
    Ok(Answer::new(&request.header, Status::Success))
}

/// EXIST: whether this node holds the object, which here is all there is to know.
pub fn exist(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    if sheep.store.exists(Place::of(request).oid) {
        Ok(Answer::new(&request.header, Status::Success))
    } else {
        Err(Status::NoObj)
    }
}

/// Data of a snapshot is frozen (protocol 4.5).
fn refuse_frozen(meta: &Meta) -> Result<(), Status> {
    if meta.header.is_snapshot() { Err(Status::Readonly) } else { Ok(()) }
}

/// Bytes of a data object.
fn object_len(meta: &Meta) -> u64 {
    1 << meta.header.block_size_shift.min(BLOCK_SHIFT_MAX)
}

/// Which bytes of which object.
struct Place {
    oid: ObjectId,
    offset: u64,
    len: u64,
}

impl Place {
    fn of(request: &Incoming) -> Self {
        let fields = request.header.obj();
        Self {
            oid: ObjectId::from_raw(fields.oid),
            offset: fields.offset.into(),
            len: request.header.data_length.into(),
        }
    }

    fn end(&self) -> u64 {
        self.offset + self.len
    }

    fn store(&self, sheep: &Sheep, request: &Incoming) -> Result<(), Status> {
        let written = sheep.store.write(self.oid, self.offset, &request.payload);
        written.map_err(|error| status_of(&error))?;
        self.note(sheep, request);
        Ok(())
    }

    fn make(
        &self,
        sheep: &Sheep,
        request: &Incoming,
        base: Option<ObjectId>,
    ) -> Result<(), Status> {
        let made = sheep.store.create(self.oid, base, self.offset, &request.payload);
        made.map_err(|error| status_of(&error))?;
        self.note(sheep, request);
        Ok(())
    }

    /// Remembers whose content the object has now.
    fn note(&self, sheep: &Sheep, request: &Incoming) {
        if self.oid.kind() == ObjectKind::Data {
            sheep.lives.changed(self.oid, Life::of(&request.header));
        }
    }

    /// A real sheep checks no bounds (protocol 3): this counts, and serves.
    fn check_bounds(&self, sheep: &Sheep, request: &Incoming) {
        match self.oid.kind() {
            ObjectKind::Inode if self.end() > u64::from(INODE_LEN) => {
                sheep.broken(Rule::ObjectBounds, request);
            }
            ObjectKind::Btree if self.end() > u64::from(NODE_LEN) => {
                sheep.broken(Rule::ObjectBounds, request);
            }
            ObjectKind::Data => match sheep.table.get(self.oid.vid_raw()) {
                Some(vdi) => self.check_data_bounds(sheep, request, &vdi),
                None => sheep.broken(Rule::VdiBounds, request),
            },
            _ => {}
        }
    }

    fn check_data_bounds(&self, sheep: &Sheep, request: &Incoming, vdi: &Vdi) {
        let meta = vdi.meta();
        let block_len = object_len(&meta);
        if self.end() > block_len {
            sheep.broken(Rule::ObjectBounds, request);
        }
        // A deleted VDI has no size any more, but its objects may live on in its children.
        let blocks = meta.header.vdi_size.div_ceil(block_len);
        if !meta.deleted && u64::from(self.oid.index()) >= blocks {
            sheep.broken(Rule::VdiBounds, request);
        }
    }
}

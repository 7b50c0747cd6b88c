//! Named attributes of VDIs (protocol 14).

use super::sheep::{Answer, Incoming, Sheep, status_of};
use super::vdis;
use crate::wire::header::{VdiReply, flags};
use crate::wire::name::field_bytes;
use crate::wire::oid::{fnv1a_from, vid_candidate};
use crate::wire::{ObjectId, Status};

/// Bytes of an attribute, in a request and as an object.
pub const ATTRIBUTE_LEN: usize = 66_320;

const NAME: std::ops::Range<usize> = 0..256;
const TAG: std::ops::Range<usize> = 256..512;
const CTIME: std::ops::Range<usize> = 512..520;
const SNAP_ID: std::ops::Range<usize> = 520..524;
const KEY: std::ops::Range<usize> = 528..784;
const ATTRIBUTE_BIT: u64 = 1 << 61;
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// GET_VDI_ATTR: finds, makes or deletes an attribute.
pub fn get(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let asked = request.payload.get(..ATTRIBUTE_LEN).ok_or(Status::InvalidParms)?;
    let (name, tag) = (field_bytes(&asked[NAME]), field_bytes(&asked[TAG]));
    let _operation = sheep.table.operation();
    let vdi = sheep.table.find(name, vdis::wanted(request.header.vdi().snapid, tag))?;
    let (copies, ctime) = {
        let meta = vdi.meta();
        (meta.header.nr_copies, meta.header.create_time)
    };
    let mut attribute = asked.to_vec();
    attribute[CTIME].copy_from_slice(&ctime.to_le_bytes());
    let reply = VdiReply {
        vdi_id: vid_candidate(name),
        attr_id: carry_out(sheep, request.header.flags, &attribute)?,
        copies,
        block_size_shift: 0,
    };
    Ok(Answer::with_vdi(&request.header, &reply))
}

fn carry_out(sheep: &Sheep, asked: u16, attribute: &[u8]) -> Result<u32, Status> {
    let (attr_id, found) = find(sheep, attribute)?;
    let oid = object(attribute, attr_id);
    let flag = |flag: u16| asked & flag != 0;
    let done = match found {
        true if flag(flags::ATTR_DELETE) => sheep.store.write(oid, 0, &[0]),
        true if flag(flags::ATTR_CREATE) && flag(flags::ATTR_EXCLUSIVE) => {
            return Err(Status::VdiExist);
        }
        _ if flag(flags::ATTR_CREATE) => sheep.store.create(oid, None, 0, attribute),
        true => Ok(()),
        false => return Err(Status::NoObj),
    };
    done.map(|()| attr_id).map_err(|error| status_of(&error))
}

/// The number of the attribute, or the one that it would get; and whether it is there. Numbers
/// taken by others, also by deleted ones, are stepped over.
fn find(sheep: &Sheep, attribute: &[u8]) -> Result<(u32, bool), Status> {
    let mut attr_id = first_id(attribute);
    loop {
        let oid = object(attribute, attr_id);
        if !sheep.store.exists(oid) {
            return Ok((attr_id, false));
        }
        let mut stored = vec![0; ATTRIBUTE_LEN];
        sheep.store.read(oid, 0, &mut stored).map_err(|error| status_of(&error))?;
        if [NAME, TAG, SNAP_ID, KEY].into_iter().all(|part| stored[part.clone()] == attribute[part])
        {
            return Ok((attr_id, true));
        }
        attr_id = attr_id.wrapping_add(1);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are meant")]
fn first_id(attribute: &[u8]) -> u32 {
    let parts = [NAME, TAG, SNAP_ID, KEY];
    parts.into_iter().fold(FNV_START, |hash, part| fnv1a_from(&attribute[part], hash)) as u32
}

fn object(attribute: &[u8], attr_id: u32) -> ObjectId {
    let hash = vid_candidate(field_bytes(&attribute[NAME]));
    ObjectId::from_raw(ATTRIBUTE_BIT | u64::from(hash) << 32 | u64::from(attr_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_gets_the_recorded_number() {
        let mut attribute = vec![0; ATTRIBUTE_LEN];
        attribute[..3].copy_from_slice(b"vol");
        attribute[KEY.start..KEY.start + 5].copy_from_slice(b"color");
        assert_eq!(object(&attribute, first_id(&attribute)).raw(), 0x20cb_565a_2604_575b);
    }
}

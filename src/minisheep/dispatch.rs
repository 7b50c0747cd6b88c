//! From a request to its answer: what is refused at once, and who carries out the rest.

use super::counters::STAT_LEN;
use super::rules::Rule;
use super::sheep::{Answer, Incoming, Phase, Sheep};
use super::{attributes, bare, index, nodes, objects, vdis};
use crate::wire::cluster::{CLUSTER_INFO_LEN, NODE_LEN};
use crate::wire::header::flags;
use crate::wire::name::NAME_FIELD_LEN;
use crate::wire::opcode::{INTERNAL_VERSION, PUBLIC_VERSION};
use crate::wire::{Opcode, RequestHeader, Status};

/// The last opcode in the table of a real sheep (protocol 18).
const OPCODE_LAST: u8 = 0xcd;
/// An opcode of disk management that aborts a real sheep when its length is wrong.
const MD_INFO: u8 = 0xb1;
const MD_INFO_LEN: u32 = 263_688;
const RECOVERY_FLAG: u16 = 0x80;
/// What a payload of a cluster operation must stay below, with its 96 bytes of overhead.
const CLUSTER_PAYLOAD_MAX: u32 = (128 << 10) - 96;
/// More is not answered in one piece, so that a client can't have all memory.
const ANSWER_LEN_MAX: u32 = 256 << 20;

/// Carries out a request.
pub fn answer(sheep: &Sheep, request: &Incoming) -> Answer {
    serve(sheep, request).unwrap_or_else(|status| Answer::new(&request.header, status))
}

fn serve(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let header = &request.header;
    if let Some(rule) = deadly(header) {
        sheep.broken(rule, request);
        return Err(Status::InvalidParms);
    }
    if !version_fits(header) {
        sheep.broken(Rule::Version, request);
        return Err(Status::VerMismatch);
    }
    let opcode = Opcode::from_code(header.opcode).ok_or(Status::InvalidParms)?;
    note_habits(sheep, request, opcode);
    match sheep.phase() {
        Phase::Running => {}
        Phase::Shutdown => return Err(Status::Shutdown),
        Phase::Killed => return Err(Status::Killed),
    }
    if sheep.format().is_none() && needs_format(opcode) {
        return Err(Status::WaitForFormat);
    }
    carry_out(sheep, request, opcode)
}

fn carry_out(sheep: &Sheep, request: &Incoming, opcode: Opcode) -> Result<Answer, Status> {
    match opcode {
        Opcode::CreateAndWriteObj => objects::create(sheep, request),
        Opcode::ReadObj => objects::read(sheep, request),
        Opcode::WriteObj => objects::write(sheep, request),
        Opcode::RemoveObj => objects::remove(sheep, request),
        Opcode::Exist => objects::exist(sheep, request),
        Opcode::DiscardObj => index::discard(sheep, request),
        Opcode::DecrefObj => bare::drop_reference(sheep, request),
        Opcode::NewVdi => vdis::create(sheep, request),
        Opcode::DelVdi => vdis::delete(sheep, request),
        Opcode::GetVdiInfo => vdis::look_up(sheep, request),
        Opcode::LockVdi => vdis::lock(sheep, request),
        Opcode::ReleaseVdi => Ok(vdis::release(sheep, request)),
        Opcode::GetVdiCopies => vdis::states(sheep, request),
        Opcode::ReadVdis => vdis::bitmap(sheep, request, false),
        Opcode::ReadDelVdis => vdis::bitmap(sheep, request, true),
        Opcode::GetVdiAttr => attributes::get(sheep, request),
        Opcode::FlushVdi => Err(Status::InvalidParms),
        Opcode::FlushDelCache => Ok(Answer::new(&request.header, Status::Success)),
        Opcode::GetClusterDefault => Ok(nodes::cluster_default(sheep, request)),
        Opcode::GetNodeList => Ok(nodes::list(sheep, request)),
        Opcode::MakeFs => nodes::make_fs(sheep, request),
        Opcode::Shutdown => Ok(nodes::shutdown(sheep, request)),
        Opcode::StatSheep => nodes::space(sheep, request),
        Opcode::StatCluster => nodes::epochs(sheep, request),
        Opcode::ClusterInfo => Ok(nodes::cluster_info(sheep, request)),
        Opcode::GetStoreList => Ok(nodes::stores(request)),
        Opcode::StatRecovery => Ok(nodes::recovery(request)),
        Opcode::Stat => Ok(nodes::counters(sheep, request)),
    }
}

/// Public opcodes take all versions up to today's, the others exactly one (protocol 1.2).
fn version_fits(header: &RequestHeader) -> bool {
    if header.opcode < 0x80 {
        header.version <= PUBLIC_VERSION
    } else {
        header.version == INTERNAL_VERSION
    }
}

/// What works before the cluster is formatted (protocol 17.1).
fn needs_format(opcode: Opcode) -> bool {
    !matches!(
        opcode,
        Opcode::GetNodeList
            | Opcode::ReadVdis
            | Opcode::ReadDelVdis
            | Opcode::ClusterInfo
            | Opcode::GetClusterDefault
            | Opcode::GetVdiCopies
            | Opcode::Exist
            | Opcode::GetStoreList
            | Opcode::MakeFs
            | Opcode::Shutdown
            | Opcode::Stat
            | Opcode::StatRecovery
    )
}

/// What would crash or poison a real sheep (protocol 18).
fn deadly(header: &RequestHeader) -> Option<Rule> {
    if header.opcode > OPCODE_LAST {
        return Some(Rule::Opcode);
    }
    if header.opcode == MD_INFO && header.data_length != MD_INFO_LEN {
        return Some(Rule::BufferLength);
    }
    let opcode = Opcode::from_code(header.opcode)?;
    if is_object(opcode) && header.flags & RECOVERY_FLAG != 0 {
        return Some(Rule::RecoveryFlag);
    }
    if carries_payload(opcode).is_some_and(|must| must != header.has_payload()) {
        return Some(Rule::WriteFlag);
    }
    if is_cluster(opcode) && header.data_length > CLUSTER_PAYLOAD_MAX {
        return Some(Rule::ClusterPayload);
    }
    (!length_fits(opcode, header)).then_some(Rule::BufferLength)
}

/// Whether the flag WRITE must be set; `None` where real servers take both.
fn carries_payload(opcode: Opcode) -> Option<bool> {
    match opcode {
        Opcode::CreateAndWriteObj
        | Opcode::WriteObj
        | Opcode::NewVdi
        | Opcode::DelVdi
        | Opcode::LockVdi
        | Opcode::GetVdiInfo
        | Opcode::GetVdiAttr
        | Opcode::MakeFs => Some(true),
        Opcode::ReleaseVdi | Opcode::FlushVdi | Opcode::FlushDelCache => None,
        _ => Some(false),
    }
}

fn length_fits(opcode: Opcode, header: &RequestHeader) -> bool {
    let len = header.data_length;
    let room = usize::try_from(len).unwrap_or(usize::MAX);
    match opcode {
        Opcode::ClusterInfo => room >= CLUSTER_INFO_LEN,
        Opcode::GetNodeList => room >= NODE_LEN,
        Opcode::Stat => room >= STAT_LEN,
        Opcode::StatRecovery => room >= nodes::RECOVERY_LEN,
        Opcode::GetVdiAttr => room >= attributes::ATTRIBUTE_LEN,
        // A snapshot's number without a tag, if only an empty one: a real sheep reads the tag at
        // address 0.
        Opcode::GetVdiInfo | Opcode::LockVdi | Opcode::DelVdi => {
            header.vdi().snapid == 0 || room != NAME_FIELD_LEN
        }
        _ => header.has_payload() || len <= ANSWER_LEN_MAX,
    }
}

fn is_cluster(opcode: Opcode) -> bool {
    let vdi = matches!(opcode, Opcode::NewVdi | Opcode::DelVdi | Opcode::GetVdiAttr);
    let lookup = matches!(opcode, Opcode::GetVdiInfo | Opcode::LockVdi | Opcode::ReleaseVdi);
    vdi || lookup || opcode == Opcode::MakeFs
}

fn is_object(opcode: Opcode) -> bool {
    let change = matches!(opcode, Opcode::CreateAndWriteObj | Opcode::WriteObj | Opcode::RemoveObj);
    change || matches!(opcode, Opcode::ReadObj | Opcode::DiscardObj | Opcode::Exist)
}

/// Counts what does no harm to a server, but is not how sheepfs asks.
fn note_habits(sheep: &Sheep, request: &Incoming, opcode: Opcode) {
    let header = &request.header;
    let known = match opcode {
        Opcode::CreateAndWriteObj => flags::WRITE | flags::COW,
        Opcode::GetVdiAttr => {
            flags::WRITE | flags::ATTR_CREATE | flags::ATTR_EXCLUSIVE | flags::ATTR_DELETE
        }
        _ => flags::WRITE,
    };
    if header.flags & !known != 0 {
        sheep.broken(Rule::Flags, request);
    }
    if !is_object(opcode) {
        return;
    }
    let fields = header.obj();
    if fields.copies != 0 || fields.copy_policy != 0 {
        sheep.broken(Rule::Copies, request);
    }
    let lost_base = fields.cow_oid != 0 && header.flags & flags::COW == 0;
    if lost_base || header.with_obj(&fields).union != reserved_cleared(header) {
        sheep.broken(Rule::Reserved, request);
    }
}

/// The union of an object request as it is when its reserved fields are 0.
fn reserved_cleared(header: &RequestHeader) -> [u8; 32] {
    let empty = RequestHeader { union: [0; 32], ..*header };
    empty.with_obj(&header.obj()).union
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header::VdiFields;

    fn header(opcode: Opcode, flags: u16, data_length: u32) -> RequestHeader {
        RequestHeader::new(opcode, flags, data_length)
    }

    fn by_number(opcode: Opcode, data_length: u32) -> RequestHeader {
        let fields = VdiFields { snapid: 7, ..VdiFields::default() };
        header(opcode, flags::WRITE, data_length).with_vdi(&fields)
    }

    #[test]
    fn what_kills_a_real_sheep_is_known() {
        let write = flags::WRITE;
        for (header, rule) in [
            (RequestHeader { opcode: 0xff, ..header(Opcode::ReadObj, 0, 0) }, Rule::Opcode),
            (RequestHeader { opcode: MD_INFO, ..header(Opcode::Stat, 0, 8) }, Rule::BufferLength),
            (header(Opcode::WriteObj, 0, 512), Rule::WriteFlag),
            (header(Opcode::CreateAndWriteObj, 0, 512), Rule::WriteFlag),
            (header(Opcode::ReadObj, write, 512), Rule::WriteFlag),
            (header(Opcode::ClusterInfo, 0, 491_567), Rule::BufferLength),
            (header(Opcode::GetNodeList, 0, 0), Rule::BufferLength),
            (header(Opcode::Stat, 0, 119), Rule::BufferLength),
            (header(Opcode::StatRecovery, 0, 23), Rule::BufferLength),
            (header(Opcode::GetVdiAttr, write, 66_319), Rule::BufferLength),
            (by_number(Opcode::LockVdi, 256), Rule::BufferLength),
            (by_number(Opcode::GetVdiInfo, 256), Rule::BufferLength),
            (header(Opcode::NewVdi, write, 128 << 10), Rule::ClusterPayload),
            (header(Opcode::WriteObj, write | RECOVERY_FLAG, 1), Rule::RecoveryFlag),
        ] {
            assert_eq!(deadly(&header), Some(rule), "{header:?}");
        }
        for header in [
            header(Opcode::WriteObj, write, 512),
            header(Opcode::ReadObj, 0, 12_587_576),
            header(Opcode::ClusterInfo, 0, 491_568),
            header(Opcode::ReleaseVdi, write, 256),
            header(Opcode::NewVdi, write, 256),
            header(Opcode::LockVdi, write, 256),
            by_number(Opcode::LockVdi, 512),
        ] {
            assert_eq!(deadly(&header), None, "{header:?}");
        }
    }
}

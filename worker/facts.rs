//! What a sheep says of its cluster when it is first asked, pure.
//!
//! STAT_CLUSTER without room for nodes costs 48 bytes and says all: when the
//! cluster was formatted in its payload, its epoch in the header, whether it serves
//! in the result code (protocol 15.4). Only a sheep that waits for nodes may leave
//! the payload away; then CLUSTER_INFO is asked (15.5), which is half a megabyte.

use crate::frame::Reply;
use sheepfs::ipc::{ClusterFacts, LostReason};
use sheepfs::wire::cluster::{ClusterFlags, ClusterInfo, ClusterStatus, EpochRecord};
use sheepfs::wire::{Opcode, Request, Status};

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The cluster.
    Facts(ClusterFacts),
    /// That question is to be asked too.
    Ask(Request),
    /// No session there.
    Lost(LostReason),
}

/// The first question.
pub fn question() -> Request {
    Request::stat_cluster(1, 0)
}

/// Takes the answer to [`question`], or to the one it led to.
pub fn hear(reply: &Reply) -> Heard {
    if let Some(why) = reply.lost {
        return Heard::Lost(why);
    }
    match Opcode::from_code(reply.header.opcode) {
        Some(Opcode::StatCluster) => stat(reply),
        Some(Opcode::ClusterInfo) => info(reply),
        _ => Heard::Lost(LostReason::NotASheep),
    }
}

fn stat(reply: &Reply) -> Heard {
    let epoch = reply.header.epoch;
    let running = match reply.status {
        Status::Success => true,
        Status::WaitForFormat => {
            return Heard::Facts(facts(0, epoch, false, ClusterFlags(0)));
        }
        Status::WaitForJoin => false,
        Status::Shutdown | Status::Killed | Status::SystemError => {
            return Heard::Lost(LostReason::ShuttingDown);
        }
        _ => return Heard::Ask(Request::cluster_info()),
    };
    match EpochRecord::decode_all(&reply.bytes, 0) {
        Ok(records) => match records.first() {
            Some(record) => Heard::Facts(facts(record.ctime, epoch, running, record.flags)),
            None => Heard::Ask(Request::cluster_info()),
        },
        Err(_) => Heard::Lost(LostReason::NotASheep),
    }
}

fn info(reply: &Reply) -> Heard {
    match ClusterInfo::decode(&reply.bytes) {
        Ok(info) => match info.status {
            ClusterStatus::Ok | ClusterStatus::Waiting => {
                let running = info.status == ClusterStatus::Ok;
                Heard::Facts(facts(info.ctime, info.epoch, running, info.flags))
            }
            ClusterStatus::Shutdown | ClusterStatus::Killed => {
                Heard::Lost(LostReason::ShuttingDown)
            }
        },
        Err(_) => Heard::Lost(LostReason::NotASheep),
    }
}

fn facts(ctime: u64, epoch: u32, running: bool, flags: ClusterFlags) -> ClusterFacts {
    ClusterFacts {
        ctime,
        epoch,
        running,
        recycles_vids: flags.contains(ClusterFlags::RECYCLE_VID),
        has_locks: flags.contains(ClusterFlags::USE_LOCK),
        disk_mode: flags.contains(ClusterFlags::DISK_MODE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheepfs::wire::header::{ReplyHeader, RequestHeader};

    fn reply(opcode: Opcode, status: Status, bytes: Vec<u8>) -> Reply {
        let request = RequestHeader::new(opcode, 0, 48);
        Reply::new(ReplyHeader::new(&request, 9, status, 0), bytes)
    }

    fn record(ctime: u64) -> Vec<u8> {
        let mut bytes = ctime.to_le_bytes().to_vec();
        bytes.resize(48, 0);
        bytes
    }

    #[test]
    fn forty_eight_bytes_say_all() {
        let heard = |status| hear(&reply(Opcode::StatCluster, status, record(7)));
        let known = facts(7, 9, true, ClusterFlags(0));
        assert_eq!(heard(Status::Success), Heard::Facts(known));
        let waits = ClusterFacts { running: false, ..known };
        assert_eq!(heard(Status::WaitForJoin), Heard::Facts(waits));
        assert_eq!(heard(Status::Shutdown), Heard::Lost(LostReason::ShuttingDown));
    }

    #[test]
    fn a_cluster_that_weighs_disks_says_so() {
        let mut bytes = record(7);
        bytes[30] = 0x06;
        let heard = hear(&reply(Opcode::StatCluster, Status::Success, bytes));
        let known = facts(7, 9, true, ClusterFlags(ClusterFlags::DISK_MODE.0 | 4));
        assert!(known.disk_mode);
        assert_eq!(heard, Heard::Facts(known));
    }

    #[test]
    fn a_cluster_that_was_never_formatted_has_no_time() {
        let heard = hear(&reply(Opcode::StatCluster, Status::WaitForFormat, Vec::new()));
        assert_eq!(heard, Heard::Facts(facts(0, 9, false, ClusterFlags(0))));
    }

    #[test]
    fn a_sheep_that_leaves_the_time_away_is_asked_for_more() {
        let heard = hear(&reply(Opcode::StatCluster, Status::WaitForJoin, Vec::new()));
        assert_eq!(heard, Heard::Ask(Request::cluster_info()));
        let short = hear(&reply(Opcode::ClusterInfo, Status::Success, vec![0; 40]));
        assert_eq!(short, Heard::Lost(LostReason::NotASheep));
    }
}

//! The extended attributes of volumes: what a program may want to know of the
//! VDI behind the file.

use fuser::{Errno, ReplyXattr};
use sheepfs::ipc::VolumeFacts;
use std::ffi::OsStr;

const VID: &str = "user.sheepdog.vid";
const COPIES: &str = "user.sheepdog.copies";
const BLOCK_SIZE: &str = "user.sheepdog.block_size";
const SNAPSHOT: &str = "user.sheepdog.snapshot";

/// The value of an attribute, as text.
pub fn value(facts: &VolumeFacts, name: &OsStr) -> Option<String> {
    match name.to_str()? {
        // In hexadecimal without a prefix, as `dog vdi list` prints it.
        VID => Some(format!("{:x}", facts.vid)),
        COPIES => Some(redundancy(facts)),
        BLOCK_SIZE => 1u64.checked_shl(facts.block_size_shift.into()).map(|len| len.to_string()),
        SNAPSHOT => Some(if facts.snapshot { facts.snap_id } else { 0 }.to_string()),
        _ => None,
    }
}

/// As `dog vdi list` prints it: the number of replicas, or data and parity strips
/// as `4:2`, which the policy holds as halves of the former and the latter
/// (protocol 6.1).
fn redundancy(facts: &VolumeFacts) -> String {
    match facts.copy_policy {
        0 => facts.copies.to_string(),
        policy => format!("{}:{}", u32::from(policy >> 4) * 2, policy & 15),
    }
}

/// All names, each ended by a NUL (listxattr(2)).
pub fn names() -> Vec<u8> {
    [VID, COPIES, BLOCK_SIZE, SNAPSHOT].map(|name| format!("{name}\0")).concat().into_bytes()
}

/// Answers as getxattr(2) wants it: with the length when the caller has no
/// buffer, `ERANGE` when it is too small.
pub fn answer(value: &[u8], size: u32, reply: ReplyXattr) {
    let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    match size {
        0 => reply.size(len),
        size if size < len => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_has_a_value() {
        let facts = VolumeFacts {
            vid: 0x7c_2b25,
            size: 1,
            create_time: 0,
            copies: 3,
            copy_policy: 0,
            block_size_shift: 22,
            snap_id: 5,
            snapshot: true,
            hyper: false,
            locked: false,
        };
        let names = String::from_utf8(names()).unwrap();
        let values: Vec<_> = names
            .split_terminator('\0')
            .map(|name| value(&facts, name.as_ref()).unwrap())
            .collect();
        assert_eq!(values, ["7c2b25", "3", "4194304", "5"]);
        assert_eq!(value(&facts, "security.capability".as_ref()), None);
        let coded = VolumeFacts { copies: 6, copy_policy: 0x22, snapshot: false, ..facts };
        assert_eq!(value(&coded, COPIES.as_ref()).unwrap(), "4:2");
        assert_eq!(value(&coded, SNAPSHOT.as_ref()).unwrap(), "0");
    }
}

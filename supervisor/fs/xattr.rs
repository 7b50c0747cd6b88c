//! The extended attributes of volumes: what a program may want to know of the
//! VDI behind the file, all that `dog vdi list` shows (protocol 16.1). Numbers are
//! decimal and bytes are counted one by one, as `dog -r` prints them; vids are
//! hexadecimal.

use crate::volumes::Volume;
use fuser::{Errno, ReplyXattr};
use sheepfs::ipc::VolumeFacts;
use sheepfs::wire::cluster::BlockUsage;
use std::ffi::OsStr;

/// An attribute. `None`: the volume has none, or nothing is known of it yet.
type Attribute = fn(&VolumeFacts, Option<BlockUsage>) -> Option<Vec<u8>>;

/// All of them.
const ATTRIBUTES: [(&str, Attribute); 11] = [
    ("user.sheepdog.name", |facts, _| named(&facts.labels.name)),
    ("user.sheepdog.snapshot", |facts, _| text(if facts.snapshot { facts.snap_id } else { 0 })),
    ("user.sheepdog.size", |facts, _| text(facts.size)),
    ("user.sheepdog.used", |facts, usage| bytes_of(facts, usage?.own)),
    ("user.sheepdog.shared", |facts, usage| bytes_of(facts, usage?.shared)),
    ("user.sheepdog.created", |facts, _| text(facts.create_time >> 32)),
    ("user.sheepdog.vid", |facts, _| text(format_args!("{:x}", facts.vid))),
    ("user.sheepdog.copies", |facts, _| text(redundancy(facts))),
    ("user.sheepdog.tag", |facts, _| named(&facts.labels.tag)),
    ("user.sheepdog.block_size", |facts, _| bytes_of(facts, 1)),
    ("user.sheepdog.parent", |facts, _| {
        let parent = Some(facts.labels.parent).filter(|parent| *parent != 0)?;
        text(format_args!("{parent:x}"))
    }),
];

/// The value of a volume's attribute.
pub fn value(volume: &Volume, name: &OsStr) -> Option<Vec<u8>> {
    let (_, attribute) = ATTRIBUTES.iter().find(|(known, _)| name == *known)?;
    attribute(&volume.facts(), volume.usage())
}

/// The names of those that a volume has, each ended by a NUL (listxattr(2)).
pub fn names(volume: &Volume) -> Vec<u8> {
    let (facts, usage) = (volume.facts(), volume.usage());
    let there = ATTRIBUTES.iter().filter(|(_, attribute)| attribute(&facts, usage).is_some());
    there.flat_map(|(name, _)| name.bytes().chain([0])).collect()
}

fn text(value: impl ToString) -> Option<Vec<u8>> {
    Some(value.to_string().into_bytes())
}

fn named(label: &[u8]) -> Option<Vec<u8>> {
    (!label.is_empty()).then(|| label.to_vec())
}

fn bytes_of(facts: &VolumeFacts, objects: u64) -> Option<Vec<u8>> {
    text(objects.saturating_mul(1_u64.checked_shl(facts.block_size_shift.into())?))
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
    use sheepfs::ipc::{Labels, VolumeId};
    use sheepfs::wire::name::VolumeName;

    fn volume(facts: VolumeFacts) -> Volume {
        Volume::new(VolumeId(1), VolumeName::parse(b"disk:old").unwrap(), facts)
    }

    /// All that are listed, in order.
    fn all(volume: &Volume) -> Vec<(String, String)> {
        let names = String::from_utf8(names(volume)).unwrap();
        let prefix = "user.sheepdog.";
        let pair = |name: &str| {
            let value = String::from_utf8(value(volume, name.as_ref()).unwrap()).unwrap();
            (name.strip_prefix(prefix).unwrap().to_owned(), value)
        };
        names.split_terminator('\0').map(pair).collect()
    }

    fn facts() -> VolumeFacts {
        VolumeFacts {
            vid: 0x7c_2b25,
            size: 1 << 40,
            create_time: 1_700_000_000 << 32 | 5,
            copies: 3,
            copy_policy: 0,
            block_size_shift: 22,
            snap_id: 5,
            snapshot: true,
            hyper: false,
            locked: false,
            labels: Labels { name: b"disk".into(), tag: b"old".into(), parent: 0xabc },
        }
    }

    #[test]
    fn they_say_what_the_list_of_vdis_says() {
        let volume = volume(facts());
        volume.note_stored(1, 1, Some(BlockUsage { own: 2, shared: 3 }));
        let wanted = [
            ("name", "disk"),
            ("snapshot", "5"),
            ("size", "1099511627776"),
            ("used", "8388608"),
            ("shared", "12582912"),
            ("created", "1700000000"),
            ("vid", "7c2b25"),
            ("copies", "3"),
            ("tag", "old"),
            ("block_size", "4194304"),
            ("parent", "abc"),
        ];
        assert_eq!(all(&volume), wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(value(&volume, "security.capability".as_ref()), None);
    }

    #[test]
    fn what_there_is_not_is_not_listed() {
        let labels = Labels { name: b"disk".into(), ..Labels::default() };
        let volume = volume(VolumeFacts {
            snapshot: false,
            copies: 6,
            copy_policy: 0x22,
            labels,
            ..facts()
        });
        let found: Vec<_> = all(&volume).into_iter().map(|(name, _)| name).collect();
        let wanted = ["name", "snapshot", "size", "created", "vid", "copies", "block_size"];
        assert_eq!(found, wanted);
        assert_eq!(value(&volume, "user.sheepdog.copies".as_ref()).unwrap(), b"4:2");
        assert_eq!(value(&volume, "user.sheepdog.snapshot".as_ref()).unwrap(), b"0");
        assert_eq!(value(&volume, "user.sheepdog.used".as_ref()), None);
    }
}

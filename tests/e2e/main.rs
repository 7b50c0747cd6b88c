//! The end-to-end tests: sheepfs as a user runs it, on the real /dev/fuse, against a minisheep
//! of each test's own, or against a real cluster when `SHEEPFS_TEST_SHEEP=host:port` names one.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`tree`] | what the tree shows, and to whom |
//! | [`vdi_tree`] | the tree of VDIs and snapshots |
//! | [`control`] | what control files take and refuse |
//! | [`trouble`] | a sheep that is locked, unformatted, stopped or gone (minisheep only) |
//! | [`volumes`] | a volume as a file: bounds, attributes, what it refuses |
//! | [`calls`] | every system call, none of which may meet ENOSYS |
//! | [`data`] | what is written is what is read: fio, fsx, a model |
//! | [`exerciser`] | fsx with holes and mappings, and one of our own |
//! | [`discards`] | space that comes back, and what is written where it was |
//! | [`mapped`] | volumes in memory, shared and private |
//! | [`synced`] | what `O_SYNC`, `fsync` and others mean |
//! | [`hyper_discards`] | the same of hyper volumes |
//! | [`copies`] | copies between volumes, by the worker itself |
//! | [`hyper_copies`] | the same from and to hyper volumes |
//! | [`objects`] | objects of all sizes, made by many writers at once |
//! | [`filesystems`] | ext4 and XFS on a loop device over a volume |
//! | [`trimmed`] | the same with discards, while files come and go |
//! | [`trim_tools`] | fio's trims, blkdiscard, and images that are mostly holes |
//! | [`images`] | qemu's tools, and a boot |
//! | [`life`] | VDIs made, copied, taken back, resized and deleted through the tree |
//! | [`life_model`] | the same in any order, against a model |
//! | [`snapshots`] | VDIs that become snapshots or vanish under the mount |
//! | [`faults`] | what a cluster in trouble answers (minisheep only) |
//! | [`memory`] | what attached volumes cost |
//! | [`footprint`] | what the processes have in memory under full load |
//! | [`holes`] | where a volume has no data, and how much it has |
//! | [`scale`] | many VDIs and many volumes |
//! | [`pages`] | what the kernel's page cache keeps, and when that must go |

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "offsets in small volumes, on 64-bit machines")]

#[path = "../support/boot.rs"]
mod boot;
#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/minisheep.rs"]
mod minisheep;
#[path = "../support/mount.rs"]
mod mount;
#[path = "../support/random.rs"]
mod random;
#[path = "../recovery/rounds.rs"]
mod rounds;
#[path = "../support/tools.rs"]
mod tools;
#[path = "../support/wire.rs"]
mod wire;

mod behind;
mod calls;
mod control;
mod copies;
mod data;
mod discards;
mod exerciser;
mod faults;
mod filesystems;
mod footprint;
mod holes;
mod hyper;
mod hyper_copies;
mod hyper_discards;
mod images;
mod life;
mod life_model;
mod mapped;
mod mapping;
mod memory;
mod objects;
mod pages;
mod scale;
mod snapshots;
mod synced;
mod tree;
mod trim_tools;
mod trimmed;
mod trouble;
mod vdi_tree;
mod volumes;

/// Bytes.
const KIB: u64 = 1 << 10;
/// Bytes.
const MIB: u64 = 1 << 20;

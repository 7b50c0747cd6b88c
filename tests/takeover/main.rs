//! The supervisor dies, leaves or is replaced under load: the mount stays, open files stay open,
//! and no program sees an error.
//!
//! Run all by `tests/run --test takeover`. By default each fault comes a few times;
//! `SHEEPFS_FAULT_ROUNDS=full` makes it as often as the project promises to bear it. Seeds and
//! rows of stalls are printed as by the target `recovery`, whose instruments these tests use.
//!
//! A supervisor's next life is started by one of two managers: the tests' own stand-in for
//! systemd ([`notify`]), where the test decides when and as what, or the keeper that
//! `sheepfs MOUNTPOINT` leaves behind. Neither shares code with the other.
//!
//! | module | what |
//! | --- | --- |
//! | [`served`] | a mount under one manager or the other |
//! | [`apart`] | where no file of a mount is open |
//! | [`descriptors`] | who has what open |
//! | [`load`] | what its programs do meanwhile, and what must be as before |
//! | [`kill`] | SIGKILL at random instants, of the worker and the sheep as well, in bursts |
//! | [`leave`] | left to a successor, gone on with as another program |
//! | [`refusing`] | programs that do not take over |
//! | [`parked`] | a panic with many requests in flight |
//! | [`fences`] | what was fenced still is |
//! | [`resend`] | a kernel that delivers nothing again |
//! | [`seeks`] | a search for a hole that is under way |
//! | [`state`] | a state that can't be read |
//! | [`copies`] | copies between volumes that are under way |
//! | [`crowd`] | many volumes |
//! | [`cache`] | dirty pages of the kernel's |
//! | [`pages`] | the page cache switched meanwhile |
//! | [`control`] | control files that are in use at the death |
//! | [`vdi_tree`] | the tree of VDIs, open meanwhile |
//! | [`locks`] | the cluster's lock, kept or never taken |
//! | [`ends`] | the end of the mount, and what is left of one that nobody ended |
//! | [`life`] | crashes while VDIs are made, changed and deleted |

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "offsets in small volumes, on 64-bit machines")]
#![allow(dead_code, reason = "the support modules serve other tests as well")]

#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/copying.rs"]
mod copying;
#[path = "../support/errands.rs"]
mod errands;
#[path = "../support/fio.rs"]
mod fio;
#[path = "../support/minisheep.rs"]
mod minisheep;
#[path = "../support/mount.rs"]
mod mount;
#[path = "../support/netns.rs"]
mod netns;
#[path = "../support/notify.rs"]
mod notify;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/register.rs"]
mod register;
#[path = "../recovery/rounds.rs"]
mod rounds;
#[path = "../recovery/site.rs"]
mod site;
#[path = "../support/stalls.rs"]
mod stalls;
#[path = "../support/tools.rs"]
mod tools;
#[path = "../support/wire.rs"]
mod wire;

mod apart;
mod cache;
mod control;
mod copies;
mod crowd;
mod descriptors;
mod ends;
mod fences;
mod kill;
mod leave;
mod life;
mod load;
mod locks;
mod pages;
mod parked;
mod refusing;
mod resend;
mod seeks;
mod served;
mod state;
mod vdi_tree;

/// Bytes.
const KIB: u64 = 1 << 10;
/// Bytes.
const MIB: u64 = 1 << 20;

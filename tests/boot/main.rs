//! The shipped unit under a real systemd, which each test boots for itself ([`systemd`]): what
//! a service manager does to sheepfs, and what everybody else on the machine then sees.
//!
//! Run by `tests/run --test boot`. The sheep is a minisheep on the machine's loopback. As in
//! the recovery tests, `SHEEPFS_FAULT_ROUNDS=full` makes faults as frequent as the project
//! promises to bear them, and stalls are printed, never judged.
//!
//! | module | what |
//! | --- | --- |
//! | [`harness`] | the systemd itself: that it is a real one, private, and leaves nothing behind |
//! | [`unit`] | the unit starts, mounts for everybody, logs, and stops whatever goes on |
//! | [`ends`] | the mount is ended by somebody else |
//! | [`outlives`] | the supervisor dies, and the mount does not |
//! | [`package`] | the package for Debian: installed, upgraded under load, removed, purged |
//! | [`tries`] | starts and restarts that go wrong, and what can be known of them |

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "offsets in small volumes, on 64-bit machines")]
#![allow(dead_code, reason = "the support modules serve other tests as well")]

#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/deb.rs"]
mod deb;
#[path = "../support/minisheep.rs"]
mod minisheep;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/register.rs"]
mod register;
#[path = "../support/stalls.rs"]
mod stalls;
#[path = "../support/systemd.rs"]
mod systemd;
#[path = "../support/tools.rs"]
mod tools;
#[path = "../support/wire.rs"]
mod wire;

mod ends;
mod harness;
mod outlives;
mod package;
#[path = "../recovery/rounds.rs"]
mod rounds;
mod scene;
mod service;
mod tries;
mod unit;

/// Bytes.
const MIB: u64 = 1 << 20;

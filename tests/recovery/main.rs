//! Faults under load: nothing that a worker, a sheep or the network does is seen by a program
//! that uses a volume, but as time that passes.
//!
//! Run all by `tests/run --test recovery`. By default each fault comes a few times, so that all
//! takes a few minutes; `SHEEPFS_FAULT_ROUNDS=full` makes it as often as the project promises
//! to bear it, which takes an hour or so (any other value is an error). Random instants come
//! from a seed that is printed; `SHEEPFS_TEST_SEED` repeats it. How long calls stalled is
//! printed in lines that begin with `row`, with `--nocapture`, and never judged.
//!
//! The load is the register checker ([`register`]), which sees lost, old and torn blocks, and
//! fio with its checksums ([`fio`]). Each test proves that its fault happened.
//!
//! | module | what |
//! | --- | --- |
//! | [`instruments`] | the checker, the proxy, the bad link: that they see and do what they claim |
//! | [`worker`] | the worker killed, stopped, crashed by one request again and again |
//! | [`gateway`] | the sheep in use killed; an outage of all, held or answered with errors |
//! | [`stale`] | a stopped sheep that wakes up with old requests |
//! | [`routed`] | nodes that are asked directly: killed, stopped, never there |
//! | [`network`] | connections reset, half open, slow, lossy |
//! | [`failover`] | another sheep on request, and requests that are refused |
//! | [`others`] | snapshots, sizes and deletions by somebody else, under load |
//! | [`discards`] | workers and gateways that die while blocks are discarded |
//! | [`copies`] | workers and gateways that die while ranges are copied |
//! | [`attach`] | crashes while volumes come and go |
//! | [`crowd`] | many volumes |
//! | [`many`] | many requests and no sheep |
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
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/register.rs"]
mod register;
#[path = "../support/stalls.rs"]
mod stalls;
#[path = "../support/tools.rs"]
mod tools;
#[path = "../support/wire.rs"]
mod wire;

mod attach;
mod copies;
mod crowd;
mod discards;
mod failover;
mod gateway;
mod hyper;
mod instruments;
mod life;
mod many;
mod network;
mod others;
mod rounds;
mod routed;
mod seeks;
mod site;
mod stale;
mod worker;

/// Bytes.
const KIB: u64 = 1 << 10;
/// Bytes.
const MIB: u64 = 1 << 20;

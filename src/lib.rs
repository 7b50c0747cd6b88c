//! sheepfs shows a Sheepdog cluster as a directory and its virtual disks as files.
//!
//! This page is the architecture. The library holds what the programs must agree
//! on and everything that parses bytes from outside; the programs are crates of
//! their own (`supervisor/main.rs`, `worker/main.rs`), so neither can reach into
//! the other.
//!
//! # The processes
//!
//! ```text
//! kernel ── /dev/fuse ──> supervisor ── Unix socket: small messages ──> worker ── TCP ──> sheep
//!                              └─────────── arena: payload ────────────────┘
//! ```
//!
//! - The **supervisor** (`sheepfs`) owns the mount, the tree, the control files,
//!   the arena and the table of requests in flight. It opens no network
//!   connection, so its control files answer when no sheep is alive.
//! - The **worker** (`sheepfs-worker`) owns the connections to one sheep, what is
//!   known of the attached VDIs' indexes, and the object cache. It opens no file
//!   and holds nothing that can't be lost. It lives for one sheep session: when
//!   its sheep is gone it says so and ends, and the supervisor starts another.
//! - **minisheep** ([`minisheep`]) is a sheep of one node that keeps objects in a
//!   directory: for a first try, for tests, for benchmarks. Gateways in front of it
//!   ([`minisheep::gateway`]) pass for the nodes of a cluster. Its command-line twin
//!   in a real cluster is `sheep`.
//!
//! Nothing that was acknowledged lives only in these processes: dirty pages are
//! the kernel's, unanswered requests are in the kernel's queue and the
//! supervisor's table, answered writes are in the cluster.
//!
//! # The life of a read
//!
//! 1. A FUSE thread takes it from `/dev/fuse`, finds the volume, and hands it with
//!    the kernel's owned reply to the data path, which leases a slot of the arena
//!    and sends a [`ipc::ToWorker::Read`]. Without a free slot it waits in order.
//!    The thread returns at once: no FUSE thread ever waits.
//! 2. The worker cuts the range at object borders. Each part looks at its index
//!    entry, which is read from the inode in pages of 4 KiB when first needed: 0
//!    is zeros, anything else a `READ_OBJ` of the owner's object (protocol 8.2).
//! 3. The reply's payload is received from TCP straight into the slot. When all
//!    parts are there, a [`ipc::FromWorker::Done`] names the request.
//! 4. The supervisor looks it up in the table, replies to the kernel from the
//!    slot, and frees it.
//!
//! # The life of a write
//!
//! 1. As above; the payload is copied once, from the FUSE buffer into the slot.
//! 2. A part whose object is the VDI's own is a `WRITE_OBJ`. Otherwise the object
//!    is created (copied on write from the parent where there is one); everything
//!    else that writes to it waits. Requests that overlap, one of them a write,
//!    run one after the other.
//! 3. After a create, the index entry is written: only entries that change,
//!    neighbours that wait together in one request (protocol 8.7).
//! 4. Only then is the write answered. A flush waits for all writes before it.
//!
//! A READONLY answer means that somebody made a snapshot: the worker lets the
//! wire run empty, finds the name's new vid, makes sure it descends from the old
//! one, moves the lock, repairs index entries that the server lost meanwhile, and
//! goes on. Nobody above notices.
//!
//! # What happens at a crash
//!
//! | what dies | what happens |
//! | --- | --- |
//! | the sheep | the worker reports it and ends; as below |
//! | the worker | requests in flight are answered EIO; the next worker connects, volumes are attached again with the locks we hold, and requests flow |
//! | the supervisor | the worker and a minisheep of `--local` die with it; the mount answers ENOTCONN until it is unmounted |
//!
//! Recovery without an error to anybody is what the table of requests in flight,
//! the arena per worker and the restartable worker are built for; it is not there
//! yet.
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | sheep, gateway | a server of the cluster; the one that clients talk to |
//! | VDI, vid | a virtual disk image; its 24-bit number |
//! | volume | a VDI that is attached, and so a file |
//! | object, oid | a piece of a VDI, `2^block_size_shift` bytes; its 64-bit id |
//! | inode | the object that describes a VDI and holds its index |
//! | index | for each block, the vid that owns its object |
//! | epoch | the number of the cluster's membership |
//! | slot, span | a leased piece of the arena |
//! | tag | names a request between supervisor and worker |
//! | generation | counts workers |
//!
//! "Protocol 8.3" in these pages means that section of the project's description
//! of the Sheepdog protocol; "hazard 39" a row of its list of what can go wrong.

pub mod address;
pub mod ipc;
pub mod logging;
pub mod minisheep;
pub mod size;
pub mod text;
pub mod wire;

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
//! - The **worker** (`sheepfs-worker`) owns the connections to its sheep, called home,
//!   and to other nodes that hold objects; what is known of the attached VDIs' indexes;
//!   the object cache, and what is read ahead. It opens no file and holds nothing that
//!   can't be lost. It lives for one session: when home is gone, or a node that had
//!   changes of ours, it says so and ends, and the supervisor starts another.
//! - The **keeper** is the process that `sheepfs MOUNTPOINT` leaves in the background. It
//!   starts the supervisor and, when that dies, the next one; it keeps the descriptors
//!   that it is given, and does nothing else. They speak the protocol that services
//!   speak with systemd (sd_notify(3)).
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
//!    is zeros; what is cached, or was read ahead, is there already; anything else is
//!    a `READ_OBJ` of the owner's object (protocol 8.2), which goes to a node that holds
//!    it when one can be asked directly, and to home otherwise (the worker's `routing`).
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
//! # What else is asked for
//!
//! - A **hole** that is punched is cut into steps (the supervisor's `steps` module): whole
//!   objects are discarded, edges become zeros where something is, and in a large range
//!   seeks leave out what is a hole. The worker takes an entry out of the index first, so
//!   that nobody ever meets a missing object, and lets the object go when nobody else can
//!   name it any more (its `discard` module has the argument). Discards are claimed and
//!   fenced like creates, and a repeated one waits for its own fences.
//! - A **copy** between volumes is a write without bytes: the worker reads and writes by
//!   itself, through memory of its own (its `copies` module). What it reads may change
//!   before it is repeated, so a repeated copy waits for its own fences.
//! - A **seek** for data or holes, and how much is stored, are answered from the index, which
//!   is read past its pages for that (the worker's `extents` module).
//! - An **errand** makes, deletes, copies or resizes a VDI: a line written to a file of `vdi/`.
//!   There is one at a time. What it is about to change is in the state before it changes
//!   (the supervisor's `manage` module), so the next worker goes on with it, and a line that
//!   the kernel delivers again is not obeyed twice. A volume whose VDI becomes a snapshot by
//!   that rests meanwhile (the worker's `life` and `rest` modules).
//!
//! # What happens at a crash
//!
//! | what dies | what happens |
//! | --- | --- |
//! | the worker | its death is waited for, its last words are heard; the spare worker connects to the same sheep, opens the volumes by their vids, and is told again of every request that has no answer |
//! | the sheep | the worker says so and ends; as above, on the next candidate |
//! | another node that is asked directly | with reads only, they are asked again elsewhere; with changes, as when the worker dies |
//! | the network, or a sheep that hangs | a request without progress for the I/O time-out and a probe that fails too are taken for the sheep's death |
//! | the supervisor | systemd or the keeper has the open `/dev/fuse` and the state, and starts the next one with both; the kernel delivers again what was not answered; the worker died too, so it goes on as after that |
//! | the keeper | nothing, until the supervisor dies as well |
//!
//! Applications see a pause. What makes that true, in the order in which it happens:
//!
//! 1. **One worker at a time.** The supervisor kills what is left of a worker and
//!    waits on its pidfd; an end-of-file proves nothing. Its connections are reset by
//!    its death, so a sheep drops what it has not read. A *spare* worker, started,
//!    sandboxed, with an arena of its own and no address, takes its place.
//! 2. **Which sheep.** The same one when only the worker died; otherwise the
//!    candidates: the configured address and the nodes that the cluster told of. A
//!    sheep of another cluster is never taken. Pauses grow with each round.
//!    The new worker asks all gateways of the old session whether they live; when one died,
//!    changes wait until the cluster has noticed (the worker's `departure` module); reads go
//!    on at once. A node that ends sessions is not asked directly for a while.
//! 3. **Orphans.** What was on the wire may still be carried out, at any time. Before
//!    anything is repeated the new worker asks an old gateway that is alive whether
//!    anything runs there; else each object that an orphan may change is *fenced*:
//!    newer changes to it wait until the orphan is known to be over, or the fence time
//!    has passed. Reads don't wait, nor do replays, except of discards and copies. The
//!    supervisor's `fence` module has the argument, the worker's `watch` module the proof.
//! 4. **Volumes.** Each is opened by its vid, with the lock that is ours already, and
//!    with the allocations that a snapshot may have lost; one that became a snapshot
//!    meanwhile goes through the same steps as under a live worker.
//! 5. **Replay.** Requests go back to the queue they came from, where they are the
//!    oldest. A write that overlaps an unanswered one was never sent, so the order
//!    does not matter; a create is repeated only while nothing else can have been
//!    answered for its object. An entry that the dead worker may have written in part
//!    is written once more before such a write is answered.
//! 6. **A new supervisor** does the same, with what the dead one has left: the state, in
//!    memory that outlives it (the supervisor's `state` module says what and when). It
//!    checks all of it first, gives fuser the recorded handshake, has the kernel deliver
//!    unanswered requests again, and begins at 1. What the dead worker may have said and
//!    nobody has read is lost with it, so what must not be lost so (a lock that is asked
//!    for, an index entry that is repaired) is noted before it happens, and no repeated
//!    write is exempt from fences.
//!
//! A planned failover (`config/sheep_info`) is the same path without the orphans: the
//! new sheep is checked first, by the spare worker, and the old session is drained.
//!
//! What kills workers by itself is found out by telling suspects one at a time; after
//! three deaths it is answered EIO.
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
//! | tree, leaf | the index of a hyper volume, and a node of it ([`wire::btree`]) |
//! | epoch | the number of the cluster's membership |
//! | slot, span | a leased piece of the arena |
//! | tag | names a request between supervisor and worker |
//! | search, census | what the tree of VDIs asks for, and what was found |
//! | generation | counts workers |
//! | home | the sheep of a session, as its worker sees it beside the nodes that it asks directly |
//! | candidate | a sheep that may be tried |
//! | spare | a worker that waits for an address |
//! | orphan | a request of a dead worker that may still run on its gateway |
//! | fence | keeps newer changes to an object waiting for orphans |
//! | keeper | the process in the background that keeps the device and the state |
//! | successor, predecessor | a supervisor, as the one before sees it, and the other way round |
//! | state | what a successor must know |
//! | replay | telling a worker what an earlier one left unanswered |
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

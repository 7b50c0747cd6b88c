//! The node itself: its objects, its VDIs, its state, and what becomes of a request.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use nix::sys::statvfs::statvfs;
use tracing::{error, info};

use super::buffer::Buffer;
use super::connection::Origin;
use super::control::Controlled;
use super::counters::Counters;
use super::faults::Subject;
use super::hooks::Hooks;
use super::image::InodeImage;
use super::inflight::Inflight;
use super::lives::Lives;
use super::members::Members;
use super::references::{Reference, References};
use super::rules::{Rule, Rules};
use super::state::{Format, StateFile};
use super::store::Store;
use super::table::Table;
use crate::wire::cluster::{Node, NodeId};
use crate::wire::header::VdiReply;
use crate::wire::inode::{INODE_HEADER_LEN, InodeHeader};
use crate::wire::oid::ObjectKind;
use crate::wire::{ObjectId, ReplyHeader, RequestHeader, Status, VdiId};

/// What a real sheep announces by default.
const VNODES: u16 = 128;

/// A request as it was received.
#[derive(Debug)]
pub struct Incoming {
    /// The header.
    pub header: RequestHeader,
    /// What followed it.
    pub payload: Buffer,
    /// Who sent it.
    pub origin: Arc<Origin>,
}

/// What a request is answered with.
#[derive(Debug)]
pub struct Answer {
    /// The header; its epoch and its length are filled in when it is sent.
    pub header: ReplyHeader,
    /// What follows it.
    pub payload: Buffer,
}

impl Answer {
    /// A bare answer.
    #[must_use]
    pub fn new(request: &RequestHeader, status: Status) -> Self {
        let header = ReplyHeader::new(request, 0, status, 0);
        Self { header, payload: Buffer::default() }
    }

    /// Success, with data.
    #[must_use]
    pub fn with_payload(request: &RequestHeader, payload: impl Into<Buffer>) -> Self {
        Self { payload: payload.into(), ..Self::new(request, Status::Success) }
    }

    /// Success, with a VDI's number.
    #[must_use]
    pub fn with_vdi(request: &RequestHeader, fields: &VdiReply) -> Self {
        let bare = Self::new(request, Status::Success);
        Self { header: bare.header.with_vdi(fields), ..bare }
    }
}

/// Whether requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// They are.
    Running,
    /// The cluster was shut down by request.
    Shutdown,
    /// This node was told to stop.
    Killed,
}

/// A node that is a cluster by itself.
#[derive(Debug)]
pub struct Sheep {
    /// The objects.
    pub store: Arc<Store>,
    /// The VDIs.
    pub table: Table,
    /// What clients did wrong.
    pub rules: Rules,
    /// Changes not yet answered.
    pub inflight: Inflight,
    /// Which life of a client changed what.
    pub lives: Lives,
    /// Who is in the cluster.
    pub members: Arc<Members>,
    /// What was received.
    pub counters: Counters,
    /// Who may step in.
    pub hooks: Arc<dyn Hooks>,
    node: Node,
    references: Arc<References>,
    state_file: StateFile,
    format: RwLock<Option<Format>>,
    phase: AtomicU8,
}

impl Sheep {
    /// Opens the node that keeps its objects in `dir` and is reached at `address`.
    ///
    /// # Errors
    /// What the file system says; `InvalidData` for a state file that can't be read.
    pub fn open(
        dir: &Path,
        address: SocketAddr,
        open_max: usize,
        hooks: Arc<dyn Hooks>,
    ) -> io::Result<Self> {
        let store = Arc::new(Store::open(&dir.join("objects"), open_max)?);
        let state_file = StateFile::new(dir);
        let space = space(dir)?.1;
        let node = Node { id: NodeId::new(address), nr_vnodes: VNODES, zone: zone(address), space };
        let format = state_file.load()?;
        let members = Arc::new(Members::new(node));
        format.iter().for_each(|format| members.format(format.seconds()));
        let sheep = Self {
            references: Arc::new(References::new(Arc::clone(&store))),
            table: Table::default(),
            rules: Rules::default(),
            inflight: Inflight::default(),
            lives: Lives::default(),
            counters: Counters::default(),
            node,
            members,
            format: RwLock::new(format),
            state_file,
            phase: AtomicU8::new(Phase::Running as u8),
            store,
            hooks,
        };
        sheep.load_table()?;
        Ok(sheep)
    }

    /// What the cluster was formatted with, if it was.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        *self.format.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Formats the cluster: all that was in it is gone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_format(&self, format: Format) -> io::Result<()> {
        let _operation = self.table.operation();
        self.table.clear();
        self.store.clear()?;
        self.state_file.save(&format)?;
        *self.format.write().unwrap_or_else(PoisonError::into_inner) = Some(format);
        self.lives.clear();
        self.members.format(format.seconds());
        info!(copies = format.copies, "formatted");
        Ok(())
    }

    /// The node that a request came to: this one, or the gateway through which it came.
    #[must_use]
    pub fn node_of(&self, request: &Incoming) -> NodeId {
        request.origin.gateway().map_or(self.node.id, NodeId::new)
    }

    /// The node that the gateway at `address` is. Its zone is its own, so that replicas would go
    /// to all; its space is that of the objects, which all gateways share.
    #[must_use]
    pub fn gateway_node(&self, address: SocketAddr) -> Node {
        Node { id: NodeId::new(address), zone: address.port().into(), ..self.node }
    }

    /// Bytes in all and bytes free of the file system that holds the objects.
    ///
    /// # Errors
    /// What the file system says.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        space(self.store.dir())
    }

    /// Whether requests are served.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Running,
            1 => Phase::Shutdown,
            _ => Phase::Killed,
        }
    }

    /// Stops serving; what runs is finished. The first reason stays.
    pub fn stop(&self, phase: Phase) {
        let running = Phase::Running as u8;
        let relaxed = Ordering::Relaxed;
        let _ = self.phase.compare_exchange(running, phase as u8, relaxed, relaxed);
    }

    /// Gives references up, now or when the hooks like.
    pub fn give_up(&self, references: Vec<Reference>) {
        if references.is_empty() {
            return;
        }
        match self.hooks.put_off_reclaim(references.len()) {
            None => self.references.drop_all(&references),
            Some(delay) => {
                let hooks = Arc::clone(&self.hooks);
                self.references.drop_after(references, move || hooks.pass(delay));
            }
        }
    }

    /// Gives a reference up at once, whatever the hooks like.
    pub fn give_up_now(&self, reference: Reference) {
        self.references.drop_all(&[reference]);
    }

    /// Counts a broken rule.
    pub fn broken(&self, rule: Rule, request: &Incoming) {
        self.rules.broken(rule, &request.header);
    }

    /// Reads an inode's header.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn read_header(&self, vid: VdiId) -> io::Result<InodeHeader> {
        let mut bytes = [0; INODE_HEADER_LEN];
        self.store.read(ObjectId::inode(vid), 0, &mut bytes)?;
        InodeHeader::decode(&bytes).map_err(io::Error::other)
    }

    fn load_table(&self) -> io::Result<()> {
        let inodes = self.store.list()?.into_iter();
        let inodes = inodes.filter(|oid| oid.kind() == ObjectKind::Inode);
        for vid in inodes.filter_map(|oid| VdiId::new(oid.vid_raw())) {
            self.table.insert(vid, self.read_header(vid)?);
        }
        self.undo_torn_snapshots()
    }

    /// A snapshot writes the new working inode first and freezes the old one then. Where a death
    /// came between, both are working; the new one was never answered, so it goes.
    fn undo_torn_snapshots(&self) -> io::Result<()> {
        for vdi in self.table.all() {
            let header = vdi.meta().header.clone();
            let parent = self.table.get(header.parent_vdi_id);
            let torn = parent.is_some_and(|parent| {
                let parent = &parent.meta().header;
                parent.name == header.name && !parent.is_snapshot() && !header.is_snapshot()
            });
            if torn && !header.name.is_empty() {
                info!(vid = %vdi.vid(), "removing the new inode of a snapshot that was not finished");
                self.store.remove(ObjectId::inode(vdi.vid()))?;
                self.table.remove(vdi.vid());
            }
        }
        Ok(())
    }

    /// Reads a whole inode.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn load_inode(&self, vid: VdiId) -> io::Result<InodeImage> {
        InodeImage::load(&self.store, ObjectId::inode(vid))
    }
}

impl Controlled for Sheep {
    fn subject(&self) -> Subject<'_> {
        Subject { counters: &self.counters, sheep: Some(self) }
    }
}

/// The status that tells of a failure of the store.
pub fn status_of(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::NotFound => Status::NoObj,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Status::NoSpace,
        io::ErrorKind::OutOfMemory => Status::NoMem,
        _ => {
            error!("the store failed: {error}");
            Status::Eio
        }
    }
}

/// The zone a real sheep takes when none is chosen: its address.
fn zone(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(address) => u32::from_le_bytes(address.ip().octets()),
        SocketAddr::V6(_) => 0,
    }
}

fn space(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = statvfs(dir)?;
    Ok((stat.blocks() * stat.fragment_size(), stat.blocks_available() * stat.fragment_size()))
}

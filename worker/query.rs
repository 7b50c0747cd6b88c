//! Reports for the control files, asked natively: the requests that `dog` sends
//! for the same texts (protocol 20), pipelined.

use crate::context::Context;
use crate::engine::Waiter;
use crate::frame::Reply;
use crate::vdis::{VdiAnswer, VdiScan};
use crate::verdict::{Verdict, on_lookup};
use sheepfs::ipc::message::REPORT_CHUNK_LEN;
use sheepfs::ipc::{Failure, FromWorker, Query, Report, Tag};
use sheepfs::text::report::{ClusterReport, NodeReport, SpaceReport, StoreSpace};
use sheepfs::wire::cluster::{EpochRecord, Node, decode_nodes};
use sheepfs::wire::{Request, Status};
use std::time::{Duration, Instant};

/// The most nodes an epoch record may need room for.
const EPOCH_NODES_MAX: u32 = 6144;

/// How often the supervisor is told that a long query goes on.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);

/// Which of a query's questions a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The node list.
    Nodes,
    /// How many epochs there are.
    EpochCount,
    /// The epochs, with room for so many nodes in each.
    Epochs(u32),
    /// The space of the node of that number.
    Space(usize),
    /// Something about the VDIs.
    Vdis(VdiAnswer),
    /// The vid of a name.
    Vid,
}

/// How a step ended.
pub enum Progress {
    /// Answers are still to come.
    Going,
    /// The report.
    Done(Report),
    /// It can't be had.
    Failed(Failure),
    /// The sheep says that it is going.
    SheepGone,
}

/// Says now and then that something goes on.
#[derive(Debug)]
pub struct Sign {
    /// When the supervisor last heard of it.
    given: Instant,
}

impl Sign {
    /// The supervisor knows that it begins.
    pub fn new(now: Instant) -> Self {
        Self { given: now }
    }

    /// There was an answer.
    pub fn give(&mut self, tag: Tag, io: &mut Context<Waiter>) {
        if io.now.duration_since(self.given) >= SIGN_INTERVAL {
            self.given = io.now;
            io.out.push(FromWorker::ReportChunk { tag, last: false, bytes: Vec::new() });
        }
    }
}

/// A query under way.
#[derive(Debug)]
pub struct QueryRun {
    tag: Tag,
    query: Query,
    nodes: Vec<Node>,
    nodes_done: bool,
    spaces: Vec<Option<StoreSpace>>,
    spaces_left: usize,
    epochs: u32,
    vdis: Option<VdiScan>,
    vdis_done: bool,
    sign: Sign,
}

impl QueryRun {
    /// Begins; asks the first questions.
    pub fn begin(tag: Tag, query: Query, io: &mut Context<Waiter>) -> Self {
        let mut run = Self {
            tag,
            query,
            nodes: Vec::new(),
            nodes_done: false,
            spaces: Vec::new(),
            spaces_left: 0,
            epochs: 0,
            vdis: None,
            vdis_done: true,
            sign: Sign::new(io.now),
        };
        match query {
            Query::Cluster => run.ask(Request::stat_cluster(1, 0), Part::EpochCount, io),
            Query::Nodes | Query::Totals => run.ask(Request::get_node_list(), Part::Nodes, io),
            Query::Space => {
                run.ask(Request::get_node_list(), Part::Nodes, io);
                run.scan_vdis(false, io);
            }
            Query::Vdis => run.scan_vdis(true, io),
        }
        run
    }

    /// The request that asked for it.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    fn ask(&self, request: Request, part: Part, io: &mut Context<Waiter>) {
        io.send(request, None, Waiter::Query(self.tag, part));
    }

    fn scan_vdis(&mut self, with_usage: bool, io: &mut Context<Waiter>) {
        self.vdis_done = false;
        self.vdis = Some(VdiScan::begin(self.tag, with_usage, io));
    }

    /// Takes an answer, and says now and then that there was one.
    pub fn reply(&mut self, part: Part, reply: &Reply, io: &mut Context<Waiter>) -> Progress {
        self.sign.give(self.tag, io);
        match part {
            Part::EpochCount => self.epoch_count(reply, io),
            Part::Epochs(room) => self.epochs(room, reply, io),
            Part::Nodes => self.node_list(reply, io),
            Part::Space(node) => self.space(node, reply),
            Part::Vdis(answer) => self.vdis(answer, reply, io),
            Part::Vid => Progress::Failed(Failure::BadAnswer),
        }
    }

    /// The state of the cluster is the result code, so any code may carry a
    /// report (protocol 15.4).
    fn epoch_count(&mut self, reply: &Reply, io: &mut Context<Waiter>) -> Progress {
        if reply.bytes.is_empty() {
            return cluster_report(reply.status, Vec::new());
        }
        self.epochs = reply.header.epoch;
        self.ask(Request::get_node_list(), Part::Nodes, io);
        Progress::Going
    }

    fn epochs(&mut self, room: u32, reply: &Reply, io: &mut Context<Waiter>) -> Progress {
        if reply.status == Status::BufferSmall && room < EPOCH_NODES_MAX {
            return self.ask_epochs(2 * room, io);
        }
        match EpochRecord::decode_all(&reply.bytes, room) {
            Ok(epochs) => cluster_report(reply.status, epochs),
            Err(_) => Progress::Failed(Failure::BadAnswer),
        }
    }

    fn ask_epochs(&self, room: u32, io: &mut Context<Waiter>) -> Progress {
        let room = room.clamp(1, EPOCH_NODES_MAX);
        self.ask(Request::stat_cluster(self.epochs, room), Part::Epochs(room), io);
        Progress::Going
    }

    fn node_list(&mut self, reply: &Reply, io: &mut Context<Waiter>) -> Progress {
        if let Some(end) = refused(reply.status) {
            return end;
        }
        match decode_nodes(&reply.bytes, reply.header.node().nr_nodes) {
            Ok(nodes) => self.nodes = nodes,
            Err(_) => return Progress::Failed(Failure::BadAnswer),
        }
        self.nodes_done = true;
        match self.query {
            Query::Nodes => {
                Progress::Done(Report::Nodes(NodeReport { nodes: std::mem::take(&mut self.nodes) }))
            }
            Query::Cluster => {
                self.ask_epochs(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX), io)
            }
            Query::Space | Query::Totals => self.ask_spaces(io),
            Query::Vdis => Progress::Going,
        }
    }

    /// Asks every node at its own address (protocol 15.6).
    fn ask_spaces(&mut self, io: &mut Context<Waiter>) -> Progress {
        self.spaces = vec![None; self.nodes.len()];
        for (number, node) in self.nodes.iter().enumerate() {
            let asked = io.wire.ask_node(node.id.socket_addr(), Request::stat_sheep(), io.now);
            if let Some(id) = asked {
                io.waiters.insert(id, Waiter::Query(self.tag, Part::Space(number)));
                self.spaces_left += 1;
            }
        }
        self.space_report()
    }

    fn space(&mut self, node: usize, reply: &Reply) -> Progress {
        self.spaces_left -= 1;
        if reply.status.is_success()
            && let Some(space) = self.spaces.get_mut(node)
        {
            *space = Some(reply.header.node().into());
        }
        self.space_report()
    }

    fn space_report(&mut self) -> Progress {
        if self.spaces_left > 0 || !self.vdis_done || !self.nodes_done {
            return Progress::Going;
        }
        let answered = self.spaces.iter().flatten();
        Progress::Done(match self.query {
            Query::Totals => Report::Totals {
                size: answered.clone().map(|space| space.size).fold(0, u64::saturating_add),
                free: answered.map(|space| space.free).fold(0, u64::saturating_add),
            },
            Query::Space | Query::Cluster | Query::Nodes | Query::Vdis => {
                let virtual_bytes = self.vdis.as_ref().map_or(0, VdiScan::virtual_bytes);
                Report::Space(SpaceReport {
                    nodes: std::mem::take(&mut self.spaces),
                    virtual_bytes,
                })
            }
        })
    }

    fn vdis(&mut self, answer: VdiAnswer, reply: &Reply, io: &mut Context<Waiter>) -> Progress {
        let Some(scan) = &mut self.vdis else { return Progress::Failed(Failure::BadAnswer) };
        match scan.reply(answer, reply, io) {
            Ok(false) => Progress::Going,
            Ok(true) if self.query == Query::Vdis => Progress::Done(Report::Vdis(scan.take())),
            Ok(true) => {
                self.vdis_done = true;
                self.space_report()
            }
            Err(failure) => Progress::Failed(failure),
        }
    }
}

fn cluster_report(status: Status, epochs: Vec<EpochRecord>) -> Progress {
    Progress::Done(Report::Cluster(ClusterReport { status: status.code(), epochs }))
}

/// How a query ends when one of its questions was refused.
pub fn refused(status: Status) -> Option<Progress> {
    match on_lookup(status) {
        Verdict::Done => None,
        Verdict::SheepGone => Some(Progress::SheepGone),
        Verdict::Fail(failure) => Some(Progress::Failed(failure)),
        Verdict::Retry | Verdict::Reload | Verdict::Recheck => {
            Some(Progress::Failed(Failure::Refused(status.code())))
        }
    }
}

/// Puts a report into messages.
pub fn send_report(tag: Tag, report: &Report, out: &mut Vec<FromWorker>) {
    let Ok(bytes) = report.encode() else {
        return out.push(FromWorker::Done { tag, outcome: Err(Failure::BadAnswer) });
    };
    let mut rest = bytes.as_slice();
    loop {
        let (chunk, tail) = rest.split_at(rest.len().min(REPORT_CHUNK_LEN));
        let last = tail.is_empty();
        out.push(FromWorker::ReportChunk { tag, last, bytes: chunk.to_vec() });
        if last {
            return;
        }
        rest = tail;
    }
}

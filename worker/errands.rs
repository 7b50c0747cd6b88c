//! What a session asks for itself, beside the requests of volumes: probes of its
//! own sheep, the node list, the counters of watched gateways. The decisions are in
//! [`crate::detection`], [`crate::members`], [`crate::watch`] and
//! [`crate::departure`]; this carries them out.

use crate::alias::{OwnAddresses, listed_as};
use crate::departure::{self, Ask, Departure};
use crate::detection::Detector;
use crate::frame::Reply;
use crate::members::Membership;
use crate::sheep::{Hold, Loss, Sheep};
use crate::watch::{ANSWER_MAX, Heard, Question, Watch};
use sheepfs::ipc::message::{MEMBERS_MAX, WATCHED_MAX};
use sheepfs::ipc::{Arena, ClusterFacts, FromWorker, LostReason, QuietReason, Route};
use sheepfs::wire::Request;
use sheepfs::wire::cluster::{active_requests, decode_nodes, have_disks};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tracing::{debug, info};

/// What a session is told at its beginning.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sheep.
    pub sheep: SocketAddr,
    /// How long a request may make no progress.
    pub io_timeout: Duration,
    /// Number of the session.
    pub generation: u64,
    /// Gateways on which requests of earlier workers may still run.
    pub watch: Vec<SocketAddr>,
    /// Gateways of sessions that ended lately: while one is dead and the cluster does not
    /// know, changes wait.
    pub left: Vec<SocketAddr>,
    /// Whom objects are asked of.
    pub route: Route,
    /// Connections at most.
    pub connections_max: u32,
    /// Nodes that are not to be asked directly, for so many milliseconds.
    pub avoid: Vec<(SocketAddr, u32)>,
}

/// What a reply is for.
#[derive(Clone, Copy, Debug)]
enum Errand {
    Probe,
    /// Whether a node that is asked directly lives.
    ProbeNode(SocketAddr),
    Members,
    /// Whether a gateway that was left lives.
    Left(SocketAddr),
    Stat(Question),
}

/// What the errands act through.
pub struct Around<'a> {
    /// The connections.
    pub sheep: &'a mut Sheep,
    /// Messages to the supervisor, in order.
    pub out: &'a mut Vec<FromWorker>,
    /// The shared memory.
    pub arena: &'a Arena,
    /// Replies of nodes that were given up.
    pub late: &'a mut Vec<Reply>,
    /// The time.
    pub now: Instant,
}

/// All errands of a session.
#[derive(Debug)]
pub struct Errands {
    home: SocketAddr,
    detector: Detector,
    membership: Membership,
    watch: Watch,
    departure: Departure,
    /// The gateways that were left, as they are asked, and as the cluster has listed them.
    left: Vec<(SocketAddr, Option<SocketAddr>)>,
    /// Of the nodes that are asked directly.
    detectors: HashMap<SocketAddr, Detector>,
    io_timeout: Duration,
    /// Whether objects are placed by disks, in a way that is not known here.
    is_disk_mode: bool,
    under_way: HashMap<u32, Errand>,
}

impl Errands {
    /// The errands of a session that begins.
    pub fn new(plan: &Plan, cluster: &ClusterFacts, now: Instant) -> Self {
        let watched = plan.watch.iter().copied().take(WATCHED_MAX);
        let left = plan.left.iter().copied().filter(|left| *left != plan.sheep);
        let seed = plan.generation ^ u64::from(std::process::id()) << 32;
        Self {
            home: plan.sheep,
            detector: Detector::new(plan.io_timeout),
            membership: Membership::new(cluster.epoch),
            watch: Watch::new(plan.sheep, watched, seed, now),
            departure: Departure::new(left.clone().take(WATCHED_MAX), now),
            left: left.take(WATCHED_MAX).map(|gateway| (gateway, None)).collect(),
            detectors: HashMap::new(),
            io_timeout: plan.io_timeout,
            is_disk_mode: cluster.disk_mode,
            under_way: HashMap::new(),
        }
    }

    /// Whether the supervisor is not told of the session yet.
    pub fn is_opening(&self, now: Instant) -> bool {
        self.watch.is_opening(now)
    }

    /// Whether nothing of earlier workers can change the cluster any more, neither on a
    /// gateway that was left nor where a dead one had handed it to.
    pub fn are_orphans_over(&self, now: Instant) -> bool {
        self.watch.is_over(now) && !self.departure.holds()
    }

    /// What may not leave now.
    pub fn hold(&self, now: Instant) -> Hold {
        Hold { changes: self.departure.holds(), home: self.watch.holds(now) }
    }

    /// Takes a reply, if it is to a question of this session's own. `false`: it is
    /// for somebody else.
    ///
    /// # Errors
    /// Why the sheep is lost.
    pub fn reply(&mut self, reply: &Reply, around: &mut Around) -> Result<bool, Loss> {
        self.membership.note(reply.header.epoch);
        let Some(errand) = self.under_way.remove(&reply.id) else { return Ok(false) };
        match errand {
            Errand::Probe => self.probed(reply.lost, around)?,
            Errand::ProbeNode(node) => self.node_probed(node, reply.lost, around)?,
            Errand::Members => self.members(reply, around),
            Errand::Left(left) => {
                let refused = reply.lost == Some(LostReason::Refused);
                self.departure.answered(left, refused, around.now);
            }
            Errand::Stat(question) => self.counted(question, heard(reply), around),
        }
        Ok(true)
    }

    /// Takes a time step.
    ///
    /// # Errors
    /// Why the sheep is lost.
    pub fn tick(&mut self, around: &mut Around) -> Result<(), Loss> {
        let now = around.now;
        self.membership.note_newer(around.sheep.newest_epoch());
        if !self.is_opening(now) && self.membership.ask(now) {
            self.ask_members(around);
        }
        let asked = self.departure.tick(now);
        self.ask_of_departure(asked, around);
        let mut questions = Vec::new();
        self.watch.tick(now, around.sheep.is_quiet(), &mut questions);
        for question in questions {
            self.ask(question, around);
        }
        if self.watch.is_empty() {
            around.sheep.note_quiet(None);
        }
        around.sheep.arrange(now);
        self.look_at_nodes(around)?;
        if self.detector.is_due(now) && self.detector.look(now, &around.sheep.stalled()) {
            return self.probe(around);
        }
        Ok(())
    }

    /// Requests were given to the sheep.
    pub fn note_sent(&mut self, sheep: &Sheep, now: Instant) {
        if !sheep.is_idle() || !self.under_way.is_empty() {
            self.detector.wake(now);
        }
        for node in sheep.busy_nodes() {
            let new = || Detector::new(self.io_timeout);
            self.detectors.entry(node).or_insert_with(new).wake(now);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let members = self.membership.wake_at().filter(|_| !self.is_opening(now));
        let (watch, departure) = (self.watch.next_deadline(now), self.departure.next_deadline());
        let nodes = self.detectors.values().filter_map(Detector::next_deadline).min();
        let own = self.detector.next_deadline();
        [own, members, watch, departure, nodes].into_iter().flatten().min()
    }

    /// Looks whether requests make progress at nodes that are asked directly.
    fn look_at_nodes(&mut self, around: &mut Around) -> Result<(), Loss> {
        let now = around.now;
        let due: Vec<SocketAddr> = self
            .detectors
            .iter()
            .filter(|(_, detector)| detector.is_due(now))
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            let stalled = around.sheep.stalled_at(node);
            let Some(detector) = self.detectors.get_mut(&node) else { continue };
            if stalled.is_empty() {
                self.detectors.remove(&node);
            } else if detector.look(now, &stalled) {
                let until = now + detector.probe_time();
                match around.sheep.ask_node(node, Request::get_cluster_default(), until, now) {
                    Ok(id) => drop(self.under_way.insert(id, Errand::ProbeNode(node))),
                    Err(why) => self.node_probed(node, Some(why), around)?,
                }
            }
        }
        Ok(())
    }

    fn node_probed(
        &mut self,
        node: SocketAddr,
        lost: Option<LostReason>,
        around: &mut Around,
    ) -> Result<(), Loss> {
        let (now, stalled) = (around.now, around.sheep.stalled_at(node));
        let Some(detector) = self.detectors.get_mut(&node) else { return Ok(()) };
        match lost.map(|why| detector.unanswered(why, now, &stalled)) {
            None => detector.answered(now, &stalled),
            Some(Ok(())) => {}
            Some(Err(why)) => {
                self.detectors.remove(&node);
                around.sheep.give_up(node, why, around.arena, now, around.late)?;
            }
        }
        Ok(())
    }

    fn probe(&mut self, around: &mut Around) -> Result<(), Loss> {
        let now = around.now;
        let until = now + self.detector.probe_time();
        let question = Request::get_cluster_default();
        match around.sheep.ask_node(self.home, question, until, now) {
            Ok(id) => drop(self.under_way.insert(id, Errand::Probe)),
            Err(why) => self.probed(Some(why), around)?,
        }
        Ok(())
    }

    fn probed(&mut self, lost: Option<LostReason>, around: &mut Around) -> Result<(), Loss> {
        let (now, stalled) = (around.now, around.sheep.stalled());
        match lost {
            None => {
                self.detector.answered(now, &stalled);
                Ok(())
            }
            Some(why) => {
                let outcome = self.detector.unanswered(why, now, &stalled);
                outcome.map_err(|reason| around.sheep.home_lost(reason))
            }
        }
    }

    fn members(&mut self, reply: &Reply, around: &mut Around) {
        let nodes = decode_nodes(&reply.bytes, reply.header.node().nr_nodes);
        let (true, Ok(nodes)) = (reply.status.is_success(), nodes) else {
            debug!(status = ?reply.status, "the node list could not be read");
            self.membership.answered(None);
            self.departure.listed(None, around.now);
            return;
        };
        let epoch = reply.header.epoch;
        let is_news = self.membership.answered(Some(epoch));
        let addresses: Vec<_> = nodes.iter().map(|node| node.id.socket_addr()).collect();
        let own = OwnAddresses::default();
        let home = listed_as(self.home, &addresses, |ip| own.contain(ip));
        if is_news {
            let by_disks =
                self.is_disk_mode || have_disks(reply.bytes.len(), reply.header.node().nr_nodes);
            let placed = Some(&*nodes).filter(|_| !by_disks);
            around.sheep.learn(epoch, placed, home, around.now);
        }
        self.left_and_watched(epoch, &addresses, (home, &own), around);
        if is_news {
            let nodes = addresses.into_iter().take(MEMBERS_MAX).collect();
            around.out.push(FromWorker::Members { epoch, nodes });
        }
    }

    /// What the list says of the sheep that was left, and of those that are watched, which
    /// may be known by other addresses.
    fn left_and_watched(
        &mut self,
        epoch: u32,
        nodes: &[SocketAddr],
        (home, own): (Option<SocketAddr>, &OwnAddresses),
        around: &mut Around,
    ) {
        let find = |asked| listed_as(asked, nodes, |ip| own.contain(ip));
        for (asked, listed) in &mut self.left {
            *listed = listed.or_else(|| find(*asked));
        }
        let is_there = |listed: Option<SocketAddr>| listed.is_some_and(|at| nodes.contains(&at));
        let there = self.left.iter().filter(|(_, listed)| is_there(*listed));
        let as_asked: Vec<_> = there.map(|(asked, _)| *asked).collect();
        let asked = self.departure.listed(Some((epoch, &as_asked)), around.now);
        self.ask_of_departure(asked, around);
        for gateway in self.watch.members(nodes, home, find) {
            quiet(gateway, QuietReason::NotMember, around);
        }
        for (gateway, listed) in self.watch.listed() {
            around.sheep.watched_as(gateway, listed);
        }
    }

    fn ask_members(&mut self, around: &mut Around) {
        let id = around.sheep.ask(Request::get_node_list(), around.now);
        self.under_way.insert(id, Errand::Members);
    }

    fn ask_of_departure(&mut self, ask: Ask, around: &mut Around) {
        let now = around.now;
        match ask {
            Ask::Nothing => {}
            Ask::Members => self.ask_members(around),
            Ask::Left(all) => {
                for left in all {
                    let (question, until) =
                        (Request::get_cluster_default(), now + departure::ANSWER_MAX);
                    match around.sheep.ask_node(left, question, until, now) {
                        Ok(id) => drop(self.under_way.insert(id, Errand::Left(left))),
                        Err(why) => self.departure.answered(left, why == LostReason::Refused, now),
                    }
                }
            }
        }
    }

    fn ask(&mut self, question: Question, around: &mut Around) {
        let now = around.now;
        let asked = if question.home && question.gateway == self.home {
            Ok(around.sheep.ask(Request::stat(), now))
        } else {
            around.sheep.ask_node(question.gateway, Request::stat(), now + ANSWER_MAX, now)
        };
        match asked {
            Ok(id) => drop(self.under_way.insert(id, Errand::Stat(question))),
            Err(why) => self.counted(question, Heard::Lost(why), around),
        }
    }

    fn counted(&mut self, question: Question, heard: Heard, around: &mut Around) {
        if let Some(how) = self.watch.answered(question, heard, around.now) {
            quiet(question.gateway, how, around);
        }
    }
}

fn quiet(gateway: SocketAddr, how: QuietReason, around: &mut Around) {
    info!(sheep = %gateway, ?how, "no request of an earlier worker runs there any more");
    around.sheep.note_quiet(Some(gateway));
    around.out.push(FromWorker::Quiet { gateway, how });
}

fn heard(reply: &Reply) -> Heard {
    match (reply.lost, active_requests(&reply.bytes)) {
        (Some(why), _) => Heard::Lost(why),
        (None, Ok(active)) if reply.status.is_success() => Heard::Active(active),
        (None, _) => Heard::Nonsense,
    }
}

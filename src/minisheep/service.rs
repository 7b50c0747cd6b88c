//! From a connection to the sheep and back: the life of a request.
//!
//! A connection's thread receives requests and puts them in the queue; a pool of workers carries
//! them out, several of one connection at once, and answers in the order in which they are done.
//! Where only one small request has arrived, and nobody steps in, its connection's thread does it
//! at once: handing it over would take longer.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{debug, warn};

use super::connection::{Connection, Received};
use super::dispatch;
use super::gateway::Notice;
use super::hooks::{After, Before, Delay, Fate};
use super::inflight::{Change, Ticket};
use super::lives::Life;
use super::members::Membership;
use super::objects::STRIPE_LEN;
use super::queue::Queue;
use super::sheep::{Answer, Incoming, Phase, Sheep};
use super::state::now;
use crate::wire::oid::ObjectKind;
use crate::wire::{ObjectId, Opcode, Status};

/// Workers; fewer than a real sheep's 32, more than any disk needs.
const WORKERS: usize = 16;
/// Requests that wait for a worker, over all connections.
const QUEUE_LEN: usize = 1024;
/// A larger request is left to the pool.
const AT_ONCE_LEN_MAX: u32 = 64 << 10;
/// How long to wait after the system had no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often to look again whether all is done; there is a notification too.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// A running server.
#[derive(Debug)]
pub struct Service {
    sheep: Arc<Sheep>,
    queue: Queue<Job>,
    busy: AtomicUsize,
    idle: Mutex<()>,
    changed: Condvar,
}

/// A request on its way.
#[derive(Debug)]
struct Job {
    connection: Arc<Connection>,
    request: Incoming,
    ticket: Option<Ticket>,
}

impl Service {
    /// Starts the workers.
    ///
    /// # Errors
    /// When the system has no room for threads.
    pub fn start(sheep: Arc<Sheep>) -> io::Result<Arc<Self>> {
        let service = Arc::new(Self {
            sheep,
            queue: Queue::new(QUEUE_LEN),
            busy: AtomicUsize::new(0),
            idle: Mutex::new(()),
            changed: Condvar::new(),
        });
        for number in 0..WORKERS {
            let this = Arc::clone(&service);
            let builder = thread::Builder::new().name(format!("worker-{number}"));
            builder.spawn(move || {
                loop {
                    this.run(this.queue.pop());
                }
            })?;
        }
        Ok(service)
    }

    /// Accepts connections for as long as the process lives.
    pub fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept().and_then(|(stream, _)| self.serve(stream));
            if let Err(error) = accepted {
                warn!("could not take a connection: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }

    /// Stops serving.
    pub fn stop(&self, phase: Phase) {
        self.sheep.stop(phase);
        self.changed.notify_all();
    }

    /// Waits until somebody stops the service and all that runs is answered.
    pub fn wait(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while self.sheep.phase() == Phase::Running || self.busy.load(Ordering::Acquire) > 0 {
            if self.sheep.phase() != Phase::Running {
                self.sheep.hooks.let_go();
            }
            let waited = self.changed.wait_timeout(idle, DRAIN_PAUSE);
            idle = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn serve(self: &Arc<Self>, stream: TcpStream) -> io::Result<()> {
        let connection = Arc::new(Connection::new(stream)?);
        let this = Arc::clone(self);
        thread::Builder::new().name("connection".into()).spawn(move || {
            this.receive(&connection);
            connection.close();
        })?;
        Ok(())
    }

    fn receive(self: &Arc<Self>, connection: &Arc<Connection>) {
        let mut receiver = connection.receiver();
        let mut membership = None;
        loop {
            match receiver.wait() {
                Received::Request(request) => {
                    if let Some(notice) = Notice::of(&request.header) {
                        self.heed(connection, &request, notice, &mut membership);
                        continue;
                    }
                    let job = self.job(connection, request);
                    if !receiver.has_more() && self.goes_at_once(&job) {
                        self.run(job);
                    } else {
                        self.queue.push(job);
                    }
                }
                Received::End => return,
                // A gateway that dies in the middle is not its client's fault.
                Received::Malformed if connection.origin().gateway().is_some() => return,
                Received::Malformed => return self.sheep.rules.broken_frame(),
            }
        }
    }

    /// Does what a gateway's notice asks for. A membership lasts as long as its connection.
    fn heed(
        &self,
        connection: &Connection,
        request: &Incoming,
        notice: Notice,
        membership: &mut Option<Membership>,
    ) {
        match notice {
            Notice::Member(address) => {
                *membership = Some(self.join(address));
                let answer = Answer::new(&request.header, Status::Success);
                connection.send(&self.completed(answer));
            }
            Notice::Client(address) => connection.origin().is_behind(address),
            Notice::Gone => connection.origin().leave(),
            Notice::Frame => self.sheep.rules.broken_frame(),
        }
    }

    fn join(&self, address: SocketAddr) -> Membership {
        self.sheep.members.join(self.sheep.gateway_node(address), now() >> 32)
    }

    fn job(&self, connection: &Arc<Connection>, request: Incoming) -> Job {
        self.busy.fetch_add(1, Ordering::AcqRel);
        let header = request.header;
        self.sheep.counters.begin(header.opcode);
        let ticket = Change::of(&header).map(|change| {
            let oid = ObjectId::from_raw(header.obj().oid);
            let change = if self.is_coded(oid) { change.in_stripes(STRIPE_LEN) } else { change };
            let (life, origin) = (Life::of(&header), connection.origin());
            let (ticket, broken) = self.sheep.inflight.begin(oid, change, life, origin);
            if let Some(rule) = broken {
                self.sheep.rules.broken(rule, &header);
            }
            ticket
        });
        Job { connection: Arc::clone(connection), request, ticket }
    }

    /// Whether it is a data object of an erasure-coded VDI.
    fn is_coded(&self, oid: ObjectId) -> bool {
        let vdi = (oid.kind() == ObjectKind::Data).then(|| self.sheep.table.get(oid.vid_raw()));
        vdi.flatten().is_some_and(|vdi| vdi.meta().header.is_erasure_coded())
    }

    fn goes_at_once(&self, job: &Job) -> bool {
        let header = &job.request.header;
        let small = header.data_length <= AT_ONCE_LEN_MAX;
        let quick = [Opcode::ReadObj.code(), Opcode::WriteObj.code()].contains(&header.opcode);
        small && quick && !self.sheep.hooks.are_active()
    }

    fn run(self: &Arc<Self>, job: Job) {
        match self.sheep.hooks.before(Some(&*self.sheep), &job.request.header) {
            Before::Go => self.carry_out(job),
            Before::Delay(delay) => self.later(delay, move |this| this.carry_out(job)),
            Before::Hold(place) => self.hold(place, job, |this, job| this.carry_out(job)),
            Before::Drop => {
                self.abandon(&job);
                job.connection.close();
            }
            Before::Answer(status) => {
                let answer = Answer::new(&job.request.header, status);
                self.send(&job, answer);
            }
        }
    }

    fn carry_out(self: &Arc<Self>, job: Job) {
        let answer = dispatch::answer(&self.sheep, &job.request);
        debug!(opcode = job.request.header.opcode, status = ?answer.header.status, "answered");
        match self.sheep.hooks.after(&job.request.header) {
            After::Send => self.send(&job, answer),
            After::Delay(delay) => self.later(delay, move |this| this.send(&job, answer)),
            After::Hold(place) => self.hold(place, job, |this, job| this.send(&job, answer)),
            After::Drop => {
                self.abandon(&job);
                job.connection.close();
            }
            After::Swap(limit) => {
                self.end(&job);
                job.connection.send_after_next(self.completed(answer), limit);
                self.done();
            }
        }
    }

    /// A change ends before its answer leaves, or the client's next one would seem too early.
    fn send(&self, job: &Job, answer: Answer) {
        self.end(job);
        job.connection.send(&self.completed(answer));
        self.done();
    }

    fn completed(&self, mut answer: Answer) -> Answer {
        answer.header.epoch = self.sheep.members.epoch();
        answer.header.data_length = u32::try_from(answer.payload.len()).unwrap_or(u32::MAX);
        answer
    }

    /// Holds a job until somebody decides.
    fn hold(
        self: &Arc<Self>,
        place: u64,
        job: Job,
        then: impl FnOnce(&Arc<Self>, Job) + Send + 'static,
    ) {
        let this = Arc::clone(self);
        let held = move |fate| match fate {
            Fate::Goes => then(&this, job),
            Fate::Forgotten => this.abandon(&job),
        };
        self.sheep.hooks.hold(place, Box::new(held));
    }

    /// Nothing more becomes of a job.
    fn abandon(&self, job: &Job) {
        self.end(job);
        self.done();
    }

    fn end(&self, job: &Job) {
        self.sheep.counters.end(job.request.header.opcode);
        if let Some(ticket) = &job.ticket {
            self.sheep.inflight.end(ticket);
        }
    }

    fn done(&self) {
        self.busy.fetch_sub(1, Ordering::AcqRel);
        if self.sheep.phase() != Phase::Running {
            self.changed.notify_all();
        }
    }

    fn later(self: &Arc<Self>, delay: Delay, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let this = Arc::clone(self);
        thread::spawn(move || {
            this.sheep.hooks.pass(delay);
            then(&this);
        });
    }
}

//! What the shell does for a successor: it saves the state, and has the manager keep
//! it with the device. And what it tells the manager besides.

use super::{Parked, Parts, Shell};
use crate::background;
use crate::control::{Answer, Control, Effect, Input, Leave, Wishes};
use crate::exit::Failed;
use crate::fence::Object;
use crate::fs::SheepFs;
use crate::handles::number_of;
use crate::mount::Mount;
use crate::notify::{Manager, StoredName};
use crate::residence;
use crate::session::{self, Session};
use crate::state::{Saved, SavedControl, SavedMount, SavedProcess, SavedVolume, State};
use crate::succession::Legacy;
use crate::uniques;
use fuser::RequestId;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the manager may take to carry out what it was told.
pub(super) const BARRIER_TIME: Duration = Duration::from_secs(5);
/// How often it is told how we are, at most.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How much time a stop is said to need from now on, again and again.
const EXTEND_BY: Duration = Duration::from_secs(30);
/// So many answers to control writes are remembered, in case the kernel asks again.
const ANSWERS_MAX: usize = 64;

/// What is kept, and who is told.
#[derive(Debug)]
pub struct Keep {
    mount: Option<SavedMount>,
    device: Option<OwnedFd>,
    /// Whether the manager has both.
    is_kept: bool,
    answered: VecDeque<(u64, i32)>,
    takeovers: u64,
    /// How often the manager must hear that we are alive.
    watchdog: Option<Duration>,
    tell_at: Option<Instant>,
    status: String,
}

impl Keep {
    /// Nothing is kept yet.
    pub fn new(manager: Option<&Manager>) -> Self {
        Self {
            mount: None,
            device: None,
            is_kept: false,
            answered: VecDeque::new(),
            takeovers: 0,
            watchdog: manager.and_then(Manager::watchdog_interval),
            tell_at: manager.map(|_| Instant::now()),
            status: String::new(),
        }
    }

    /// When the manager is to be told something.
    pub fn deadline(&self) -> Option<Instant> {
        self.tell_at.filter(|_| self.mount.is_some())
    }
}

impl Shell {
    /// Goes on where a predecessor was ended, with what it left. The mount is known to
    /// be there.
    ///
    /// # Errors
    /// When the mount can't be served. Nothing was asked of the kernel then.
    pub fn take_over(
        parts: Parts,
        wishes: Wishes,
        saved: Saved,
        Legacy { mount, saved: saved_mount, device }: Legacy,
        own_sheep: bool,
    ) -> Result<Self, Failed> {
        let now = Instant::now();
        let Saved { control, fences, names, answered, takeovers, swaps, .. } = saved;
        let (session, repairing) = (control.gateways(), repairing(&control));
        let shared = Arc::clone(&parts.shared);
        let control =
            Control::taking_over(shared, wishes, control, (own_sheep, parts.fence_time), now);
        let mut shell = Self::with(parts, control);
        for (name, volume) in names {
            shell.data.volume_attached(volume, name);
        }
        shell.data.take_over(&fences, session, &repairing, now);
        shell.keep.answered = answered.into();
        shell.keep.takeovers = takeovers + 1;
        {
            let mut known = shell.parts.shared.known();
            (known.takeovers, known.swaps) = (shell.keep.takeovers, swaps);
        }
        let filesystem = shell.filesystem();
        let resumed = Session::resume(&device, &saved_mount.handshake, filesystem)?;
        let point = mount.point().display().to_string();
        tracing::info!(point, takeovers = shell.keep.takeovers, "took over the mount");
        // The manager has both still, since it gave them.
        shell.keep.is_kept = shell.parts.manager.is_some();
        shell.serve(resumed, saved_mount, &mount, device)?;
        shell.mount = Some(Arc::new(mount));
        Ok(shell)
    }

    /// Serves a mount, and has it kept. From here on nothing of it is lost with us.
    pub(super) fn serve(
        &mut self,
        session: Session<SheepFs>,
        saved: SavedMount,
        mount: &Mount,
        device: OwnedFd,
    ) -> Result<(), Failed> {
        self.raise_read_ahead(mount);
        let has_resend = self.parts.may_resend && saved.handshake.has_resend();
        self.keep.mount = Some(saved);
        self.keep.device = Some(device);
        self.save();
        if !self.keep.is_kept {
            self.have_it_kept();
        }
        self.ask_again(&session, has_resend);
        self.notifier = Some(session.notifier());
        let events = self.parts.events.clone();
        residence::keep_resident(session::THREADS as u64, || session.serve(events))?;
        tracing::info!(point = %mount.point().display(), "mounted");
        if self.parts.in_background
            // First, since `$(sheepfs …)` waits for whoever has its pipe open.
            && let Err(error) = background::let_go()
        {
            tracing::warn!("{error}");
        }
        self.say_serving();
        Ok(())
    }

    /// Nothing but speed is lost without it, and only by who reads through the page cache.
    fn raise_read_ahead(&self, mount: &Mount) {
        match mount.raise_read_ahead() {
            Err(error) if self.parts.shared.page_cache() => {
                tracing::warn!(
                    errno = error.errno(),
                    "the kernel reads ahead less through the page cache than it could: {error}"
                );
            }
            Err(error) => tracing::debug!(errno = error.errno(), "{error}"),
            Ok(()) => {}
        }
    }

    /// What was read and not answered comes again, or, where the kernel can't, fails:
    /// nobody would answer it otherwise.
    fn ask_again(&self, session: &Session<SheepFs>, has_resend: bool) {
        if !has_resend {
            tracing::warn!(
                "this kernel can't deliver requests again; those that are in flight when sheepfs \
                 dies fail with an input/output error"
            );
            let left = uniques::left(&mut self.parts.state.uniques());
            self.uniques.record(self.parts.state.uniques());
            let failed = left.into_iter().filter(|unique| session.fail(*unique).is_ok()).count();
            if failed > 0 {
                tracing::error!(
                    failed,
                    "requests of the process before fail with an input/output error"
                );
            }
        } else if let Err(errno) = session.resend() {
            tracing::error!(%errno, "asking the kernel for unanswered requests failed");
        }
    }

    /// Writes down what a successor must know.
    pub(super) fn save(&self) {
        self.parts.state.save(&Saved {
            mount: self.keep.mount.clone(),
            control: self.control.saved(),
            fences: self.data.saved_fences(),
            workers: self.processes(),
            names: self.data.fenced_names(),
            answered: self.keep.answered.iter().copied().collect(),
            takeovers: self.keep.takeovers,
            swaps: self.parts.shared.known().swaps,
        });
    }

    fn processes(&self) -> Vec<SavedProcess> {
        let mut processes = self.parts.workers.saved();
        processes.extend(self.parts.minisheep);
        processes
    }

    /// The state first: a device without one is of no use.
    fn have_it_kept(&mut self) {
        let (Some(manager), Some(device)) = (&self.parts.manager, &self.keep.device) else {
            return tracing::info!(
                "nobody keeps the mount: when this process dies, the mount is lost"
            );
        };
        let kept = manager
            .store(StoredName::State, self.parts.state.as_fd())
            .and_then(|()| manager.store(StoredName::Device, device.as_fd()))
            .and_then(|()| manager.barrier(BARRIER_TIME));
        self.keep.is_kept = kept.is_ok();
        if let Err(cause) = kept {
            tracing::error!(%cause, "the service manager does not keep the mount; it is lost when this process dies");
        }
    }

    /// The mount has ended, so nothing must be kept.
    pub(super) fn keep_nothing(&mut self) {
        self.keep.mount = None;
        self.keep.device = None;
        if let Some(manager) = &self.parts.manager {
            manager.remove(StoredName::Device);
            manager.remove(StoredName::State);
            if let Err(cause) = manager.barrier(BARRIER_TIME) {
                tracing::warn!(%cause, "the service manager may keep what is of no use now");
            }
        }
    }

    /// Tells the manager that the loop turns, and how we are.
    pub(super) fn tell_manager(&mut self, now: Instant) {
        let Some(manager) = &self.parts.manager else { return };
        if self.keep.deadline().is_none_or(|at| at > now) {
            return;
        }
        manager.alive();
        if self.control.awaits_drained() || self.control.awaits_leave() {
            manager.extend_timeout(EXTEND_BY);
        }
        let status = self.status_line();
        if status != self.keep.status {
            manager.status(&status);
            self.keep.status = status;
        }
        let every = self.keep.watchdog.map_or(STATUS_EVERY, |every| every.min(STATUS_EVERY));
        self.keep.tell_at = Some(now + every);
    }

    fn status_line(&self) -> String {
        let (sheep, worker) = {
            let known = self.parts.shared.known();
            (known.sheep, known.worker)
        };
        let (volumes, in_flight) = (self.parts.shared.volumes().count(), self.data.in_flight());
        format!(
            "sheep {sheep} ({}), {volumes} volumes, {in_flight} requests in flight",
            worker.word()
        )
    }

    /// Notes how control writes are about to be answered.
    pub(super) fn note_answers(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Answered { number, errno } = effect {
                self.note_answer(*number, *errno);
            }
            let Effect::Answer(caller, answer) = effect else { continue };
            let Some((Parked::Write(_, _, request), _)) = self.parked.get(caller) else { continue };
            let errno = match answer {
                Answer::Refused(errno) => *errno as i32,
                Answer::Done | Answer::Text(_) | Answer::Space(_) | Answer::Census(_) => 0,
            };
            self.note_answer(number_of(*request), errno);
        }
    }

    fn note_answer(&mut self, number: u64, errno: i32) {
        if self.keep.answered.len() == ANSWERS_MAX {
            self.keep.answered.pop_front();
        }
        self.keep.answered.push_back((number, errno));
    }

    /// How a control write was answered already, that is delivered again.
    pub(super) fn answered_before(&self, request: RequestId) -> Option<Answer> {
        let number = number_of(request);
        if number == request.0 {
            return None;
        }
        let mut answered = self.keep.answered.iter().rev();
        let (_, errno) = answered.find(|(answered, _)| *answered == number)?;
        Some(match errno {
            0 => Answer::Done,
            errno => Answer::Refused(Errno::from_raw(*errno)),
        })
    }

    /// Somebody wants the mount left to a successor. Without anybody who would start one
    /// it would be lost.
    pub(super) fn may_leave(&self) -> Input {
        if self.keep.is_kept || self.keep.mount.is_none() {
            return Input::Leave(Leave::ToSuccessor);
        }
        tracing::error!("nobody keeps the mount for a successor, so it is not left");
        Input::Tick
    }

    /// The device and the state, to be handed on.
    pub(super) fn kept(&self) -> Option<(&OwnedFd, &State)> {
        Some((self.keep.device.as_ref()?, &self.parts.state))
    }

    /// Says that we serve, to whoever waits for that.
    pub(super) fn say_serving(&self) {
        if let Some(manager) = &self.parts.manager {
            manager.ready(&self.status_line());
        }
    }
}

/// What a worker may have been at when it died, beside the writes it was told of: index
/// entries that it was writing again, and the trees of hyper volumes, as nobody has read what
/// it said of them last.
fn repairing(saved: &SavedControl) -> Vec<Object> {
    let volumes = || saved.volumes.iter().chain(&saved.detaching);
    let entry = |volume: &SavedVolume| {
        let object = |block| Object { volume: volume.id, block };
        volume.repairing.map(object)
    };
    let grows = |volume: &&SavedVolume| volume.facts.hyper && !volume.facts.snapshot;
    let trees = volumes().filter(grows).map(|volume| Object::tree(volume.id));
    volumes().filter_map(entry).chain(trees).collect()
}

//! Planned failover: somebody wrote a sheep's address to `config/sheep_info`.
//!
//! ```text
//! Queued ──> Resolving ──> Checking, by the spare ──> Draining ──> Swapping ──> answered
//!   │ no such host │ no sheep, another cluster │                      │ no session there
//!   └──────────────┴───────────────────────────┴──────> refused <─────┘
//! ```
//!
//! Nothing is given up before the new sheep has answered and turned out to belong
//! to the same cluster. Then the old session drains: what the worker was told goes
//! on, nothing new goes to it, and what it does not end in time is replayed and
//! fenced like after any loss. One wish after the other, in the order in which
//! they were written. Without a session there is nothing to drain, and a wish only
//! says which candidate comes first.

mod check;

use super::cause::Cause;
use super::life::Life;
use super::waits::Caller;
use super::{Answer, Control, Effect, Refusal};
use crate::candidates::ResolveError;
use nix::errno::Errno;
use sheepfs::address::{DEFAULT_PORT, SheepAddress};
use sheepfs::ipc::{LostReason, Tag};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long looking up and checking may take together, and how long the new
/// session may take after the old one has ended.
const CHECK_TIME: Duration = Duration::from_secs(5);
const SWAP_TIME: Duration = Duration::from_secs(5);
/// How much longer than the I/O time-out the old session may drain.
const DRAIN_EXTRA: Duration = Duration::from_secs(2);
/// The most that are queued.
const QUEUE_MAX: usize = 64;
/// What failed, in messages.
const WHAT: &str = "fail over";

/// A sheep that somebody wishes for.
#[derive(Debug)]
struct Wish {
    caller: Caller,
    address: SheepAddress,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Others come first.
    Queued,
    /// Its host is looked up.
    Resolving { number: u64, deadline: Instant },
    /// Its first address is checked.
    Checking { left: VecDeque<SocketAddr>, asked: Option<Asked>, deadline: Instant },
    /// It would do; the old session, if there is one, comes to its end.
    Draining { sheep: SocketAddr, ctime: u64 },
    /// The next session shall be its.
    Swapping { sheep: SocketAddr, ctime: u64, deadline: Instant },
}

/// A question to the spare.
#[derive(Clone, Copy, Debug)]
struct Asked {
    tag: Tag,
    since: Instant,
}

/// All wishes; the first one is being fulfilled.
#[derive(Debug, Default)]
pub struct Queue {
    queue: VecDeque<Wish>,
    /// Counts questions to the resolver.
    number: u64,
}

impl Control {
    /// Somebody wrote that address.
    pub(super) fn wish(&mut self, address: SheepAddress, caller: Caller, now: Instant) {
        if self.wishes.queue.len() >= QUEUE_MAX {
            return self.refuse(WHAT, Refusal::TooMany, vec![caller], now);
        }
        self.wishes.queue.push_back(Wish { caller, address, stage: Stage::Queued });
    }

    /// Goes on with the first wish, and with the next when that one is answered.
    pub(super) fn tick_wishes(&mut self, now: Instant) {
        while let Some(wish) = self.wishes.queue.pop_front() {
            if let Some(wish) = self.go_on(wish, now) {
                self.wishes.queue.push_front(wish);
                break;
            }
        }
    }

    /// When the first wish is given up.
    pub(super) fn wish_deadline(&self) -> Option<Instant> {
        match self.wishes.queue.front()?.stage {
            Stage::Queued => None,
            Stage::Resolving { deadline, .. }
            | Stage::Checking { deadline, .. }
            | Stage::Swapping { deadline, .. } => Some(deadline),
            // The life of the worker has a deadline for that.
            Stage::Draining { .. } => None,
        }
    }

    /// The step that can be made now. `None`: the wish is answered.
    fn go_on(&mut self, wish: Wish, now: Instant) -> Option<Wish> {
        let Wish { caller, address, stage } = wish;
        let stage = match stage {
            Stage::Queued => {
                let stage = self.begin_wish(&address, now);
                return self.go_on(Wish { caller, address, stage }, now);
            }
            Stage::Resolving { deadline, .. } | Stage::Checking { deadline, .. }
                if deadline <= now =>
            {
                return self.refuse_wish(caller, &address, Refusal::SheepTimedOut, now);
            }
            stage @ Stage::Resolving { .. } => stage,
            Stage::Checking { left, asked, deadline } => {
                if self.is_served_by(&left) {
                    self.answer(caller, Answer::Done);
                    return None;
                }
                let asked = asked.or_else(|| self.ask_spare(left.front().copied(), now));
                Stage::Checking { left, asked, deadline }
            }
            Stage::Draining { sheep, ctime } => self.drain_for(sheep, ctime, now),
            // It has a session, so it is the one in use, however long its volumes take.
            Stage::Swapping { sheep, deadline, .. }
                if deadline <= now
                    && self.candidates.current() == sheep
                    && self.life.is_connected() =>
            {
                self.candidates.adopt(false);
                self.answer(caller, Answer::Done);
                return None;
            }
            Stage::Swapping { sheep, deadline, .. } if deadline <= now => {
                // It is tried no longer; the others, first the one before, are.
                if self.candidates.current() == sheep
                    && matches!(self.life, Life::Connecting { .. })
                {
                    self.lose(Cause::SheepLost(LostReason::Unreachable), now);
                }
                return self.refuse_wish(caller, &address, Refusal::SheepTimedOut, now);
            }
            stage @ Stage::Swapping { .. } => stage,
        };
        Some(Wish { caller, address, stage })
    }

    fn begin_wish(&mut self, address: &SheepAddress, now: Instant) -> Stage {
        let deadline = now + CHECK_TIME;
        let port = address.port.unwrap_or(DEFAULT_PORT);
        if let Some(ip) = address.ip() {
            let left = VecDeque::from([SocketAddr::new(ip, port)]);
            return Stage::Checking { left, asked: None, deadline };
        }
        self.wishes.number += 1;
        let number = self.wishes.number;
        self.effects.push(Effect::Resolve { number, address: address.clone(), port });
        Stage::Resolving { number, deadline }
    }

    /// The resolver has answered.
    pub(super) fn resolved(
        &mut self,
        answered: u64,
        found: Result<Vec<SocketAddr>, ResolveError>,
        now: Instant,
    ) {
        let Some(Wish { stage, .. }) = self.wishes.queue.front_mut() else { return };
        match (&*stage, found) {
            (Stage::Resolving { number, deadline }, Ok(found)) if *number == answered => {
                let deadline = *deadline;
                *stage = Stage::Checking { left: found.into(), asked: None, deadline };
            }
            (Stage::Resolving { number, .. }, Err(cause)) if *number == answered => {
                tracing::warn!(errno = Errno::EHOSTUNREACH as i32, "{cause}");
                self.refuse_first(Refusal::NoHost, now);
            }
            _ => {}
        }
    }

    /// Whether a session with such a cluster may be used: the one that is known,
    /// or the one that is wished for.
    pub(super) fn is_our_cluster(&self, sheep: SocketAddr, ctime: u64) -> bool {
        let wished = match self.wishes.queue.front() {
            Some(Wish { stage: Stage::Swapping { sheep: to, ctime, .. }, .. }) => {
                (*to == sheep).then_some(*ctime)
            }
            _ => None,
        };
        wished.or(self.cluster).is_none_or(|ours| ours == ctime)
    }

    /// Brings the old session to its end.
    fn drain_for(&mut self, sheep: SocketAddr, ctime: u64, now: Instant) -> Stage {
        let swapping = Stage::Swapping { sheep, ctime, deadline: now + SWAP_TIME };
        match self.life {
            Life::Serving { generation, since } => {
                tracing::info!(worker = generation, %sheep, "draining before a failover");
                let until = now + self.io_timeout + DRAIN_EXTRA;
                self.life = Life::Draining { generation, since, until };
                self.effects.push(Effect::HoldData);
                self.publish();
                return Stage::Draining { sheep, ctime };
            }
            Life::Draining { .. } => return Stage::Draining { sheep, ctime },
            // No data was told of; what it does by itself to volumes is fenced.
            Life::Connecting { .. } | Life::Resuming { .. }
                if self.candidates.current() != sheep =>
            {
                self.lose(Cause::Failover, now);
                self.candidates.prefer(sheep);
            }
            Life::Connecting { .. } | Life::Resuming { .. } => {}
            Life::Greeting { .. } | Life::Lost { .. } | Life::BackingOff { .. } => {
                self.candidates.prefer(sheep);
                self.hurry(now);
            }
            Life::Stopped => {}
        }
        self.publish();
        swapping
    }

    /// Whether [`super::Input::DataDrained`] is waited for.
    pub fn awaits_drain(&self) -> bool {
        matches!(self.life, Life::Draining { .. })
    }

    /// The old session is drained, or has had its time: it is left.
    pub(super) fn swap(&mut self, drained: bool, now: Instant) {
        if !self.awaits_drain() {
            return;
        }
        if !drained {
            tracing::warn!("the old session did not drain in time; its requests are replayed");
        }
        // Also a session that is drained is one that was: its last words count, and
        // whatever it began by itself since is fenced by the data path.
        self.lose(Cause::Failover, now);
    }

    /// The session that drains has ended, in whatever way. `true`: its end was
    /// waited for, so the sheep that is wished for comes next.
    pub(super) fn swap_begins(&mut self, now: Instant) -> bool {
        let Some(Wish { stage, .. }) = self.wishes.queue.front_mut() else { return false };
        let &mut Stage::Draining { sheep, ctime } = stage else { return false };
        if !matches!(self.life, Life::Draining { .. }) {
            return false;
        }
        *stage = Stage::Swapping { sheep, ctime, deadline: now + SWAP_TIME };
        self.candidates.prefer(sheep);
        true
    }

    /// A session serves: it may be the one that was wished for.
    pub(super) fn wish_served(&mut self) {
        let served = self.candidates.current();
        let first = self.wishes.queue.front().map(|wish| &wish.stage);
        if !matches!(first, Some(Stage::Swapping { sheep, .. }) if *sheep == served) {
            return;
        }
        self.candidates.adopt(false);
        if let Some(wish) = self.wishes.queue.pop_front() {
            self.answer(wish.caller, Answer::Done);
        }
    }

    /// There is no session with that sheep: it may be the one that was wished for.
    pub(super) fn wish_failed(&mut self, tried: SocketAddr, why: Refusal, now: Instant) {
        let first = self.wishes.queue.front().map(|wish| &wish.stage);
        if matches!(first, Some(Stage::Swapping { sheep, .. }) if *sheep == tried) {
            self.refuse_first(why, now);
        }
    }

    /// The mount ends: nobody gets what he wished for. What was held back for it
    /// must flow on.
    pub(super) fn end_wishes(&mut self, now: Instant) {
        self.swap(false, now);
        for wish in std::mem::take(&mut self.wishes.queue) {
            self.answer(wish.caller, Answer::Refused(Refusal::Stopping.errno()));
        }
    }

    fn set_stage(&mut self, new: Stage) {
        if let Some(Wish { stage, .. }) = self.wishes.queue.front_mut() {
            *stage = new;
        }
    }

    fn refuse_first(&mut self, why: Refusal, now: Instant) {
        if let Some(Wish { caller, address, .. }) = self.wishes.queue.pop_front() {
            self.refuse_wish(caller, &address, why, now);
        }
    }

    fn refuse_wish(
        &mut self,
        caller: Caller,
        address: &SheepAddress,
        why: Refusal,
        now: Instant,
    ) -> Option<Wish> {
        self.refuse(format!("{WHAT} to {address}").as_str(), why, vec![caller], now);
        None
    }
}

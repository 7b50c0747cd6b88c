//! Gateways on which requests of dead workers may still run, and the proof that
//! none does any more (hazards 1 to 3): the decisions, pure.
//!
//! ```text
//!  Resting ──> Emptying ──> First ──> Gap ──> Second ──> quiet
//!     ^           │           │        │        │
//!     └───────────┴───────────┴────────┴────────┘  something is active, or no answer
//! ```
//!
//! # Why two answers of 0 are a proof
//!
//! STAT's first word counts the object requests of clients that a sheep has taken
//! and not answered (protocol 15.8). A sheep counts a request up when its main loop
//! queues it and down when it is answered; one that is repeated because of a
//! membership change is queued again and counts on (read in its `request.c`). So
//! what matters is what is not queued yet when our question is:
//!
//! - The dead worker's connections had `SO_LINGER {1,0}`, so its death reset them, and
//!   the supervisor waited for that death before there was a watch. A reset throws
//!   away what the sheep has not read.
//! - The event of the reset stands before our question in the main loop's turn. The
//!   loop marks the connection dead there, and drops a request that a reading
//!   thread had just completed on it.
//! - A request that was queued before is counted.
//!
//! One answer would do if a reset took no time. The second, asked no earlier than
//! twice the round trip (and [`GAP_MIN`]) after the first, covers resets and last
//! segments that were still on their way, and the moment between a reading thread and
//! the main loop. Resets that the network loses are answered by the sheep's own
//! kernel only when it sends: that is what the repetition on a busy gateway and the
//! supervisor's fence time are for.
//!
//! A refused connection proves that the process which had read our requests is dead.
//! What it had already handed to other nodes may be under way there until the cluster
//! has noticed the death. So this alone lets no newer change go: changes wait besides
//! until the node list lacks each gateway of the lost session that refuses, which
//! [`crate::departure`] asks for itself, not only the one whose loss was reported. A
//! gateway that was a member and is none any more is out of the cluster; one that never was
//! under that address proves nothing, since it may be known under another.
//!
//! # What it cannot do
//!
//! Discards are carried out by another part of a sheep and are not counted, nor are
//! locks and look-ups; so an answer of 0 says nothing of those.
//!
//! The counter holds everybody's requests. Under load by others it may never be
//! seen at 0; then the fence falls back to time. Our own requests are kept away
//! from it: on the sheep of this session the question is asked only in a short window
//! in which nothing of ours is on the wire and nothing new leaves.

use sheepfs::ipc::message::WATCHED_MAX;
use sheepfs::ipc::{LostReason, QuietReason};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long another node may take to answer.
pub const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The least time between the two answers.
const GAP_MIN: Duration = Duration::from_millis(3);
/// How long a session waits for a proof before it takes requests.
const OPENING_MAX: Duration = Duration::from_millis(30);
/// How long a window waits for what is on the wire.
const EMPTYING_MAX: Duration = Duration::from_millis(20);
/// How long the first window waits for an answer, which holds I/O back for as long. When
/// it takes longer, as over a long way, the next one is so many times as patient, up to
/// [`ANSWER_MAX`], and comes after that many times what the last one took.
const HOME_ANSWER_MAX: Duration = Duration::from_millis(50);
const MORE_PATIENT: u32 = 4;
const REST_BETWEEN: u32 = 10;
/// For how long a gateway is watched: a little longer than any fence lasts that was
/// there when the session began.
const WATCH_MAX: Duration = Duration::from_secs(31);
/// Between windows on the sheep of this session: at first, and at most.
const HOME_REST: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];
/// Between tries on another gateway: at first, and at most.
const OTHER_REST: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// What a gateway was heard to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// So many requests are active.
    Active(u64),
    /// It answered something else.
    Nonsense,
    /// There is no connection.
    Lost(LostReason),
}

/// A question that is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whom.
    pub gateway: SocketAddr,
    /// Comes back with the answer.
    pub number: u64,
    /// Whether it is the sheep of this session.
    pub home: bool,
}

/// Where the proof for a gateway stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The next try is then.
    Resting(Instant),
    /// Nothing new leaves; what is on the wire is waited for, until then.
    Emptying(Instant),
    /// The first question was asked then.
    First(Instant),
    /// The first answer was 0; the second question is asked then.
    Gap(Instant),
    /// The second question was asked then.
    Second(Instant),
}

#[derive(Debug)]
struct Watched {
    home: bool,
    stage: Stage,
    rest: Duration,
    /// How long a window waits for an answer.
    patience: Duration,
    /// Of the question that was asked last: late answers to others are dropped.
    number: u64,
    /// Under which address a node list of this session had it.
    listed: Option<SocketAddr>,
    /// Whether a try came to its end.
    tried: bool,
}

/// All gateways that are watched.
#[derive(Debug)]
pub struct Watch {
    gateways: BTreeMap<SocketAddr, Watched>,
    opening_until: Instant,
    over_at: Instant,
    /// Whether there may be more gateways than are watched.
    crowded: bool,
    /// Turns of a wheel, so that many workers don't ask in step.
    jitter: u64,
}

impl Watch {
    /// Begins to watch `gateways`, in a session with `home`.
    pub fn new(
        home: SocketAddr,
        gateways: impl IntoIterator<Item = SocketAddr>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let watched = |gateway| Watched {
            home: gateway == home,
            stage: Stage::Resting(now),
            rest: if gateway == home { HOME_REST[0] } else { OTHER_REST[0] },
            patience: HOME_ANSWER_MAX,
            number: 0,
            listed: None,
            tried: false,
        };
        let gateways: BTreeMap<_, _> =
            gateways.into_iter().map(|gateway| (gateway, watched(gateway))).collect();
        let crowded = gateways.len() >= WATCHED_MAX;
        let (opening_until, over_at) = (now + OPENING_MAX, now + WATCH_MAX);
        Self { gateways, opening_until, over_at, crowded, jitter: seed }
    }

    /// Whether nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.gateways.is_empty()
    }

    /// Whether no request of an earlier worker is carried out any more, as far as can be
    /// known: nothing is watched, or no fence can be left.
    pub fn is_over(&self, now: Instant) -> bool {
        self.gateways.is_empty() && !self.crowded || self.over_at <= now
    }

    /// Whether requests should wait a moment: the proof for the sheep of this session
    /// is cheapest while nothing of ours is on the wire, and a gateway that is dead says
    /// so at once, so that nothing will have been fenced when requests come.
    pub fn is_opening(&self, now: Instant) -> bool {
        let worth_it = |watched: &Watched| watched.home || !watched.tried;
        now < self.opening_until && self.gateways.values().any(worth_it)
    }

    /// Whether nothing new may leave for the sheep.
    pub fn holds(&self, now: Instant) -> bool {
        let window =
            |watched: &Watched| watched.home && !matches!(watched.stage, Stage::Resting(_));
        self.is_opening(now) || self.gateways.values().any(window)
    }

    /// Takes a time step; `idle` says that nothing of ours is on the wire.
    pub fn tick(&mut self, now: Instant, idle: bool, questions: &mut Vec<Question>) {
        if self.over_at <= now {
            // Whatever fence there was has ended by time.
            self.gateways.clear();
        }
        let opening = self.is_opening(now);
        for (gateway, watched) in &mut self.gateways {
            if watched.step(now, idle, opening, &mut self.jitter) {
                let (number, home) = (watched.number, watched.home);
                questions.push(Question { gateway: *gateway, number, home });
            }
        }
    }

    /// Takes an answer. Something: the gateway is quiet, and watched no more.
    pub fn answered(
        &mut self,
        question: Question,
        heard: Heard,
        now: Instant,
    ) -> Option<QuietReason> {
        let opening = self.is_opening(now);
        let watched = self.gateways.get_mut(&question.gateway)?;
        if watched.number != question.number {
            return None;
        }
        let quiet = watched.hear(heard, opening, now, &mut self.jitter)?;
        self.gateways.remove(&question.gateway);
        Some(quiet)
    }

    /// Takes the cluster's node list, in which `home` is the sheep of this session; gives the
    /// gateways that have left it.
    pub fn members(
        &mut self,
        nodes: &[SocketAddr],
        home: Option<SocketAddr>,
        listed_as: impl Fn(SocketAddr) -> Option<SocketAddr>,
    ) -> Vec<SocketAddr> {
        let mut gone = Vec::new();
        for (gateway, watched) in &mut self.gateways {
            watched.listed = watched.listed.or_else(|| listed_as(*gateway));
            let Some(listed) = watched.listed else { continue };
            if home == Some(listed) && !watched.home {
                watched.is_home();
            }
            if !nodes.contains(&listed) && !watched.home {
                gone.push(*gateway);
            }
        }
        for gateway in &gone {
            self.gateways.remove(gateway);
        }
        gone
    }

    /// The gateways that are listed, with the addresses under which they are.
    pub fn listed(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let all = self.gateways.iter();
        all.filter_map(|(gateway, watched)| Some((*gateway, watched.listed?)))
    }

    /// When [`Self::tick`] has something to do, or the opening ends.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let opening = self.is_opening(now).then_some(self.opening_until);
        let over = (!self.is_over(now)).then_some(self.over_at);
        self.gateways.values().filter_map(Watched::deadline).chain(opening).chain(over).min()
    }
}

impl Watched {
    /// It is the sheep of this session, under another address. What was asked without a
    /// window says nothing.
    fn is_home(&mut self) {
        let (Stage::Resting(at)
        | Stage::Emptying(at)
        | Stage::First(at)
        | Stage::Gap(at)
        | Stage::Second(at)) = self.stage;
        (self.home, self.stage) = (true, Stage::Resting(at));
        self.number += 1;
    }

    /// `true`: a question is to be asked.
    fn step(&mut self, now: Instant, idle: bool, opening: bool, jitter: &mut u64) -> bool {
        if let Stage::Resting(at) = self.stage
            && at <= now
        {
            self.stage = Stage::Emptying(now + EMPTYING_MAX);
        }
        let clear = idle || !self.home;
        let asks = match self.stage {
            Stage::Emptying(_) if clear => Stage::First(now),
            Stage::Gap(at) if at <= now && clear => Stage::Second(now),
            Stage::Resting(_)
            | Stage::Emptying(_)
            | Stage::First(_)
            | Stage::Gap(_)
            | Stage::Second(_) => {
                if self.deadline().is_some_and(|at| at <= now) {
                    self.be_patient();
                    self.rest(now, opening, jitter);
                }
                return false;
            }
        };
        self.stage = asks;
        self.number += 1;
        true
    }

    fn hear(
        &mut self,
        heard: Heard,
        opening: bool,
        now: Instant,
        jitter: &mut u64,
    ) -> Option<QuietReason> {
        match (heard, self.stage) {
            (Heard::Lost(LostReason::Refused), _) if !self.home => return Some(QuietReason::Gone),
            (Heard::Active(0), Stage::First(asked)) => {
                let gap = GAP_MIN.max(2 * now.duration_since(asked));
                self.stage = Stage::Gap(now + gap);
            }
            (Heard::Active(0), Stage::Second(_)) => return Some(QuietReason::Drained),
            (Heard::Active(_) | Heard::Nonsense | Heard::Lost(_), _) => {
                self.rest(now, opening, jitter);
            }
        }
        None
    }

    /// It was no proof: later again. While the session opens, soon.
    fn rest(&mut self, now: Instant, opening: bool, jitter: &mut u64) {
        // A question that is still under way counts no more.
        self.number += 1;
        self.tried = true;
        if opening && self.home {
            self.stage = Stage::Resting(now + GAP_MIN);
            return;
        }
        let rest_max = if self.home { HOME_REST[1] } else { OTHER_REST[1] };
        *jitter = jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let spread = self.rest / 4 * u32::from(jitter.to_be_bytes()[0]) / 256;
        self.stage = Stage::Resting(now + self.rest + spread);
        self.rest = (2 * self.rest).min(rest_max);
    }

    /// A window has ended without an answer, which may take longer.
    fn be_patient(&mut self) {
        if matches!(self.stage, Stage::First(_) | Stage::Second(_)) {
            self.rest = self.rest.max(REST_BETWEEN * self.patience);
            self.patience = (MORE_PATIENT * self.patience).min(ANSWER_MAX);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Resting(at) | Stage::Emptying(at) | Stage::Gap(at) => Some(at),
            Stage::First(asked) | Stage::Second(asked) => self.home.then(|| asked + self.patience),
        }
    }
}

#[cfg(test)]
mod tests;

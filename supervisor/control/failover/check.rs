//! Looking at a sheep, through the spare worker, before anything is given up for
//! it.

use super::{Asked, Stage, Wish};
use crate::control::life::{Life, Spare};
use crate::control::{Control, Effect, Refusal};
use sheepfs::ipc::{ClusterFacts, LostReason, Tag, ToWorker};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

impl Control {
    /// Whether one of these is the sheep in use.
    pub(super) fn is_served_by(&self, addresses: &VecDeque<SocketAddr>) -> bool {
        matches!(self.life, Life::Serving { .. }) && addresses.contains(&self.candidates.current())
    }

    pub(super) fn ask_spare(&mut self, sheep: Option<SocketAddr>, now: Instant) -> Option<Asked> {
        let (Spare::Ready { generation, .. }, Some(sheep)) = (self.spare, sheep) else {
            return None;
        };
        let tag = self.waits.next_tag();
        self.effects.push(Effect::Send(generation, ToWorker::Check { tag, sheep }));
        Some(Asked { tag, since: now })
    }

    /// Whether a spare is needed to check something.
    pub(in crate::control) fn wish_wants_spare(&self) -> bool {
        matches!(self.wishes.queue.front(), Some(Wish { stage: Stage::Checking { .. }, .. }))
    }

    /// The spare that was asked is one no longer; the next one is asked again.
    pub(in crate::control) fn check_interrupted(&mut self) {
        if let Some(Wish { stage: Stage::Checking { asked, .. }, .. }) =
            self.wishes.queue.front_mut()
        {
            *asked = None;
        }
    }

    /// The spare has looked at a sheep.
    pub(in crate::control) fn checked(
        &mut self,
        tag: Tag,
        outcome: Result<ClusterFacts, LostReason>,
        now: Instant,
    ) {
        let Some(Wish { stage: Stage::Checking { left, asked, .. }, .. }) =
            self.wishes.queue.front_mut()
        else {
            return;
        };
        let Some(Asked { since, .. }) = asked.take_if(|asked| asked.tag == tag) else { return };
        let Some(sheep) = left.pop_front() else { return };
        let is_last = left.is_empty();
        let took = now.saturating_duration_since(since);
        let verdict = outcome
            .map_err(|reason| Refusal::of_sheep(reason, took))
            .and_then(|cluster| self.judge(cluster));
        match verdict {
            Ok(ctime) => self.set_stage(Stage::Draining { sheep, ctime }),
            Err(why) if is_last => self.refuse_first(why, now),
            // The host has another address.
            Err(_) => {}
        }
    }

    /// Whether a session there would be one with our cluster. Gives its time of
    /// creation.
    fn judge(&self, cluster: ClusterFacts) -> Result<u64, Refusal> {
        match cluster {
            ClusterFacts { ctime: 0, .. } => Err(Refusal::NotFormatted),
            ClusterFacts { running: false, .. } => Err(Refusal::NotRunning),
            ClusterFacts { ctime, .. } => match self.cluster {
                Some(ours) if ours != ctime && !self.nothing_is_left() => {
                    Err(Refusal::OtherCluster)
                }
                Some(_) | None => Ok(ctime),
            },
        }
    }

    /// Nobody uses the old cluster, and nobody there answers.
    fn nothing_is_left(&self) -> bool {
        !self.life.is_connected()
            && self.candidates.rounds_in_vain() > 0
            && self.volumes.count() == 0
            && !self.waits.any_volume()
    }
}

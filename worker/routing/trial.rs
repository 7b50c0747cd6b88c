//! What a node must say before it is asked for objects.

use crate::facts::{self, Heard};
use crate::frame::Reply;
use sheepfs::ipc::{ClusterFacts, LostReason};
use thiserror::Error;

/// Why a node is not asked directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// It can't be reached, or was lost.
    #[error("{}", .0.words())]
    Lost(LostReason),
    /// What answers there is of another cluster.
    #[error("what answers there belongs to another cluster")]
    OtherCluster,
    /// It does not serve.
    #[error("it does not serve now")]
    NotServing,
    /// It does not know yet what its cluster knows.
    #[error("it is behind its cluster")]
    Behind,
    /// It knows what home does not know yet.
    #[error("it is ahead of the sheep in use")]
    Ahead,
}

/// A node's answer to the question of [`facts::question`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// What it says of its cluster.
    pub said: Result<ClusterFacts, LostReason>,
    /// Its epoch, or 0.
    pub epoch: u32,
}

impl Trial {
    /// Takes an answer.
    pub fn of(reply: &Reply) -> Self {
        let said = match facts::hear(reply) {
            Heard::Facts(facts) => Ok(facts),
            Heard::Lost(why) => Err(why),
            // Only one that waits for others, or worse, says too little at first.
            Heard::Ask(_) => Ok(ClusterFacts::default()),
        };
        Self { said, epoch: said.map_or(0, |facts| facts.epoch) }
    }

    /// Whether that is a node of the cluster of that time, and is in the epoch that home is in.
    pub fn verdict(&self, ctime: u64, home: u32) -> Result<(), Unfit> {
        match self.said {
            Err(why) => Err(Unfit::Lost(why)),
            Ok(facts) if !facts.running => Err(Unfit::NotServing),
            Ok(facts) if facts.ctime != ctime => Err(Unfit::OtherCluster),
            Ok(facts) if facts.epoch < home => Err(Unfit::Behind),
            Ok(facts) if facts.epoch > home => Err(Unfit::Ahead),
            Ok(_) => Ok(()),
        }
    }
}

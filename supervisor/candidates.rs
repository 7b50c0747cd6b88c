//! Which sheep to try, and in which order: the addresses that the configured one
//! stands for, then the cluster's other nodes, as far as they were learnt while
//! it was up. Pure, but for the one function that asks the resolver.
//!
//! They are tried in rounds. A loss begins one, in the order that its cause asks
//! for; when all of a round were tried in vain there is a pause, which doubles,
//! and the next round. The other nodes come in a turn that begins anywhere, so
//! that the clients of a dead sheep spread over the living.

mod dice;

pub use dice::Dice;

use sheepfs::address::SheepAddress;
use sheepfs::ipc::message::MEMBERS_MAX;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;
use thiserror::Error;

/// The pause after a round in vain, at first and at most, before chance.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why there is no sheep to try.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// The resolver knows no such name, or did not answer.
    #[error("cannot look up the host {host}: {cause}")]
    LookUp {
        /// The host.
        host: String,
        /// Why.
        cause: io::Error,
    },
    /// The name exists and has no address.
    #[error("the host {0} has no address")]
    NoAddress(String),
}

/// How a round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// With the one that was in use.
    SameFirst,
    /// With the others; the one that was in use comes last.
    SameLast,
}

/// The addresses, which of them is in use or tried, and which come after it.
/// Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    configured: Vec<SocketAddr>,
    members: Vec<SocketAddr>,
    current: SocketAddr,
    /// What is still to be tried in this round.
    round: VecDeque<SocketAddr>,
    dice: Dice,
    pause: Duration,
    rounds_in_vain: u32,
}

impl Candidates {
    /// One address.
    pub fn one(address: SocketAddr) -> Self {
        Self {
            configured: vec![address],
            members: Vec::new(),
            current: address,
            round: VecDeque::new(),
            dice: Dice::new(1),
            pause: PAUSE_MIN,
            rounds_in_vain: 0,
        }
    }

    /// Several, unless there is none. The first round has them as they stand.
    pub fn several(addresses: impl IntoIterator<Item = SocketAddr>) -> Option<Self> {
        let mut addresses = addresses.into_iter();
        let mut several = Self::one(addresses.next()?);
        for address in addresses {
            if !several.configured.contains(&address) {
                several.configured.push(address);
            }
        }
        several.round = several.configured.iter().skip(1).copied().collect();
        Some(several)
    }

    /// As a predecessor of this process left them: the sheep that it used, what it
    /// was told besides, and the cluster's nodes.
    pub fn inherit(
        &mut self,
        sheep: SocketAddr,
        configured: &[SocketAddr],
        members: &[SocketAddr],
    ) {
        let ours = std::mem::replace(&mut self.configured, configured.to_vec());
        let is_new = |address: &SocketAddr| !configured.contains(address);
        self.configured.extend(ours.into_iter().filter(is_new));
        self.learn(members.to_vec());
        self.current = sheep;
        self.begin(Order::SameFirst);
    }

    /// What the user said, and the cluster's nodes, for a successor.
    pub fn known(&self) -> (&[SocketAddr], &[SocketAddr]) {
        (&self.configured, &self.members)
    }

    /// With that much chance.
    pub fn with_dice(self, dice: Dice) -> Self {
        Self { dice, ..self }
    }

    /// The one in use, or tried.
    pub fn current(&self) -> SocketAddr {
        self.current
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        let known = |address: &&SocketAddr| !self.configured.contains(address);
        self.configured.len() + self.members.iter().filter(known).count()
    }

    /// Takes note of the cluster's nodes. They are the worker's words: none is
    /// believed that can't be an address, and no more than there may be.
    pub fn learn(&mut self, nodes: Vec<SocketAddr>) {
        let is_address = |node: &SocketAddr| node.port() != 0 && oddity(node.ip()).is_none();
        self.members.clear();
        for node in nodes.into_iter().take(MEMBERS_MAX).filter(is_address) {
            if !self.members.contains(&node) {
                self.members.push(node);
            }
        }
    }

    /// Begins a round.
    pub fn begin(&mut self, order: Order) {
        let same = self.current;
        let mut round = self.all();
        round.retain(|address| *address != same);
        match order {
            Order::SameFirst => round.push_front(same),
            Order::SameLast => round.push_back(same),
        }
        self.take_up(round);
    }

    /// Begins a round with that one, and the one that was in use behind it.
    pub fn prefer(&mut self, address: SocketAddr) {
        let mut round = self.all();
        round.retain(|other| *other != address && *other != self.current);
        if self.current != address {
            round.push_front(self.current);
        }
        round.push_front(address);
        self.take_up(round);
    }

    /// Goes on to the next one. `false`: all of the round were tried in vain; the
    /// next round has begun, with the configured one.
    pub fn advance(&mut self) -> bool {
        if let Some(next) = self.round.pop_front() {
            self.current = next;
            return true;
        }
        self.rounds_in_vain = self.rounds_in_vain.saturating_add(1);
        let round = self.all();
        self.take_up(round);
        false
    }

    /// How many rounds were in vain since a sheep served.
    pub fn rounds_in_vain(&self) -> u32 {
        self.rounds_in_vain
    }

    /// How long to pause now. The next pause is twice as long.
    pub fn pause(&mut self) -> Duration {
        let pause = self.dice.about(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        pause
    }

    /// The one in use serves.
    pub fn served(&mut self) {
        self.rounds_in_vain = 0;
    }

    /// The one in use has served for some time: pauses are short again.
    pub fn calm(&mut self) {
        self.pause = PAUSE_MIN;
    }

    /// The one in use is the configured one from now on, and of another cluster if
    /// the nodes that were learnt are to be forgotten.
    pub fn adopt(&mut self, forget_others: bool) {
        let address = self.current;
        self.configured.retain(|other| *other != address && !forget_others);
        self.configured.insert(0, address);
        if forget_others {
            self.members.clear();
        }
    }

    /// All, the configured ones first.
    fn all(&mut self) -> VecDeque<SocketAddr> {
        let mut others: Vec<SocketAddr> = self.members.clone();
        others.retain(|member| !self.configured.contains(member));
        let first = self.dice.below(others.len());
        others.rotate_left(first);
        self.configured.iter().copied().chain(others).collect()
    }

    fn take_up(&mut self, mut round: VecDeque<SocketAddr>) {
        if let Some(first) = round.pop_front() {
            self.current = first;
        }
        self.round = round;
    }
}

/// Looks up what a user wrote; this waits. At least one address.
pub fn look_up(address: &SheepAddress, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let host = &address.host;
    let found = (host.as_str(), port)
        .to_socket_addrs()
        .map_err(|cause| ResolveError::LookUp { host: host.clone(), cause })?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err(ResolveError::NoAddress(host.clone())) } else { Ok(found) }
}

/// What is odd about an address, for a warning.
pub fn oddity(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("it stands for any address of this machine");
    }
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    (address.is_multicast() || broadcast).then_some("no single machine has it")
}

#[cfg(test)]
mod tests;

//! What the data path counts, for `config/status`.

/// How often what happened, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were told to a worker after an earlier one had been told.
    pub replayed: u64,
    /// Objects that were fenced.
    pub fenced: u64,
    /// Objects fenced now.
    pub fenced_now: u64,
    /// Requests that wait for a fence, another write, or their volume.
    pub held: u64,
    /// Fences released since the old gateway said that nothing is active.
    pub released_drained: u64,
    /// Fences released since the old gateway's process is gone.
    pub released_gone: u64,
    /// Fences released since the old gateway is no member any more.
    pub released_not_member: u64,
    /// Fences released by time.
    pub released_time: u64,
    /// Bytes of writes that wait in memory of our own.
    pub queued_bytes: u64,
    /// Writes that were taken in part only, since too many bytes waited.
    pub short_writes: u64,
    /// Requests that were answered with an error since they kill workers.
    pub poisoned: u64,
    /// The longest time that a request waited for its answer, in milliseconds.
    pub longest_stall_ms: u64,
}

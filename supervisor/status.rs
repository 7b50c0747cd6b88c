//! The text of `config/status`: one `key value` line for each fact, for people
//! and for scripts that watch a mount. Names stay what they are; new ones may come.

use crate::datapath::Counters;
use crate::settings::{Known, SpareState};
use crate::volumes::Volumes;
use sheepfs::ipc::VolumeFacts;
use std::fmt::Write;
use std::time::Instant;

/// How the data path fares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Data {
    /// How many requests the kernel waits for.
    pub in_flight: usize,
    /// What the data path counts.
    pub counters: Counters,
}

/// The text, from facts alone.
pub fn text(known: &Known, data: &Data, volumes: &Volumes, now: Instant) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a string never fails.
        let _ = writeln!(text, "{key} {value}");
    };
    line("sheep", &known.sheep);
    line("worker_generation", &known.generation);
    line("worker_state", &known.worker.word());
    line("worker_age_seconds", &now.saturating_duration_since(known.since).as_secs());
    line("spare", &spare_word(known.spare));
    line("takeovers", &known.takeovers);
    let swaps = &known.swaps;
    line("swaps_worker_died", &swaps.worker_died);
    line("swaps_worker_silent", &swaps.worker_silent);
    line("swaps_sheep_lost", &swaps.sheep_lost);
    line("swaps_sheep_silent", &swaps.sheep_silent);
    line("swaps_failover", &swaps.failover);
    for (key, value) in counted(&data.counters) {
        line(key, &value);
    }
    line("in_flight", &data.in_flight);
    line("epoch", &known.epoch);
    line("candidates", &known.candidates);
    line("volumes", &volumes.count());
    line("volumes_unlocked", &unlocked(volumes));
    line("cache_hits", &known.cache.hits);
    line("cache_misses", &known.cache.misses);
    line("cache_hit_percent", &percent(known.cache.hits, known.cache.misses));
    line("cache_bytes", &known.cache.bytes);
    line("route", &known.route);
    line("direct_nodes", &known.routed.nodes);
    line("routed_direct", &known.routed.direct);
    line("routed_gateway", &known.routed.gateway);
    line("routed_again", &known.routed.again);
    line("last_error", &one_line(known.last_error.as_deref().unwrap_or("none")));
    text
}

fn counted(counters: &Counters) -> [(&'static str, u64); 12] {
    [
        ("replayed", counters.replayed),
        ("fenced", counters.fenced),
        ("fenced_now", counters.fenced_now),
        ("held", counters.held),
        ("released_drained", counters.released_drained),
        ("released_gone", counters.released_gone),
        ("released_not_member", counters.released_not_member),
        ("released_time", counters.released_time),
        ("queued_bytes", counters.queued_bytes),
        ("short_writes", counters.short_writes),
        ("poisoned", counters.poisoned),
        ("longest_stall_ms", counters.longest_stall_ms),
    ]
}

/// Those that can be written, and whose lock is not ours.
fn unlocked(volumes: &Volumes) -> usize {
    let unlocked = |facts: &VolumeFacts| !facts.locked && !facts.snapshot;
    volumes.all().iter().filter(|volume| unlocked(&volume.facts())).count()
}

/// The worker's numbers may be any.
fn percent(hits: u64, misses: u64) -> u128 {
    u128::from(hits) * 100 / (u128::from(hits) + u128::from(misses)).max(1)
}

fn spare_word(state: SpareState) -> &'static str {
    match state {
        SpareState::None => "none",
        SpareState::Starting => "starting",
        SpareState::Ready => "ready",
    }
}

/// A name may hold any control character but a line break; a line stays a line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Swap;
    use crate::settings::WorkerState;
    use sheepfs::ipc::{CacheUsage, Route, Routed};
    use std::time::Duration;

    #[test]
    fn each_fact_is_a_line() {
        let mut known = Known::new("10.0.0.1:7000".parse().unwrap());
        known.generation = 3;
        known.worker = WorkerState::BackingOff;
        known.spare = SpareState::Ready;
        known.epoch = 9;
        known.candidates = 2;
        known.cache = CacheUsage { hits: 3, misses: 1, bytes: 8192 };
        known.route = Route::Gateway;
        known.routed = Routed { nodes: 3, direct: 40, gateway: 5, again: 1 };
        known.last_error = Some("attach\rdisk: gone".to_owned());
        for (swap, times) in [
            (Swap::WorkerDied, 1),
            (Swap::WorkerSilent, 2),
            (Swap::SheepLost, 3),
            (Swap::SheepSilent, 4),
            (Swap::Failover, 5),
        ] {
            (0..times).for_each(|_| known.count(swap));
        }
        let counters =
            Counters { replayed: 11, fenced: 12, longest_stall_ms: 22, ..Counters::default() };
        let data = Data { in_flight: 7, counters };
        let now = known.since + Duration::from_millis(61_999);
        let expected = "sheep 10.0.0.1:7000\nworker_generation 3\nworker_state backing_off\n\
                        worker_age_seconds 61\nspare ready\ntakeovers 0\n\
                        swaps_worker_died 1\nswaps_worker_silent 2\nswaps_sheep_lost 3\n\
                        swaps_sheep_silent 4\nswaps_failover 5\n\
                        replayed 11\nfenced 12\nfenced_now 0\nheld 0\nreleased_drained 0\n\
                        released_gone 0\nreleased_not_member 0\nreleased_time 0\nqueued_bytes 0\n\
                        short_writes 0\npoisoned 0\nlongest_stall_ms 22\n\
                        in_flight 7\nepoch 9\ncandidates 2\nvolumes 0\nvolumes_unlocked 0\n\
                        cache_hits 3\ncache_misses 1\ncache_hit_percent 75\ncache_bytes 8192\n\
                        route gateway\n\
                        direct_nodes 3\nrouted_direct 40\nrouted_gateway 5\nrouted_again 1\n\
                        last_error attach?disk: gone\n";
        assert_eq!(text(&known, &data, &Volumes::default(), now), expected);
    }
}

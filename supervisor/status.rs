//! The text of `config/status`: one `key value` line for each fact, for people
//! and for scripts that watch a mount.

use crate::settings::{Known, WorkerState};
use crate::volumes::Volumes;

/// The text, from facts alone.
pub fn text(known: &Known, volumes: &Volumes, in_flight: usize) -> String {
    let attached = volumes.all().len();
    let last_error = known.last_error.as_deref().unwrap_or("none");
    format!(
        "sheep {}\nworker_generation {}\nworker_state {}\nvolumes {attached}\nin_flight {in_flight}\nlast_error {}\n",
        known.sheep,
        known.generation,
        word(known.worker),
        one_line(last_error),
    )
}

fn word(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Starting => "starting",
        WorkerState::Attaching => "attaching",
        WorkerState::Serving => "serving",
        WorkerState::Waiting => "waiting",
        WorkerState::Stopped => "stopped",
    }
}

/// A name may hold any control character but a line break; a line stays a line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_is_a_line() {
        let known = Known {
            sheep: "10.0.0.1:7000".parse().unwrap(),
            generation: 3,
            worker: WorkerState::Waiting,
            last_error: Some("attach\rdisk: gone".to_owned()),
        };
        let text = text(&known, &Volumes::default(), 7);
        let expected = "sheep 10.0.0.1:7000\nworker_generation 3\nworker_state waiting\n\
                        volumes 0\nin_flight 7\nlast_error attach?disk: gone\n";
        assert_eq!(text, expected);
    }
}

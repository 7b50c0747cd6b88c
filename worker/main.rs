//! `sheepfs-worker`: speaks to a sheep for the supervisor.
fn main() {}

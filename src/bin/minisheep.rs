//! `minisheep`: a single-node sheep for trying and testing.
fn main() {}

//! How often a fault comes.

use std::env::{self, VarError};

const VARIABLE: &str = "SHEEPFS_FAULT_ROUNDS";

/// `full`, where the environment asks for full length, else `scaled`.
pub fn rounds(scaled: u64, full: u64) -> u64 {
    if is_full(env::var(VARIABLE)) { full } else { scaled }
}

/// # Panics
/// When the value is none that we know: a misspelt one must not pass for a full run.
fn is_full(value: Result<String, VarError>) -> bool {
    match value.as_deref() {
        Err(VarError::NotPresent) => false,
        Ok("full") => true,
        other => panic!("{VARIABLE} is full or not set, not {other:?}"),
    }
}

#[test]
fn full_length_is_asked_for_by_one_word() {
    assert!(is_full(Ok("full".to_owned())));
    assert!(!is_full(Err(VarError::NotPresent)));
}

#[test]
#[should_panic(expected = "full or not set")]
fn another_word_is_no_silent_short_run() {
    is_full(Ok("yes".to_owned()));
}

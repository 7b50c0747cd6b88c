//! What is logged: the filter of the start, and the file that may say otherwise.

use super::FILTER_VARIABLE;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// The most bytes of a filter, so that it fits into a message to the worker.
pub const FILTER_LEN_MAX: usize = 1024;

/// Why a filter is not used.
#[derive(Debug, Error)]
pub enum FilterError {
    /// Its file can't be read.
    #[error("cannot read the log filter from {path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It makes no sense.
    #[error(
        "the log filter \"{text}\" makes no sense: {cause}; a level is wanted, such as debug, or what tracing-subscriber calls directives"
    )]
    Nonsense {
        /// What it says.
        text: String,
        /// Why.
        cause: ParseError,
    },
    /// It is none.
    #[error("the log filter is empty, or longer than {FILTER_LEN_MAX} bytes")]
    Length,
}

impl FilterError {
    /// Says in the log what was not used, and what is instead.
    pub(super) fn say(&self) {
        let errno = match self {
            Self::Read { cause, .. } => cause.raw_os_error(),
            Self::Nonsense { .. } | Self::Length => None,
        };
        let filter = super::present_filter();
        tracing::warn!(errno, %filter, "{self}; what is logged stays as it is");
    }
}

/// What is logged.
#[derive(Clone, Debug)]
pub struct Filter {
    start: String,
    file: Option<PathBuf>,
    present: String,
}

impl Filter {
    /// What `RUST_LOG` says, or else life cycle and worse, with `debug` each request too; and
    /// what is in `file`, when it is read.
    #[must_use]
    pub fn new(debug: bool, file: Option<PathBuf>) -> Self {
        let said = std::env::var(FILTER_VARIABLE).ok().filter(|text| !text.trim().is_empty());
        let start = said.unwrap_or_else(|| if debug { "debug" } else { "info" }.to_owned());
        Self { present: start.clone(), start, file }
    }

    /// What is logged now.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.present
    }

    /// Reads the file; without one it is again as at the start.
    ///
    /// # Errors
    /// When what is there can't be used. Nothing has changed then.
    pub(super) fn read(&mut self) -> Result<(), FilterError> {
        match &self.file {
            None => self.present.clone_from(&self.start),
            Some(path) => self.present = checked(&read_start_of(path)?)?,
        }
        Ok(())
    }

    /// Takes that one.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn set(&mut self, text: &str) -> Result<(), FilterError> {
        self.present = checked(text)?;
        Ok(())
    }

    /// As `tracing` wants it. What makes no sense in `RUST_LOG` is left out of it.
    pub(super) fn build(&self) -> EnvFilter {
        let otherwise = LevelFilter::INFO.into();
        EnvFilter::builder().with_default_directive(otherwise).parse_lossy(&self.present)
    }
}

/// A little more than may be used: whatever the file is, it is not read to its end.
fn read_start_of(path: &Path) -> Result<String, FilterError> {
    let failed = |cause| FilterError::Read { path: path.to_owned(), cause };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    let most = u64::try_from(FILTER_LEN_MAX).unwrap_or(u64::MAX);
    file.take(most + 1).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn checked(text: &str) -> Result<String, FilterError> {
    if text.len() > FILTER_LEN_MAX || text.trim().is_empty() {
        return Err(FilterError::Length);
    }
    let text = text.trim().to_owned();
    match EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(cause) => Err(FilterError::Nonsense { text, cause }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn filter(file: Option<PathBuf>) -> Filter {
        Filter { start: "info".to_owned(), file, present: "info".to_owned() }
    }

    #[test]
    fn the_file_is_read_again_and_what_cannot_be_used_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("filter");
        let mut filter = filter(Some(path.clone()));
        let words = filter.read().unwrap_err().to_string();
        assert!(words.contains(path.to_str().unwrap()), "{words}");
        assert_eq!(filter.text(), "info");

        fs::write(&path, "debug\n").unwrap();
        filter.read().unwrap();
        assert_eq!(filter.text(), "debug");
        assert_eq!(filter.build().to_string(), "debug");

        for nonsense in ["loud=louder", "", " \n", &"a".repeat(FILTER_LEN_MAX + 1)] {
            fs::write(&path, nonsense).unwrap();
            filter.read().unwrap_err();
            assert_eq!(filter.text(), "debug");
        }
        fs::write(&path, "warn,sheepfs_worker=debug").unwrap();
        filter.read().unwrap();
        assert_eq!(filter.text(), "warn,sheepfs_worker=debug");
    }

    #[test]
    fn without_a_file_it_is_again_as_at_the_start() {
        let mut filter = filter(None);
        filter.set("debug").unwrap();
        assert_eq!(filter.text(), "debug");
        filter.read().unwrap();
        assert_eq!(filter.text(), "info");
    }

    #[test]
    fn a_word_that_is_no_level_is_taken_for_the_name_of_a_module() {
        // `tracing` has it so; `--help` and the manual say "level".
        let mut filter = filter(None);
        filter.set("sheepfs").unwrap();
        assert_eq!(filter.build().to_string(), "sheepfs=trace");
    }
}

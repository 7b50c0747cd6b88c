//! Where our other programs are: beside this one, as they are built and
//! installed, or else in the PATH.

use std::env;
use std::path::PathBuf;

/// What the kernel says behind the path of a program whose file was replaced.
const REPLACED: &str = " (deleted)";

/// Where this program is installed, even if that is another version by now.
pub fn own_path() -> PathBuf {
    let path = env::current_exe().unwrap_or_default();
    match path.to_str().and_then(|text| text.strip_suffix(REPLACED)) {
        Some(text) => PathBuf::from(text),
        None => path,
    }
}

/// The path of one of our programs, to be started.
pub fn path_of(name: &str) -> PathBuf {
    let beside = env::current_exe().ok().map(|ours| ours.with_file_name(name));
    match beside {
        Some(path) if path.is_file() => path,
        _ => PathBuf::from(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_beside_us_is_looked_for_in_the_path() {
        assert_eq!(path_of("no-such-program"), PathBuf::from("no-such-program"));
        let ours = env::current_exe().unwrap();
        let name = ours.file_name().unwrap().to_str().unwrap();
        assert_eq!(path_of(name), ours);
    }
}

//! What was written to a control file, and what it means.

use super::attempt::Attempt;
use super::waits::Caller;
use super::{Answer, Control, Refusal, line};
use crate::events::WritableFile;
use sheepfs::address::{AddressError, SheepAddress};
use sheepfs::ipc::route::NoRoute;
use sheepfs::ipc::{Route, ToWorker};
use sheepfs::wire::name::VolumeName;
use std::time::Instant;

/// Characters of a line that the words about it show at most.
const SHOWN_MAX: usize = 100;

impl Control {
    pub(super) fn control_write(
        &mut self,
        caller: Caller,
        (file, number): (WritableFile, u64),
        bytes: &[u8],
        now: Instant,
    ) {
        if self.is_ending() {
            return self.refuse(written(file, bytes), Refusal::Stopping, vec![caller], now);
        }
        let outcome = match file {
            WritableFile::Mount => VolumeName::parse(bytes)
                .map(|name| self.attach(name, vec![caller], now))
                .map_err(Refusal::Name),
            WritableFile::Unmount => VolumeName::parse(bytes)
                .map(|name| self.detach(name, caller, now))
                .map_err(Refusal::Name),
            WritableFile::PageCache => switch(bytes).map(|on| self.set_page_cache(on, caller)),
            WritableFile::ObjectCache => switch(bytes).map(|on| self.set_object_cache(on, caller)),
            WritableFile::Route => route(bytes).map(|route| self.set_route(route, caller)),
            WritableFile::SheepInfo => address(bytes).map(|sheep| self.wish(sheep, caller, now)),
            WritableFile::Life(file) => line::parse(file, bytes)
                .map(|errand| self.manage(errand, number, caller, now))
                .map_err(Refusal::Line),
        };
        if let Err(why) = outcome {
            self.refuse(written(file, bytes), why, vec![caller], now);
        }
    }

    fn set_page_cache(&mut self, on: bool, caller: Caller) {
        self.shared.set_page_cache(on);
        self.answer(caller, Answer::Done);
    }

    fn set_object_cache(&mut self, on: bool, caller: Caller) {
        self.cache_on = on;
        self.shared.set_object_cache(on);
        let cache_bytes = self.cache_bytes();
        self.send(ToWorker::SetCache { cache_bytes });
        self.answer(caller, Answer::Done);
    }

    /// The object cache that the worker should have; 0 is none.
    pub(super) fn cache_bytes(&self) -> u64 {
        if self.cache_on { self.cache_len } else { 0 }
    }
}

/// What somebody tried, with the beginning of the line, since a program may have written it.
fn written(file: WritableFile, line: &[u8]) -> Attempt {
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    let shown: String = line.chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < line.len() { "..." } else { "" };
    Attempt::from(format!("write {shown:?}{more} to {}", file.path()).as_str())
}

fn switch(bytes: &[u8]) -> Result<bool, Refusal> {
    match bytes.trim_ascii() {
        b"0" => Ok(false),
        b"1" => Ok(true),
        _ => Err(Refusal::Switch),
    }
}

fn route(bytes: &[u8]) -> Result<Route, Refusal> {
    let text = std::str::from_utf8(bytes.trim_ascii()).map_err(|_| NoRoute)?;
    Ok(text.parse::<Route>()?)
}

fn address(bytes: &[u8]) -> Result<SheepAddress, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| AddressError::Host)?;
    Ok(text.parse::<SheepAddress>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::LifeFile;

    /// Also what is no text, or would break the line of a log.
    #[test]
    fn what_was_written_is_shown_as_far_as_it_helps() {
        let shown = |line: &[u8]| written(WritableFile::Life(LifeFile::Create), line).what;
        assert_eq!(shown(b" my disk\n"), "write \"my disk\" to vdi/create");
        assert_eq!(shown(b"a\nb\xff\0"), "write \"a\\nb\u{fffd}\\0\" to vdi/create");
        let long = shown(&[b'x'; 4096]);
        assert_eq!(long, format!("write \"{}\"... to vdi/create", "x".repeat(100)));
        assert_eq!(written(WritableFile::Mount, b"").what, "write \"\" to vdi/mount");
    }

    #[test]
    fn a_route_takes_its_two_words_and_space_around_them() {
        assert_eq!(route(b" replica\n"), Ok(Route::Replica));
        assert_eq!(route(b"gateway"), Ok(Route::Gateway));
        for written in ["", "\n", "0", "direct", "replica gateway", "Gateway"] {
            assert_eq!(route(written.as_bytes()), Err(Refusal::Route(NoRoute)), "{written:?}");
        }
        assert_eq!(route(b"\xff"), Err(Refusal::Route(NoRoute)));
    }

    #[test]
    fn a_switch_takes_0_and_1_and_space_around_them() {
        for (written, on) in [("0", false), ("1\n", true), (" 0 \n", false), ("\t1", true)] {
            assert_eq!(switch(written.as_bytes()), Ok(on), "{written:?}");
        }
        for written in ["", "\n", "2", "01", "on", "1 1", "-1"] {
            assert_eq!(switch(written.as_bytes()), Err(Refusal::Switch), "{written:?}");
        }
    }
}

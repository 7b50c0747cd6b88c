//! What was found of the cluster's VDIs a moment ago, so that `ls -l vdi/tree` asks for all of
//! them once, and not for each of them.
//!
//! A list of all is believed for two seconds, or for ten times as long as it took to be read,
//! but no longer than ten; anything else for one. As long again, whoever asks for one that was
//! in the list has all read anew: so a walk through the tree that takes longer goes on by
//! whole lists, and a look at one VDI long after another costs one VDI. Then it is forgotten.
//!
//! What a file says is never taken from here, only that it is there.

use crate::census::Census;
use sheepfs::ipc::Search;
use sheepfs::wire::VdiId;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a list of all VDIs is believed at least.
const ALL_MIN: Duration = Duration::from_secs(2);
/// How long at most.
const ALL_MAX: Duration = Duration::from_secs(10);
/// So many times as long as it took.
const ALL_TIMES: u32 = 10;
/// How long anything else is believed.
const FEW_TIME: Duration = Duration::from_secs(1);
/// So many of those are kept.
const FEW_MAX: usize = 16;

/// What was found.
#[derive(Debug, Default)]
pub struct Catalog {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    all: Option<All>,
    few: VecDeque<Few>,
    /// Counts how often everything was forgotten.
    version: u64,
}

#[derive(Debug)]
struct All {
    census: Arc<Census>,
    fresh_until: Instant,
    forget_at: Instant,
}

#[derive(Debug)]
struct Few {
    search: Search,
    census: Arc<Census>,
    fresh_until: Instant,
}

impl Catalog {
    /// What answers a search, if that is known well enough. That something is not there is
    /// never known.
    pub fn find(&self, search: &Search, now: Instant) -> Option<Arc<Census>> {
        let kept = self.lock();
        let all = kept.all.as_ref().filter(|all| all.fresh_until > now);
        if let Some(all) = all.filter(|all| has(&all.census, search)) {
            return Some(Arc::clone(&all.census));
        }
        let answers = |few: &&Few| {
            // One VDI of a name says nothing of the others.
            let is_enough = match search {
                Search::All | Search::WithParent(_) | Search::WithUsage(_) => false,
                Search::Named(_) => matches!(few.search, Search::Named(_) | Search::FamilyOf(_)),
                Search::FamilyOf(_) => matches!(few.search, Search::FamilyOf(_)),
                Search::Vdi(_) => true,
            };
            few.fresh_until > now && is_enough && has(&few.census, search)
        };
        kept.few.iter().rev().find(answers).map(|few| Arc::clone(&few.census))
    }

    /// What is best asked for: all, when one of the last list is looked at soon after it.
    pub fn widen(&self, search: Search) -> Search {
        let kept = self.lock();
        match &kept.all {
            Some(all) if has(&all.census, &search) => Search::All,
            _ => search,
        }
    }

    /// To be handed to [`Catalog::keep`] with the answer to a search that begins now.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// Keeps an answer, to what was asked for at `asked`.
    pub fn keep(
        &self,
        search: Search,
        census: &Arc<Census>,
        version: u64,
        asked: Instant,
        now: Instant,
    ) {
        let mut kept = self.lock();
        if kept.version != version {
            return;
        }
        let census = Arc::clone(census);
        match search {
            Search::All => {
                let time =
                    (now.saturating_duration_since(asked) * ALL_TIMES).clamp(ALL_MIN, ALL_MAX);
                let (fresh_until, forget_at) = (now + time, now + 2 * time);
                kept.all = Some(All { census, fresh_until, forget_at });
            }
            Search::Named(_) | Search::FamilyOf(_) | Search::Vdi(_) => {
                kept.few.retain(|few| few.search != search);
                if kept.few.len() == FEW_MAX {
                    kept.few.pop_front();
                }
                kept.few.push_back(Few { search, census, fresh_until: now + FEW_TIME });
            }
            Search::WithParent(_) | Search::WithUsage(_) => {}
        }
    }

    /// VDIs were changed: whatever is known, or is being read, counts no more.
    pub fn forget(&self) {
        let mut kept = self.lock();
        let version = kept.version + 1;
        *kept = Kept { version, ..Kept::default() };
    }

    /// Lets go of what is too old.
    pub fn expire(&self, now: Instant) {
        let mut kept = self.lock();
        kept.all.take_if(|all| all.forget_at <= now);
        kept.few.retain(|few| few.fresh_until > now);
    }

    /// When [`Catalog::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let kept = self.lock();
        let few = kept.few.iter().map(|few| few.fresh_until);
        few.chain(kept.all.as_ref().map(|all| all.forget_at)).min()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what is searched is there, but for what only the cluster can say.
fn has(census: &Census, search: &Search) -> bool {
    let is_there = |vid: u32| VdiId::new(vid).is_some_and(|vid| census.vdi(vid).is_some());
    match search {
        Search::All => true,
        Search::Named(name) => census.family(name).is_some(),
        Search::FamilyOf(vid) | Search::Vdi(vid) => is_there(*vid),
        Search::WithParent(_) | Search::WithUsage(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::found;

    const SECOND: Duration = Duration::from_secs(1);

    fn named(name: &str) -> Search {
        Search::Named(name.as_bytes().to_vec())
    }

    fn census() -> Arc<Census> {
        Arc::new(Census::new(vec![found(1, b"a", 0), found(2, b"b", 0), found(3, b"b", 1)]))
    }

    #[test]
    fn a_list_answers_for_what_is_in_it_and_not_for_ever() {
        let (catalog, now) = (Catalog::default(), Instant::now());
        assert!(catalog.find(&Search::All, now).is_none());
        catalog.keep(Search::All, &census(), catalog.version(), now, now);
        for search in [Search::All, named("a"), Search::FamilyOf(3), Search::Vdi(2)] {
            assert!(catalog.find(&search, now + SECOND).is_some());
            assert!(catalog.find(&search, now + 2 * SECOND).is_none(), "too old");
            assert_eq!(catalog.widen(search), Search::All);
        }
        // Somebody may have made it since; and what files say is always asked for.
        for search in [named("c"), Search::Vdi(9), Search::WithUsage(2), Search::WithParent(2)] {
            assert!(catalog.find(&search, now).is_none());
            assert_eq!(catalog.widen(search.clone()), search);
        }
        assert_eq!(catalog.deadline(), Some(now + 4 * SECOND));
        catalog.expire(now + 4 * SECOND);
        assert_eq!((catalog.widen(named("a")), catalog.deadline()), (named("a"), None));
    }

    #[test]
    fn a_list_that_took_long_is_believed_longer() {
        let (catalog, now) = (Catalog::default(), Instant::now());
        for (took, fresh) in [(SECOND / 2, 5 * SECOND), (60 * SECOND, 10 * SECOND)] {
            let end = now + took;
            catalog.keep(Search::All, &census(), catalog.version(), now, end);
            assert!(catalog.find(&Search::All, end + fresh - SECOND / 100).is_some());
            assert!(catalog.find(&Search::All, end + fresh).is_none());
        }
    }

    #[test]
    fn one_vdi_answers_for_itself_and_a_family_for_each_of_it() {
        let (catalog, now) = (Catalog::default(), Instant::now());
        catalog.keep(Search::Vdi(1), &census(), catalog.version(), now, now);
        assert!(catalog.find(&Search::Vdi(1), now).is_some());
        assert!(catalog.find(&named("a"), now).is_none(), "it may be one of several");
        assert!(
            catalog.find(&Search::FamilyOf(1), now).is_none()
                && catalog.find(&Search::All, now).is_none()
        );
        catalog.keep(Search::FamilyOf(2), &census(), catalog.version(), now, now);
        assert!(catalog.find(&Search::FamilyOf(3), now).is_some());
        assert!(catalog.find(&named("b"), now).is_some());
        assert!(catalog.find(&Search::FamilyOf(3), now + SECOND).is_none());
        for vid in 0..100 {
            catalog.keep(Search::Vdi(vid), &census(), catalog.version(), now, now);
        }
        assert_eq!(catalog.lock().few.len(), FEW_MAX);
    }

    #[test]
    fn what_was_asked_before_a_change_is_not_kept() {
        let (catalog, now) = (Catalog::default(), Instant::now());
        let version = catalog.version();
        catalog.keep(Search::All, &census(), version, now, now);
        catalog.forget();
        assert!(catalog.find(&Search::All, now).is_none());
        catalog.keep(Search::All, &census(), version, now, now);
        assert!(catalog.find(&Search::All, now).is_none());
    }
}

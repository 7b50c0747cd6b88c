//! What to do about a reply: the whole policy in one place, pure.

use sheepfs::ipc::Failure;
use sheepfs::wire::Status;

/// What follows from a result code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was carried out.
    Done,
    /// Nothing was done, or it is safe to do again: try again a little later.
    Retry,
    /// The vid became a snapshot: find the new one (protocol 7.4).
    Reload,
    /// The object is absent though the index names it: read the entry again.
    Recheck,
    /// The sheep is going; its fate is unknown or it was not carried out.
    SheepGone,
    /// It can't be done.
    Fail(Failure),
}

/// The verdict on a request for a data object, an index entry or an inode's
/// header, from the table in protocol 2.
pub fn on_object(status: Status) -> Verdict {
    match status {
        Status::Success => Verdict::Done,
        Status::Readonly => Verdict::Reload,
        Status::NoObj => Verdict::Recheck,
        Status::Shutdown | Status::Killed => Verdict::SheepGone,
        Status::Halt
        | Status::WaitForFormat
        | Status::WaitForJoin
        | Status::NotFormatted
        | Status::Startup
        | Status::NoMem
        | Status::Again
        | Status::OldNodeVer
        | Status::NewNodeVer
        | Status::NetworkError
        | Status::CollectingCinfo
        | Status::ClusterError => Verdict::Retry,
        other => Verdict::Fail(Failure::from_status(other)),
    }
}

/// The verdict on a look-up or a lock, for somebody who waits at a prompt: what
/// the cluster can't do now is said, not waited for.
pub fn on_lookup(status: Status) -> Verdict {
    match status {
        Status::Success => Verdict::Done,
        Status::Shutdown | Status::Killed => Verdict::SheepGone,
        Status::Again | Status::CollectingCinfo | Status::NetworkError => Verdict::Retry,
        other => Verdict::Fail(Failure::from_status(other)),
    }
}

/// The verdict on a flush: a server that writes through refuses it, which is
/// success (protocol 11).
pub fn on_flush(status: Status) -> Verdict {
    match status {
        Status::InvalidParms | Status::NoSupport => Verdict::Done,
        other => match on_object(other) {
            Verdict::Reload | Verdict::Recheck => Verdict::Done,
            verdict => verdict,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_flush_is_success_and_an_error_is_one() {
        assert_eq!(on_flush(Status::InvalidParms), Verdict::Done);
        assert_eq!(on_flush(Status::Eio), Verdict::Fail(Failure::Refused(3)));
    }

    #[test]
    fn an_absent_object_is_never_taken_for_a_hole() {
        assert_eq!(on_object(Status::NoObj), Verdict::Recheck);
        assert_eq!(on_object(Status::Halt), Verdict::Retry);
        assert_eq!(on_object(Status::NoSpace), Verdict::Fail(Failure::NoSpace));
        assert_eq!(on_object(Status::Shutdown), Verdict::SheepGone);
    }
}

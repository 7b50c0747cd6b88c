//! Snapshots while somebody else makes one of the same VDI.

use super::*;

/// Runs an errand, and lets somebody do something before each step of it.
fn run_beside(
    server: &mut Server,
    errand: &Errand,
    mut others: impl FnMut(&mut Server, &Next),
) -> Result<(), Failure> {
    let mut life = Life::new(errand.clone(), None);
    let mut next = life.step(Event::Begin);
    loop {
        others(server, &next);
        next = match next {
            Next::Ask(request) => {
                let (status, bytes, vid) = server.serve(&request);
                life.answered(&Answer { status, bytes: &bytes, vid })
            }
            Next::Mark(_) => life.step(Event::Marked),
            Next::Pause => life.step(Event::Paused(None)),
            Next::End(outcome) => return outcome,
            other => panic!("{other:?}"),
        };
    }
}

/// The name has another vid by the time: the server would throw the VDI back to the old one.
#[test]
fn a_snapshot_by_somebody_else_in_the_middle_is_seen() {
    let mut server = cluster();
    let outcome = run_beside(&mut server, &snapshot("disk", "t"), |server, next| {
        if matches!(next, Next::Pause) && server.count("disk") == 2 {
            server.take_snapshot("disk", "other");
            server.allocate("disk", [9]);
        }
    });
    assert_eq!(outcome, Ok(()));
    assert_eq!(server.tags("disk"), ["s", "other", "t", ""]);
    assert_eq!(server.rebased, 0);
}

/// Whoever makes one at the same time, as `dog` does, writes his tag over ours.
#[test]
fn a_snapshot_that_got_anothers_tag_is_not_ours() {
    let mut server = cluster();
    let outcome = run_beside(&mut server, &snapshot("disk", "t"), |server, next| {
        let makes = matches!(next, Next::Ask(asked) if asked.opcode() == Some(Opcode::NewVdi));
        if makes && server.count("disk") == 2 {
            server.write_tag("disk", "other");
        }
    });
    assert_eq!(outcome, Ok(()));
    assert_eq!(server.tags("disk"), ["s", "other", "t", ""]);
}

//! The supervisor dies in the middle of what changes which VDIs there are. The kernel delivers the
//! line again, which is known by its number, so that it is done once and answered.

use crate::cluster::Cluster;
use crate::errands::{Case, for_each_death};
use crate::served::{Lives, Served};
use nix::errno::Errno;
use nix::sys::signal::Signal;

fn in_peace(case: Case) -> String {
    let cluster = Cluster::mini();
    let served = Served::<Lives>::start(&cluster, &[], &[]);
    case.prepare(&cluster, &served);
    case.run_in_peace(&served);
    case.outcome(&cluster, &served)
}

fn with_a_death(case: Case, held: &str) -> String {
    let cluster = Cluster::mini();
    let mut served = Served::<Lives>::start(&cluster, &[], &[]);
    case.prepare(&cluster, &served);
    let tree = crate::mount::tree::Tree::at(served.point());
    case.run(&cluster, &tree, held, || served.take_over(Signal::SIGKILL));
    assert_eq!(served.count("takeovers"), 1);
    case.outcome(&cluster, &served)
}

/// So is what was written to the files that make, change and delete VDIs.
#[test]
fn a_supervisor_that_dies_in_an_errand_is_not_noticed() {
    for_each_death(in_peace, with_a_death);
}

/// Who writes it again by himself is somebody else.
#[test]
fn the_same_line_after_a_death_is_another_one() {
    let cluster = Cluster::mini();
    let mut served = Served::<Lives>::start(&cluster, &[], &[]);
    served.write("vdi/create", b"disk 1M").unwrap();
    served.take_over(Signal::SIGKILL);
    let again = served.write("vdi/create", b"disk 1M").unwrap_err();
    assert_eq!(again.raw_os_error(), Some(Errno::EEXIST as i32));
}

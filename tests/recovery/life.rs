//! The worker dies in the middle of what changes which VDIs there are, at each request of it that
//! changes something, which is carried out late, or was and is not answered. It is done once, and
//! whoever wrote the line hears that it is.

use crate::cluster::Cluster;
use crate::errands::{Case, for_each_death};
use crate::mount::Mount;
use crate::tools::wait_for;
use nix::sys::signal::{Signal, kill};

fn in_peace(case: Case) -> String {
    let cluster = Cluster::mini();
    let mount = Mount::start(&cluster, &[]);
    case.prepare(&cluster, &mount);
    case.run_in_peace(&mount);
    case.outcome(&cluster, &mount)
}

fn with_a_death(case: Case, held: &str) -> String {
    let cluster = Cluster::mini();
    let mount = Mount::start(&cluster, &[]);
    case.prepare(&cluster, &mount);
    let generation = mount.count("worker_generation");
    case.run(&cluster, &mount, held, || {
        kill(mount.worker(), Signal::SIGKILL).unwrap();
        wait_for("the next worker", || mount.count("worker_generation") > generation);
    });
    case.outcome(&cluster, &mount)
}

/// A line that is written to these files is done once, whichever worker dies in the middle.
#[test]
fn a_worker_that_dies_in_an_errand_is_not_noticed() {
    for_each_death(in_peace, with_a_death);
}

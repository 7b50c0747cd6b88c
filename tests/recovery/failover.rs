//! `echo ip:port > config/sheep_info`: another sheep on request.

use crate::MIB;
use crate::cluster::Cluster;
use crate::fio::Fio;
use crate::minisheep::Minisheep;
use crate::mount::Mount;
use crate::netns::Namespace;
use crate::proxy::{Mode, Proxy};
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::site::{Site, mount_over, timed, vdi_for, wait_until_serving};
use crate::stalls::Stalls;
use crate::tools::{arg, run};
use nix::errno::Errno;
use std::net::TcpListener;
use std::time::{Duration, Instant};

const FIO_BYTES: u64 = 16 * MIB;

/// What a mount must still have when a failover was refused.
#[derive(Debug, PartialEq, Eq)]
struct Session {
    sheep: Option<String>,
    generation: u64,
    failovers: u64,
    shown: String,
}

fn session(mount: &Mount) -> Session {
    Session {
        sheep: mount.status("sheep"),
        generation: mount.count("worker_generation"),
        failovers: mount.count("swaps_failover"),
        shown: mount.read("config/sheep_info"),
    }
}

/// Each failover is asked for as soon as the one before is done; a full run takes one a second.
#[test]
fn failovers_under_load_drop_nothing() {
    let site = Site::start(3);
    let (disk, bytes) = (vdi_for(&site.cluster, Plan::CREATES), site.cluster.vdi("b", FIO_BYTES));
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    mount.attach(&bytes);
    let load = Registers::start(&mount.volume(&disk), Plan::CREATES);
    let fio = Fio::start(&mount.volume(&bytes), FIO_BYTES);
    let (mut faults, mut stalls) = (Vec::new(), Stalls::new("echo, until it returns"));
    let times = rounds(10, 60);
    for round in 1..=times {
        load.wait_for_progress();
        let next = site.gateways[round as usize % 3].address();
        faults.push(Instant::now());
        let written = timed(|| mount.write("config/sheep_info", format!("{next}\n").as_bytes()));
        stalls.add(written.1);
        written.0.unwrap_or_else(|error| panic!("{next}: {error}\n{}", mount.log()));
        assert_eq!(mount.read("config/sheep_info"), format!("{next}\n"));
        assert_eq!(mount.status("sheep").as_deref(), Some(next));
    }
    load.wait_for_progress();
    assert_eq!(mount.count("swaps_failover"), times);
    assert_eq!(mount.count("replayed"), 0, "a live session was not drained");
    assert_eq!(mount.count("fenced"), 0, "a drained session leaves nothing to fence");
    stalls.print();
    println!("fio: {:?}", fio.finish());
    let report = load.finish();
    report.print_stalls("echo", &faults);
    report.compare(&site.cluster.content(&disk));
}

#[test]
fn a_sheep_is_named_as_people_name_it() {
    let site = Site::start(2);
    let through = site.through(0);
    let mount = Mount::start(&through, &[]);
    let (_, port) = site.gateways[1].address().rsplit_once(':').unwrap();
    let (_, first) = site.gateways[0].address().rsplit_once(':').unwrap();
    for (number, text) in [
        format!("localhost:{port}\n"),
        format!("127.0.0.1:{first}"),
        format!("  127.0.0.1:{port} \n"),
        format!("[::ffff:127.0.0.1]:{first}\n"),
    ]
    .iter()
    .enumerate()
    {
        let written = mount.write("config/sheep_info", text.as_bytes());
        assert!(written.is_ok(), "{text:?}: {written:?}\n{}", mount.log());
        assert_eq!(mount.count("swaps_failover"), number as u64 + 1);
    }
    // Where it is already: nothing to do, and no error.
    let before = mount.count("worker_generation");
    mount.write("config/sheep_info", mount.read("config/sheep_info").as_bytes()).unwrap();
    println!("generation {before}, then {}", mount.count("worker_generation"));
}

/// A port of loopback that nobody listens on, for as long as nobody else takes it.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_wrong_address_changes_nothing_and_says_why() {
    let site = Site::start(1);
    let disk = vdi_for(&site.cluster, Plan::SHARED);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    let stranger = Minisheep::start(&["--format"]);
    let silent = Proxy::start(site.cluster.address());
    silent.set(Mode::Blackhole);
    let before = session(&mount);
    let cases = [
        ("nonsense nonsense".to_owned(), Errno::EINVAL),
        ("127.0.0.1:0".to_owned(), Errno::EINVAL),
        ("127.0.0.1:65536".to_owned(), Errno::EINVAL),
        ("[::1:7000".to_owned(), Errno::EINVAL),
        (String::from_utf8(vec![b'x'; 300]).unwrap(), Errno::EINVAL),
        (free_address(), Errno::ECONNREFUSED),
        (silent.address().to_owned(), Errno::ETIMEDOUT),
        (stranger.address().to_owned(), Errno::EXDEV),
    ];
    for (text, errno) in cases {
        let (written, time) = timed(|| mount.write("config/sheep_info", text.as_bytes()));
        println!("{text}: {written:?} after {} ms", time.as_millis());
        let error = written.expect_err(&text);
        assert_eq!(error.raw_os_error(), Some(errno as i32), "{text}: {error}");
        assert_eq!(session(&mount), before, "{text} changed something");
        assert_ne!(mount.status("last_error").as_deref(), Some("none"));
        load.wait_for_progress();
    }
    assert_eq!(mount.count("replayed"), 0);
    load.finish().compare(&site.cluster.content(&disk));
}

/// A sheep that was never formatted has no cluster to offer, so not ours.
#[test]
fn an_unformatted_sheep_is_refused() {
    let site = Site::start(1);
    let through = site.through(0);
    let mount = Mount::start(&through, &[]);
    let bare = Minisheep::start(&[]);
    let before = session(&mount);
    let error = mount.write("config/sheep_info", bare.address().as_bytes()).unwrap_err();
    println!("an unformatted sheep: {error}");
    assert_eq!(session(&mount), before);
}

/// In a namespace without a way out, no packet leaves for an address beyond.
#[test]
fn an_address_without_a_route_is_unreachable() {
    let cluster = Cluster::mini();
    let link = Namespace::start(cluster.address(), Duration::ZERO, 0);
    let mount = mount_over(&link, &[]);
    let before = session(&mount);
    let error = mount.write("config/sheep_info", b"192.0.2.1:7000").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EHOSTUNREACH as i32), "{error}");
    assert_eq!(session(&mount), before);
}

/// A session whose sheep hangs can be left by hand: nothing waits for it to drain for ever.
#[test]
fn a_dead_sheep_can_be_left_by_hand() {
    let mut site = Site::start(1);
    let disk = vdi_for(&site.cluster, Plan::SHARED);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    load.wait_for_progress();
    site.gateways[0].kill();
    crate::tools::wait_for("the loss", || mount.count("swaps_sheep_lost") > 0);
    // minisheep itself, of which the mount may not know yet.
    let script =
        format!("echo {} > {}", site.cluster.address(), arg(&mount.path("config/sheep_info")));
    run("bash", &["-c", &script]);
    wait_until_serving(&mount);
    load.wait_for_progress();
    assert_eq!(mount.status("sheep").as_deref(), Some(site.cluster.address()));
    load.finish().compare(&site.cluster.content(&disk));
    site.gateways[0].restart();
}

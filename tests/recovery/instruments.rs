//! The instruments themselves: a checker that can't fail proves nothing, nor does a proxy that
//! lets everything pass.

use crate::MIB;
use crate::cluster::Cluster;
use crate::fio::Fio;
use crate::mount::Mount;
use crate::netns::Namespace;
use crate::proxy::{Mode, Proxy};
use crate::register::Registers;
use crate::register::block::{Aligned, decode, encode};
use crate::register::plan::Plan;
use crate::stalls::Stalls;
use crate::tools::wait_for;
use nix::libc::O_DIRECT;
use sheepfs::wire::request::NewVdi;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_register_tells_its_write_and_whether_it_is_whole() {
    let mut block = Aligned::new(4096);
    assert_eq!(block.bytes().as_ptr().addr() % 4096, 0);
    assert_eq!(decode(7, block.bytes()), Ok(0));
    encode(7, 3, 41, block.bytes_mut());
    assert_eq!(decode(7, block.bytes()), Ok(41));
    assert!(decode(8, block.bytes()).unwrap_err().contains("something else"));
    let mut older = Aligned::new(4096);
    encode(7, 3, 40, older.bytes_mut());
    block.bytes_mut()[2048..].copy_from_slice(&older.bytes()[2048..]);
    assert!(decode(7, block.bytes()).unwrap_err().contains("torn"));
    encode(7, 3, 41, block.bytes_mut());
    block.bytes_mut()[4095] ^= 1;
    assert!(decode(7, block.bytes()).unwrap_err().contains("torn"));
    let mut short = Aligned::new(8192);
    encode(7, 3, 41, short.bytes_mut());
    assert!(decode(7, &short.bytes()[..4096]).unwrap_err().contains("something else"));
}

#[test]
fn each_register_has_one_place_and_one_writer() {
    for plan in [Plan::SHARED, Plan::CREATES] {
        let places: BTreeSet<_> = (0..plan.registers).map(|number| plan.offset(number)).collect();
        assert_eq!(places.len() as u64, plan.registers);
        assert!(places.last().unwrap() + plan.block as u64 <= plan.size());
        let owned: u64 = (0..plan.writers).map(|writer| plan.registers_of(writer)).sum();
        assert_eq!(owned, plan.registers);
    }
}

/// A file of zeros where a volume would be: a sound one.
fn sound_file(plan: Plan) -> tempfile::NamedTempFile {
    // Not where direct I/O is unknown, as it is on some tmpfs.
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(plan.size()).unwrap();
    file
}

#[test]
fn registers_find_nothing_wrong_with_a_file() {
    let file = sound_file(Plan::SHARED);
    let load = Registers::start(file.path(), Plan::SHARED);
    load.wait_for_progress();
    let fault = Instant::now();
    load.wait_for_progress();
    let report = load.finish();
    report.compare(&std::fs::read(file.path()).unwrap());
    assert!(report.touched() >= Plan::SHARED.writers as usize);
    assert!(report.stall_at(fault).is_some_and(|stall| stall < Duration::from_secs(30)));
    report.print_stalls("no fault", &[fault]);
}

/// What a load says when `damage` is done to all registers, again and again.
fn words_after(damage: impl Fn(&File, u64)) -> String {
    let plan = Plan::SHARED;
    let file = sound_file(plan);
    let load = Registers::start(file.path(), plan);
    load.wait_for_progress();
    let direct = File::options().read(true).write(true).custom_flags(O_DIRECT).open(file.path());
    let direct = direct.unwrap();
    wait_for("the checker to see it", || {
        (0..plan.registers).for_each(|register| damage(&direct, plan.offset(register)));
        load.failure().is_some()
    });
    load.abandon().unwrap()
}

#[test]
fn registers_see_an_old_block() {
    let zeros = Aligned::new(4096);
    let words = words_after(|file, offset| file.write_all_at(zeros.bytes(), offset).unwrap());
    assert!(words.contains("write 0 was read") || words.contains("torn"), "{words}");
}

#[test]
fn registers_see_a_torn_block() {
    let words = words_after(|file, offset| {
        let mut block = Aligned::new(4096);
        file.read_exact_at(block.bytes_mut(), offset).unwrap();
        block.bytes_mut()[4000..].fill(0xee);
        file.write_all_at(block.bytes(), offset).unwrap();
    });
    assert!(words.contains("torn"), "{words}");
}

#[test]
fn registers_see_an_error() {
    let file = sound_file(Plan::SHARED);
    let load = Registers::start(file.path(), Plan::SHARED);
    load.wait_for_progress();
    file.as_file().set_len(0).unwrap();
    // Writes beyond the end make the file grow; reads of what is not there yet fail.
    wait_for("an error", || load.failure().is_some());
    let words = load.abandon().unwrap();
    assert!(words.contains("read of register") || words.contains("write 0 was read"), "{words}");
}

#[test]
fn registers_and_fio_run_on_a_mount() {
    let cluster = Cluster::mini();
    let plan = Plan::CREATES;
    let block_size_shift = Plan::CREATES_SHIFT;
    let new = NewVdi { size: plan.size(), block_size_shift, ..NewVdi::default() };
    let disk = cluster.vdi_with("disk", &new);
    let bytes = cluster.vdi("bytes", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    mount.attach(&bytes);
    let fio = Fio::start(&mount.volume(&bytes), 8 * MIB);
    let load = Registers::start(&mount.volume(&disk), plan);
    wait_for("two runs of fio", || fio.runs() >= 2);
    load.wait_for_progress();
    let report = load.finish();
    println!("{} of {} registers", report.touched(), plan.registers);
    report.compare(&cluster.content(&disk));
    let report = fio.finish();
    println!("{report:?}");
    assert!(report.runs >= 2 && report.written == report.runs * 8 * MIB);
    assert_eq!(report.verified, report.written);
    assert_eq!(mount.status("worker_state").as_deref(), Some("serving"));
    assert_eq!(mount.count("volumes"), 2);
    assert_eq!(mount.status("no_such_key"), None);
}

#[test]
fn fio_sees_what_somebody_else_writes() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let fio = Fio::start(&mount.volume(&disk), 4 * MIB);
    let file = mount.open(&disk);
    let spoilt = thread::spawn(move || fio.finish());
    wait_for("fio to fail", || {
        file.write_all_at(&[0xee; 512], 2 * MIB).unwrap();
        spoilt.is_finished()
    });
    assert!(spoilt.join().is_err());
}

#[test]
fn a_row_of_stalls_is_one_line() {
    let mut stalls = Stalls::new("sigkill-worker");
    assert_eq!(
        stalls.to_string(),
        "row sigkill-worker n=0 stall ms p50=0.0 p90=0.0 p99=0.0 max=0.0"
    );
    stalls.extend((1..=199).rev().map(Duration::from_millis));
    stalls.add(Duration::from_micros(777_700));
    assert_eq!(
        stalls.to_string(),
        "row sigkill-worker n=200 stall ms p50=100.0 p90=180.0 p99=198.0 max=777.7"
    );
}

/// A server that sends back what it gets.
fn echo_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                std::io::copy(&mut reader, &mut stream)
            });
        }
    });
    address
}

fn says_back(mut stream: &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)?;
    let mut room = vec![0; bytes.len()];
    stream.read_exact(&mut room)?;
    assert!(room == bytes);
    Ok(())
}

/// The last bytes may arrive a moment before they are counted.
fn wait_for_bytes(proxy: &Proxy, bytes: u64) {
    wait_for("the proxy to count", || proxy.bytes() == bytes);
}

#[test]
fn the_proxy_passes_and_resets() {
    let proxy = Proxy::start(&echo_server());
    let (one, other) = (TcpStream::connect(proxy.address()), TcpStream::connect(proxy.address()));
    let (one, other) = (one.unwrap(), other.unwrap());
    says_back(&one, &[7; 300_000]).unwrap();
    says_back(&other, b"hello").unwrap();
    assert_eq!(proxy.connections(), 2);
    wait_for_bytes(&proxy, 600_010);
    proxy.reset();
    for mut stream in [&one, &other] {
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    says_back(&TcpStream::connect(proxy.address()).unwrap(), b"again").unwrap();
}

#[test]
fn the_proxy_ends_a_stream_in_order() {
    let proxy = Proxy::start(&echo_server());
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(b"last words").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut words = String::new();
    stream.read_to_string(&mut words).unwrap();
    assert_eq!(words, "last words");
}

#[test]
fn the_proxy_cuts_after_some_bytes() {
    let proxy = Proxy::start(&echo_server());
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    says_back(&stream, &[7; 1000]).unwrap();
    wait_for_bytes(&proxy, 2000);
    proxy.cut_after(1500);
    stream.write_all(&[7; 1000]).unwrap();
    let mut got = Vec::new();
    assert_eq!(stream.read_to_end(&mut got).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(got.len() <= 500, "{} bytes came back", got.len());
    wait_for_bytes(&proxy, 3500);
    says_back(&TcpStream::connect(proxy.address()).unwrap(), &[7; 5000]).unwrap();
}

#[test]
fn the_proxy_swallows_and_refuses() {
    let proxy = Proxy::start(&echo_server());
    let mut old = TcpStream::connect(proxy.address()).unwrap();
    says_back(&old, b"hello").unwrap();
    wait_for_bytes(&proxy, 10);
    proxy.set(Mode::Blackhole);
    old.write_all(b"lost?").unwrap();
    let mut new = TcpStream::connect(proxy.address()).expect("the kernel takes connections");
    new.write_all(b"new").unwrap();
    old.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(old.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!((proxy.bytes(), proxy.connections()), (10, 1));
    proxy.set(Mode::Pass);
    let mut room = [0; 3];
    new.read_exact(&mut room).unwrap();
    assert_eq!(&room, b"new");
    proxy.set(Mode::Refuse);
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    wait_for("a refusal", || TcpStream::connect(proxy.address()).is_err_and(refused));
    new.write_all(b"old").unwrap();
    new.read_exact(&mut room).unwrap();
    proxy.set(Mode::Pass);
    wait_for("a new listener", || TcpStream::connect(proxy.address()).is_ok());
}

/// The link is slow and lossy, and a mount made in the namespace is seen outside.
#[test]
fn a_mount_works_over_a_bad_link() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let link = Namespace::start(cluster.address(), Duration::from_millis(50), 5);
    let mount = crate::site::mount_over(&link, &[]);
    mount.attach(&disk);
    let file = mount.open(&disk);
    let begun = Instant::now();
    for number in 0..5 {
        file.write_all_at(&[number; 4096], 0).unwrap();
    }
    // Packets can't be faster than the link: a fact of the link's, no judgement of sheepfs.
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    let piece = vec![9; 64 << 10];
    (0..16).for_each(|number| file.write_all_at(&piece, number << 16).unwrap());
    link.lose(0);
    assert_eq!(cluster.content(&disk)[..1 << 20], vec![9; 1 << 20]);
    println!("{} packets came through, {} were lost", link.passed(), link.lost());
    assert!(link.passed() > 100 && link.lost() > 0);
    link.lose(100);
    let arrived = link.passed();
    let [program, namespace] = link.enter();
    let mut ping = Command::new(program);
    let script = "exec 3<>/dev/tcp/$0/$1";
    let address = link.address();
    let (host, port) = address.split_once(':').unwrap();
    ping.args([&namespace, "timeout", "1", "bash", "-c", script, host, port]);
    assert!(!ping.status().unwrap().success(), "a cut link lets nobody through");
    assert_eq!(link.passed(), arrived);
    link.lose(0);
}

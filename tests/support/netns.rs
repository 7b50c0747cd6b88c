//! A network namespace with a bad link to a sheep: packets come late, and some get lost.
//!
//! The kernel's own netem is missing in many kernels, so the link is ours. The namespace has a
//! TUN device with the network [`OURS`]`/24`. A packet to [`THEIRS`] comes out of the device into this
//! process, is thrown away or waits for its time, and goes back in with source and destination
//! exchanged: so it arrives at [`OURS`], where a proxy listens, and what the proxy answers goes
//! the same way. TCP's checksum does not change by that. The proxy's other side is in our own
//! namespace, where the sheep is.
//!
//! The namespace has no name: it lives as long as descriptors of this process and programs in it.

#![expect(unsafe_code, reason = "a TUN device is made by an ioctl")]

use crate::proxy::{Proxy, is_readable};
use crate::random::Random;
use crate::tools::run;
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

const OURS: &str = "10.99.0.1";
const THEIRS: &str = "10.99.0.2";
/// As large as loopback's: with 5 % of them lost, small packets would carry next to nothing.
const MTU: &str = "65000";
const PACKET_MAX: usize = 1 << 16;
const IFF_TUN: i16 = 1;
const IFF_NO_PI: i16 = 0x1000;

/// `struct ifreq` of `linux/if.h`, as far as TUNSETIFF looks at it.
#[repr(C)]
#[derive(Debug)]
pub struct Interface {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

nix::ioctl_write_ptr_bad!(tunsetiff, nix::request_code_write!(b'T', 202, 4), Interface);

/// How the link is.
#[derive(Debug)]
struct Weather {
    delay: Duration,
    loss_percent: AtomicU64,
    passed: AtomicU64,
    lost: AtomicU64,
    ended: AtomicBool,
}

/// A namespace with a link to a sheep.
#[derive(Debug)]
pub struct Namespace {
    proxy: Proxy,
    namespace: File,
    weather: Arc<Weather>,
}

impl Namespace {
    /// Makes one whose link leads to `target`: each packet takes `delay` one way, and
    /// `loss_percent` of them get lost.
    pub fn start(target: &str, delay: Duration, loss_percent: u64) -> Self {
        let weather = Arc::new(Weather {
            delay,
            loss_percent: AtomicU64::new(loss_percent),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let made = thread::spawn(enter_new).join().unwrap_or_else(|_| panic!("no namespace"));
        let (namespace, device, listener) = made;
        let (sender, receiver) = channel();
        let (mut source, own) = (device.try_clone().unwrap(), Arc::clone(&weather));
        thread::spawn(move || own.take_packets(&mut source, &sender));
        thread::spawn(move || deliver(device, &receiver));
        Self { proxy: Proxy::start_on(listener, target), namespace, weather }
    }

    /// Where the sheep is, as seen in the namespace.
    pub fn address(&self) -> String {
        let (_, port) = self.proxy.address().rsplit_once(':').unwrap();
        format!("{THEIRS}:{port}")
    }

    /// The words that start a program in the namespace; mounts it makes are seen by all.
    pub fn enter(&self) -> [String; 2] {
        let (process, file) = (process::id(), self.namespace.as_raw_fd());
        ["nsenter".to_owned(), format!("--net=/proc/{process}/fd/{file}")]
    }

    /// From now on so many packets get lost; 100 cuts the link, and nobody is told.
    pub fn lose(&self, percent: u64) {
        self.weather.loss_percent.store(percent, Ordering::SeqCst);
    }

    /// Packets that arrived.
    pub fn passed(&self) -> u64 {
        self.weather.passed.load(Ordering::SeqCst)
    }

    /// Packets that got lost.
    pub fn lost(&self) -> u64 {
        self.weather.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.weather.ended.store(true, Ordering::SeqCst);
    }
}

/// Moves the thread to a new namespace, and makes the link there. `ip` runs there too, since
/// children begin where their parent is.
fn enter_new() -> (File, File, TcpListener) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
    let namespace = File::open("/proc/thread-self/ns/net").unwrap();
    run("ip", &["link", "set", "lo", "up"]);
    let device = open_device("sheepfs0");
    run("ip", &["address", "add", &format!("{OURS}/24"), "dev", "sheepfs0"]);
    run("ip", &["link", "set", "sheepfs0", "mtu", MTU, "up"]);
    let listener = TcpListener::bind((OURS, 0)).unwrap();
    (namespace, device, listener)
}

fn open_device(word: &str) -> File {
    let device = File::options().read(true).write(true).open("/dev/net/tun");
    let device = device.expect("/dev/net/tun is needed: load the module tun");
    let mut name = [0; 16];
    name[..word.len()].copy_from_slice(word.as_bytes());
    let interface = Interface { name, flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    let number: RawFd = device.as_raw_fd();
    // SAFETY: the descriptor is open, and the kernel reads no more than the 40 bytes of an ifreq.
    unsafe { tunsetiff(number, &raw const interface) }.unwrap();
    device
}

impl Weather {
    /// Reads packets until the device or the other thread is gone.
    fn take_packets(&self, device: &mut File, sender: &Sender<(Instant, Vec<u8>)>) {
        let mut random = Random::seeded(0x1085);
        let mut room = vec![0; PACKET_MAX];
        while !self.ended.load(Ordering::SeqCst) {
            if !is_readable(device) {
                continue;
            }
            let Ok(len) = device.read(&mut room) else { return };
            if random.within(0..100) < self.loss_percent.load(Ordering::SeqCst) {
                self.lost.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            self.passed.fetch_add(1, Ordering::SeqCst);
            let Some(packet) = turned(&room[..len]) else { continue };
            if sender.send((Instant::now() + self.delay, packet)).is_err() {
                return;
            }
        }
    }
}

/// An IPv4 packet with source and destination exchanged; `None` for any other.
fn turned(packet: &[u8]) -> Option<Vec<u8>> {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return None;
    }
    let addresses = [&packet[16..20], &packet[12..16]].concat();
    Some([&packet[..12], &addresses, &packet[20..]].concat())
}

/// Gives packets back to the device when their time has come, which is the order they came in.
fn deliver(mut device: File, receiver: &Receiver<(Instant, Vec<u8>)>) {
    for (due, packet) in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let _ = device.write_all(&packet);
    }
}

//! What /proc tells of processes: their time, their memory, who listens where.

use crate::results::{Failure, Memory};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// Processor time of a process, user and system, with what its ended threads had. Nothing for one
/// that is gone.
pub fn cpu_of(pid: Pid) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.ok_or("the kernel does not tell its ticks")?;
    #[expect(clippy::cast_precision_loss, reason = "ticks of minutes")]
    let seconds = ticks_in(&stat).unwrap_or_default() as f64 / per_second as f64;
    Ok(Duration::from_secs_f64(seconds))
}

/// Memory of a process, if it is there.
pub fn memory_of(pid: Pid) -> Option<Memory> {
    memory_in(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The processes of this machine that listen at any of `addresses`, in this network namespace.
pub fn listeners(addresses: &[SocketAddr]) -> Vec<Pid> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let sockets: Vec<String> = table
        .lines()
        .filter_map(listener_in)
        .filter(|(at, _)| addresses.iter().any(|address| reaches(*at, *address)))
        .map(|(_, inode)| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(|pid| holds_any(*pid, &sockets))
        .collect()
}

fn holds_any(pid: Pid, sockets: &[String]) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
}

fn reaches(listener: SocketAddr, address: SocketAddr) -> bool {
    let any = listener.ip().is_unspecified() && address.ip().is_loopback();
    listener.port() == address.port() && (any || listener.ip() == address.ip())
}

/// utime and stime of `/proc/PID/stat`, the words 14 and 15. The second is a name in
/// parentheses, which may hold anything.
pub fn ticks_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split_whitespace().skip(11);
    let user: u64 = words.next()?.parse().ok()?;
    Some(user + words.next()?.parse::<u64>().ok()?)
}

/// The numbers of `/proc/PID/status`.
pub fn memory_in(status: &str) -> Option<Memory> {
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Memory {
        peak: kib("VmHWM:")?,
        anonymous: kib("RssAnon:")?,
        file: kib("RssFile:")?,
        shared: kib("RssShmem:")?,
    })
}

/// Address and inode of a listening socket, of a line of `/proc/net/tcp`.
pub fn listener_in(line: &str) -> Option<(SocketAddr, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    if *words.get(3)? != LISTENS {
        return None;
    }
    // The four bytes as the machine would print them as one number.
    let ip = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(IpAddr::V4(ip), port), words.get(9)?.parse().ok()?))
}

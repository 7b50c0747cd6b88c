//! A small blocking client of the wire protocol, and the program minisheep as a test starts it.
//!
//! Use it by `#[path = "support/client.rs"] mod client;`. Everything panics when it fails, with
//! a time limit on every wait.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses the part that it needs")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiRef};
use sheepfs::wire::request::{Extent, NewVdi};
use sheepfs::wire::{HEADER_LEN, ReplyHeader, Request, RequestHeader, Status, VdiId, VdiName};

/// No answer takes longer, or the test has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A connection to a sheep.
pub struct Client {
    stream: TcpStream,
    next: u32,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the sheep listens");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self { stream, next: 1 }
    }

    /// Sends as this life of a client: the upper byte of its requests' ids.
    pub fn in_life(mut self, life: u8) -> Self {
        self.next = u32::from(life) << 24 | 1;
        self
    }

    /// Ends the connection as a client of ours does when it dies: by a reset.
    pub fn reset(self) {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&self.stream, sockopt::Linger, &linger).unwrap();
    }

    /// Sends any bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection is alive");
    }

    /// Ends the sending half.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends a header and what follows it, as they are.
    pub fn send_header(&mut self, header: &RequestHeader, payload: &[u8]) {
        self.send_raw(&[&header.encode(), payload].concat());
    }

    /// Sends a request; `payload` is for requests that don't hold their own. Returns its id.
    pub fn send(&mut self, request: &Request, payload: &[u8]) -> u32 {
        let id = self.next;
        self.next += 1;
        let own = match request.payload() {
            sheepfs::wire::request::Payload::Bytes(bytes) => bytes.to_vec(),
            _ => payload.to_vec(),
        };
        self.send_header(&request.header(id), &own);
        id
    }

    /// Waits for the next answer; `None` when the connection has ended.
    pub fn receive(&mut self) -> Option<(ReplyHeader, Vec<u8>)> {
        let mut header = [0; HEADER_LEN];
        let mut filled = 0;
        while filled < HEADER_LEN {
            match self.stream.read(&mut header[filled..]) {
                Ok(0) => return None,
                Ok(len) => filled += len,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                // A read with a time limit ends so when the machine was suspended.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
        let header = ReplyHeader::decode(&header);
        let mut payload = vec![0; header.data_length as usize];
        self.stream.read_exact(&mut payload).expect("the payload follows its header");
        Some((header, payload))
    }

    /// Sends a request and waits for its answer.
    pub fn call(&mut self, request: &Request, payload: &[u8]) -> (ReplyHeader, Vec<u8>) {
        let id = self.send(request, payload);
        let answer = self.receive().expect("an answer");
        assert_eq!(answer.0.id, id, "the answer is to the request");
        answer
    }

    /// As [`Client::call`], with any header.
    pub fn call_header(
        &mut self,
        header: &RequestHeader,
        payload: &[u8],
    ) -> (ReplyHeader, Vec<u8>) {
        self.send_header(header, payload);
        self.receive().expect("an answer")
    }

    /// The result alone.
    pub fn status(&mut self, request: &Request, payload: &[u8]) -> Status {
        self.call(request, payload).0.status
    }

    /// Makes a VDI and returns its vid.
    pub fn create_vdi(&mut self, name: &str, size: u64) -> VdiId {
        self.new_vdi(name, &NewVdi { size, ..NewVdi::default() }).expect("a new VDI")
    }

    /// Sends NEW_VDI.
    pub fn new_vdi(&mut self, name: &str, new: &NewVdi) -> Result<VdiId, Status> {
        let (reply, _) = self.call(&Request::new_vdi(&vdi_name(name), new), &[]);
        vid_of(&reply)
    }

    /// Finds a VDI.
    pub fn find(&mut self, name: &str, generation: Generation) -> Result<VdiId, Status> {
        let vdi = VdiRef { name: vdi_name(name), generation };
        let (reply, _) = self.call(&Request::get_vdi_info(&vdi), &[]);
        vid_of(&reply)
    }

    /// Reads an inode's header.
    pub fn inode(&mut self, vid: VdiId) -> InodeHeader {
        let (reply, bytes) = self.call(&Request::read_inode_header(vid), &[]);
        assert_eq!(reply.status, Status::Success);
        InodeHeader::decode(&bytes).unwrap()
    }

    /// The owner of a block.
    pub fn entry(&mut self, vid: VdiId, index: u32) -> u32 {
        let (reply, bytes) = self.call(&Request::read_index(vid, index, 1), &[]);
        assert_eq!(reply.status, Status::Success);
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    /// Reads a piece of a data object of 4 MiB.
    pub fn read(
        &mut self,
        vid: VdiId,
        index: u32,
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, Status> {
        let (reply, bytes) = self.call(&Request::read(vid, index, extent(offset, len)), &[]);
        if reply.status == Status::Success { Ok(bytes) } else { Err(reply.status) }
    }

    /// Overwrites a piece of a data object of 4 MiB.
    pub fn write(&mut self, vid: VdiId, index: u32, offset: u32, bytes: &[u8]) -> Status {
        self.status(&Request::write(vid, index, extent(offset, len_of(bytes))), bytes)
    }

    /// Makes a data object of 4 MiB, and its index entry if that worked.
    pub fn create(&mut self, vid: VdiId, index: u32, offset: u32, bytes: &[u8]) -> Status {
        let request = Request::create(vid, index, extent(offset, len_of(bytes)));
        match self.status(&request, bytes) {
            Status::Success => self.set_entry(vid, index, vid),
            other => other,
        }
    }

    /// As [`Client::create`], from the content of `base`'s object.
    pub fn copy(
        &mut self,
        vid: VdiId,
        index: u32,
        base: VdiId,
        offset: u32,
        bytes: &[u8],
    ) -> Status {
        let extent = extent(offset, len_of(bytes));
        match self.status(&Request::create_from(vid, index, base, extent), bytes) {
            Status::Success => self.set_entry(vid, index, vid),
            other => other,
        }
    }

    /// Writes one index entry.
    pub fn set_entry(&mut self, vid: VdiId, index: u32, value: VdiId) -> Status {
        self.status(&Request::write_index(vid, index, 1, value).unwrap(), &[])
    }
}

/// A piece of an object of 4 MiB.
pub fn extent(offset: u32, len: u32) -> Extent {
    Extent::new(offset, len, 22).expect("inside the object")
}

/// A checked name.
pub fn vdi_name(name: &str) -> VdiName {
    VdiName::new(name).unwrap()
}

fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

fn vid_of(reply: &ReplyHeader) -> Result<VdiId, Status> {
    match reply.status {
        Status::Success => Ok(VdiId::new(reply.vdi().vdi_id).expect("a vid")),
        other => Err(other),
    }
}

/// A running minisheep; killed when dropped.
pub struct Minisheep {
    /// The process.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    control: PathBuf,
    /// Kept open: nobody else reads it.
    _stdout: BufReader<ChildStdout>,
}

impl Minisheep {
    /// Starts it on `dir`, on any port, with a control socket, and waits until it listens. It
    /// says nothing on stderr unless `MINISHEEP_LOG` (a filter such as `debug`) is set.
    pub fn start(dir: &Path, arguments: &[&str]) -> Self {
        let control = dir.with_extension("control");
        let log = std::env::var("MINISHEEP_LOG").ok();
        let stderr = if log.is_some() { Stdio::inherit() } else { Stdio::null() };
        let mut child = Self::command(dir)
            .args(["--port", "0", "--control"])
            .arg(&control)
            .args(arguments)
            .env("RUST_LOG", log.unwrap_or_default())
            .stderr(stderr)
            .stdout(Stdio::piped())
            .spawn()
            .expect("minisheep starts");
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("minisheep: listening on ");
        let address = address.unwrap_or_else(|| panic!("unexpected: {line:?}")).parse().unwrap();
        Self { child, address, control, _stdout: stdout }
    }

    /// The program with its directory.
    pub fn command(dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minisheep"));
        command.arg(dir).env_remove("RUST_LOG");
        command
    }

    /// A new connection to it.
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends a line to the control socket and returns the answer.
    pub fn control(&self, line: &str) -> String {
        let mut stream = UnixStream::connect(&self.control).expect("the control socket");
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        writeln!(stream, "{line}").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// How often the rule was broken.
    pub fn bugs(&self, rule: &str) -> u64 {
        count(&self.control("bugs"), rule)
    }

    /// Which rules were broken, as `rule=count` words.
    pub fn all_bugs(&self) -> String {
        self.control("bugs")
            .lines()
            .map(|line| line.replace(' ', "="))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "minisheep does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The number behind `word` in lines of `word number`; 0 when there is none.
pub fn count(lines: &str, word: &str) -> u64 {
    let mut words = lines.lines().filter_map(|line| line.split_once(' '));
    words.find(|(name, _)| *name == word).map_or(0, |(_, number)| number.parse().unwrap())
}

impl Drop for Minisheep {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

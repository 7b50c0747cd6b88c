//! A state that this build can't go on with is refused in words, before anything is asked of the
//! kernel: what waits there goes on waiting, and is answered when a state comes that is good.

use crate::MIB;
use crate::apart::apart;
use crate::cluster::Cluster;
use crate::notify::Store;
use crate::served::{Lives, Manager, Served};
use crate::tools::{Output, output};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::gettid;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::thread;

/// The name under which it is kept.
const NAME: &str = "sheepfs-state";
/// `EX_SOFTWARE`.
const INTERNAL: i32 = 70;
/// Bytes of a word; the layout is that of the supervisor's `state` module.
const WORD: u64 = 8;
const VERSION_AT: u64 = 1;
const CURRENT_AT: u64 = 2;
const COPIES_AT: u64 = 512;
const COPY_LEN: u64 = 1 << 19;

fn word(file: &File, at: u64) -> u64 {
    let mut bytes = [0; WORD as usize];
    file.read_exact_at(&mut bytes, at * WORD).unwrap();
    u64::from_ne_bytes(bytes)
}

fn set_word(file: &File, at: u64, value: u64) {
    file.write_all_at(&value.to_ne_bytes(), at * WORD).unwrap();
}

/// What is wrong with a state.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Older,
    Newer,
    Foreign,
    /// The file is shorter than it should be.
    Truncated,
    /// Its end was never written, though its length says so.
    Cut,
    Flipped,
    Empty,
}

impl Wrong {
    const ALL: [Self; 7] = [
        Self::Older,
        Self::Newer,
        Self::Foreign,
        Self::Truncated,
        Self::Cut,
        Self::Flipped,
        Self::Empty,
    ];

    /// What an operator must be told.
    fn words(self) -> &'static str {
        match self {
            Self::Older => "it is of version 0, and this build knows version",
            Self::Newer => "it is of version 99, and this build knows version",
            Self::Foreign => "it is not the state of a sheepfs",
            Self::Truncated => "bytes where",
            Self::Cut | Self::Flipped => "it is damaged: its checksum is wrong",
            Self::Empty => "nothing was ever written to it",
        }
    }

    /// A copy of `state` that is wrong in this way.
    fn copy(self, state: &File) -> File {
        let len = state.metadata().unwrap().len();
        let mut bytes = vec![0; len as usize];
        state.read_exact_at(&mut bytes, 0).unwrap();
        if matches!(self, Self::Truncated) {
            bytes.truncate(1 << 20);
        }
        let copy = sealed(&bytes);
        // Of two copies, the current one.
        let at = COPIES_AT + word(&copy, CURRENT_AT) % 2 * COPY_LEN;
        match self {
            Self::Older => set_word(&copy, VERSION_AT, 0),
            Self::Newer => set_word(&copy, VERSION_AT, 99),
            Self::Foreign => set_word(&copy, 0, 7),
            Self::Truncated => {}
            Self::Cut => {
                let words = word(&copy, at + 1).div_ceil(WORD);
                (words / 2..words).for_each(|nth| set_word(&copy, at + 3 + nth, 0));
            }
            Self::Flipped => set_word(&copy, at + 5, word(&copy, at + 5) ^ 1 << 17),
            Self::Empty => set_word(&copy, CURRENT_AT, 0),
        }
        copy
    }
}

/// Memory that a supervisor takes for a state.
fn sealed(bytes: &[u8]) -> File {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("altered-state", flags).unwrap());
    file.write_all(bytes).unwrap();
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file
}

/// `sheepfs --check-state` with that state; to be called where its descriptor is.
fn check(state: &File) -> Output {
    // By its path, since `output` gives an empty input; for reading and writing, since it is
    // looked at as a supervisor would look.
    let path = format!("/proc/{}/fd/{}", gettid(), state.as_raw_fd());
    let check = "exec \"$0\" --check-state 0<> \"$1\"";
    output(Command::new("sh").args(["-c", check, env!("CARGO_BIN_EXE_sheepfs"), &path]))
}

fn state_of(store: &Store) -> File {
    File::from(store.descriptor(NAME).expect("a state is kept"))
}

/// Keeps a wrong state in the place of the good one; `--check-state` must refuse it in the same
/// words as the next life will.
fn spoil(store: &Store, wrong: Wrong) {
    let good = state_of(store);
    let checked = check(&good);
    assert!(checked.status.success(), "a good state: {}", checked.stderr);
    let bad = wrong.copy(&good);
    let checked = check(&bad);
    assert_eq!(checked.status.code(), Some(INTERNAL), "{wrong:?}: {}", checked.stderr);
    assert!(checked.stderr.contains(wrong.words()), "{wrong:?}: {}", checked.stderr);
    store.replace(NAME, bad.into());
}

/// A successor that does not understand the state says so and ends, and the requests wait for one
/// that does.
#[test]
fn a_state_that_can_not_be_read_is_refused_and_nothing_is_lost() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    // What a life has read from the device is lost with it then: so a refused one has read
    // nothing.
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &["--no-resend"]);
    for (round, wrong) in (1..).zip(Wrong::ALL) {
        let file = served.open(&disk);
        served.kill();
        served.manager_mut().bury();
        let write = thread::spawn(move || file.write_all_at(&[round; 4096], 0));
        let said = served.manager().log().len();
        let good = served.manager().keep_aside(NAME);
        served.manager().with_store(move |store| spoil(store, wrong));
        let lives = served.manager_mut();
        lives.spawn();
        assert_eq!(lives.bury().code(), Some(INTERNAL), "{wrong:?}");
        let log = lives.log();
        let words = &log[said..];
        assert!(words.contains(wrong.words()), "{wrong:?}: {words}");
        assert!(words.contains("cannot take over the mount"), "{wrong:?}: {words}");
        assert!(!write.is_finished(), "{wrong:?}: answered by nobody");
        lives.put_back(NAME, &good);
        lives.spawn();
        write.join().unwrap().unwrap();
        assert_eq!(served.count("takeovers"), u64::from(round));
        assert_eq!(cluster.content(&disk)[..4096], [round; 4096]);
    }
}

/// Nobody has to be root, or have a mount, to ask.
#[test]
fn what_is_no_memory_of_ours_is_refused_as_well() {
    let checked = apart(|| {
        let check = "exec \"$0\" --check-state < /dev/null";
        output(Command::new("sh").args(["-c", check, env!("CARGO_BIN_EXE_sheepfs")]))
    });
    assert_eq!(checked.status.code(), Some(INTERNAL), "{}", checked.stderr);
    assert!(checked.stderr.contains("not sealed"), "{}", checked.stderr);
}

//! What is written to the files of `vdi/`, held at one of its requests while somebody dies, and
//! what must have come of it: the same as if nobody had died, once.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::tree::Tree;
use crate::tools::wait_for;
use std::os::unix::fs::FileExt;
use std::thread;

/// An errand, and those of its requests that change something.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    file: &'static str,
    line: &'static str,
    /// Whether the VDI is a volume meanwhile.
    is_attached: bool,
    requests: &'static [&'static str],
}

const SIZE_WRITE: &str = "opcode=write kind=inode";
const NEW: &str = "opcode=0x11";
const DELETE: &str = "opcode=0x17";

const fn case(
    file: &'static str,
    line: &'static str,
    is_attached: bool,
    requests: &'static [&'static str],
) -> Case {
    Case { file, line, is_attached, requests }
}

/// All errands.
const CASES: [Case; 9] = [
    case("create", "new 3M", true, &[NEW]),
    case("delete", "disk", false, &[SIZE_WRITE, DELETE]),
    case("delete", "disk:s", true, &[SIZE_WRITE, DELETE]),
    case("snapshot", "disk t", true, &[SIZE_WRITE, NEW]),
    case("snapshot", "disk t", false, &[SIZE_WRITE, NEW]),
    case("clone", "disk:s copy", true, &[NEW]),
    case("rollback", "disk:s", false, &[SIZE_WRITE, DELETE, NEW]),
    case("resize", "disk 9M", true, &[SIZE_WRITE]),
    case("resize", "disk 9M", false, &[SIZE_WRITE]),
];

/// At which end of a request somebody dies.
const SIDES: [&str; 2] = ["hold", "hold_reply"];

/// Has somebody die at either end of each request of each errand: the outcome must be that of
/// the same in peace.
pub fn for_each_death(in_peace: fn(Case) -> String, with_a_death: fn(Case, &str) -> String) {
    for case in CASES {
        let wanted = in_peace(case);
        for request in case.requests {
            for side in SIDES {
                let held = format!("{side} {request}");
                assert_eq!(with_a_death(case, &held), wanted, "{case:?}: {held}");
            }
        }
    }
}

impl Case {
    /// Makes the VDI that it is about.
    pub fn prepare(self, cluster: &Cluster, tree: &Tree) {
        cluster.vdi("disk", 8 * MIB);
        tree.attach("disk");
        let write = |value: u8, at: u64| {
            tree.open("disk").write_all_at(&[value; 5000], at).unwrap();
        };
        write(1, 0);
        write(1, 4 * MIB);
        cluster.snapshot("disk", "s");
        write(2, 0);
        if !self.is_attached {
            tree.detach("disk");
        }
    }

    /// Does it, and lets somebody die while one of its requests is held.
    pub fn run(self, cluster: &Cluster, tree: &Tree, held: &str, die: impl FnOnce()) {
        let sheep = cluster.minisheep();
        let fault = sheep.fault(&format!("{held} count=1"));
        let holds = || sheep.control("held").lines().any(|line| line.ends_with(" 1"));
        thread::scope(|scope| {
            let line = format!("{}\n", self.line);
            let file = format!("vdi/{}", self.file);
            let written = scope.spawn(move || tree.write(&file, line.as_bytes()));
            wait_for("the request to be held", holds);
            die();
            // It is late, and carried out all the same.
            sheep.control("release");
            let written = written.join().unwrap();
            assert!(written.is_ok(), "{self:?} {held}: {written:?}");
        });
        assert_eq!(sheep.fired(&fault), 1);
    }

    /// Does it, and nobody dies.
    pub fn run_in_peace(self, tree: &Tree) {
        tree.write(&format!("vdi/{}", self.file), self.line.as_bytes()).unwrap();
    }

    /// What there is afterwards. The volume can be used, if it is one.
    pub fn outcome(self, cluster: &Cluster, tree: &Tree) -> String {
        if self.is_attached {
            let file = tree.open("disk");
            file.write_all_at(b"goes on", 5 * MIB).unwrap();
            let size = file.metadata().unwrap().len();
            assert_eq!(size, if self.file == "resize" { 9 * MIB } else { 8 * MIB });
        }
        let bugs = cluster.minisheep().bugs();
        assert!(bugs.trim().is_empty(), "{self:?}: {bugs}");
        let list = tree.read("vdi/list");
        // All but the times.
        let is_time = |word: &&str| word.starts_with("20") && word.len() == 10 || is_clock(word);
        let lines = list.lines().map(|line| {
            let words: Vec<_> = line.split_whitespace().filter(|word| !is_time(word)).collect();
            words.join(" ") + "\n"
        });
        lines.collect()
    }
}

fn is_clock(word: &str) -> bool {
    word.len() == 5 && word.as_bytes()[2] == b':'
}

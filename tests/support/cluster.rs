//! The cluster that a test runs on.
//!
//! [`Cluster::start`] gives a minisheep of the test's own, or, when `SHEEPFS_TEST_SHEEP=host:port`
//! names a sheep, that one: the same tests then run on a real cluster. They make VDIs of their
//! own there, under names that nobody else has, and delete them at the end. Tests that need what
//! only minisheep can do (faults, a stopped or unformatted sheep) take a minisheep in any case.

use crate::minisheep::Minisheep;
use crate::wire::{Wire, snapshot_ref, working_ref};
use sheepfs::wire::VdiId;
use sheepfs::wire::name::VdiRef;
use sheepfs::wire::request::NewVdi;
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A cluster, and what the test made in it.
#[derive(Debug)]
pub enum Cluster {
    /// A minisheep of the test's own.
    Mini(Minisheep),
    /// A sheep that others use as well.
    Real(RealCluster),
}

/// A cluster that was there before the test.
#[derive(Debug)]
pub struct RealCluster {
    address: String,
    made: Mutex<Vec<VdiRef>>,
}

impl Cluster {
    /// The real cluster, if the environment names one, else a minisheep.
    pub fn start() -> Self {
        match std::env::var("SHEEPFS_TEST_SHEEP") {
            Ok(address) => Self::Real(RealCluster { address, made: Mutex::default() }),
            Err(_) => Self::mini(),
        }
    }

    /// A minisheep, whatever the environment says.
    pub fn mini() -> Self {
        Self::Mini(Minisheep::start(&["--format"]))
    }

    /// A cluster that is only an address: somebody else starts, stops and fills it.
    pub fn named(address: &str) -> Self {
        Self::Real(RealCluster { address: address.to_owned(), made: Mutex::default() })
    }

    /// The minisheep that it is.
    pub fn minisheep(&self) -> &Minisheep {
        match self {
            Self::Mini(minisheep) => minisheep,
            Self::Real(_) => panic!("this test asked for no minisheep"),
        }
    }

    /// Where it can be reached, as `host:port`.
    pub fn address(&self) -> &str {
        match self {
            Self::Mini(minisheep) => minisheep.address(),
            Self::Real(real) => &real.address,
        }
    }

    /// Whether it is a real one.
    pub fn is_real(&self) -> bool {
        matches!(self, Self::Real(_))
    }

    /// A connection to it.
    pub fn wire(&self) -> Wire {
        Wire::connect(self.address())
    }

    /// Makes a VDI of `size` bytes; `hint` becomes part of the name that is returned.
    pub fn vdi(&self, hint: &str, size: u64) -> String {
        self.vdi_with(hint, &NewVdi { size, ..NewVdi::default() })
    }

    /// Makes a VDI; `hint` becomes part of the name that is returned.
    pub fn vdi_with(&self, hint: &str, new: &NewVdi) -> String {
        let name = self.unique(hint);
        self.wire().new_vdi(&name, new);
        self.note(working_ref(&name));
        name
    }

    /// Makes a hyper volume; `hint` becomes part of the name that is returned.
    pub fn hyper(&self, hint: &str, new: &NewVdi) -> String {
        let name = self.unique(hint);
        self.wire().new_hyper_volume(&name, new);
        self.note(working_ref(&name));
        name
    }

    /// Turns the working VDI into a snapshot; the new working vid.
    pub fn snapshot(&self, name: &str, tag: &str) -> VdiId {
        let vid = self.wire().snapshot(name, tag);
        self.note(snapshot_ref(name, tag));
        vid
    }

    /// Deletes what it made before the end.
    pub fn delete(&self, vdi: &VdiRef) {
        self.wire().delete(vdi);
        if let Self::Real(real) = self {
            real.made.lock().unwrap().retain(|made| made != vdi);
        }
    }

    /// All of a VDI's content, seen without sheepfs.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let mut wire = self.wire();
        let vid = wire.vid(name);
        wire.content(vid)
    }

    /// `hint`, or on a real cluster something like it that nobody else has.
    pub fn unique(&self, hint: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        match self {
            Self::Mini(_) => hint.to_owned(),
            Self::Real(_) => format!("sheepfs-test-{hint}-{}-{number}", process::id()),
        }
    }

    /// Remembers a VDI that has to be deleted at the end.
    pub fn note(&self, vdi: VdiRef) {
        if let Self::Real(real) = self {
            real.made.lock().unwrap().push(vdi);
        }
    }
}

impl Drop for RealCluster {
    fn drop(&mut self) {
        let made = self.made.get_mut().unwrap();
        if thread::panicking() {
            println!("left on {}: {made:?}", self.address);
            return;
        }
        if made.is_empty() {
            return;
        }
        let mut wire = Wire::connect(&self.address);
        // The newest first: a VDI goes before the snapshot it was made from.
        for vdi in made.iter().rev() {
            wire.delete(vdi);
        }
    }
}

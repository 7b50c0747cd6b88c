//! What programs do while supervisors die: registers and fio at once, and a file that was opened
//! before anything happened.

use crate::MIB;
use crate::cluster::Cluster;
use crate::fio::Fio;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::served::{Manager, Mounted, Served};
use crate::site::vdi_for;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

const FIO_BYTES: u64 = 8 * MIB;
const WITNESS_BYTES: u64 = 4 * MIB;

/// The VDIs of a load.
#[derive(Debug)]
pub struct Disks {
    registers: String,
    fio: String,
    witness: String,
    plan: Plan,
}

impl Disks {
    /// Makes them.
    pub fn make(cluster: &Cluster, plan: Plan) -> Self {
        Self {
            registers: vdi_for(cluster, plan),
            fio: cluster.vdi("bytes", FIO_BYTES),
            witness: cluster.vdi("witness", WITNESS_BYTES),
            plan,
        }
    }

    /// What is to be attached for it.
    pub fn names(&self) -> [&str; 3] {
        [&self.registers, &self.fio, &self.witness]
    }
}

/// A load, and the instants of faults that it has borne.
#[derive(Debug)]
pub struct Load<'a> {
    disks: &'a Disks,
    registers: Registers,
    fio: Fio,
    /// What is as it was.
    pub witness: Witness,
    faults: Vec<Instant>,
}

impl<'a> Load<'a> {
    /// Starts it.
    pub fn start<M: Manager>(served: &Served<M>, disks: &'a Disks) -> Self {
        let load = Self {
            disks,
            registers: Registers::start(&served.volume(&disks.registers), disks.plan),
            fio: Fio::start(&served.volume(&disks.fio), FIO_BYTES),
            witness: Witness::of(served, &disks.witness),
            faults: Vec::new(),
        };
        load.wait_for_progress();
        load
    }

    /// Waits until each writer has had an answer to a write that it began after this call.
    pub fn wait_for_progress(&self) {
        self.registers.wait_for_progress();
    }

    /// A fault comes now.
    pub fn fault(&mut self) {
        self.faults.push(Instant::now());
    }

    /// Ends it: no call may have failed, what was written must be there, the file of before and
    /// the mount must be what they were. Prints the stalls, of which there must be some: a fault
    /// that met no call at all proves nothing.
    pub fn finish<M: Manager>(mut self, row: &str, served: &Served<M>, cluster: &Cluster) {
        self.wait_for_progress();
        self.witness.check(served);
        println!("{row}, fio: {:?}", self.fio.finish());
        let report = self.registers.finish();
        report.print_stalls(row, &self.faults);
        let met = self.faults.iter().filter(|fault| report.stall_at(**fault).is_some()).count();
        assert!(met > 0, "none of {} faults met a call", self.faults.len());
        report.compare(&cluster.content(&self.disks.registers));
    }
}

/// A file that was opened before the fault, on a mount that must stay what it is.
#[derive(Debug)]
pub struct Witness {
    file: File,
    mounted: Mounted,
    writes: u64,
}

impl Witness {
    /// Opens `volume`, of which it owns the first two blocks.
    pub fn of<M: Manager>(served: &Served<M>, volume: &str) -> Self {
        Self { file: served.open(volume), mounted: served.mounted(), writes: 0 }
    }

    /// Fails the test unless the mount is the same, and the file can be read and written.
    pub fn check<M: Manager>(&mut self, served: &Served<M>) {
        assert_eq!(served.mounted(), self.mounted, "another mount");
        let block = |number: u64| [number as u8; 4096];
        let mut room = [0; 4096];
        self.file.read_exact_at(&mut room, 4096 * (self.writes % 2)).unwrap();
        assert_eq!(room, block(self.writes), "what was written before the fault");
        self.writes += 1;
        self.file.write_all_at(&block(self.writes), 4096 * (self.writes % 2)).unwrap();
        self.file.sync_all().unwrap();
        self.file.read_exact_at(&mut room, 4096 * (self.writes % 2)).unwrap();
        assert_eq!(room, block(self.writes), "what was written just now");
    }
}

//! Searches for the tree of VDIs: each asks for what somebody looks at, and no more.
//!
//! | wanted | requests |
//! | --- | --- |
//! | all VDIs | the two bitmaps, and a header for each VDI |
//! | a name | its lookup and one header; for what is no working VDI's name, as its family |
//! | the family of a vid | its header, the bitmaps, and a header for each of the family |
//! | a vid | its header; its parent's, or the rest of its index, when that is wanted |
//!
//! No lock is taken, and nothing is remembered here: what may be remembered for how long,
//! the supervisor decides.

use crate::context::Context;
use crate::engine::Waiter;
use crate::frame::Reply;
use crate::query::{Part, Progress, Sign, refused};
use crate::vdis::{VdiAnswer, VdiScan};
use sheepfs::ipc::{Failure, Report, Search, Tag};
use sheepfs::text::report::VdiReport;
use sheepfs::wire::name::{Generation, VdiName, VdiRef};
use sheepfs::wire::{Request, Status, VdiId};

/// A search under way.
#[derive(Debug)]
pub struct SearchRun {
    tag: Tag,
    search: Search,
    scan: Option<VdiScan>,
    /// What was found before the scan that goes on.
    found: Vec<VdiReport>,
    is_last_scan: bool,
    sign: Sign,
}

impl SearchRun {
    /// Begins; asks the first question. An end at once comes with it.
    pub fn begin(tag: Tag, search: Search, io: &mut Context<Waiter>) -> (Self, Progress) {
        let sign = Sign::new(io.now);
        let mut run = Self { tag, search, scan: None, found: Vec::new(), is_last_scan: true, sign };
        let progress = match run.search.clone() {
            Search::All => run.scan(VdiScan::begin(tag, false, io)),
            Search::Named(name) => run.look_up(name, io),
            Search::FamilyOf(vid) | Search::WithParent(vid) => {
                run.is_last_scan = false;
                run.scan_vid(vid, false, io)
            }
            Search::Vdi(vid) => run.scan_vid(vid, false, io),
            Search::WithUsage(vid) => run.scan_vid(vid, true, io),
        };
        (run, progress)
    }

    fn scan(&mut self, scan: VdiScan) -> Progress {
        self.scan = Some(scan);
        Progress::Going
    }

    fn scan_vid(&mut self, vid: u32, with_usage: bool, io: &mut Context<Waiter>) -> Progress {
        match VdiId::new(vid) {
            Some(vid) => self.scan(VdiScan::of_vid(self.tag, vid, with_usage, io)),
            None => self.done(),
        }
    }

    /// A name that can't be written as one, such as one with a slash, is found by its hash.
    fn look_up(&mut self, name: Vec<u8>, io: &mut Context<Waiter>) -> Progress {
        let text = std::str::from_utf8(&name).ok();
        let Some(name) = text.and_then(|text| VdiName::new(text).ok()) else {
            return self.scan(VdiScan::of_name(self.tag, name, io));
        };
        let working = VdiRef { name, generation: Generation::Working };
        let waiter = Waiter::Query(self.tag, Part::Vid);
        io.send(Request::get_vdi_info(&working), None, waiter);
        Progress::Going
    }

    fn done(&mut self) -> Progress {
        Progress::Done(Report::Vdis(std::mem::take(&mut self.found)))
    }

    /// Takes an answer.
    pub fn reply(&mut self, part: Part, reply: &Reply, io: &mut Context<Waiter>) -> Progress {
        self.sign.give(self.tag, io);
        match part {
            Part::Vid => self.looked_up(reply, io),
            Part::Vdis(answer) => self.scanned(answer, reply, io),
            Part::Nodes | Part::EpochCount | Part::Epochs(_) | Part::Space(_) => {
                Progress::Failed(Failure::BadAnswer)
            }
        }
    }

    fn looked_up(&mut self, reply: &Reply, io: &mut Context<Waiter>) -> Progress {
        // Only snapshots may be left of the name.
        if let (Status::NoVdi | Status::NoTag, Search::Named(name)) = (reply.status, &self.search) {
            return self.scan(VdiScan::of_name(self.tag, name.clone(), io));
        }
        match refused(reply.status) {
            Some(end) => end,
            None => self.scan_vid(reply.header.vdi().vdi_id, false, io),
        }
    }

    fn scanned(&mut self, answer: VdiAnswer, reply: &Reply, io: &mut Context<Waiter>) -> Progress {
        let Some(scan) = &mut self.scan else { return Progress::Failed(Failure::BadAnswer) };
        match scan.reply(answer, reply, io) {
            Ok(false) => Progress::Going,
            Err(failure) => Progress::Failed(failure),
            Ok(true) => {
                let (found, refusal) = (scan.take(), scan.refusal());
                match (found.is_empty(), refusal) {
                    // Where one VDI is asked about, "not there" must be true.
                    (true, Some(failure)) if self.found.is_empty() => Progress::Failed(failure),
                    _ => self.found(found, io),
                }
            }
        }
    }

    fn found(&mut self, found: Vec<VdiReport>, io: &mut Context<Waiter>) -> Progress {
        let first = found.first().map(|vdi| vdi.header.clone());
        let goes_on = !std::mem::replace(&mut self.is_last_scan, true);
        match (&self.search, first) {
            (Search::FamilyOf(_), Some(header)) if goes_on => {
                self.scan(VdiScan::of_name(self.tag, header.name, io))
            }
            (Search::WithParent(_), Some(header)) if goes_on && header.parent_vdi_id != 0 => {
                self.found = found;
                self.scan_vid(header.parent_vdi_id, false, io)
            }
            _ => {
                self.found.extend(found);
                self.done()
            }
        }
    }
}

//! What a discard asks of the cluster, and when a stage of it is over.

use super::array;
use super::{Discard, Stage};
use crate::verdict::Verdict;
use crate::volume::{Io, Phase, REFUSALS_MAX, RETRY_DELAY, Volume, Wait};
use sheepfs::ipc::{Failure, Tag};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiRef};
use sheepfs::wire::{Request, VdiId};

/// How often the inode before ours may be absent, until it is taken to be gone.
const FORMER_REFUSALS_MAX: u32 = 10;

/// What a reply to a discard's request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The header of our vid.
    Header,
    /// The header of a vid before ours.
    FormerHeader,
    /// Entries of the vid that is looked at.
    Entries,
    /// Reference counts of that vid.
    Grefs,
    /// The entry that is put back in a snapshot, or what is let go after it.
    Former(u32),
    /// The entry that is cleared.
    Clear(u32),
    /// Whose the name is.
    Lookup,
    /// The object, or the reference to it, that goes.
    Release(u32),
}

impl Discard {
    /// Whether what is not found may be gone for good, which is no harm.
    fn may_go_without(&self) -> bool {
        self.stage == Stage::Array(array::Stage::Former) && self.refused > FORMER_REFUSALS_MAX
    }
}

impl Volume {
    /// Asks what the stage has to ask.
    pub(super) fn ask_discard(&mut self, tag: Tag, io: &mut Io) {
        if let Some(failure) = self.failure() {
            return self.end_discard(tag, Some(failure), io);
        }
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        (discard.once_more, discard.delayed) = (false, None);
        match discard.stage {
            Stage::Gathering => {}
            Stage::Array(stage) => self.ask_of_array(tag, stage, io),
            Stage::Tree(stage) => self.ask_of_tree(tag, stage, io),
        }
    }

    pub(super) fn ask_name(&self) -> (Question, Option<Request>) {
        let name = VdiRef { name: self.name.clone(), generation: Generation::Working };
        (Question::Lookup, Some(Request::get_vdi_info(&name)))
    }

    pub(super) fn send_all(
        &mut self,
        tag: Tag,
        asks: Vec<(Question, Option<Request>)>,
        io: &mut Io,
    ) {
        let mut sent = 0;
        for (question, request) in asks {
            match request {
                Some(request) => {
                    self.send(request, None, Wait::Discard(tag, question), io);
                    sent += 1;
                }
                None => self.settle_question(tag, question),
            }
        }
        if let Some(discard) = self.discards.get_mut(&tag) {
            discard.outstanding = sent;
        }
        if sent == 0 {
            self.advance_discard(tag, io);
        }
    }

    /// A block needs nothing more in this stage.
    fn settle_question(&mut self, tag: Tag, question: Question) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        match question {
            Question::Former(block) | Question::Clear(block) | Question::Release(block) => {
                discard.settle_block(block);
            }
            Question::Header
            | Question::FormerHeader
            | Question::Entries
            | Question::Grefs
            | Question::Lookup => {}
        }
    }

    /// Takes a reply to one of a discard's requests. `vid` is a lookup's.
    pub(in crate::volume) fn discard_replied(
        &mut self,
        tag: Tag,
        question: Question,
        verdict: Verdict,
        (bytes, vid): (&[u8], u32),
        io: &mut Io,
    ) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        discard.outstanding -= 1;
        if once(self.own, discard, question) || gone_already(discard, question, verdict) {
            discard.settle_block(block_of(question));
        } else {
            match verdict {
                Verdict::Done => self.take_answer(tag, question, bytes, vid),
                Verdict::Retry => discard.once_more = true,
                Verdict::Fail(Failure::NoSuchVdi) if question == Question::Lookup => {
                    discard.found.vid = 0;
                }
                // It may only not be found yet; where vids are used again, it may be gone.
                Verdict::Recheck if discard.may_go_without() => {}
                Verdict::Recheck | Verdict::Fail(_) if discard.refused < REFUSALS_MAX => {
                    (discard.refused_now, discard.once_more) = (true, true);
                }
                Verdict::Fail(failure) => discard.failure = Some(failure),
                Verdict::Recheck | Verdict::Reload | Verdict::SheepGone => {
                    discard.failure = Some(Failure::ObjectLost);
                }
            }
        }
        self.answered(tag, io);
    }

    /// Something that a stage waited for has come: goes on when it was the last.
    pub(super) fn answered(&mut self, tag: Tag, io: &mut Io) {
        let gone = self.failure();
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        if discard.outstanding > 0 {
            return;
        }
        discard.refused += u32::from(std::mem::take(&mut discard.refused_now));
        if !discard.once_more {
            discard.refused = 0;
        }
        match discard.failure.or(gone) {
            Some(failure) => self.end_discard(tag, Some(failure), io),
            None if discard.once_more => discard.delayed = Some(io.now + RETRY_DELAY),
            None => self.advance_discard(tag, io),
        }
    }

    fn take_answer(&mut self, tag: Tag, question: Question, bytes: &[u8], vid: u32) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        match question {
            Question::Header | Question::FormerHeader => {
                discard.found.header = InodeHeader::decode(bytes).ok();
            }
            Question::Entries => discard.found.take_entries(bytes),
            Question::Grefs => discard.found.take_grefs(bytes),
            Question::Lookup => discard.found.vid = vid,
            Question::Former(_) | Question::Clear(_) | Question::Release(_) => {
                self.settle_question(tag, question);
            }
        }
    }

    /// All of a stage is answered.
    fn advance_discard(&mut self, tag: Tag, io: &mut Io) {
        match self.discards.get(&tag).map(|discard| discard.stage) {
            Some(Stage::Array(stage)) => self.advance_in_array(tag, stage, io),
            Some(Stage::Tree(stage)) => self.advance_in_tree(tag, stage, io),
            Some(Stage::Gathering) | None => {}
        }
    }

    /// The header has come. Gives it if the discard may go on with it: the vid is still a
    /// working VDI's, and ours.
    pub(super) fn judge_header(&mut self, tag: Tag, io: &mut Io) -> Option<InodeHeader> {
        let discard = self.discards.get_mut(&tag)?;
        let Some(header) = discard.found.header.take() else {
            self.end_discard(tag, Some(Failure::BadAnswer), io);
            return None;
        };
        if !self.is_still_ours(&header) {
            self.end_discard(tag, Some(Failure::Replaced), io);
            self.fail(Failure::Replaced, io);
            return None;
        }
        if header.is_snapshot() {
            self.regather(tag, None);
            self.drain();
            return None;
        }
        if !matches!(self.phase, Phase::Serving) {
            self.regather(tag, None);
            return None;
        }
        Some(header)
    }

    /// Asks again what was delayed.
    pub(in crate::volume) fn tick_discards(&mut self, io: &mut Io) {
        let ripe = |discard: &Discard| discard.delayed.is_some_and(|until| until <= io.now);
        let ripe: Vec<Tag> =
            self.discards.iter().filter(|(_, one)| ripe(one)).map(|(tag, _)| *tag).collect();
        ripe.into_iter().for_each(|tag| self.ask_discard(tag, io));
    }
}

/// Whether that is the reply to a reference that was given up: whatever it says, it is not
/// given up again.
fn once(own: VdiId, discard: &Discard, question: Question) -> bool {
    match question {
        Question::Release(block) => {
            discard.blocks.get(&block).is_some_and(|block| block.was != own.get())
        }
        Question::Former(block) => discard.former.as_ref().is_some_and(|f| f.counts(block)),
        Question::Header
        | Question::FormerHeader
        | Question::Entries
        | Question::Grefs
        | Question::Clear(_)
        | Question::Lookup => false,
    }
}

/// An object that is not there need not go. An inode that an entry is put back in is there.
fn gone_already(discard: &Discard, question: Question, verdict: Verdict) -> bool {
    let releases = match question {
        Question::Release(_) => true,
        Question::Former(block) => !discard.former.as_ref().is_some_and(|f| f.puts_back(block)),
        Question::Header
        | Question::FormerHeader
        | Question::Entries
        | Question::Grefs
        | Question::Clear(_)
        | Question::Lookup => false,
    };
    releases && verdict == Verdict::Recheck
}

fn block_of(question: Question) -> u32 {
    match question {
        Question::Former(block) | Question::Clear(block) | Question::Release(block) => block,
        Question::Header
        | Question::FormerHeader
        | Question::Entries
        | Question::Grefs
        | Question::Lookup => 0,
    }
}

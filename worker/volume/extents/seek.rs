//! How far a seek has got. Pure.

use super::piece::Piece;
use sheepfs::ipc::{SeekTarget, Tag};

/// A seek that has no answer.
#[derive(Clone, Copy, Debug)]
pub struct Seek {
    /// The request.
    pub tag: Tag,
    offset: u64,
    target: SeekTarget,
    /// What it looks for is not in front of this block. One more than there are numbers
    /// for: it has looked everywhere.
    block: u64,
}

/// The blocks of a volume.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// How many.
    pub count: u64,
    /// log2 of their size.
    pub shift: u8,
    /// Bytes of all of them.
    pub len: u64,
}

/// What a seek needs, or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// The piece with that block.
    Needs(u32),
    /// It ends there; `None`: there is no data any more.
    Ends(Option<u64>),
}

impl Seek {
    /// A seek from `offset` on.
    pub fn new(tag: Tag, offset: u64, target: SeekTarget, blocks: Blocks) -> Self {
        Self { tag, offset, target, block: offset >> blocks.shift }
    }

    /// The block where it is.
    pub fn block(&self) -> u32 {
        u32::try_from(self.block).unwrap_or(u32::MAX)
    }

    /// Goes on, with a piece that is known. `written` names the first block, from one on,
    /// that a write is under way to: it is data, or will be.
    pub fn walk(
        &mut self,
        piece: Option<&Piece>,
        written: impl Fn(u32) -> Option<u32>,
        blocks: Blocks,
    ) -> Walk {
        while self.block < blocks.count {
            let block = self.block();
            let Some(piece) = piece.filter(|piece| piece.holds(block)) else {
                return Walk::Needs(block);
            };
            let found = match self.target {
                SeekTarget::Data => {
                    let written = written(block).filter(|written| piece.holds(*written));
                    piece.find(block, true).into_iter().chain(written).min()
                }
                SeekTarget::Hole => {
                    let mut hole = piece.find(block, false);
                    while let Some(at) = hole.filter(|at| written(*at) == Some(*at)) {
                        hole = at.checked_add(1).and_then(|next| piece.find(next, false));
                    }
                    hole
                }
            };
            if let Some(found) = found {
                let start = u64::from(found) << blocks.shift;
                return Walk::Ends(Some(start.max(self.offset)));
            }
            self.block = u64::from(piece.last()) + 1;
        }
        match self.target {
            SeekTarget::Data => Walk::Ends(None),
            SeekTarget::Hole => Walk::Ends(Some(blocks.len.max(self.offset))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Stretch;
    use super::*;

    /// Ten blocks of 512 bytes, the last of 100, of which these have objects.
    fn ends(present: &[usize], offset: u64, target: SeekTarget) -> Option<u64> {
        ends_with(present, &[], offset, target)
    }

    /// And these are written to.
    fn ends_with(
        present: &[usize],
        written: &[u32],
        offset: u64,
        target: SeekTarget,
    ) -> Option<u64> {
        let mut entries = [0; 10];
        present.iter().for_each(|block| entries[*block] = 9);
        let blocks = Blocks { count: 10, shift: 9, len: 9 * 512 + 100 };
        let mut seek = Seek::new(Tag(1), offset, target, blocks);
        // In pieces of four blocks.
        let mut piece = None;
        loop {
            let first_written = |from| written.iter().copied().filter(|at| *at >= from).min();
            match seek.walk(piece.as_ref(), first_written, blocks) {
                Walk::Ends(found) => return found,
                Walk::Needs(block) => {
                    let first = block / 4 * 4;
                    let last = (first + 3).min(9);
                    let entries = (first..=last).filter(|at| entries[*at as usize] != 0);
                    let entries = entries.map(|at| (at, 9)).collect();
                    piece = Some(Piece::new(&Stretch { first, last, entries }));
                }
            }
        }
    }

    #[test]
    fn data_and_holes_begin_at_blocks_and_end_with_the_volume() {
        use SeekTarget::{Data, Hole};
        let present = [2, 3, 4, 9];
        assert_eq!(ends(&present, 0, Data), Some(1024));
        assert_eq!(ends(&present, 1025, Data), Some(1025));
        assert_eq!(ends(&present, 1025, Hole), Some(5 * 512));
        assert_eq!(ends(&present, 2600, Hole), Some(2600));
        assert_eq!(ends(&present, 2600, Data), Some(9 * 512));
        assert_eq!(ends(&present, 9 * 512 + 1, Hole), Some(9 * 512 + 100));
        assert_eq!(ends(&[], 0, Data), None);
        assert_eq!(ends(&[], 99, Hole), Some(99));
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(ends(&all, 0, Hole), Some(9 * 512 + 100));
    }

    #[test]
    fn what_is_being_written_is_data() {
        use SeekTarget::{Data, Hole};
        let (present, written) = ([2], [1, 3, 4, 7]);
        let ends = |offset, target| ends_with(&present, &written, offset, target);
        assert_eq!(ends(0, Data), Some(512));
        assert_eq!(ends(512, Hole), Some(5 * 512));
        assert_eq!(ends(5 * 512, Data), Some(7 * 512));
        assert_eq!(ends(8 * 512, Data), None);
        assert_eq!(ends(7 * 512 + 5, Hole), Some(8 * 512));
    }
}

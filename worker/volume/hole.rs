//! What is known to be a hole without asking the cluster.

use super::{Phase, Volume};

impl Volume {
    /// Whether a range, which is not empty, is known to be a hole, with nothing under way on
    /// its objects.
    pub fn is_hole(&self, offset: u64, len: u32) -> bool {
        let shift = self.header.block_size_shift;
        let end = offset.saturating_add(u64::from(len));
        if !matches!(self.phase, Phase::Serving) || end > self.header.vdi_size {
            return false;
        }
        let mut blocks = offset >> shift..=end.saturating_sub(1) >> shift;
        blocks.all(|block| {
            u32::try_from(block).is_ok_and(|block| {
                self.index.get(block) == Some(0) && !self.objects.contains_key(&block)
            })
        })
    }
}

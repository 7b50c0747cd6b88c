//! Which reads are sequential, and what to read ahead of them. Pure.
//!
//! A stream begins with any read; one that goes on where a stream stands belongs to it,
//! also a little before or behind, as readers with several requests under way ask out
//! of order. From its fourth read on a stream is read ahead of, by a window that doubles
//! whenever the reader has used half of it. A read elsewhere is a new stream, which
//! takes the place of the one that was used least lately; random reads make four only when
//! they are large and the place that they are spread over is small.

use std::ops::Range;

/// Streams of a volume that are followed at once.
const STREAMS_MAX: usize = 16;
/// Reads in a row before anything is read ahead.
const READS_MIN: u32 = 4;
/// The first window, in bytes.
const WINDOW_MIN: u64 = 128 << 10;
/// The largest: what a depth of four with the largest requests has under way.
const WINDOW_MAX: u64 = 4 << 20;
/// How many of its own lengths a read may be away from where its stream stands.
const SLACK: u64 = 4;

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Where the next read is expected.
    next: u64,
    reads: u32,
    /// Up to where it was read ahead.
    ahead: u64,
    window: u64,
}

/// The streams of a volume, the one used last in front.
#[derive(Debug, Default)]
pub struct Streams {
    streams: Vec<Stream>,
}

impl Streams {
    /// A read came; gives what should be read ahead, if anything.
    pub fn note(&mut self, offset: u64, len: u64) -> Option<Range<u64>> {
        let slack = SLACK * len;
        let near = |stream: &Stream| {
            stream.next <= offset + slack && offset <= stream.next + slack.min(WINDOW_MAX)
        };
        let end = offset + len;
        let Some(at) = self.streams.iter().position(near) else {
            self.streams.truncate(STREAMS_MAX - 1);
            let new = Stream { next: end, reads: 1, ahead: end, window: WINDOW_MIN };
            self.streams.insert(0, new);
            return None;
        };
        self.streams[..=at].rotate_right(1);
        let stream = self.streams.first_mut()?;
        if end <= stream.next {
            return None;
        }
        stream.reads = stream.reads.saturating_add(1);
        stream.next = end;
        stream.ahead = stream.ahead.max(stream.next);
        let wanted = stream.next + stream.window;
        let half_used = stream.ahead - stream.next <= stream.window / 2;
        (stream.reads >= READS_MIN && half_used).then_some(stream.ahead..wanted)
    }

    /// What was asked for is under way, up to there.
    pub fn note_ahead(&mut self, end: u64) {
        if let Some(stream) = self.streams.first_mut() {
            stream.ahead = stream.ahead.max(end);
            stream.window = (stream.window * 2).min(WINDOW_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequential_reader_is_read_ahead_of_by_growing_windows() {
        let mut streams = Streams::default();
        let (mut asked, mut ahead) = (Vec::new(), 0);
        for number in 0..4096 {
            if let Some(range) = streams.note(number * 4096, 4096) {
                assert!(ahead == 0 || range.start == ahead, "no gap, and nothing twice");
                ahead = range.end;
                asked.push(range.end - range.start);
                streams.note_ahead(range.end);
            }
            assert!(number < 3 || ahead > (number + 1) * 4096, "read {number} is not ahead");
        }
        assert_eq!(asked[0], WINDOW_MIN);
        assert!(asked[1] > asked[0] && asked.len() < 30, "{asked:?}");
        assert!(asked.iter().all(|len| *len <= WINDOW_MAX));
    }

    #[test]
    fn random_reads_are_not_read_ahead_of() {
        let mut streams = Streams::default();
        let mut place: u64 = 1;
        for _ in 0..100_000 {
            place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            assert_eq!(streams.note((place >> 24) & !4095, 4096), None);
        }
    }

    #[test]
    fn nor_is_one_block_that_is_read_again() {
        let mut streams = Streams::default();
        assert!((0..100).all(|_| streams.note(1 << 20, 4096).is_none()));
    }

    #[test]
    fn several_streams_are_told_apart_and_may_be_out_of_order() {
        let mut streams = Streams::default();
        let mut asked = [0; 8];
        for step in 0..32u64 {
            // Four requests under way: pairs are swapped.
            let step = step ^ 1;
            for (number, count) in (0u64..).zip(&mut asked) {
                if let Some(range) = streams.note((number << 30) + step * 65536, 65536) {
                    assert_eq!(range.start >> 30, number);
                    streams.note_ahead(range.end);
                    *count += 1;
                }
            }
        }
        assert!(asked.iter().all(|count| *count > 2), "{asked:?}");
    }

    #[test]
    fn what_could_not_be_asked_for_is_wanted_again() {
        let mut streams = Streams::default();
        let wanted: Vec<_> = (0..6).map(|n| streams.note(n * 4096, 4096)).collect();
        assert_eq!(wanted[..3], [None, None, None]);
        assert_eq!(wanted[5], Some(6 * 4096..6 * 4096 + WINDOW_MIN));
    }
}

//! What a client must not do, and how often one did.
//!
//! A real sheep does not check its clients: it crashes, loses data or lets replicas differ
//! (protocol 8.5, 8.7, 18). Here every such request is counted under the rule it breaks. Where
//! serving it would kill a real server it is refused, else it is served all the same: the real
//! `dog` breaks some rules by design (it clears whole ranges of the index, sends copies and the
//! flag DIRECT), and must be served. sheepfs may break none.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{debug, warn};

use crate::wire::RequestHeader;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A rule that a client broke.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule { $($(#[$doc])* $name,)* }

        const ALL: &[Rule] = &[$(Rule::$name,)*];

        impl Rule {
            /// Its name in the log and on the control socket.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

rules! {
    /// An opcode behind the table of a real sheep, which crashes (protocol 18).
    Opcode = "opcode",
    /// A protocol version that is refused.
    Version = "version",
    /// The WRITE flag does not fit the opcode (protocol 1.5, 18).
    WriteFlag = "write_flag",
    /// A flag that has no effect on today's servers: noise of the C clients.
    Flags = "flags",
    /// The internal RECOVERY flag, which makes a gateway retry for ever (protocol 18).
    RecoveryFlag = "recovery_flag",
    /// A length that overflows a buffer of a real sheep (protocol 18).
    BufferLength = "buffer_length",
    /// A cluster operation with a payload near 128 KiB (protocol 18).
    ClusterPayload = "cluster_payload",
    /// `copies` or `copy_policy` are not 0 (protocol 6.2).
    Copies = "copies",
    /// A reserved field is not 0.
    Reserved = "reserved",
    /// Beyond the end of the object.
    ObjectBounds = "object_bounds",
    /// A block beyond the end of the VDI, or of no VDI at all.
    VdiBounds = "vdi_bounds",
    /// A copy-on-write create that runs over its object (protocol 18).
    CowBounds = "cow_bounds",
    /// A change to an object that is just being created (protocol 8.5).
    ConcurrentCreate = "concurrent_create",
    /// A write that overlaps one which was not answered (protocol 8.5).
    Overlap = "overlap",
    /// A create of a block which the index already names: it loses what was written.
    CreateOverOwn = "create_over_own",
    /// An index entry for an object that does not exist, or not yet.
    IndexBeforeObject = "index_before_object",
    /// An index write that repeats inherited entries (protocol 8.7).
    IndexInherited = "index_inherited",
    /// An index write that repeats empty entries, and does not clear all from a
    /// used one to a used one.
    IndexEmpty = "index_empty",
    /// An index write that is not made of whole entries, or leaves the index (protocol 8.7).
    IndexShape = "index_shape",
    /// An index entry beyond the end of the VDI.
    IndexBounds = "index_bounds",
    /// An index write at 4664 or above on a hyper volume (protocol 5.4).
    HyperIndex = "hyper_index",
    /// A discard that names an inode (protocol 10).
    DiscardInode = "discard_inode",
    /// A discard that names a snapshot's object (protocol 10).
    DiscardForeign = "discard_foreign",
    /// A removal of an object that an index names.
    RemoveNeeded = "remove_needed",
    /// An unaligned write to an absent erasure-coded object, which hangs (protocol 6.1).
    StripeAbsent = "stripe_absent",
    /// A write that begins at the border of an erasure-coded stripe and ends within it: a real
    /// gateway zeroes the rest of the stripe.
    StripeFront = "stripe_front",
    /// A frame that ends in the middle.
    Frame = "frame",
}

/// Warnings for each rule.
const WARNINGS_MAX: u64 = 10;

/// How often each rule was broken.
#[derive(Debug)]
pub struct Rules {
    counts: [AtomicU64; ALL.len()],
}

impl Default for Rules {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Rules {
    /// Counts that `request` broke `rule`, and logs it; the C clients break some rules with
    /// every request, so only the first of each kind are warnings.
    pub fn broken(&self, rule: Rule, request: &RequestHeader) {
        let before = self.counts[rule as usize].fetch_add(1, Ordering::Relaxed);
        let fields = request.obj();
        let what = format!(
            "opcode {:#04x} id {} oid {:016x} offset {} length {}",
            request.opcode, request.id, fields.oid, fields.offset, request.data_length
        );
        if before < WARNINGS_MAX {
            warn!(rule = rule.name(), "a client's bug: {what}");
        } else {
            debug!(rule = rule.name(), "a client's bug: {what}");
        }
    }

    /// Counts a frame that ended in the middle; no request can be blamed for it.
    pub fn broken_frame(&self) {
        self.counts[Rule::Frame as usize].fetch_add(1, Ordering::Relaxed);
        warn!(rule = Rule::Frame.name(), "a client's bug: a connection ended inside a request");
    }

    /// The rules that were broken, each with its count.
    pub fn counts(&self) -> impl Iterator<Item = (Rule, u64)> + '_ {
        let counts = ALL.iter().zip(&self.counts);
        let counts = counts.map(|(rule, count)| (*rule, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }

    /// Starts counting anew.
    pub fn clear(&self) {
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

/// As the last line of the log has it: `3 (copies=2 overlap=1)`.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.counts().collect();
        write!(f, "{}", counts.iter().map(|(_, count)| count).sum::<u64>())?;
        let words: Vec<_> =
            counts.iter().map(|(rule, count)| format!("{}={count}", rule.name())).collect();
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(" ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Opcode;

    #[test]
    fn counts_are_told_by_name() {
        let rules = Rules::default();
        assert_eq!(rules.to_string(), "0");
        let request = RequestHeader::new(Opcode::ReadObj, 0, 0);
        rules.broken(Rule::Overlap, &request);
        rules.broken(Rule::Copies, &request);
        rules.broken(Rule::Copies, &request);
        assert_eq!(rules.to_string(), "3 (copies=2 overlap=1)");
        rules.clear();
        assert_eq!(rules.to_string(), "0");
    }
}

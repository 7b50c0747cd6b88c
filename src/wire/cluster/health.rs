//! How a sheep is doing: its counters and its recovery, as STAT and STAT_RECOVERY tell
//! them (protocol 15.8). Only what sheepfs acts on is decoded.

use super::{LayoutError, front};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The `data_length` of STAT; less makes a sheep write behind its buffer (protocol 18).
pub const STAT_LEN: usize = 15 * 8;
/// The `data_length` of STAT_RECOVERY; as [`STAT_LEN`].
pub const STAT_RECOVERY_LEN: usize = 24;

/// The front of protocol 15.8's STAT.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCounters {
    gateway_active: U64,
}

/// The front of protocol 15.8's STAT_RECOVERY.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRecovery {
    in_recovery: u8,
}

/// Reads from the payload of STAT how many object requests of clients the sheep has taken and
/// not yet answered, and how many flushes.
///
/// # Errors
/// [`LayoutError::Length`] when it is too short.
pub fn active_requests(bytes: &[u8]) -> Result<u64, LayoutError> {
    let (raw, _) = front::<RawCounters>("the counters of a sheep", bytes)?;
    Ok(raw.gateway_active.get())
}

/// Reads from the payload of STAT_RECOVERY whether the sheep is recovering objects.
///
/// # Errors
/// [`LayoutError::Length`] when it is too short.
pub fn in_recovery(bytes: &[u8]) -> Result<bool, LayoutError> {
    let (raw, _) = front::<RawRecovery>("the recovery of a sheep", bytes)?;
    Ok(raw.in_recovery != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_counts_and_the_first_byte_tells() {
        let mut counters = vec![9; STAT_LEN];
        counters[..8].copy_from_slice(&3u64.to_le_bytes());
        assert_eq!(active_requests(&counters), Ok(3));
        assert_eq!(in_recovery(&[1; STAT_RECOVERY_LEN]), Ok(true));
        assert_eq!(in_recovery(&[0; STAT_RECOVERY_LEN]), Ok(false));
    }

    #[test]
    fn nothing_is_read_from_too_little() {
        assert!(active_requests(&[0; 7]).is_err());
        assert!(in_recovery(&[]).is_err());
    }
}

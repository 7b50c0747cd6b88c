//! How long the kernel lets a request wait.
//!
//! Since Linux 6.14 an administrator can have the kernel abort a whole FUSE
//! connection when one request takes too long (`fs.fuse.default_request_timeout`
//! and `fs.fuse.max_request_timeout`, in seconds, 0 for never). Then requests can't
//! be held for ever: an error in time is less than the loss of the mount
//! (hazard 21).

use crate::control::outage::OnOutage;
use std::fs;
use std::time::Duration;

const SETTINGS: [&str; 2] =
    ["/proc/sys/fs/fuse/default_request_timeout", "/proc/sys/fs/fuse/max_request_timeout"];

/// Part of the kernel's time after which requests fail, in tenths. The kernel looks
/// at intervals, and a request was waiting before the outage began.
const MARGIN_TENTHS: u32 = 8;

/// The kernel's limit, if there is one.
pub fn request_timeout() -> Option<Duration> {
    let read = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
    shortest(SETTINGS.map(read))
}

/// Both settings limit; 0 does not.
fn shortest(settings: [Option<u64>; 2]) -> Option<Duration> {
    settings.into_iter().flatten().filter(|seconds| *seconds > 0).min().map(Duration::from_secs)
}

/// The policy that fits into the kernel's limit.
pub fn fit(policy: OnOutage, limit: Option<Duration>) -> OnOutage {
    let Some(limit) = limit else { return policy };
    let longest = limit * MARGIN_TENTHS / 10;
    match policy {
        OnOutage::ErrorAfter(time) if time <= longest => policy,
        OnOutage::ErrorAfter(_) | OnOutage::Hold => OnOutage::ErrorAfter(longest),
    }
}

/// As [`fit`], and says in the log what it means.
pub fn fitted(policy: OnOutage) -> OnOutage {
    let limit = request_timeout();
    let fitted = fit(policy, limit);
    if let Some(limit) = limit {
        tracing::warn!(
            limit_seconds = limit.as_secs(),
            ?fitted,
            "the kernel aborts the mount when a request takes too long (sysctl fs.fuse.*_request_timeout); \
             requests fail before that while no sheep serves, rather than being held"
        );
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_shorter_of_both_settings_counts_and_0_is_none() {
        assert_eq!(shortest([None, None]), None);
        assert_eq!(shortest([Some(0), Some(0)]), None);
        assert_eq!(shortest([Some(0), Some(30)]), Some(SECOND * 30));
        assert_eq!(shortest([Some(20), Some(30)]), Some(SECOND * 20));
    }

    #[test]
    fn nothing_is_held_longer_than_the_kernel_lets_it() {
        let ten = OnOutage::ErrorAfter(SECOND * 10);
        assert_eq!(fit(OnOutage::Hold, None), OnOutage::Hold);
        assert_eq!(fit(ten, None), ten);
        assert_eq!(fit(OnOutage::Hold, Some(SECOND * 60)), OnOutage::ErrorAfter(SECOND * 48));
        assert_eq!(fit(ten, Some(SECOND * 60)), ten);
        assert_eq!(fit(ten, Some(SECOND * 10)), OnOutage::ErrorAfter(SECOND * 8));
    }
}

//! What is asked of the kernel at the start of a mount. It holds for the mount's
//! life, and so for later supervisors too (hazard 19).

use fuser::{InitFlags, KernelConfig};

/// The largest request: what a slot of the arena holds.
pub const REQUEST_LEN_MAX: u32 = 1 << 20;
/// Requests that the kernel keeps outstanding in the background; its own default
/// of 12 would leave nothing to pipeline. It is more than a worker has on the wire,
/// and all of them together are not more bytes than are kept while no sheep serves.
const BACKGROUND_MAX: u16 = 96;
/// From here on the kernel holds back read-ahead: three quarters, as usual.
const CONGESTED_AT: u16 = 72;

const _: () =
    assert!(BACKGROUND_MAX as usize * REQUEST_LEN_MAX as usize <= crate::datapath::KEPT_LEN_MAX);

/// What is wanted besides what fuser asks for by itself, which is
/// `ASYNC_READ`, `BIG_WRITES` and `MAX_PAGES`.
///
/// | flag | why |
/// | --- | --- |
/// | `ASYNC_DIO` | else a direct read or write has one request outstanding |
/// | `PARALLEL_DIROPS` | else one lookup waits for another |
/// | `DIRECT_IO_ALLOW_MMAP` | else a shared mapping of a volume fails (Linux 6.6) |
/// | `HAS_RESEND` | a later supervisor asks for what was not answered (Linux 6.9) |
/// | `HANDLE_KILLPRIV_V2` | else each cached write asks for `security.capability`; volumes have no privileges to lose |
///
/// Not wanted: `WRITEBACK_CACHE`, under which the kernel owns the size;
/// `ATOMIC_O_TRUNC`, which throws away another opener's dirty pages (hazard 54);
/// `AUTO_INVAL_DATA`, since volumes change through this mount only; locks,
/// which the kernel keeps by itself; `PASSTHROUGH` and `OVER_IO_URING`, which
/// don't survive a restart; `ABORT_ERROR`, as fuser knows the end by ENODEV.
const WANTED: InitFlags = InitFlags::FUSE_ASYNC_DIO
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::FUSE_HAS_RESEND)
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2);

/// Chooses from what the kernel offers.
pub fn negotiate(config: &mut KernelConfig) {
    let offered = config.capabilities();
    let missing = WANTED.difference(offered);
    if !missing.is_empty() {
        tracing::info!("this kernel does not offer {missing:?}");
    }
    // None of these can fail: the flags are offered, the numbers are in range.
    let _ = config.add_capabilities(WANTED.intersection(offered));
    let _ = config.set_max_write(REQUEST_LEN_MAX);
    let _ = config.set_max_background(BACKGROUND_MAX);
    let _ = config.set_congestion_threshold(CONGESTED_AT);
}

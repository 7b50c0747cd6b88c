//! The Sheepdog client protocol, public version 2, as bytes.
//!
//! Everything here is pure: structures, their encoding and their decoding, and
//! the constructors through which requests are made. Nothing opens a socket.
//! All integers are little-endian (protocol 1). The decoders take bytes from a
//! peer that is not trusted, so they check lengths first and never panic.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`header`] | the 48-byte request and reply headers |
//! | [`opcode`] | the requests a client may know |
//! | [`status`] | result codes |
//! | [`oid`] | object ids, VDI ids, the name hash |
//! | [`name`] | VDI names and tags, how a user writes them |
//! | [`request`] | the only way to make a request |
//! | [`inode`] | the VDI's inode: header, index, reference counts |
//! | [`btree`] | the index of hyper volumes |
//! | [`cluster`] | nodes, epochs, bitmaps, lock states |
//! | [`placement`] | which nodes hold an object |

pub mod btree;
pub mod cluster;
pub mod header;
pub mod inode;
pub mod name;
pub mod oid;
pub mod opcode;
pub mod placement;
pub mod request;
pub mod status;

pub use header::{HEADER_LEN, ReplyHeader, RequestHeader};
pub use name::{VdiName, VdiTag};
pub use oid::{ObjectId, VdiId};
pub use opcode::Opcode;
pub use request::Request;
pub use status::Status;

/// Reads a little-endian `u16` at `at`.
///
/// # Panics
/// Never: bytes behind the end read as zero. Callers check lengths first.
#[must_use]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

/// Reads a little-endian `u32` at `at`; bytes behind the end read as zero.
#[must_use]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// Reads a little-endian `u64` at `at`; bytes behind the end read as zero.
#[must_use]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// Copies `N` bytes from `at`; bytes behind the end read as zero.
#[must_use]
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    let tail = bytes.get(at..).unwrap_or(&[]);
    let len = tail.len().min(N);
    out[..len].copy_from_slice(&tail[..len]);
    out
}

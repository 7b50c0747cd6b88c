//! Result codes of replies (protocol 2).

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The result of a request, as the server gave it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Status {
            $($(#[$doc])* $name,)*
            /// A code that this build does not know.
            Other(u32),
        }

        impl Status {
            /// The status of that number.
            #[must_use]
            pub fn from_code(code: u32) -> Self {
                match code {
                    $($code => Self::$name,)*
                    other => Self::Other(other),
                }
            }

            /// The number on the wire.
            #[must_use]
            pub fn code(self) -> u32 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Other(code) => code,
                }
            }
        }
    };
}

statuses! {
    /// Done, on all replicas.
    Success = 0x00,
    /// Rare and unexplained.
    Unknown = 0x01,
    /// The object is absent.
    NoObj = 0x02,
    /// A disk error that the gateway could not hide.
    Eio = 0x03,
    /// The name is taken.
    VdiExist = 0x04,
    /// The request makes no sense to the server.
    InvalidParms = 0x05,
    /// The server failed.
    SystemError = 0x06,
    /// Somebody holds the lock, perhaps we.
    VdiLocked = 0x07,
    /// No such name.
    NoVdi = 0x08,
    /// No such parent.
    NoBaseVdi = 0x09,
    /// An inode could not be read.
    VdiRead = 0x0a,
    /// An inode could not be written.
    VdiWrite = 0x0b,
    /// The parent's inode could not be read.
    BaseVdiRead = 0x0c,
    /// The parent's inode could not be written.
    BaseVdiWrite = 0x0d,
    /// The name exists, the snapshot does not.
    NoTag = 0x0e,
    /// Starting; not sent by today's servers.
    Startup = 0x0f,
    /// Not locked; not sent by today's servers.
    VdiNotLocked = 0x10,
    /// The cluster shuts down; the request may have been carried out.
    Shutdown = 0x11,
    /// Out of memory.
    NoMem = 0x12,
    /// No free vid.
    FullVdi = 0x13,
    /// Wrong protocol version.
    VerMismatch = 0x14,
    /// No room on a node that must hold a replica.
    NoSpace = 0x15,
    /// The cluster was never formatted.
    WaitForFormat = 0x16,
    /// Nodes of the last epoch are missing after a restart.
    WaitForJoin = 0x17,
    /// Joining failed.
    JoinFailed = 0x18,
    /// Too few zones in a strict cluster; nothing was done.
    Halt = 0x19,
    /// A data object of a snapshot.
    Readonly = 0x1a,
    /// The shared-lock protocol wants the inode read again.
    InodeInvalidated = 0x1d,
    /// The sender's epoch is too old.
    OldNodeVer = 0x81,
    /// The sender's epoch is too new.
    NewNodeVer = 0x82,
    /// Not formatted.
    NotFormatted = 0x83,
    /// The nodes could not reach each other.
    NetworkError = 0x86,
    /// The answer does not fit.
    BufferSmall = 0x88,
    /// Not supported.
    NoSupport = 0x8b,
    /// This node stops; the request was not carried out.
    Killed = 0x8d,
    /// Try again.
    Again = 0x8f,
    /// Recovery got in the way.
    StaleObj = 0x90,
    /// The cluster driver lost its session; the fate is unknown.
    ClusterError = 0x91,
    /// The node is just joining.
    CollectingCinfo = 0x95,
}

impl Status {
    /// Whether the request was carried out.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Success
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_both_ways() {
        for code in 0..=0x200 {
            assert_eq!(Status::from_code(code).code(), code);
        }
        assert_eq!(Status::from_code(0x19), Status::Halt);
        assert_eq!(Status::from_code(0x77), Status::Other(0x77));
    }
}

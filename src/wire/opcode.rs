//! The requests of the protocol that a client may know.
//!
//! Opcodes below 0x80 are public and take any protocol version up to 2; those
//! from 0x80 up are shared with the servers and want their version, 0x0a
//! (protocol 1.2).

/// The public protocol version that sheepfs speaks (protocol 1.7).
pub const PUBLIC_VERSION: u8 = 2;
/// The version that opcodes from 0x80 up must carry.
pub const INTERNAL_VERSION: u8 = 0x0a;

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// A request's kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Opcode { $($(#[$doc])* $name = $code,)* }

        impl Opcode {
            /// The opcode of that number, if it is one a client may know.
            #[must_use]
            pub fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    /// Make an object, with payload at an offset (protocol 8.1).
    CreateAndWriteObj = 0x01,
    /// Read a part of an object.
    ReadObj = 0x02,
    /// Overwrite a part of an existing object.
    WriteObj = 0x03,
    /// Remove an object on all nodes; touches no index.
    RemoveObj = 0x04,
    /// Clear an index entry and drop its object (protocol 10).
    DiscardObj = 0x05,
    /// Make a VDI, a snapshot or a clone.
    NewVdi = 0x11,
    /// Look a name up and take its lock.
    LockVdi = 0x12,
    /// Give a lock back.
    ReleaseVdi = 0x13,
    /// Look a name up.
    GetVdiInfo = 0x14,
    /// The bitmap of vids in use.
    ReadVdis = 0x15,
    /// Flush; today's servers refuse it because they write through.
    FlushVdi = 0x16,
    /// Delete a VDI.
    DelVdi = 0x17,
    /// The cluster's defaults for new VDIs; the cheapest of all requests.
    GetClusterDefault = 0x18,
    /// All nodes.
    GetNodeList = 0x82,
    /// Format the cluster.
    MakeFs = 0x84,
    /// Shut the cluster down.
    Shutdown = 0x85,
    /// Space of the node asked.
    StatSheep = 0x86,
    /// State and epochs of the cluster.
    StatCluster = 0x87,
    /// Find or make a VDI's attribute.
    GetVdiAttr = 0x89,
    /// The names of the stores a server knows.
    GetStoreList = 0x90,
    /// Progress of recovery.
    StatRecovery = 0x97,
    /// Drop a removed server-side cache; does nothing today.
    FlushDelCache = 0x98,
    /// States of all VDIs, with their locks.
    GetVdiCopies = 0xab,
    /// Counters of the node asked.
    Stat = 0xb8,
    /// Whether the node asked holds an object.
    Exist = 0xbd,
    /// The cluster's state in one structure.
    ClusterInfo = 0xbe,
    /// Give up one reference of a data object that snapshots share (protocol 9).
    DecrefObj = 0xc1,
    /// The bitmap of deleted vids.
    ReadDelVdis = 0xc9,
}

impl Opcode {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The protocol version that a request of this kind carries.
    #[must_use]
    pub fn version(self) -> u8 {
        if self.code() < 0x80 { PUBLIC_VERSION } else { INTERNAL_VERSION }
    }
}

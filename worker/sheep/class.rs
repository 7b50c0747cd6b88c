//! What requests count against. Each class has places of its own ([`super::peer`]), so that
//! what waits in one does not keep the others'.

use sheepfs::wire::{Opcode, Request};

/// What a request counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It changes an object.
    Change,
    /// It changes nothing.
    Read,
    /// An operation of the whole cluster: it may wait for others' for long
    /// (hazard 50), and a sheep does not count it among its object requests.
    Cluster,
    /// Against nothing: the session's own few questions.
    Own,
}

/// The class of a request that is not the session's own.
pub(super) fn class_of(request: &Request) -> Class {
    match request.opcode() {
        Some(
            Opcode::WriteObj
            | Opcode::CreateAndWriteObj
            | Opcode::DiscardObj
            | Opcode::RemoveObj
            | Opcode::DecrefObj,
        ) => Class::Change,
        Some(
            Opcode::NewVdi
            | Opcode::LockVdi
            | Opcode::ReleaseVdi
            | Opcode::GetVdiInfo
            | Opcode::DelVdi,
        ) => Class::Cluster,
        _ => Class::Read,
    }
}

//! Result codes in the words of `dog` (protocol 2).

use crate::wire::status::Status;

/// What `dog` says of a result; codes without a text of their own come as a number.
#[must_use]
pub fn status_text(status: Status) -> String {
    match known_text(status) {
        Some(text) => text.to_owned(),
        None => format!("Invalid error code {:x}", status.code()),
    }
}

/// The texts that protocol 2 lists, which are those a cluster's state can come with and more.
fn known_text(status: Status) -> Option<&'static str> {
    Some(match status {
        Status::NoObj => "No object found",
        Status::VdiExist => "VDI exists already",
        Status::SystemError => "System error",
        Status::VdiLocked => "VDI is already locked",
        Status::NoVdi => "No VDI found",
        Status::NoTag => "Failed to find requested tag",
        Status::Shutdown => "System is shutting down",
        Status::NoSpace => "Server has no space for new objects",
        Status::WaitForFormat => "Waiting for cluster to be formatted",
        Status::WaitForJoin => "Waiting for other nodes to join cluster",
        Status::Halt => "IO has halted as there are not enough living nodes",
        Status::Readonly => "Object is read-only",
        _ => return None,
    })
}

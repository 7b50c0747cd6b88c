//! Whom requests for objects are sent to.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The least connections that a worker can do with: those to its own sheep.
pub const CONNECTIONS_MIN: u32 = 4;
/// The TCP connections of a worker in all, unless the user says otherwise.
pub const CONNECTIONS_DEFAULT: u32 = 64;
/// The most that a user can ask for: more nodes than those are not asked directly
/// ([`DIRECT_MAX`]).
pub const CONNECTIONS_MAX: u32 = CONNECTIONS_MIN + 2 * DIRECT_MAX;
/// The most nodes that a session asks directly. All of them are watched after its end
/// ([`super::message::WATCHED_MAX`]).
pub const DIRECT_MAX: u32 = 96;

/// Whom requests for objects are sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Route {
    /// A node that holds a replica, where one can be reached.
    #[default]
    Replica,
    /// Always the sheep in use.
    Gateway,
}

/// Neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("replica or gateway is wanted")]
pub struct NoRoute;

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replica => "replica",
            Self::Gateway => "gateway",
        })
    }
}

impl FromStr for Route {
    type Err = NoRoute;

    fn from_str(text: &str) -> Result<Self, NoRoute> {
        match text {
            "replica" => Ok(Self::Replica),
            "gateway" => Ok(Self::Gateway),
            _ => Err(NoRoute),
        }
    }
}

/// How requests for data objects were sent since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// Nodes that are asked directly now, besides the sheep in use.
    pub nodes: u32,
    /// Requests sent to such a node.
    pub direct: u64,
    /// Requests sent to the sheep in use.
    pub gateway: u64,
    /// Reads sent to the sheep in use after a node did not answer them well.
    pub again: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_reads_as_it_is_written() {
        for route in [Route::Replica, Route::Gateway] {
            assert_eq!(route.to_string().parse(), Ok(route));
        }
        for nonsense in ["", "Replica", "gateway ", "0"] {
            assert_eq!(nonsense.parse::<Route>(), Err(NoRoute));
        }
    }
}

//! What the control files say.

pub mod report;

//! sheepfs shows a Sheepdog cluster as a directory and its virtual disks as files.

pub mod address;
pub mod ipc;
pub mod logging;
pub mod minisheep;
pub mod size;
pub mod text;
pub mod wire;

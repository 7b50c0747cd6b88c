//! sheepfs shows a Sheepdog cluster as a directory and its virtual disks as files.

pub mod ipc;
pub mod minisheep;
pub mod size;
pub mod text;
pub mod wire;

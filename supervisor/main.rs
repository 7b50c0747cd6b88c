//! `sheepfs`: mounts a Sheepdog cluster as a directory.
fn main() {}

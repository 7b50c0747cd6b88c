//! `sheepfs`: mounts a Sheepdog cluster as a directory.

mod attr;
mod datapath;
mod descriptors;
mod events;
#[cfg(test)]
mod fake;
mod fs;
mod inflight;
mod link;
mod mount;
mod session;
mod settings;
mod status;
mod texts;
mod tree;
mod volumes;

fn main() {}

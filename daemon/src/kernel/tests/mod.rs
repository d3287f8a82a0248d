//! The kernel module on this machine's kernel, in network namespaces of its own.

mod attaching;
mod dynamic;
mod generations;
mod host;
mod owning;
pub(crate) mod world;

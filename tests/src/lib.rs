//! What the tests share: network namespaces with real packets, the real daemon in them, and random policies and packets.

pub mod daemon;
pub mod differential;
pub mod foreign;
pub mod generate;
pub mod netns;
pub mod traffic;

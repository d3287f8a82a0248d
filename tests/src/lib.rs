//! What the tests share: network namespaces with real packets, and the real daemon in them.

pub mod daemon;
pub mod foreign;
pub mod netns;
pub mod traffic;

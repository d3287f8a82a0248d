//! What the tests share: network namespaces with real packets, the real daemon in them, random policies and packets, and
//! system calls on a machine of their own.

pub mod daemon;
pub mod differential;
pub mod foreign;
pub mod generate;
pub mod host;
pub mod inject;
pub mod netns;
pub mod places;
pub mod show;
pub mod traffic;

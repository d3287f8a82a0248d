//! The control daemon: keeps the kernel in the state that the policy asks for.

pub mod kernel;

//! A program for each hook.

mod attributes;
mod exec;
mod ioctl;
mod mapping;
mod mounting;
mod moves;
mod names;
mod open;
mod own;
mod processes;
mod sockets;
mod system;
mod unix;

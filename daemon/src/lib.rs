//! The control daemon: it compiles and loads policies, follows the interfaces, keeps the dynamic entries, and answers
//! on its Unix socket. What enforces is in the kernel and stays there when the daemon ends.

pub mod apply;
pub mod cli;
pub mod clock;
pub mod connections;
pub mod daemon;
pub mod dynamic;
pub mod error;
pub mod faults;
pub mod host_status;
pub mod interfaces;
pub mod kernel;
pub mod logging;
pub mod privileges;
pub mod run;
pub mod server;
pub mod set_watch;
pub mod state;
pub mod status;
pub mod tick;

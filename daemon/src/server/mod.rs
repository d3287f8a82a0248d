//! The API over the Unix socket.

pub mod accounts;
pub mod body;
pub mod caller;
pub mod handlers;
pub mod openapi;
pub mod peer;
pub mod routes;
pub mod socket;

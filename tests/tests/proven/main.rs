//! What counts completed handshakes: limits of connections, and sources that rules add to sets.

mod connections;
mod jail;
mod server;

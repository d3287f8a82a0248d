//! Faults survived under traffic: at every moment the packets are judged by one whole generation, what must pass passes,
//! and what must be refused never gets through.
//!
//! The daemon ends or stops where a test says: that is compiled into builds with debug assertions only.
#![cfg(debug_assertions)]

mod kills;
mod scene;
mod traffic;
mod upgrade;

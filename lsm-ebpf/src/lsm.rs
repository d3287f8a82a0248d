//! The programs of one generation at security hooks: they judge calls with tables that are theirs alone.
//!
//! The dispatchers tail-call them. The same object is loaded a second time with `EXPLAIN` set, for its one XDP program
//! that answers `ringctl explain`: it decides in the same way and changes nothing.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod arena;
mod call;
mod explain;
mod hooks;
mod judge;
mod kernel;
mod maps;
mod mounts;
mod path;
mod repeat;
mod report;
mod scratch;
mod subject;
mod walk;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The helpers used are for programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

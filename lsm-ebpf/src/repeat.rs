//! Loops whose body the verifier looks at once.

/// Calls `bpf_loop` (5.17) with a callback and a context on the stack.
///
/// The callback's address is loaded right here, by an instruction that LLVM does not move. Hoisted out of a branch that
/// constants make dead, the load would outlive the callback, which the verifier has removed as unreachable, and the
/// kernel refuses the program ("No program to jit", seen on 6.18).
macro_rules! repeat {
    ($times:expr, $callback:path, $context:expr) => {{
        let callback: *mut ::core::ffi::c_void;
        // SAFETY: loads an address.
        unsafe { ::core::arch::asm!("{0} = {1} ll", out(reg) callback, sym $callback) };
        let context: *const _ = $context;
        // SAFETY: the callback has the signature that the helper calls, and expects this context.
        unsafe { ::aya_ebpf::helpers::generated::bpf_loop($times, callback, context.cast_mut().cast(), 0) };
    }};
}
pub(crate) use repeat;

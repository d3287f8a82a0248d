//! What a packet costs, by the kernel's own test run.

use std::{os::fd::AsFd as _, time::Duration};

use ringfence_abi::names;

use super::{
    Kernel,
    error::{Context as _, Result},
    explain::Hook,
    sys,
};

impl Kernel {
    /// Mean time the attached programs take for a frame, of `repeat` runs one after the other. What the cell names
    /// judges it, and counts it.
    pub fn time(&self, hook: Hook, frame: &[u8], repeat: u32) -> Result<Duration> {
        let dispatcher = match hook {
            Hook::XdpIngress => names::DISPATCH_XDP,
            Hook::TcIngress => names::DISPATCH_TC_IN,
            Hook::TcIngressL3 => names::DISPATCH_TC_IN_L3,
            Hook::TcEgress => names::DISPATCH_TC_OUT,
            Hook::TcEgressL3 => names::DISPATCH_TC_OUT_L3,
        };
        self.test_run(dispatcher, frame, repeat)
    }

    /// The same for a program that does nothing but let the frame pass: what the test run itself costs.
    pub fn time_bare(&self, frame: &[u8], repeat: u32) -> Result<Duration> {
        self.test_run(names::PASS_XDP, frame, repeat)
    }

    fn test_run(&self, name: &'static str, frame: &[u8], repeat: u32) -> Result<Duration> {
        let program = self.dispatchers.get(name)?.fd.as_fd();
        let nanoseconds = sys::test_run(program, frame, repeat).context(|| format!("cannot run {name}"))?;
        Ok(Duration::from_nanos(nanoseconds.into()))
    }
}

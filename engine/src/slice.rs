//! [`Tables`] and [`Frame`] over plain slices, for user space.

use crate::{Frame, Tables};

/// An arena in memory.
#[derive(Clone, Copy, Debug)]
pub struct SliceTables<'a>(pub &'a [u8]);

impl Tables for SliceTables<'_> {
    fn u32(&self, offset: u32) -> Option<u32> {
        self.0.get(offset as usize..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&self, offset: u32) -> Option<u64> {
        self.0.get(offset as usize..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// A packet in memory.
#[derive(Clone, Copy, Debug)]
pub struct SliceFrame<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// See [`Frame::segment`].
    pub segment: u32,
}

impl Frame for SliceFrame<'_> {
    fn at<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        self.bytes.get(offset as usize..)?.first_chunk()
    }

    fn linear(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn total(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn segment(&self) -> u32 {
        self.segment
    }
}

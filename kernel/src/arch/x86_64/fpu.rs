//! The x87, SSE and AVX state of programs. The kernel itself is compiled without them.

/// Bytes of the largest state that is kept: legacy 512, header 64, upper halves of the AVX registers 256.
pub const MAX_BYTES: usize = 832;

/// A program's FPU state in memory, in the layout of `xsave` (or `fxsave`, its first 512 bytes).
#[repr(C, align(64))]
#[derive(Clone)]
pub struct FpuState {
    bytes: [u8; MAX_BYTES],
}

impl FpuState {
    /// As a fresh program finds it: all empty, exceptions masked.
    pub const fn new() -> Self {
        FpuState { bytes: [0; MAX_BYTES] }
    }
    /// The bytes as `xsave` writes them; [`size`] of them mean something.
    pub fn bytes(&self) -> &[u8; MAX_BYTES] {
        &self.bytes
    }
    /// Take over bytes from a signal frame: what a program may not set is masked away, never believed.
    pub fn set_bytes(&mut self, _from: &[u8]) {
        todo!()
    }
}

/// Bytes of state that this CPU saves: 512 (fxsave), 576 or 832.
pub fn size() -> usize {
    todo!()
}
/// The XCR0 mask in force; 0 where the CPU has no xsave.
pub fn xcr0() -> u64 {
    todo!()
}

//! Entropy that the CPU has.

use super::{cpu, regs};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Tries before the CPU's generator is given up (Intel recommends ten).
const TRIES: usize = 10;

macro_rules! hardware {
    ($name:ident, $instruction:literal) => {
        fn $name() -> Option<u64> {
            for _ in 0..TRIES {
                let (value, good): (u64, u8);
                // SAFETY: CPUID offers the instruction (the caller looked); it changes registers only.
                unsafe {
                    asm!(concat!($instruction, " {}"), "setc {}", out(reg) value, out(reg_byte) good,
                        options(nomem, nostack))
                };
                if good != 0 {
                    return Some(value);
                }
            }
            None
        }
    };
}
hardware!(rdrand, "rdrand");
hardware!(rdseed, "rdseed");

/// 64 bits from rdseed or rdrand where the CPU has them, stirred with the time-stamp counter. Without those, it is
/// only as good as the counter is unpredictable: seed the generator from virtio-rng too.
pub fn seed() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0x6861_6665_7a00_0001);
    let features = cpu::features();
    let hardware = match (features.rdseed, features.rdrand) {
        (true, _) => rdseed().or_else(|| features.rdrand.then(rdrand).flatten()),
        (_, true) => rdrand(),
        _ => None,
    };
    // splitmix64's finish over the counter, so that near readings give far values.
    let mut x = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) ^ regs::rdtsc();
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31 ^ hardware.unwrap_or(0)
}

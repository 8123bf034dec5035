//! Entropy that the CPU has.

/// 64 bits from rdseed or rdrand where the CPU has them, stirred with the time-stamp counter. Without those, it is
/// only as good as the counter is unpredictable: seed the generator from virtio-rng too.
pub fn seed() -> u64 {
    todo!()
}

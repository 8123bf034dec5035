//! The clock: the time-stamp counter, scaled to nanoseconds since the machine's reset.

/// Nanoseconds since the machine's reset; never goes back.
pub fn now_ns() -> u64 {
    todo!()
}
/// Ticks of the time-stamp counter per second.
pub fn tsc_hz() -> u64 {
    todo!()
}
/// Interrupt this CPU at the time given (`None`: no more); the last call counts. For `sched` alone.
pub fn set_deadline(_ns: Option<u64>) {
    todo!()
}

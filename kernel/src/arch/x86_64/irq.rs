//! Interrupts: the guard that keeps them out, and handlers for the lines of the IOAPIC.

/// Interrupts stay off while this lives; then they are as before.
pub struct InterruptsOff {
    _before: bool,
}

/// Keep interrupts out until the guard is dropped.
pub fn interrupts_off() -> InterruptsOff {
    todo!()
}

/// Call `handler(data)` at each interrupt on line `gsi` (edge-triggered as virtio-mmio has it), with interrupts off.
/// The handler must not block.
pub fn register(_gsi: u8, _handler: fn(usize), _data: usize) {
    todo!()
}

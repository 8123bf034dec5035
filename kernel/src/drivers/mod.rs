//! Drivers: virtio over mmio.

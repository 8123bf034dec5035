//! The registers of a virtio device on the memory bus.
//!
//! QEMU's `microvm` puts each device behind 512 bytes of registers and names them on the kernel's command line
//! (`virtio_mmio.device=512@0xfeb00e00:12`: size, address, interrupt line). Two register layouts exist. Version 2 is
//! the standard's; version 1 ("legacy") is what QEMU still shows unless told otherwise. They differ in how a queue's
//! place is given, and in that legacy knows only 32 feature bits; both are served here, so the rest never asks.
//!
//! The start-up handshake is fixed (VIRTIO 1.2, 3.1.1): reset, acknowledge, driver, features, features-ok, queues,
//! driver-ok. [`Transport::negotiate`] goes up to features-ok, [`Transport::queue`] sets up a queue, and
//! [`Transport::start`] lets the device run.

use super::queue::Queue;
use super::{DeviceError, device_id, dma, feature};
use crate::arch::boot::VirtioMmio;
use core::sync::atomic::{AtomicBool, Ordering};
use hafez_mm::PhysAddr;

/// Register offsets in bytes (VIRTIO 1.2, table 4.1 and, for the legacy ones, table 4.3).
mod reg {
    pub const MAGIC: usize = 0x000;
    pub const VERSION: usize = 0x004;
    pub const DEVICE_ID: usize = 0x008;
    pub const DEVICE_FEATURES: usize = 0x010;
    pub const DEVICE_FEATURES_SEL: usize = 0x014;
    pub const DRIVER_FEATURES: usize = 0x020;
    pub const DRIVER_FEATURES_SEL: usize = 0x024;
    pub const LEGACY_PAGE_SIZE: usize = 0x028;
    pub const QUEUE_SEL: usize = 0x030;
    pub const QUEUE_NUM_MAX: usize = 0x034;
    pub const QUEUE_NUM: usize = 0x038;
    pub const LEGACY_QUEUE_ALIGN: usize = 0x03c;
    pub const LEGACY_QUEUE_PFN: usize = 0x040;
    pub const QUEUE_READY: usize = 0x044;
    pub const QUEUE_NOTIFY: usize = 0x050;
    pub const INTERRUPT_STATUS: usize = 0x060;
    pub const INTERRUPT_ACK: usize = 0x064;
    pub const STATUS: usize = 0x070;
    pub const QUEUE_DESC: usize = 0x080;
    pub const QUEUE_DRIVER: usize = 0x090;
    pub const QUEUE_DEVICE: usize = 0x0a0;
    pub const CONFIG_GENERATION: usize = 0x0fc;
    pub const CONFIG: usize = 0x100;
}

/// Bits of the status register.
mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;
}

/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;

/// One device's registers. Whoever holds it drives the device.
pub struct Transport {
    regs: *mut u8,
    legacy: bool,
    device: u32,
    line: u8,
    features: u64,
    broken: AtomicBool,
}

// SAFETY: `regs` is device memory that stays mapped for ever; single 32-bit register accesses are atomic on the bus,
// and sequences of them (queue set-up) happen through `&mut self` only.
unsafe impl Send for Transport {}
// SAFETY: as above; what `&self` allows is single accesses.
unsafe impl Sync for Transport {}

impl Transport {
    /// Bytes of configuration space that can be relied on: a slot has 512 bytes, half of them registers.
    pub const CONFIG_BYTES: usize = 0x100;

    /// Look at a slot: `None` where no device that we can speak to sits.
    pub fn probe(slot: &VirtioMmio) -> Option<Transport> {
        // The registers, and configuration space as far as any driver here reads it.
        if slot.size < reg::CONFIG as u64 + Self::CONFIG_BYTES as u64 || !slot.base.is_multiple_of(4) {
            return None;
        }
        let base = PhysAddr(slot.base);
        let in_page = (slot.base % hafez_mm::PAGE_SIZE as u64) as usize;
        let regs = crate::arch::paging::phys().ptr(base.frame()).wrapping_add(in_page);
        let mut transport = Transport {
            regs,
            legacy: false,
            device: device_id::NONE,
            line: slot.irq,
            features: 0,
            broken: AtomicBool::new(false),
        };
        if transport.get(reg::MAGIC) != MAGIC {
            return None;
        }
        transport.legacy = match transport.get(reg::VERSION) {
            1 => true,
            2 => false,
            _ => return None,
        };
        transport.device = transport.get(reg::DEVICE_ID);
        (transport.device != device_id::NONE).then_some(transport)
    }

    /// What sits here ([`device_id`]).
    pub fn device(&self) -> u32 {
        self.device
    }

    /// Its interrupt line.
    pub fn line(&self) -> u8 {
        self.line
    }

    /// Whether `bit` of [`feature`] or of the device's own was agreed on.
    pub fn has(&self, bit: u64) -> bool {
        self.features & bit != 0
    }

    /// Reset the device and agree on features: those of `wanted` that it offers. The ring's own are always asked for.
    pub fn negotiate(&mut self, wanted: u64) -> Result<(), DeviceError> {
        self.set(reg::STATUS, 0);
        self.set(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        let mut offered = self.features_word(0);
        if !self.legacy {
            offered |= self.features_word(1) << 32;
            if offered & feature::VERSION_1 == 0 {
                return Err(self.refuse("a version 2 transport without VERSION_1"));
            }
        }
        let common = feature::INDIRECT | feature::EVENT_IDX | feature::VERSION_1;
        self.features = offered & (wanted | common);
        for half in 0..if self.legacy { 1 } else { 2 } {
            self.set(reg::DRIVER_FEATURES_SEL, half);
            self.set(reg::DRIVER_FEATURES, (self.features >> (32 * half)) as u32);
        }
        if self.legacy {
            self.set(reg::LEGACY_PAGE_SIZE, hafez_mm::PAGE_SIZE as u32);
        } else {
            self.set(reg::STATUS, self.get(reg::STATUS) | status::FEATURES_OK);
            if self.get(reg::STATUS) & status::FEATURES_OK == 0 {
                return Err(self.refuse("it refuses our choice of features"));
            }
        }
        Ok(())
    }

    fn features_word(&self, half: u32) -> u64 {
        self.set(reg::DEVICE_FEATURES_SEL, half);
        self.get(reg::DEVICE_FEATURES) as u64
    }

    /// Tell the device that we give up on it, and pass the reason on.
    pub fn refuse(&self, why: &'static str) -> DeviceError {
        self.set(reg::STATUS, self.get(reg::STATUS) | status::FAILED);
        DeviceError::Unsupported(why)
    }

    /// Set up queue `index` with at most `max` entries.
    pub fn queue(&mut self, index: u16, max: u16) -> Result<Queue, DeviceError> {
        self.set(reg::QUEUE_SEL, index as u32);
        let offered = self.get(reg::QUEUE_NUM_MAX).min(Queue::MAX_SIZE as u32) as u16;
        let size = offered.min(max);
        if size == 0 {
            return Err(DeviceError::Unsupported("the device lacks a queue"));
        }
        let size = 1 << size.ilog2();
        // Legacy names a queue by the number of its first frame, so there it must start one.
        let align = if self.legacy { hafez_mm::PAGE_SIZE } else { Queue::ALIGN };
        let ring = dma::alloc(Queue::bytes(size), align)?;
        // SAFETY: `regs` maps the whole register window, and QUEUE_NOTIFY is inside it.
        let bell = unsafe { self.regs.add(reg::QUEUE_NOTIFY) }.cast::<u32>();
        let queue = Queue::new(ring, size, index, self.features, bell, self.regs.cast::<u32>());
        self.set(reg::QUEUE_NUM, size as u32);
        if self.legacy {
            self.set(reg::LEGACY_QUEUE_ALIGN, Queue::ALIGN as u32);
            self.set(reg::LEGACY_QUEUE_PFN, (ring.phys(0) >> hafez_mm::PAGE_SHIFT) as u32);
        } else {
            let (desc, avail, used) = queue.places();
            for (at, place) in
                [(reg::QUEUE_DESC, desc), (reg::QUEUE_DRIVER, avail), (reg::QUEUE_DEVICE, used)]
            {
                self.set(at, place as u32);
                self.set(at + 4, (place >> 32) as u32);
            }
            self.set(reg::QUEUE_READY, 1);
        }
        Ok(queue)
    }

    /// Take all memory back from the device: after a reset it touches none. Its requests are lost.
    pub fn stop(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.set(reg::STATUS, 0);
    }

    /// From here on the device may use its queues.
    pub fn start(&self) {
        self.set(reg::STATUS, self.get(reg::STATUS) | status::DRIVER_OK);
    }

    /// Take the interrupt back. Must come before the queues are looked at: what completes after it interrupts anew.
    #[inline]
    pub fn acknowledge(&self) {
        let pending = self.get(reg::INTERRUPT_STATUS);
        self.set(reg::INTERRUPT_ACK, pending);
        // Bit 1: the configuration changed. That is how a device says that it gave up.
        if pending & 2 != 0 && self.get(reg::STATUS) & status::NEEDS_RESET != 0 {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the device asked for a reset: it will answer nothing more.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// A 32-bit field of the device's configuration.
    pub fn config_u32(&self, offset: usize) -> u32 {
        assert!(offset <= Self::CONFIG_BYTES - 4);
        self.get(reg::CONFIG + offset)
    }

    /// A byte of the device's configuration.
    pub fn config_u8(&self, offset: usize) -> u8 {
        assert!(offset < Self::CONFIG_BYTES);
        // SAFETY: configuration space is byte-addressable (VIRTIO 1.2, 4.2.2.2) and `probe` made sure that the window
        // is this long.
        unsafe { self.regs.add(reg::CONFIG + offset).read_volatile() }
    }

    /// A 64-bit field, read until both halves belong together.
    pub fn config_u64(&self, offset: usize) -> u64 {
        let mut value = 0;
        // A device that changes its configuration at each of our reads is not worth waiting for.
        for _ in 0..16 {
            let before = if self.legacy { 0 } else { self.get(reg::CONFIG_GENERATION) };
            value = self.config_u32(offset) as u64 | (self.config_u32(offset + 4) as u64) << 32;
            let after = if self.legacy { 0 } else { self.get(reg::CONFIG_GENERATION) };
            if before == after {
                break;
            }
        }
        value
    }

    #[inline(always)]
    fn get(&self, at: usize) -> u32 {
        // SAFETY: `regs` maps the register window for ever and `at` is one of the aligned offsets of `reg`.
        unsafe { self.regs.add(at).cast::<u32>().read_volatile() }
    }

    #[inline(always)]
    fn set(&self, at: usize, value: u32) {
        // SAFETY: as in `get`.
        unsafe { self.regs.add(at).cast::<u32>().write_volatile(value) }
    }
}

//! Devices: the disk, the console's ports, the host's files, the network card, randomness. All of them virtio.
//!
//! [`init`] walks the slots that the command line names and takes each device into use; a device that cannot be used is
//! named in the log and left alone. Afterwards the rest of the kernel finds them here: [`disk`], [`port`], [`share`], [`card`].
//! They live for ever and are told of interrupts by their place in the registry.
//!
//! Nothing here knows what the bytes mean: files on a share are the business of `fs::p9`, frames on the control port that of
//! `process`.

pub mod block;
pub mod console;
pub mod entropy;
pub mod net;
pub mod p9;
pub mod virtio;

use crate::arch::{self, boot::BootInfo};
use alloc::{boxed::Box, vec::Vec};
use hafez_mm::lock::Once;
use virtio::{DeviceError, Transport, device_id};

/// A device in use.
enum Device {
    Block(&'static block::Block),
    Console(console::Console),
    Share(Box<p9::Channel>),
    Entropy(entropy::Entropy),
    Net(net::Card),
}

static DEVICES: Once<Vec<Device>> = Once::new();

/// Find the devices and take them into use. Needs memory and the interrupt controller; sleeps nowhere.
pub fn init(info: &BootInfo) {
    let mut found = Vec::new();
    for slot in &info.virtio {
        let Some(transport) = Transport::probe(slot) else { continue };
        match take(transport) {
            Ok(Some(device)) => found.push(device),
            Ok(None) => {}
            Err(error) => log::error!("device at {:#x}: {error:?}", slot.base),
        }
    }
    let devices = DEVICES.call_once(|| found);
    for (index, device) in devices.iter().enumerate() {
        if !arch::irq::register(device.line(), interrupt, index) {
            log::error!("interrupt line {} cannot be had; its device will not answer", device.line());
        }
        // What was finished before the line was connected interrupts no more.
        interrupt(index);
    }
}

fn take(transport: Transport) -> Result<Option<Device>, DeviceError> {
    Ok(Some(match transport.device() {
        device_id::BLOCK => Device::Block(Box::leak(Box::new(block::Block::new(transport)?))),
        device_id::CONSOLE => Device::Console(console::Console::new(transport)?),
        device_id::P9 => Device::Share(Box::new(p9::Channel::new(transport)?)),
        device_id::ENTROPY => Device::Entropy(entropy::Entropy::new(transport)?),
        device_id::NET => Device::Net(net::Card::new(transport)),
        other => {
            log::info!("a virtio device of kind {other} is not used");
            return Ok(None);
        }
    }))
}

impl Device {
    fn line(&self) -> u8 {
        match self {
            Device::Block(d) => d.line(),
            Device::Console(d) => d.line(),
            Device::Share(d) => d.line(),
            Device::Entropy(d) => d.line(),
            Device::Net(d) => d.line(),
        }
    }
}

/// An interrupt of the device at `index` of the registry.
fn interrupt(index: usize) {
    match DEVICES.get().and_then(|all| all.get(index)) {
        Some(Device::Block(d)) => d.interrupt(),
        Some(Device::Console(d)) => d.interrupt(),
        Some(Device::Share(d)) => d.interrupt(),
        Some(Device::Entropy(d)) => d.interrupt(),
        Some(Device::Net(d)) => d.interrupt(),
        None => {}
    }
}

fn devices() -> impl Iterator<Item = &'static Device> {
    DEVICES.get().into_iter().flatten()
}

/// The disk with this serial number.
pub fn disk(serial: &str) -> Option<&'static block::Block> {
    devices().find_map(|d| match d {
        Device::Block(b) if b.serial() == serial.as_bytes() => Some(*b),
        _ => None,
    })
}

/// The console port of this name.
pub fn port(name: &str) -> Option<&'static console::Port> {
    consoles().find_map(|c| c.port(name))
}

/// All consoles.
pub fn consoles() -> impl Iterator<Item = &'static console::Console> {
    devices().filter_map(|d| if let Device::Console(c) = d { Some(c) } else { None })
}

/// The host's file share with this mount tag.
pub fn share(tag: &[u8]) -> Option<&'static p9::Channel> {
    devices().find_map(|d| match d {
        Device::Share(s) if s.tag() == tag => Some(&**s),
        _ => None,
    })
}

/// The network card, if the machine has one.
pub fn card() -> Option<&'static net::Card> {
    devices().find_map(|d| if let Device::Net(card) = d { Some(card) } else { None })
}

/// Sleep until the kernel's generator has been fed by the host (or does not come by); whether it has.
pub fn await_entropy() -> bool {
    devices().any(|d| if let Device::Entropy(e) = d { e.wait() } else { false })
}

/// Before the machine ends: wait until the host has all output. Whether it has.
pub fn drain() -> bool {
    consoles().all(|c| c.drain())
}

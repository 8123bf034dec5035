//! The program's standard streams, and the control port: one virtio console with several named ports.
//!
//! ```text
//!   hafez.tty  input, and output to a terminal        each port has a queue in and a queue out,
//!   hafez.out  standard output                        so a full pipe on one never holds up another
//!   hafez.err  standard error
//!   hafez.ctl  frames of crate hafez-link             + one pair of queues for control messages
//! ```
//!
//! Which ports there are comes as control messages: the device adds a port, we say that it is ready and that we have it
//! open, the device tells its name and whether somebody on the host holds the other end. A [`Port`] is found by its name; see
//! there for how bytes flow. Source: VIRTIO 1.2, 5.3.
//!
//! Lock: [`Console::control`] orders control messages; it may be held while a port's state is set, never the other way round.

mod port;

pub use port::{Port, WriteError};

use super::virtio::{DeviceError, Dma, Queue, Segment, Transport, dma};
use crate::sched::WaitQueue;
use alloc::{boxed::Box, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering};
use hafez_mm::lock::Mutex;

const F_MULTIPORT: u64 = 1 << 1;

/// Control events.
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_REMOVE: u16 = 2;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// Bytes of a control message: port, event, value; a name may follow.
const MESSAGE: usize = 8;
/// Room for one from the device, with the longest name that we look at.
const MESSAGE_IN: usize = 64;
/// The device drops a message that finds no buffer, so have more than it sends at once (three for each port).
const BUFFERS_IN: usize = 16;
/// Messages to the device that may be in flight; QEMU takes them before the bell's write returns.
const BUFFERS_OUT: usize = 16;
/// Ports that we can use; the device may have more.
const MAX_PORTS: u32 = 16;

/// A console. See the module.
pub struct Console {
    transport: Transport,
    ports: Box<[Port]>,
    control: Mutex<Control>,
    memory: Dma,
    /// Woken when a port appears or changes.
    changed: WaitQueue,
    broken: AtomicBool,
}

struct Control {
    input: Queue,
    output: Queue,
    /// Output buffers that the device does not hold: a bitmap.
    free: u16,
}

impl Console {
    /// Take a device into use, and learn of its ports.
    pub fn new(mut transport: Transport) -> Result<Console, DeviceError> {
        transport.negotiate(F_MULTIPORT)?;
        if !transport.has(F_MULTIPORT) {
            return Err(transport.refuse("a console without named ports"));
        }
        let count = transport.config_u32(4).min(MAX_PORTS);
        let mut ports = Vec::new();
        let mut control = None;
        // Port 0 has queues 0 and 1, the control messages 2 and 3, port n 2n + 2 and 2n + 3.
        for n in 0..count as u16 {
            let first = if n == 0 { 0 } else { 2 * n + 2 };
            let input = transport.queue(first, port::RX_BUFFERS as u16)?;
            let output = transport.queue(first + 1, port::TX_BUFFERS as u16)?;
            ports.push(Port::new(input, output));
            if n == 0 {
                let input = transport.queue(2, BUFFERS_IN as u16)?;
                let output = transport.queue(3, BUFFERS_OUT as u16)?;
                control = Some(Control { input, output, free: u16::MAX });
            }
        }
        let control = control.ok_or(DeviceError::Unsupported("a console without ports"))?;
        let memory = dma::alloc(BUFFERS_IN * MESSAGE_IN + BUFFERS_OUT * MESSAGE, 16)?;
        let console = Console {
            transport,
            ports: ports.into_boxed_slice(),
            control: Mutex::new(control),
            memory,
            changed: WaitQueue::new(),
            broken: AtomicBool::new(false),
        };
        console.transport.start();
        {
            let mut control = console.control.lock();
            for index in 0..BUFFERS_IN {
                console.give(&mut control, index)?;
            }
            control.input.kick();
            console.say(&mut control, 0, DEVICE_READY, 1);
        }
        console.interrupt();
        Ok(console)
    }

    /// Its interrupt line.
    pub fn line(&self) -> u8 {
        self.transport.line()
    }

    /// The port of this name, if the device has told of it.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|p| p.is_named(name.as_bytes()))
    }

    /// The port of this name; sleeps until the device tells of it, at most until `deadline` (ns, monotonic).
    pub fn wait_for_port(&self, name: &str, deadline: u64) -> Option<&Port> {
        self.changed.wait_until(|| self.port(name).is_some(), Some(deadline), false);
        self.port(name)
    }

    /// Sleep until the device has taken all output of all ports that the host still listens to. Whether it has.
    pub fn drain(&self) -> bool {
        // No deadline: on deterministic time the guest's clock leaps ahead of a host that is slow to read.
        self.ports.iter().all(|port| port.drain(None))
    }

    /// An interrupt of the device: control messages, input, buffers that are free again.
    pub fn interrupt(&self) {
        self.transport.acknowledge();
        if self.transport.is_broken() && !self.broken.swap(true, Ordering::Relaxed) {
            log::error!("console: the device is broken");
            self.ports.iter().for_each(Port::give_up);
            return;
        }
        self.hear();
        for port in &self.ports {
            port.interrupt();
        }
    }

    /// Hand control buffer `index` to the device.
    fn give(&self, control: &mut Control, index: usize) -> Result<(), DeviceError> {
        let segment = Segment { addr: self.memory.phys(index * MESSAGE_IN), len: MESSAGE_IN as u32 };
        control.input.add_one(segment, true, index as u16).map_err(|_| DeviceError::Broken)
    }

    /// Take control messages in.
    fn hear(&self) {
        let mut news = false;
        loop {
            let mut control = self.control.lock();
            while let Some(done) = control.input.pop() {
                let index = done.cookie as usize;
                let mut bytes = [0; MESSAGE_IN];
                let len = done.len as usize;
                self.memory.read(index * MESSAGE_IN, &mut bytes[..len]);
                // The buffer goes back before we answer: the answer may bring the next message at once.
                if self.give(&mut control, index).is_err() {
                    return;
                }
                control.input.kick();
                news |= self.obey(&mut control, &bytes[..len]);
            }
            let more = control.input.arm(1);
            drop(control);
            if !more {
                break;
            }
        }
        if news {
            self.changed.wake_all();
        }
    }

    /// Do what a control message asks for; true if it changed something. What makes no sense is passed over.
    fn obey(&self, control: &mut Control, message: &[u8]) -> bool {
        let Some((head, name)) = message.split_first_chunk::<MESSAGE>() else { return false };
        let id = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let event = u16::from_le_bytes([head[4], head[5]]);
        let value = u16::from_le_bytes([head[6], head[7]]);
        let Some(port) = self.ports.get(id as usize) else { return false };
        match event {
            PORT_ADD => {
                self.say(control, id, PORT_READY, 1);
                self.say(control, id, PORT_OPEN, 1);
            }
            PORT_NAME => port.set_name(name),
            PORT_OPEN => port.set_open(value != 0),
            PORT_REMOVE => port.set_open(false),
            _ => return false,
        }
        true
    }

    /// Send a control message.
    fn say(&self, control: &mut Control, id: u32, event: u16, value: u16) {
        while let Some(done) = control.output.pop() {
            control.free |= 1 << done.cookie;
        }
        if control.free == 0 {
            log::error!("console: the device does not take control messages");
            return;
        }
        let index = control.free.trailing_zeros() as usize;
        let at = BUFFERS_IN * MESSAGE_IN + index * MESSAGE;
        let word = id as u64 | (event as u64) << 32 | (value as u64) << 48;
        self.memory.store::<u64>(at, word);
        let segment = Segment { addr: self.memory.phys(at), len: MESSAGE as u32 };
        if control.output.add_one(segment, false, index as u16).is_ok() {
            control.free &= !(1 << index);
            control.output.kick();
        }
    }
}

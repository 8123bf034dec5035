//! A file behind a [`Pager`]: bytes, a size, odds of errors; and every call may be interrupted half-way.

use super::machine::Machine;
use super::random::Random;
use super::tasks;
use crate::addr::{PAGE_SIZE, Pfn};
use crate::object::{Pager, PagerError};
use std::sync::{Arc, Mutex, Weak};

pub struct SimFile {
    bytes: Mutex<Vec<u8>>,
    machine: Weak<Machine>,
    random: Random,
    /// Odds of errors: one in so many reads and writes.
    odds: Mutex<(u32, u32)>,
}

impl SimFile {
    /// A file of so many bytes, none of its words like another.
    pub fn new(machine: &Arc<Machine>, size: u64, seed: u64, errors: (u32, u32)) -> SimFile {
        let random = Random::new(seed);
        let mut bytes = vec![0; size as usize];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        SimFile {
            bytes: Mutex::new(bytes),
            machine: Arc::downgrade(machine),
            random,
            odds: Mutex::new(errors),
        }
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn set_odds(&self, read: u32, write: u32) {
        *self.odds.lock().unwrap_or_else(|e| e.into_inner()) = (read, write);
    }
    fn odds(&self) -> (u32, u32) {
        *self.odds.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn can_fail(&self) -> bool {
        self.odds() != (0, 0)
    }

    /// What the file system does before it tells the core of a new size.
    pub fn resize(&self, size: u64) {
        self.bytes().resize(size as usize, 0);
    }

    /// The bytes of a page, zeroes past the end.
    pub fn page(&self, index: u64) -> [u8; PAGE_SIZE] {
        let mut page = [0; PAGE_SIZE];
        let bytes = self.bytes();
        let from = (index as usize * PAGE_SIZE).min(bytes.len());
        let len = (bytes.len() - from).min(PAGE_SIZE);
        page[..len].copy_from_slice(&bytes[from..from + len]);
        page
    }

    fn maybe_pause(&self) {
        if self.random.one_in(3) {
            tasks::pause();
        }
    }
}

impl Pager for SimFile {
    fn fill(&self, first: u64, frames: &[Pfn]) -> Result<(), PagerError> {
        let Some(machine) = self.machine.upgrade() else { return Err(PagerError) };
        for (n, &frame) in frames.iter().enumerate() {
            self.maybe_pause();
            if self.random.one_in(self.odds().0) {
                return Err(PagerError);
            }
            machine.phys().write(frame, 0, &self.page(first + n as u64));
        }
        self.maybe_pause();
        Ok(())
    }

    fn write(&self, first: u64, frames: &[Pfn], bytes: usize) -> Result<(), PagerError> {
        let Some(machine) = self.machine.upgrade() else { return Err(PagerError) };
        assert!(bytes <= frames.len() * PAGE_SIZE && bytes > (frames.len() - 1) * PAGE_SIZE);
        for (n, &frame) in frames.iter().enumerate() {
            self.maybe_pause();
            if self.random.one_in(self.odds().1) {
                return Err(PagerError);
            }
            let mut page = [0; PAGE_SIZE];
            machine.phys().read(frame, 0, &mut page);
            let mut file = self.bytes();
            // The file may have become shorter meanwhile; a server then leaves out what lies past its end.
            let from = ((first as usize + n) * PAGE_SIZE).min(file.len());
            let len = (bytes - n * PAGE_SIZE).min(PAGE_SIZE).min(file.len() - from);
            file[from..from + len].copy_from_slice(&page[..len]);
        }
        self.maybe_pause();
        Ok(())
    }
}

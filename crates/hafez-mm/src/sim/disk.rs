//! A swap disk that does what disks do, and what they should not.
//!
//! A request is answered at once, or waits in the disk until the scheduler picks it, in any order. The bytes move at
//! the answer: until then the frames of a read hold nonsense, and a write takes what its frames hold at that time,
//! block by block, as a device's own memory access would. Faults come by chance, each with its own odds:
//!
//! | fault | what the core sees |
//! |---|---|
//! | read error, write error | the request fails, some of its blocks moved or not |
//! | flipped bit | a good answer, another byte |
//! | lost write | a good answer, and the old bytes stay |
//! | misplaced write | a good answer, and the bytes went to another block |
//! | full | the request is not taken |

use super::machine::Machine;
use super::random::Random;
use crate::addr::{PAGE_SIZE, Pfn};
use crate::swap::{IoError, QueueFull, SwapDevice, SwapOp};
use std::sync::{Arc, Mutex, Weak};

/// Odds of each fault: one in so many, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub read_error: u32,
    pub write_error: u32,
    pub flip: u32,
    pub lost: u32,
    pub misplaced: u32,
    pub full: u32,
}

impl Faults {
    /// Whether bytes may be lost for good.
    pub fn can_lose(&self) -> bool {
        self.read_error + self.flip + self.lost + self.misplaced > 0
    }
}

struct Request {
    token: u32,
    op: SwapOp,
    block: u32,
    frames: Vec<Pfn>,
}

#[derive(Default)]
struct State {
    blocks: Vec<u8>,
    pending: Vec<Request>,
    faults: Faults,
    machine: Weak<Machine>,
    /// Requests and blocks seen, for tests that count.
    pub reads: u64,
    pub writes: u64,
}

/// A handle on the disk, which ends with its last handle. The core wants a device for ever, and gets a leaked handle.
#[derive(Clone)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    random: Arc<Random>,
    blocks: u32,
    /// One in so many requests waits; 1: all do, 0: none.
    delayed: u32,
}

impl Disk {
    pub fn new(blocks: u32, delayed: u32, faults: Faults, seed: u64) -> Disk {
        let state = State { blocks: vec![0x5A; blocks as usize * PAGE_SIZE], faults, ..State::default() };
        Disk { state: Arc::new(Mutex::new(state)), random: Arc::new(Random::new(seed)), blocks, delayed }
    }

    pub(super) fn belong_to(&self, machine: &Arc<Machine>) {
        self.state().machine = Arc::downgrade(machine);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }
    pub fn faults(&self) -> Faults {
        self.state().faults
    }
    /// Blocks read and written since the start.
    pub fn traffic(&self) -> (u64, u64) {
        let state = self.state();
        (state.reads, state.writes)
    }
    /// Requests that wait for their answer.
    pub fn pending(&self) -> usize {
        self.state().pending.len()
    }
    /// Flip one bit of a block.
    pub fn flip(&self, block: u32, bit: usize) {
        self.state().blocks[block as usize * PAGE_SIZE + bit / 8] ^= 1 << (bit % 8);
    }
    /// Forget the bytes: the machine is gone.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.blocks = Vec::new();
        state.pending.clear();
    }

    /// Answer one waiting request, whichever chance picks. False if none waits.
    pub fn answer_one(&self) -> bool {
        let request = {
            let mut state = self.state();
            if state.pending.is_empty() {
                return false;
            }
            let at = self.random.below(state.pending.len() as u64) as usize;
            state.pending.swap_remove(at)
        };
        self.answer(request);
        true
    }

    fn answer(&self, request: Request) {
        let (result, machine) = {
            let mut state = self.state();
            let Some(machine) = state.machine.upgrade() else { return };
            (self.carry_out(&mut state, &machine, &request), machine)
        };
        machine.memory().swap_done(request.token, result);
    }

    fn carry_out(&self, state: &mut State, machine: &Machine, request: &Request) -> Result<(), IoError> {
        let faults = state.faults;
        let fails = match request.op {
            SwapOp::Read => self.random.one_in(faults.read_error),
            SwapOp::Write => self.random.one_in(faults.write_error),
        };
        let mut page = [0; PAGE_SIZE];
        for (n, &frame) in request.frames.iter().enumerate() {
            // A request that fails does so somewhere in its middle.
            if fails && self.random.one_in(2) {
                break;
            }
            let block = request.block as usize + n;
            match request.op {
                SwapOp::Read => {
                    state.reads += 1;
                    let bytes = &state.blocks[block * PAGE_SIZE..][..PAGE_SIZE];
                    machine.phys().write(frame, 0, bytes);
                }
                SwapOp::Write => {
                    state.writes += 1;
                    machine.phys().read(frame, 0, &mut page);
                    let mut to = block;
                    if self.random.one_in(faults.lost) {
                        continue;
                    }
                    if self.random.one_in(faults.misplaced) {
                        to = self.random.below(self.blocks as u64) as usize;
                    }
                    if self.random.one_in(faults.flip) {
                        let bit = self.random.below(8 * PAGE_SIZE as u64) as usize;
                        page[bit / 8] ^= 1 << (bit % 8);
                    }
                    state.blocks[to * PAGE_SIZE..][..PAGE_SIZE].copy_from_slice(&page);
                }
            }
        }
        if fails { Err(IoError) } else { Ok(()) }
    }
}

impl SwapDevice for Disk {
    fn blocks(&self) -> u32 {
        self.blocks
    }

    fn submit(&self, token: u32, op: SwapOp, block: u32, frames: &[Pfn]) -> Result<(), QueueFull> {
        assert!(
            !frames.is_empty() && block + frames.len() as u32 <= self.blocks,
            "a request leaves the disk"
        );
        let request = Request { token, op, block, frames: frames.to_vec() };
        {
            let mut state = self.state();
            if self.random.one_in(state.faults.full) && !state.pending.is_empty() {
                return Err(QueueFull);
            }
            if op == SwapOp::Read
                && let Some(machine) = state.machine.upgrade()
            {
                for &frame in frames {
                    machine.phys().fill(frame, 0xBAD0_BAD0_BAD0_BAD0);
                }
            }
            if self.random.one_in(self.delayed) {
                state.pending.push(request);
                return Ok(());
            }
        }
        self.answer(request);
        Ok(())
    }
}

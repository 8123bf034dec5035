//! Debug registers (Intel SDM vol. 3, 17.2): four places in a program's memory at which the processor stops it.
//!
//! They belong to a `UserContext`, as the FPU's state does: a context that has some set is loaded with them, and the next one takes them
//! out. While the kernel works for such a program they stay; what the kernel itself reads and writes there is not told.
//!
//! The exception has a stack of its own, as an instruction that loads a stack selector puts it off until after the next one: it may
//! come at the kernel's very first instruction, with the program's stack and GS still there.

use core::arch::asm;

/// How many places there are.
pub const COUNT: usize = 4;
/// What the status register reads when nothing has happened; the bits for the places, and for a single step.
pub const NOTHING: u64 = 0xFFFF_0FF0;
pub const PLACES: u64 = 0xF;
pub const STEP: u64 = 1 << 14;
/// Bits of the control register that a program's may have: to enable places, and what they are for.
const KNOWN: u64 = 0xFFFF_03FF;
const ENABLES: u64 = 0xFF;

/// What a program has set.
#[derive(Clone, Copy, Default)]
pub struct DebugRegisters {
    pub at: [u64; COUNT],
    pub control: u64,
}

impl DebugRegisters {
    /// Whether any place is watched.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.control & ENABLES != 0
    }

    /// The same with this control word; `None` if it asks for what there is not: places outside the program's half, odd ones, or I/O.
    pub fn controlled(self, control: u64) -> Option<DebugRegisters> {
        let sound = (0..COUNT).all(|i| {
            let kind = control >> (16 + 4 * i) & 3;
            let bytes = match control >> (18 + 4 * i) & 3 {
                2 => 8,
                len => len + 1,
            };
            let on = control >> (2 * i) & 3 != 0;
            let inside = super::user::in_user_half(self.at[i], bytes as usize);
            !on || inside && self.at[i].is_multiple_of(bytes) && kind != 2 && (kind != 0 || bytes == 1)
        });
        sound.then_some(DebugRegisters { control: control & KNOWN, ..self })
    }

    /// Which of the places in `status` stopped an instruction before it ran.
    pub fn before_instruction(&self, status: u64) -> bool {
        (0..COUNT).any(|i| status >> i & 1 != 0 && self.control >> (16 + 4 * i) & 3 == 0)
    }

    /// Have this CPU watch.
    pub(super) fn load(&self) {
        let control = if self.is_on() { self.control } else { 0 };
        let [a, b, c, d] = self.at;
        // SAFETY: what is watched is in the program's half, by `controlled`; access to the registers themselves is not.
        unsafe {
            asm!("mov dr7, {}", in(reg) 0u64, options(nomem, nostack, preserves_flags));
            if control != 0 {
                asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", "mov dr7, {}",
                    in(reg) a, in(reg) b, in(reg) c, in(reg) d, in(reg) control,
                    options(nomem, nostack, preserves_flags));
            }
        }
    }
}

/// What a debug exception was about; the register is clear then.
pub fn take_status() -> u64 {
    let status: u64;
    // SAFETY: only this exception uses the register.
    unsafe {
        asm!("mov {}, dr6", "mov dr6, {}", out(reg) status, in(reg) NOTHING,
            options(nomem, nostack, preserves_flags));
    }
    status
}

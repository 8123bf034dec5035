//! Reaching into a program's memory.
//!
//! Every access is checked against the user half first, opens SMAP's gate only while it copies, and may fault: then the
//! fault hook brings the page in (which may sleep, so never with a lock held), or the access ends with `BadAddress`.
//! The instructions that may fault are listed in a table with the place to go on at; a fault of the kernel anywhere
//! else is a bug and panics.

use super::paging;
use core::arch::global_asm;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};
use hafez_mm::{PAGE_SIZE, Pfn};

/// An access to memory that the program does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

const USER_TOP: u64 = hafez_mm::USER_END.0 << hafez_mm::PAGE_SHIFT;

// All return 0 in `rdx` (or `rax` where there is no value), else 1.
global_asm!(
    patch!(),
    r#"
    .macro FIXUP at, to
    .pushsection .fixups, "a"
    .quad \at, \to
    .popsection
    .endm

    .section .text.hot, "ax", @progbits
    .balign 16
    .globl user_copy
user_copy:                                  // (to, from, bytes)
    mov rcx, rdx
    and edx, 7
    shr rcx, 3
    PATCH 0
3:  rep movsq
    mov ecx, edx
4:  rep movsb
    xor eax, eax
    PATCH 1
    ret
    FIXUP 3b, 9f
    FIXUP 4b, 9f

    .balign 16
    .globl user_copy_words
user_copy_words:                            // (to, from, words)
    mov rcx, rdx
    PATCH 0
3:  rep movsq
    xor eax, eax
    PATCH 1
    ret
    FIXUP 3b, 9f

    .balign 16
    .globl user_put_around
user_put_around:                            // (to, words, before, middle, words in it, after): the middle between the other words
    mov rax, rcx
    mov rcx, rdx
    PATCH 0
3:  rep movsq
    mov rdx, rsi
    mov rsi, rax
    mov rcx, r8
4:  rep movsq
    mov rsi, rdx
    mov rcx, r9
5:  rep movsq
    xor eax, eax
    PATCH 1
    ret
    FIXUP 3b, 9f
    FIXUP 4b, 9f
    FIXUP 5b, 9f

    .balign 16
    .globl user_take_around
user_take_around:                           // (words, from, before, middle, words in it, after): the other way
    mov rax, rcx
    mov rcx, rdx
    PATCH 0
3:  rep movsq
    mov rdx, rdi
    mov rdi, rax
    mov rcx, r8
4:  rep movsq
    mov rdi, rdx
    mov rcx, r9
5:  rep movsq
    xor eax, eax
    PATCH 1
    ret
    FIXUP 3b, 9f
    FIXUP 4b, 9f
    FIXUP 5b, 9f

    .balign 16
    .globl user_zero
user_zero:                                  // (to, bytes)
    mov rcx, rsi
    mov edx, esi
    and edx, 7
    shr rcx, 3
    xor eax, eax
    PATCH 0
3:  rep stosq
    mov ecx, edx
4:  rep stosb
    PATCH 1
    ret
    FIXUP 3b, 9f
    FIXUP 4b, 9f

    .balign 16
    .globl user_read_32
user_read_32:
    xor edx, edx
    PATCH 0
3:  mov eax, [rdi]
    PATCH 1
    ret
    FIXUP 3b, 9f

    // From here to the end mark: accesses that fail where the page is not there.
    .globl user_peeks
user_peeks:
    .balign 16
    .globl user_peek_32
user_peek_32:
    xor edx, edx
    PATCH 0
3:  mov eax, [rdi]
    PATCH 1
    ret
    FIXUP 3b, 9f

    .balign 16
    .globl user_copy_now
user_copy_now:                              // (to, from, bytes)
    mov rcx, rdx
    and edx, 7
    shr rcx, 3
    PATCH 0
3:  rep movsq
    mov ecx, edx
4:  rep movsb
    xor eax, eax
    PATCH 1
    ret
    FIXUP 3b, 9f
    FIXUP 4b, 9f

    .balign 16
    .globl user_fpu_save
user_fpu_save:                              // (to, mask): mask 0 is for CPUs without xsave
    mov eax, esi
    xor edx, edx
    PATCH 0
    test eax, eax
    jz 4f
3:  xsave64 [rdi]
    jmp 5f
4:  fxsave64 [rdi]
5:  xor eax, eax
    PATCH 1
    ret
    FIXUP 3b, 9f
    FIXUP 4b, 9f

    .balign 16
    .globl user_fpu_load
user_fpu_load:                              // (from, mask): likewise
    mov eax, esi
    xor edx, edx
    PATCH 0
    test eax, eax
    jz 4f
3:  xrstor64 [rdi]
    jmp 5f
4:  fxrstor64 [rdi]
5:  xor eax, eax
    PATCH 1
    ret
    FIXUP 3b, 9f
    FIXUP 4b, 9f
    .globl user_peeks_end
user_peeks_end:

    .balign 16
    .globl user_read_64
user_read_64:
    xor edx, edx
    PATCH 0
3:  mov rax, [rdi]
    PATCH 1
    ret
    FIXUP 3b, 9f

    .balign 16
    .globl user_write_32
user_write_32:
    xor eax, eax
    PATCH 0
3:  mov [rdi], esi
    PATCH 1
    ret
    FIXUP 3b, 9f

    .balign 16
    .globl user_write_64
user_write_64:
    xor eax, eax
    PATCH 0
3:  mov [rdi], rsi
    PATCH 1
    ret
    FIXUP 3b, 9f

    .balign 16
    .globl user_exchange
user_exchange:                              // (at, old, new): what was there
    mov eax, esi
    mov ecx, edx
    xor edx, edx
    PATCH 0
3:  lock cmpxchg [rdi], ecx
    PATCH 1
    ret
    FIXUP 3b, 9f

    .balign 16
    .globl user_string
user_string:                                // (to, from, bytes): bytes before NUL, or `bytes` if there is none
    mov r8, rdx
    xor eax, eax
    xor edx, edx
    PATCH 0
    test r8, r8
    jz 6f
    // Byte by byte up to a multiple of 8, then words: those never reach over a page's end.
4:  test sil, 7
    jz 5f
3:  mov cl, [rsi]
    mov [rdi + rax], cl
    test cl, cl
    jz 6f
    inc rsi
    inc rax
    cmp rax, r8
    jb 4b
    jmp 6f
5:  lea rcx, [rax + 8]
    cmp rcx, r8
    ja 8f
    mov r9, 0x0101010101010101
    mov r10, 0x8080808080808080
7:  mov rcx, [rsi]
    mov r11, rcx
    sub r11, r9
    not rcx
    and r11, rcx
    not rcx
    and r11, r10
    jnz 8f
    mov [rdi + rax], rcx
    add rsi, 8
    add rax, 8
    lea rcx, [rax + 8]
    cmp rcx, r8
    jbe 7b
    // The rest, byte by byte.
8:  cmp rax, r8
    jae 6f
2:  mov cl, [rsi]
    mov [rdi + rax], cl
    test cl, cl
    jz 6f
    inc rsi
    inc rax
    jmp 8b
6:  PATCH 1
    ret
    FIXUP 3b, 9f
    FIXUP 7b, 9f
    FIXUP 2b, 9f

9:  mov eax, 1
    mov edx, 1
    PATCH 1
    ret
    .purgem PATCH
    "#
);

#[repr(C)]
struct Answer {
    value: u64,
    bad: u64,
}

unsafe extern "sysv64" {
    fn user_copy(to: *mut u8, from: *const u8, bytes: usize) -> u64;
    fn user_copy_words(to: *mut u64, from: *const u64, words: usize) -> u64;
    fn user_put_around(
        to: *mut u64,
        words: *const u64,
        before: usize,
        middle: *const u64,
        len: usize,
        after: usize,
    ) -> u64;
    fn user_take_around(
        words: *mut u64,
        from: *const u64,
        before: usize,
        middle: *mut u64,
        len: usize,
        after: usize,
    ) -> u64;
    fn user_zero(to: *mut u8, bytes: usize) -> u64;
    fn user_read_32(at: u64) -> Answer;
    fn user_peek_32(at: u64) -> Answer;
    fn user_copy_now(to: *mut u8, from: *const u8, bytes: usize) -> u64;
    fn user_peeks();
    fn user_peeks_end();
    fn user_fpu_save(to: u64, mask: u64) -> u64;
    fn user_fpu_load(from: u64, mask: u64) -> u64;
    fn user_read_64(at: u64) -> Answer;
    fn user_write_32(at: u64, value: u32) -> u64;
    fn user_write_64(at: u64, value: u64) -> u64;
    fn user_exchange(at: u64, old: u32, new: u32) -> Answer;
    fn user_string(to: *mut u8, from: u64, bytes: usize) -> Answer;
}

unsafe extern "C" {
    static __fixups_start: [u64; 2];
    static __fixups_end: [u64; 2];
    static __patches_start: [u64; 2];
    static __patches_end: [u64; 2];
}

fn table(start: *const [u64; 2], end: *const [u64; 2]) -> &'static [[u64; 2]] {
    // SAFETY: the linker script bounds an array of pairs in rodata.
    unsafe { core::slice::from_raw_parts(start, end.offset_from(start) as usize) }
}

/// Where to go on if the instruction at `rip` faults.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    let table = table(&raw const __fixups_start, &raw const __fixups_end);
    table.iter().find(|entry| entry[0] == rip).map(|entry| entry[1])
}

/// The CPU has SMAP: write `stac` and `clac` into the places kept for them. While text is still writable.
pub(super) fn enable_smap_gates() {
    for &[at, kind] in table(&raw const __patches_start, &raw const __patches_end) {
        let last = if kind == 0 { 0xCB } else { 0xCA };
        // SAFETY: the place is a three-byte no-operation of ours, and only this CPU runs.
        unsafe { (at as *mut [u8; 3]).write_volatile([0x0F, 0x01, last]) };
    }
}

/// Whether the access at `rip` is one that wants to fail where the page is not there.
pub(super) fn is_peek(rip: u64) -> bool {
    (user_peeks as *const () as u64..user_peeks_end as *const () as u64).contains(&rip)
}

static HOOK: AtomicUsize = AtomicUsize::new(0);

/// Called when the kernel itself faults on user memory: bring the page in (may sleep) and tell whether to try again.
pub fn set_fault_hook(hook: fn(addr: u64, write: bool, exec: bool) -> bool) {
    HOOK.store(hook as usize, Ordering::Release);
}

/// Have a page of the program brought in that the kernel faulted on.
pub(super) fn bring_in(address: u64, error: u64) -> bool {
    let hook = HOOK.load(Ordering::Acquire);
    if hook == 0 || address >= USER_TOP {
        return false;
    }
    // SAFETY: only `set_fault_hook` stores, and only such a function.
    let hook: fn(u64, bool, bool) -> bool = unsafe { core::mem::transmute(hook) };
    hook(address, error & super::trap::FAULT_WRITE != 0, false)
}

/// Whether all of `[at, at + len)` lies in the user half. The copies check by themselves.
#[inline(always)]
pub fn in_user_half(at: u64, len: usize) -> bool {
    at <= USER_TOP && len as u64 <= USER_TOP - at
}

#[inline(always)]
fn check(at: u64, len: usize) -> Result<(), BadAddress> {
    // No bytes are nowhere, so they are nowhere wrong.
    if in_user_half(at, len) || len == 0 { Ok(()) } else { Err(BadAddress) }
}

#[inline(always)]
fn done(bad: u64) -> Result<(), BadAddress> {
    if bad == 0 { Ok(()) } else { Err(BadAddress) }
}

/// Copy from the program. On an error, part of `to` may have been written.
#[inline]
pub fn copy_from(to: &mut [u8], from: u64) -> Result<(), BadAddress> {
    check(from, to.len())?;
    // SAFETY: the source is in the user half (checked) and may fault; the destination is ours.
    done(unsafe { user_copy(to.as_mut_ptr(), from as *const u8, to.len()) })
}
/// Copy to the program. On an error, part may have been written.
#[inline]
pub fn copy_to(to: u64, from: &[u8]) -> Result<(), BadAddress> {
    check(to, from.len())?;
    // SAFETY: the destination is in the user half (checked) and may fault; the source is ours.
    done(unsafe { user_copy(to as *mut u8, from.as_ptr(), from.len()) })
}
/// As [`copy_from`], but an error if a page is not there now: it may be called with a spin lock held.
#[inline]
pub fn copy_from_now(to: &mut [u8], from: u64) -> Result<(), BadAddress> {
    check(from, to.len())?;
    // SAFETY: as above.
    done(unsafe { user_copy_now(to.as_mut_ptr(), from as *const u8, to.len()) })
}
/// As [`copy_to`], but an error if a page is not there, or cannot be written, now.
#[inline]
pub fn copy_to_now(to: u64, from: &[u8]) -> Result<(), BadAddress> {
    check(to, from.len())?;
    // SAFETY: as above.
    done(unsafe { user_copy_now(to as *mut u8, from.as_ptr(), from.len()) })
}
/// Copy words from the program.
#[inline]
pub fn copy_words_from<const N: usize>(from: u64) -> Result<[u64; N], BadAddress> {
    with_words_from(from, |words| *words)
}
/// Copy words from the program, and have a look at them where they are.
#[inline]
pub fn with_words_from<const N: usize, R>(
    from: u64,
    look: impl FnOnce(&[u64; N]) -> R,
) -> Result<R, BadAddress> {
    check(from, N * 8)?;
    let mut words = MaybeUninit::<[u64; N]>::uninit();
    // SAFETY: the source is in the user half (checked) and may fault; where it did not, all words have been written.
    unsafe {
        done(user_copy_words(words.as_mut_ptr().cast(), from as *const u64, N))?;
        Ok(look(words.assume_init_ref()))
    }
}
/// Copy words to the program. On an error, part may have been written.
#[inline]
pub fn copy_words_to(to: u64, from: &[u64]) -> Result<(), BadAddress> {
    check(to, size_of_val(from))?;
    // SAFETY: the destination is in the user half (checked) and may fault; the source is ours.
    done(unsafe { user_copy_words(to as *mut u64, from.as_ptr(), from.len()) })
}
/// Copy words to the program, and between the first `before` of them and the rest others. On an error, part may have been written.
#[inline(always)]
pub(super) fn put_around<const N: usize, const M: usize>(
    to: u64,
    words: &[u64; N],
    before: usize,
    middle: &[u64; M],
) -> Result<(), BadAddress> {
    assert!(before <= N);
    check(to, (N + M) * 8)?;
    // SAFETY: the destination is in the user half (checked) and may fault; as many words are read as there are.
    done(unsafe { user_put_around(to as *mut u64, words.as_ptr(), before, middle.as_ptr(), M, N - before) })
}
/// The other way: the words, where they now are. On an error, part of `middle` may have been written.
#[inline(always)]
pub(super) fn take_around<'a, const N: usize, const M: usize>(
    words: &'a mut MaybeUninit<[u64; N]>,
    from: u64,
    before: usize,
    middle: &mut [u64; M],
) -> Result<&'a [u64; N], BadAddress> {
    assert!(before <= N);
    check(from, (N + M) * 8)?;
    // SAFETY: the source is in the user half (checked) and may fault; where it did not, all words have been written.
    unsafe {
        let to = words.as_mut_ptr().cast();
        done(user_take_around(to, from as *const u64, before, middle.as_mut_ptr(), M, N - before))?;
        Ok(words.assume_init_ref())
    }
}
/// Store the FPU state that is in the processor, `bytes` of it, where the page is there and may be written; by `xsave` with this
/// mask, or if it is 0 by `fxsave`.
pub(super) fn save_fpu(to: u64, bytes: usize, mask: u64) -> Result<(), BadAddress> {
    check(to, bytes)?;
    // SAFETY: the destination is in the user half (checked); an access that faults changes nothing.
    done(unsafe { user_fpu_save(to, mask) })
}
/// Load the processor's FPU state, where the page is there and holds what may be loaded. On an error the state is undefined.
pub(super) fn load_fpu(from: u64, bytes: usize, mask: u64) -> Result<(), BadAddress> {
    check(from, bytes)?;
    // SAFETY: the source is in the user half (checked). Whatever it holds, the processor refuses (by a fault) what a program may
    // not have; the rest is the program's own affair.
    done(unsafe { user_fpu_load(from, mask) })
}
/// Zero `len` bytes of the program's memory.
pub fn zero(to: u64, len: usize) -> Result<(), BadAddress> {
    check(to, len)?;
    // SAFETY: in the user half (checked); may fault.
    done(unsafe { user_zero(to as *mut u8, len) })
}
/// Copy a string that ends in NUL: `Some(length)` without the NUL, `None` if `to` is full before it ends.
pub fn copy_string(to: &mut [u8], from: u64) -> Result<Option<usize>, BadAddress> {
    let room = USER_TOP.saturating_sub(from).min(to.len() as u64) as usize;
    // SAFETY: reads at most `room` bytes of the user half, and writes as many to `to`.
    let answer = unsafe { user_string(to.as_mut_ptr(), from, room) };
    done(answer.bad)?;
    match answer.value as usize {
        length if length < room => Ok(Some(length)),
        _ if room < to.len() => Err(BadAddress),
        _ => Ok(None),
    }
}
/// Copy `len` bytes at `offset` of a pinned frame to the program.
pub fn copy_from_frame(to: u64, frame: Pfn, offset: usize, len: usize) -> Result<(), BadAddress> {
    assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset);
    check(to, len)?;
    // SAFETY: destination in the user half, source in a frame that the caller holds; races on its bytes are the
    // programs' own affair.
    done(unsafe { user_copy(to as *mut u8, paging::phys().ptr(frame).add(offset), len) })
}
/// Copy `len` bytes from the program to `offset` of a pinned frame.
pub fn copy_to_frame(frame: Pfn, offset: usize, from: u64, len: usize) -> Result<(), BadAddress> {
    assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset);
    check(from, len)?;
    // SAFETY: as above, the other way round.
    done(unsafe { user_copy(paging::phys().ptr(frame).add(offset), from as *const u8, len) })
}
/// Read a word; it need not be aligned.
pub fn read_u32(at: u64) -> Result<u32, BadAddress> {
    check(at, 4)?;
    // SAFETY: in the user half (checked); may fault.
    let answer = unsafe { user_read_32(at) };
    done(answer.bad).map(|()| answer.value as u32)
}
/// Read an aligned word if its page is there now. Brings nothing in, so it may be called with a spin lock held.
pub fn peek_u32(at: u64) -> Result<u32, BadAddress> {
    check(at, 4)?;
    // SAFETY: in the user half (checked); may fault.
    let answer = unsafe { user_peek_32(at) };
    done(answer.bad).map(|()| answer.value as u32)
}
/// Write a word; it need not be aligned.
pub fn write_u32(at: u64, value: u32) -> Result<(), BadAddress> {
    check(at, 4)?;
    // SAFETY: as above.
    done(unsafe { user_write_32(at, value) })
}
/// Read a word; it need not be aligned.
pub fn read_u64(at: u64) -> Result<u64, BadAddress> {
    check(at, 8)?;
    // SAFETY: as above.
    let answer = unsafe { user_read_64(at) };
    done(answer.bad).map(|()| answer.value)
}
/// Write a word; it need not be aligned.
pub fn write_u64(at: u64, value: u64) -> Result<(), BadAddress> {
    check(at, 8)?;
    // SAFETY: as above.
    done(unsafe { user_write_64(at, value) })
}
/// Atomic compare and exchange: what was there before (equal to `old` if it was exchanged). The address must be a
/// multiple of 4.
pub fn cmpxchg_u32(at: u64, old: u32, new: u32) -> Result<u32, BadAddress> {
    if !at.is_multiple_of(4) {
        return Err(BadAddress);
    }
    check(at, 4)?;
    // SAFETY: as above.
    let answer = unsafe { user_exchange(at, old, new) };
    done(answer.bad).map(|()| answer.value as u32)
}

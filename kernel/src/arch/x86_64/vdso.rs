//! The page of code that every program gets: clocks and the CPU's number without a system call (`vdso(7)`).
//!
//! It is a whole shared object in one page, put together by hand: ELF header, dynamic section, symbols with the version that
//! C libraries ask for, and the functions. What they need to know stands in the same page, filled in when it is made: how long a
//! tick of the time-stamp counter takes, and what time it was at reset. That is one word, so it is there whole, whenever
//! the clock is set, and nothing has to be read twice.
//!
//! The clocks count as the kernel's own do, to the instruction: the same counter times the same factor. The number of the
//! CPU is the limit of a segment, which each CPU's table has for this (see `descriptors`): a program can load that
//! with `lsl`.

use super::{descriptors, time};
use alloc::boxed::Box;
use core::arch::global_asm;
use hafez_mm::PAGE_SIZE;
use linux_raw_sys::general as abi;

const REALTIME: u32 = 1 << abi::CLOCK_REALTIME | 1 << abi::CLOCK_REALTIME_COARSE | 1 << abi::CLOCK_TAI;
const MONOTONIC: u32 = 1 << abi::CLOCK_MONOTONIC
    | 1 << abi::CLOCK_MONOTONIC_RAW
    | 1 << abi::CLOCK_MONOTONIC_COARSE
    | 1 << abi::CLOCK_BOOTTIME;

global_asm!(
    r#"
    .section .rodata, "a", @progbits
    .balign 4096
vdso:
    .byte 0x7F, 0x45, 0x4C, 0x46, 2, 1, 1, 0
    .quad 0
    .short 3, 62                            // a shared object, x86-64
    .long 1
    .quad 0, 64, 0                          // entry, program headers, no sections
    .long 0
    .short 64, 56, 2, 64, 0, 0
    // All of it, to be read and executed.
    .long 1, 5
    .quad 0, 0, 0, vdso_end - vdso, vdso_end - vdso, 4096
    // The dynamic section.
    .long 2, 4
    .quad vdso_dynamic - vdso, vdso_dynamic - vdso, vdso_dynamic - vdso
    .quad vdso_dynamic_end - vdso_dynamic, vdso_dynamic_end - vdso_dynamic, 8

vdso_dynamic:
    .quad 4, vdso_hash - vdso               // HASH
    .quad 5, vdso_strings - vdso            // STRTAB
    .quad 6, vdso_symbols - vdso            // SYMTAB
    .quad 10, vdso_strings_end - vdso_strings
    .quad 11, 24                            // SYMENT
    .quad 14, vdso_name - vdso_strings      // SONAME
    .quad 0x6FFFFFF0, vdso_versions - vdso  // VERSYM
    .quad 0x6FFFFFFC, vdso_version - vdso   // VERDEF
    .quad 0x6FFFFFFD, 2                     // VERDEFNUM
    .quad 0, 0
vdso_dynamic_end:

    .macro FUNCTION label, name
    .long \name - vdso_strings
    .byte 0x12, 0                           // a global function
    .short 1
    .quad \label - vdso, \label\()_end - \label
    .endm
vdso_symbols:
    .quad 0, 0, 0
    FUNCTION vdso_clock_gettime, vdso_name_1
    FUNCTION vdso_gettimeofday, vdso_name_2
    FUNCTION vdso_time, vdso_name_3
    FUNCTION vdso_getcpu, vdso_name_4

    // One chain of all.
vdso_hash:
    .long 1, 5, 1, 0, 2, 3, 4, 0

vdso_versions:
    .short 0, 2, 2, 2, 2
    .balign 8
    // The object itself, then LINUX_2.6; the hashes are those of the names.
vdso_version:
    .short 1, 1, 1, 1
    .long 0x0DEEBFA1, 20, 28
    .long vdso_name - vdso_strings, 0
    .short 1, 0, 2, 1
    .long 0x03AE75F6, 20, 0
    .long vdso_name_5 - vdso_strings, 0

vdso_strings:
    .byte 0
vdso_name:
    .asciz "linux-vdso.so.1"
vdso_name_1:
    .asciz "__vdso_clock_gettime"
vdso_name_2:
    .asciz "__vdso_gettimeofday"
vdso_name_3:
    .asciz "__vdso_time"
vdso_name_4:
    .asciz "__vdso_getcpu"
vdso_name_5:
    .asciz "LINUX_2.6"
vdso_strings_end:

    .balign 8
vdso_factor:
    .quad 0                                 // nanoseconds a tick, times 2^32
vdso_at_reset:
    .quad 0                                 // nanoseconds since 1970
vdso_zone:
    .quad 0                                 // struct timezone

    // rcx = nanoseconds since reset; rax and rdx are lost.
    .macro MONOTONIC
    lfence
    rdtsc
    shl rdx, 32
    or rax, rdx
    mul qword ptr [rip + vdso_factor]
    shrd rax, rdx, 32
    mov rcx, rax
    .endm
    // rdx = seconds, rcx = the nanoseconds that are left; rax is lost. 10^9 is 2^9 times an odd number, whose inverse times 2^75
    // the constant is, rounded up: exact for all 64 bits.
    .macro SPLIT
    mov rax, rcx
    shr rax, 9
    movabs rdx, 0x44B82FA09B5A53
    mul rdx
    shr rdx, 11
    imul rax, rdx, 1000000000
    sub rcx, rax
    .endm

    .balign 16
vdso_clock_gettime:                         // (clock, timespec)
    cmp edi, 31
    ja 9f
    mov eax, {known}
    bt eax, edi
    jnc 9f
    MONOTONIC
    mov eax, {realtime}
    bt eax, edi
    jnc 1f
    add rcx, [rip + vdso_at_reset]
1:  SPLIT
    mov [rsi], rdx
    mov [rsi + 8], rcx
    xor eax, eax
    ret
9:  mov eax, {nr_clock_gettime}
    syscall
    ret
vdso_clock_gettime_end:

    .balign 16
vdso_gettimeofday:                          // (timeval, timezone)
    test rdi, rdi
    jz 1f
    MONOTONIC
    add rcx, [rip + vdso_at_reset]
    SPLIT
    mov [rdi], rdx
    // Microseconds: below 2^30, so 2^38 / 1000, rounded up, is exact.
    imul rcx, rcx, 274877907
    shr rcx, 38
    mov [rdi + 8], rcx
1:  test rsi, rsi
    jz 2f
    mov rax, [rip + vdso_zone]
    mov [rsi], rax
2:  xor eax, eax
    ret
vdso_gettimeofday_end:

    .balign 16
vdso_time:                                  // (seconds)
    MONOTONIC
    add rcx, [rip + vdso_at_reset]
    SPLIT
    mov rax, rdx
    test rdi, rdi
    jz 1f
    mov [rdi], rax
1:  ret
vdso_time_end:

    .balign 16
vdso_getcpu:                                // (cpu, node)
    mov eax, {selector}
    lsl eax, eax
    test rdi, rdi
    jz 1f
    mov [rdi], eax
1:  test rsi, rsi
    jz 2f
    mov dword ptr [rsi], 0
2:  xor eax, eax
    ret
vdso_getcpu_end:
vdso_end:
    "#,
    known = const REALTIME | MONOTONIC,
    realtime = const REALTIME,
    nr_clock_gettime = const abi::__NR_clock_gettime,
    selector = const descriptors::CPU_NUMBER,
);

unsafe extern "C" {
    static vdso: u8;
    static vdso_end: u8;
    static vdso_factor: u8;
    static vdso_at_reset: u8;
    static vdso_zone: u8;
}

/// Where in the page stands what time it was at reset.
pub fn at_reset_offset() -> usize {
    // Only distances are taken.
    (&raw const vdso_at_reset) as usize - (&raw const vdso) as usize
}

/// And where what `gettimeofday` says of the time zone.
pub fn zone_offset() -> usize {
    (&raw const vdso_zone) as usize - (&raw const vdso) as usize
}

/// The page, for a machine that was reset at `at_reset` (nanoseconds since 1970).
pub fn page(at_reset: u64) -> Box<[u8]> {
    let base = &raw const vdso;
    // Only distances are taken.
    let offset = |label: *const u8| label as usize - base as usize;
    // SAFETY: the labels enclose constants of the image.
    let bytes = unsafe { core::slice::from_raw_parts(base, offset(&raw const vdso_end)) };
    let mut page = alloc::vec![0; PAGE_SIZE].into_boxed_slice();
    page[..bytes.len()].copy_from_slice(bytes);
    for (label, value) in
        [(&raw const vdso_factor, time::ns_per_tick()), (&raw const vdso_at_reset, at_reset)]
    {
        page[offset(label)..offset(label) + 8].copy_from_slice(&value.to_le_bytes());
    }
    page
}

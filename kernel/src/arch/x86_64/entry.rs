//! The first instructions.
//!
//! PVH boot: the loader puts the image where its program headers say, and jumps to the address in the ELF note
//! `XEN_ELFNOTE_PHYS32_ENTRY`, in 32-bit protected mode without paging, `ebx` = physical address of `hvm_start_info`.
//!
//! The first page tables are constants in the image, so building them costs nothing. They map the first GiB three
//! times, writable and executable: at 0 (where we run), at the direct map, and at -2 GiB (where we go). `paging`
//! soon replaces them, and the frames are freed.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4
    .long 8
    .long 18                                // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start - {base}

    .section .boot_tables, "aw", @progbits
    .balign 4096
    .globl boot_pml4
boot_pml4:
    .quad boot_pdpt - {base} + 3
    .fill 255, 8, 0
    .quad boot_pdpt - {base} + 3            // the direct map
    .fill 254, 8, 0
    .quad boot_pdpt - {base} + 3            // the image
boot_pdpt:
    .quad boot_pd - {base} + 3
    .fill 509, 8, 0
    .quad boot_pd - {base} + 3
    .fill 1, 8, 0
boot_pd:
    .set page, 0
    .rept 512
    .quad (page << 21) + 0x83               // present, writable, 2 MiB
    .set page, page + 1
    .endr

    .section .boot_stack, "aw", @nobits
    .balign 4096
    // Large: the memory of the machine is built on it. Later only the uppermost part is used.
    .globl boot_stack_guard
boot_stack_guard:
    .skip 4096
    .skip 3 * {stack}
    .globl boot_stack_top
boot_stack_top:

    .section .rodata, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00AF9A000000FFFF                // 64-bit code
boot_gdt_pointer:
    .short 15
    .long boot_gdt - {base}

    .section .text.boot, "ax", @progbits
    .code32
    .globl pvh_start
pvh_start:
    cld
    mov eax, cr4
    or eax, 0x20                            // PAE
    mov cr4, eax
    mov eax, offset boot_pml4 - {base}
    mov cr3, eax
    mov ecx, 0xC0000080                     // EFER
    rdmsr
    or eax, 0x100                           // LME
    wrmsr
    mov eax, 0x80010033                     // PG WP NE ET MP PE
    mov cr0, eax
    lgdt [boot_gdt_pointer - {base}]
    .byte 0xEA                              // ljmp 0x08:2f
    .long 2f - {base}
    .short 0x08
    .code64
2:
    movabs rax, offset boot_high
    jmp rax
boot_high:
    movabs rsp, offset boot_stack_top
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    xor ebp, ebp
    mov edi, ebx
    call {start}
    ud2
    "#,
    base = const BASE,
    stack = const super::STACK_BYTES,
    start = sym super::boot::start,
);

/// Where physical address 0 would be in the image's window (`KERNEL_BASE` of the linker script).
pub const BASE: u64 = 0xFFFF_FFFF_8000_0000;

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __boot_tables_start: u8;
    static __boot_tables_end: u8;
    static __image_end: u8;
    static boot_stack_guard: u8;
    static boot_stack_top: u8;
}

/// The image's parts, as virtual addresses; each a multiple of the page size.
pub struct Image {
    pub start: u64,
    pub text_end: u64,
    pub rodata_end: u64,
    pub boot_tables: (u64, u64),
    pub stack_guard: u64,
    pub stack_top: u64,
    pub end: u64,
}

/// Where the linker put things.
pub fn image() -> Image {
    // Only addresses are taken, nothing is read.
    Image {
        start: (&raw const __image_start) as u64,
        text_end: (&raw const __text_end) as u64,
        rodata_end: (&raw const __rodata_end) as u64,
        boot_tables: ((&raw const __boot_tables_start) as u64, (&raw const __boot_tables_end) as u64),
        stack_guard: (&raw const boot_stack_guard) as u64,
        stack_top: (&raw const boot_stack_top) as u64,
        end: (&raw const __image_end) as u64,
    }
}

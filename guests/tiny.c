// flags: -nostdlib
// The smallest program there is: two pages, no library. What is measured by running it is the kernel's work alone.
__attribute__((noreturn)) void _start(void) {
    for (;;) __asm__ volatile("syscall" : : "a"(231), "D"(0) : "rcx", "r11", "memory"); // exit_group(0)
}

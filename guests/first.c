// flags: -nostdlib -fno-stack-protector -fno-tree-loop-distribute-patterns
// What it took to get here: the very first instructions of the first program read the time-stamp counter, which counts from reset,
// and then ask how much memory is still free. Prints `boot TICKS` and `free BYTES`.
struct info {
    long uptime;
    unsigned long loads[3], total, free, shared, buffer, swap_total, swap_free;
    unsigned short processes, padding;
    unsigned long high_total, high_free;
    unsigned unit;
    char rest[64];
};

static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static char line[64];

static void say(const char *name, unsigned long value) {
    char digits[24], *end = digits + sizeof digits, *at = end;
    *--at = '\n';
    do *--at = '0' + value % 10;
    while (value /= 10);
    int length = 0;
    while (*name) line[length++] = *name++;
    line[length++] = ' ';
    while (at < end) line[length++] = *at++;
    call(1, 1, (long)line, length); // write
}

__attribute__((noreturn, used)) static void go(unsigned long ticks) {
    static struct info info;
    call(99, (long)&info, 0, 0); // sysinfo
    say("boot", ticks);
    say("free", info.free * info.unit);
    // The first program of another kernel cannot just end: switch off.
    if (call(39, 0, 0, 0) == 1) call(169, 0xfee1dead, 672274793, 0x1234567); // getpid, reboot
    for (;;) call(231, 0, 0, 0);                                            // exit_group
}

__asm__(".globl _start\n_start: rdtsc\nshl $32, %rdx\nor %rax, %rdx\nmov %rdx, %rdi\nand $-16, %rsp\ncall go\n");

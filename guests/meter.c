// What the kernel's paths cost, in ticks of the time-stamp counter. With one instruction a nanosecond (--icount) a tick is a guest
// instruction.
//
//   meter [NAME]…
//
// Prints `name ticks` for each: the least of several rounds, with the loop's own share taken off. Swap-out and swap-in need a
// machine with less RAM than SWAP_MIB and are run only by name: `swapout`, `swapin`, `swapin-random`.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

enum { PAGE = 4096, ROUNDS = 7, PAGES = 1024 };

static uint64_t now(void) {
    // Not rdtscp: the plainest processor model has none.
    _mm_lfence();
    return __rdtsc();
}

static char *map(size_t bytes) {
    char *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        perror("meter: mmap");
        exit(2);
    }
    // Other kernels would take a huge page and make one fault of them all.
    madvise(at, bytes, MADV_NOHUGEPAGE);
    return at;
}

static long null_call(void) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_getppid) : "rcx", "r11", "memory");
    return result;
}

static uint64_t null(void) {
    uint64_t start = now();
    for (int i = 0; i < 1000; i++) null_call();
    return (now() - start) / 1000;
}

static uint64_t touch(int write) {
    volatile char *at = map(PAGES * PAGE);
    // The first fault in fresh tables costs more; those are counted apart by nobody, so warm up with the first page.
    at[0] = 1;
    uint64_t start = now();
    for (int i = 1; i < PAGES; i++) {
        if (write)
            at[i * PAGE] = 1;
        else
            (void)at[i * PAGE];
    }
    uint64_t ticks = now() - start;
    munmap((void *)at, PAGES * PAGE);
    return ticks / (PAGES - 1);
}
static uint64_t write_fault(void) { return touch(1); }
static uint64_t read_fault(void) { return touch(0); }

static uint64_t mmap_munmap(void) {
    uint64_t start = now();
    for (int i = 0; i < 100; i++) munmap(map(16 * PAGE), 16 * PAGE);
    return (now() - start) / 100;
}

static uint64_t unmap_page(void) {
    char *at = map(PAGES * PAGE);
    for (int i = 0; i < PAGES; i++) at[i * PAGE] = 1;
    uint64_t start = now();
    munmap(at, PAGES * PAGE);
    return (now() - start) / PAGES;
}

static uint64_t protect_pair(void) {
    char *at = map(PAGE);
    at[0] = 1;
    uint64_t start = now();
    for (int i = 0; i < 100; i++) {
        mprotect(at, PAGE, PROT_READ);
        mprotect(at, PAGE, PROT_READ | PROT_WRITE);
    }
    uint64_t ticks = now() - start;
    munmap(at, PAGE);
    return ticks / 100;
}

// A child writes to pages that it shares with its parent, and tells the ticks through a shared page.
static uint64_t cow_copy(void) {
    volatile char *at = map(PAGES * PAGE);
    uint64_t *told = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < PAGES; i++) at[i * PAGE] = 1;
    pid_t child = fork();
    if (child == 0) {
        uint64_t start = now();
        for (int i = 0; i < PAGES; i++) at[i * PAGE] = 2;
        *told = (now() - start) / PAGES;
        _exit(0);
    }
    waitpid(child, 0, 0);
    uint64_t ticks = *told;
    munmap((void *)at, PAGES * PAGE);
    munmap(told, PAGE);
    return ticks;
}

static uint64_t fork_wait(void) {
    uint64_t start = now();
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        if (child == 0) _exit(0);
        waitpid(child, 0, 0);
    }
    return (now() - start) / 10;
}

static uint64_t pipe_round(void) {
    int there[2], back[2];
    char byte = 0;
    if (pipe(there) || pipe(back)) return 0;
    pid_t child = fork();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1) _exit(1);
        _exit(0);
    }
    close(there[0]);
    uint64_t start = now();
    for (int i = 0; i < 100; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) return 0;
    uint64_t ticks = (now() - start) / 100;
    close(there[1]);
    close(back[0]);
    close(back[1]);
    waitpid(child, 0, 0);
    return ticks;
}

static volatile sig_atomic_t caught;
static void catch(int n) { caught += n; }

static uint64_t signal_self(void) {
    signal(SIGUSR1, catch);
    pid_t self = getpid();
    uint64_t start = now();
    for (int i = 0; i < 100; i++) kill(self, SIGUSR1);
    return (now() - start) / 100;
}

// Work without waiting: under deterministic time an idle processor's clock leaps to the next event, so what waits for a disk is
// measured as uptime less idle time, in hundredths of a second (ten million instructions: enough for tens of thousands of pages).
static uint64_t busy(void) {
    unsigned long up, up_part, idle, idle_part;
    FILE *file = fopen("/proc/uptime", "r");
    if (!file || fscanf(file, "%lu.%lu %lu.%lu", &up, &up_part, &idle, &idle_part) != 4) exit(2);
    fclose(file);
    return ((up - idle) * 100 + up_part - idle_part) * 10000000;
}

static volatile uint64_t *swap_at;
static size_t swap_pages;

// Writing through fresh memory of several times the RAM: a write fault a page, and a page out for each (but the last that stay).
static uint64_t swapout(void) {
    const char *mib = getenv("SWAP_MIB");
    swap_pages = (mib ? strtoull(mib, 0, 0) : 256) * 256;
    swap_at = (volatile uint64_t *)map(swap_pages * PAGE);
    uint64_t start = busy();
    for (size_t i = 0; i < swap_pages; i++) swap_at[i * PAGE / 8] = i * 0x9e3779b97f4a7c15u | 1;
    return (busy() - start) / swap_pages;
}

// Reading it again: a page in for each, and one dropped whose slot still holds it.
static uint64_t swapin(void) {
    if (!swap_at) swapout();
    for (size_t i = 0; i < swap_pages; i++) (void)swap_at[i * PAGE / 8];
    uint64_t start = busy();
    for (size_t i = 0; i < swap_pages; i++)
        if (swap_at[i * PAGE / 8] != (i * 0x9e3779b97f4a7c15u | 1)) exit(3);
    return (busy() - start) / swap_pages;
}

// The same in no order: nothing to read ahead.
static uint64_t swapin_random(void) {
    if (!swap_at) swapout();
    uint64_t start = busy(), at = 1;
    for (size_t i = 0; i < swap_pages; i++) {
        at = at * 6364136223846793005u + 1442695040888963407u;
        size_t page = (at >> 33) % swap_pages;
        if (swap_at[page * PAGE / 8] != (page * 0x9e3779b97f4a7c15u | 1)) exit(3);
    }
    return (busy() - start) / swap_pages;
}

static const struct {
    const char *name;
    uint64_t (*run)(void);
    int by_name_only;
} meters[] = {
    {"null", null, 0},
    {"write-fault", write_fault, 0},
    {"read-fault", read_fault, 0},
    {"mmap-munmap", mmap_munmap, 0},
    {"unmap-page", unmap_page, 0},
    {"protect-pair", protect_pair, 0},
    {"cow-copy", cow_copy, 0},
    {"fork-wait", fork_wait, 0},
    {"pipe-round", pipe_round, 0},
    {"signal-self", signal_self, 0},
    {"swapout", swapout, 1},
    {"swapin", swapin, 1},
    {"swapin-random", swapin_random, 1},
};

int main(int argc, char **argv) {
    for (size_t m = 0; m < sizeof meters / sizeof *meters; m++) {
        int wanted = argc == 1 && !meters[m].by_name_only;
        for (int a = 1; a < argc; a++) wanted |= !strcmp(argv[a], meters[m].name);
        if (!wanted) continue;
        uint64_t least = UINT64_MAX;
        for (int round = 0; round < (meters[m].by_name_only ? 1 : ROUNDS); round++) {
            uint64_t ticks = meters[m].run();
            if (ticks < least) least = ticks;
        }
        printf("%s %lu\n", meters[m].name, least);
        fflush(stdout);
    }
    return 0;
}

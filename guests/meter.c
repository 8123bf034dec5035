// What the kernel's paths cost, in ticks of the time-stamp counter. With one instruction a nanosecond (--icount) a tick is a guest
// instruction.
//
//   meter [NAME]…
//
// Prints `name median minimum samples` for each. An operation is measured by itself, many times; what reading the counter costs is
// taken off. So the median is the ordinary case, and a timer's interrupt here or there moves nothing. Where one operation
// covers many pages (unmapping a range), a sample is its cost divided by the pages.
//
// Run by name only: `swapout`, `swapin`, `swapin-random` (they need a machine with less RAM than SWAP_MIB), and the four with `big` in
// their names (they need 192 MiB of RAM). Runs as the first program of another kernel, too: then it mounts what it needs, takes
// its names from the variable METER (separated by commas), and switches the machine off at the end.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

enum { PAGE = 4096, PAGES = 1024, SAMPLES = 4096, BIG = 128 << 20, HUGE = 2 << 20 };

static uint64_t samples[SAMPLES], overhead;
static int taken;

static uint64_t now(void) {
    // Not rdtscp: the plainest processor model has none.
    _mm_lfence();
    return __rdtsc();
}

static void sample(uint64_t ticks) {
    if (taken < SAMPLES) samples[taken++] = ticks;
}

// Measure one operation.
#define EACH(operation)                                   \
    do {                                                  \
        uint64_t start_ = now();                          \
        operation;                                        \
        uint64_t ticks_ = now() - start_;                 \
        sample(ticks_ > overhead ? ticks_ - overhead : 0); \
    } while (0)

// Measure an operation on so many pages.
#define SPREAD(pages, operation)                  \
    do {                                          \
        uint64_t start_ = now();                  \
        operation;                                \
        sample((now() - start_) / (pages));       \
    } while (0)

static void fail(const char *what) {
    fprintf(stderr, "meter: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void *check(void *at) {
    if (at == MAP_FAILED) fail("mmap");
    return at;
}

static void *raw_map(size_t bytes) {
    return check(mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
}

// Memory that stays in pages of 4 KiB: another kernel might take a huge one and make one fault of them all.
static volatile char *map(size_t bytes) {
    void *at = raw_map(bytes);
    madvise(at, bytes, MADV_NOHUGEPAGE);
    return at;
}

static void touch(volatile char *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += PAGE) at[i] = 1;
}

static void *shared(void) {
    return check(mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

static pid_t forked(void) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    return child;
}

static void reap(pid_t child) {
    if (waitpid(child, 0, 0) != child) fail("waitpid");
}

static void null(void) {
    for (int i = 0; i < 2000; i++) {
        long result;
        EACH(__asm__ volatile("syscall" : "=a"(result) : "a"(SYS_getppid) : "rcx", "r11", "memory"));
    }
}

static void write_fault(void) {
    for (int round = 0; round < 2; round++) {
        volatile char *at = map(PAGES * PAGE);
        for (int i = 0; i < PAGES; i++) EACH(at[i * PAGE] = 1);
        munmap((void *)at, PAGES * PAGE);
    }
}

static void read_fault(void) {
    for (int round = 0; round < 2; round++) {
        volatile char *at = map(PAGES * PAGE);
        for (int i = 0; i < PAGES; i++) EACH((void)at[i * PAGE]);
        munmap((void *)at, PAGES * PAGE);
    }
}

// The child copies pages that it shares with its parent; samples travel through shared memory. When it is gone the parent is
// the only owner of the rest.
static void cow(int copy) {
    size_t bytes = sizeof samples;
    uint64_t *told = check(mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    touch((volatile char *)told, bytes);
    for (int round = 0; round < 2; round++) {
        volatile char *at = map(PAGES * PAGE);
        touch(at, PAGES * PAGE);
        pid_t child = forked();
        if (child == 0) {
            taken = 0;
            for (int i = 0; i < PAGES; i++) EACH(at[i * PAGE] = 2);
            memcpy(told, samples, taken * sizeof *told);
            _exit(0);
        }
        reap(child);
        for (int i = 0; i < PAGES; i++) {
            if (copy)
                sample(told[i]);
            else
                EACH(at[i * PAGE] = 3);
        }
        munmap((void *)at, PAGES * PAGE);
    }
    munmap(told, bytes);
}
static void cow_copy(void) { cow(1); }
static void cow_own(void) { cow(0); }

// A file's pages that are all in memory: what touching each once costs, with as many mapped at a fault as the kernel likes.
static void file_page(void) {
    int fd = open("/tmp/meter.file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) fail("/tmp/meter.file");
    static char block[PAGE];
    for (int i = 0; i < PAGES; i++)
        if (write(fd, block, PAGE) != PAGE) fail("write");
    for (int round = 0; round < 64; round++) {
        volatile char *at = check(mmap(0, PAGES * PAGE, PROT_READ, MAP_SHARED, fd, 0));
        SPREAD(PAGES, for (int i = 0; i < PAGES; i++) (void)at[i * PAGE]);
        munmap((void *)at, PAGES * PAGE);
    }
    close(fd);
    unlink("/tmp/meter.file");
}

static void mmap_munmap(void) {
    for (int i = 0; i < 1000; i++) EACH(munmap(raw_map(PAGE), PAGE));
}

static void mmap_touch_munmap(void) {
    for (int i = 0; i < 1000; i++) {
        EACH({
            volatile char *at = raw_map(PAGE);
            *at = 1;
            munmap((void *)at, PAGE);
        });
    }
}

static void unmap_page(void) {
    for (int round = 0; round < 32; round++) {
        volatile char *at = map(PAGES * PAGE);
        touch(at, PAGES * PAGE);
        SPREAD(PAGES, munmap((void *)at, PAGES * PAGE));
    }
}

static void protect_pair(void) {
    volatile char *at = map(PAGE);
    *at = 1;
    for (int i = 0; i < 1000; i++) {
        EACH({
            mprotect((void *)at, PAGE, PROT_READ);
            mprotect((void *)at, PAGE, PROT_READ | PROT_WRITE);
        });
    }
    munmap((void *)at, PAGE);
}

// 2 MiB of fresh memory, touched page by page, where the program says that it would like a huge page: one fault, or 512.
static void huge_after(long rest) {
    struct timespec pause = {0, rest};
    for (int i = 0; i < 64; i++) {
        char *at = raw_map(2 * HUGE);
        char *aligned = (char *)(((uintptr_t)at + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
        madvise(aligned, HUGE, MADV_HUGEPAGE);
        if (rest) nanosleep(&pause, 0);
        EACH(touch(aligned, HUGE));
        munmap(at, 2 * HUGE);
    }
}
static void huge(void) {
    huge_after(0);
}
// The same when the machine has had a moment to itself.
static void huge_rested(void) {
    huge_after(2000000);
}

static void fork_return(int times) {
    for (int i = 0; i < times; i++) {
        pid_t child;
        uint64_t start = now();
        child = fork();
        uint64_t end = now();
        if (child == 0) _exit(0);
        sample(end - start - overhead);
        reap(child);
    }
}
static void fork_wait(int times) {
    for (int i = 0; i < times; i++) {
        EACH({
            pid_t child = fork();
            if (child == 0) _exit(0);
            reap(child);
        });
    }
}
static void small_return(void) { fork_return(1000); }
static void small_wait(void) { fork_wait(1000); }

static void big(void (*run)(int)) {
    volatile char *at = map(BIG);
    touch(at, BIG);
    run(24);
    munmap((void *)at, BIG);
}
static void big_return(void) { big(fork_return); }
static void big_wait(void) { big(fork_wait); }

// The program that is run lies beside this one; in memory, so that no disk and no host takes part.
static void vfork_exec(void) {
    static char here[4096], program[1 << 16];
    ssize_t length = readlink("/proc/self/exe", here, sizeof here - 8);
    if (length < 0) fail("/proc/self/exe");
    strcpy(strrchr(here, '/') + 1, "tiny");
    int from = open(here, O_RDONLY), to = open("/tmp/tiny", O_WRONLY | O_CREAT | O_TRUNC, 0700);
    ssize_t size = from < 0 ? -1 : read(from, program, sizeof program);
    if (size <= 0 || to < 0 || write(to, program, size) != size) fail(here);
    close(from);
    close(to);
    char *argv[] = {"tiny", 0}, *envp[] = {0};
    for (int i = 0; i < 1000; i++) {
        EACH({
            pid_t child = vfork();
            if (child == 0) {
                execve("/tmp/tiny", argv, envp);
                _exit(1);
            }
            reap(child);
        });
    }
    unlink("/tmp/tiny");
}

static void pipe_round(void) {
    int there[2], back[2];
    char byte = 0;
    if (pipe(there) || pipe(back)) fail("pipe");
    pid_t child = forked();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1) _exit(1);
        _exit(0);
    }
    close(there[0]);
    for (int i = 0; i < 1000; i++) {
        EACH({
            if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) fail("pipe");
        });
    }
    close(there[1]);
    close(back[0]);
    close(back[1]);
    reap(child);
}

// Two that yield to each other. Only where the other has yielded just once in between is it A, B, A.
static void yield_round(void) {
    volatile uint64_t *turns = shared();
    *turns = 0;
    pid_t child = forked();
    if (child == 0) {
        for (;;) {
            ++*turns;
            sched_yield();
        }
    }
    for (int i = 0; i < 2000; i++) {
        uint64_t before = *turns, start = now();
        sched_yield();
        uint64_t ticks = now() - start;
        if (*turns == before + 1) sample(ticks - overhead);
    }
    kill(child, SIGKILL);
    reap(child);
    munmap((void *)turns, PAGE);
}

// As the kernel wants it; the library's has another shape and wraps it.
struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};
void back_from_handler(void);
__asm__("back_from_handler: mov $15, %eax\nsyscall\n"); // rt_sigreturn

static void caught(int n) { (void)n; }

static void signal_install(void) {
    struct kernel_action action = {caught, SA_RESTART | 0x04000000, back_from_handler, 0};
    for (int i = 0; i < 1000; i++) EACH(syscall(SYS_rt_sigaction, SIGUSR1, &action, 0, 8));
}

static void signal_deliver(void) {
    struct kernel_action action = {caught, SA_RESTART | 0x04000000, back_from_handler, 0};
    if (syscall(SYS_rt_sigaction, SIGUSR1, &action, 0, 8)) fail("rt_sigaction");
    pid_t self = getpid();
    for (int i = 0; i < 1000; i++) EACH(syscall(SYS_kill, self, SIGUSR1));
}

// How long the processor itself takes for a page's bytes: what a kernel that zeroes or copies so cannot go below.
static void zero_page(void) {
    volatile char *at = map(PAGE);
    *at = 1;
    for (int i = 0; i < 1000; i++) {
        void *to = (void *)at;
        uint64_t words = PAGE / 8;
        EACH(__asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(0) : "memory"));
    }
    munmap((void *)at, PAGE);
}
static void copy_page(void) {
    volatile char *at = map(2 * PAGE);
    touch(at, 2 * PAGE);
    for (int i = 0; i < 1000; i++) {
        void *from = (void *)at, *to = (char *)from + PAGE;
        uint64_t words = PAGE / 8;
        EACH(__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory"));
    }
    munmap((void *)at, 2 * PAGE);
}

// Work without waiting: under deterministic time an idle processor's clock leaps to the next event, so what waits for a disk is
// measured as uptime less idle time, in hundredths of a second (ten million instructions: enough for tens of thousands of pages).
// Where the clock is the computer's own (WALL is set), waiting counts.
static uint64_t busy(void) {
    if (getenv("WALL")) return now();
    unsigned long up, up_part, idle, waiting;
    FILE *file = fopen("/proc/uptime", "r");
    if (!file || fscanf(file, "%lu.%lu", &up, &up_part) != 2) fail("/proc/uptime");
    fclose(file);
    file = fopen("/proc/stat", "r");
    if (!file || fscanf(file, "cpu %*u %*u %*u %lu %lu", &idle, &waiting) != 2) fail("/proc/stat");
    fclose(file);
    return (up * 100 + up_part - idle - waiting) * 10000000;
}

static volatile uint64_t *swap_at;
static size_t swap_pages;

// Writing through fresh memory of several times the RAM: a write fault a page, and a page out for each (but the last that stay).
static void swapout(void) {
    const char *mib = getenv("SWAP_MIB");
    swap_pages = (mib ? strtoull(mib, 0, 0) : 256) * 256;
    swap_at = (volatile uint64_t *)map(swap_pages * PAGE);
    uint64_t start = busy();
    for (size_t i = 0; i < swap_pages; i++) swap_at[i * PAGE / 8] = i * 0x9e3779b97f4a7c15u | 1;
    sample((busy() - start) / swap_pages);
}

static void want(size_t page) {
    if (swap_at[page * PAGE / 8] != (page * 0x9e3779b97f4a7c15u | 1)) {
        fprintf(stderr, "meter: page %zu came back wrong\n", page);
        exit(3);
    }
}

// Reading it again: a page in for each, and one dropped whose slot still holds it.
static void swapin(void) {
    if (!swap_at) fail("swapin without swapout");
    for (size_t i = 0; i < swap_pages; i++) want(i);
    uint64_t start = busy();
    for (size_t i = 0; i < swap_pages; i++) want(i);
    sample((busy() - start) / swap_pages);
}

// The same in no order: nothing to read ahead.
static void swapin_random(void) {
    if (!swap_at) fail("swapin-random without swapout");
    uint64_t start = busy(), at = 1;
    for (size_t i = 0; i < swap_pages; i++) {
        at = at * 6364136223846793005u + 1442695040888963407u;
        want((at >> 33) % swap_pages);
    }
    sample((busy() - start) / swap_pages);
}

static const struct {
    const char *name;
    void (*run)(void);
    int by_name_only;
} meters[] = {
    {"null", null, 0},
    {"write-fault", write_fault, 0},
    {"read-fault", read_fault, 0},
    {"cow-copy", cow_copy, 0},
    {"cow-own", cow_own, 0},
    {"file-page", file_page, 0},
    {"mmap-munmap", mmap_munmap, 0},
    {"mmap-touch-munmap", mmap_touch_munmap, 0},
    {"protect-pair", protect_pair, 0},
    {"unmap-page", unmap_page, 0},
    {"huge", huge, 0},
    {"huge-rested", huge_rested, 0},
    {"fork-return", small_return, 0},
    {"fork-wait", small_wait, 0},
    {"vfork-exec", vfork_exec, 0},
    {"pipe-round", pipe_round, 0},
    {"yield-round", yield_round, 0},
    {"signal-install", signal_install, 0},
    {"signal-deliver", signal_deliver, 0},
    {"zero-page", zero_page, 0},
    {"copy-page", copy_page, 0},
    {"fork-return-big", big_return, 1},
    {"fork-wait-big", big_wait, 1},
    {"swapout", swapout, 1},
    {"swapin", swapin, 1},
    {"swapin-random", swapin_random, 1},
};

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void report(const char *name) {
    if (taken == 0) {
        printf("%s none\n", name);
        return;
    }
    qsort(samples, taken, sizeof *samples, by_value);
    printf("%s %lu %lu %d\n", name, samples[taken / 2], samples[0], taken);
    fflush(stdout);
}

// As another kernel's first program.
static void be_init(void) {
    mkdir("/proc", 0755);
    mkdir("/tmp", 0755);
    mkdir("/sys", 0755);
    if (mount("proc", "/proc", "proc", 0, 0) || mount("tmpfs", "/tmp", "tmpfs", 0, 0)) fail("mount");
    // Linux has no huge pages where RAM is small, unless it is told.
    int fd = mount("sys", "/sys", "sysfs", 0, 0) ? -1 : open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY);
    if (fd >= 0 && write(fd, "madvise", 7) != 7) fail("transparent_hugepage");
    if (getenv("SWAP_MIB")) {
        mkdir("/dev", 0755);
        mount("dev", "/dev", "devtmpfs", 0, 0);
        if (swapon(getenv("SWAP_DEVICE"), 0)) fail("swapon");
    }
}

static int listed(const char *names, const char *name) {
    size_t length = strlen(name);
    for (const char *at = names; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : 0)
        if (!strncmp(at, name, length) && (at[length] == ',' || !at[length])) return 1;
    return 0;
}

int main(int argc, char **argv) {
    if (getpid() == 1) be_init();
    for (int i = 0; i < 1000; i++) EACH((void)0);
    qsort(samples, taken, sizeof *samples, by_value);
    overhead = samples[0];
    const char *names = getenv("METER");
    for (size_t m = 0; m < sizeof meters / sizeof *meters; m++) {
        int wanted = argc == 1 && !names && !meters[m].by_name_only;
        if (names) wanted |= listed(names, meters[m].name);
        for (int a = 1; a < argc; a++) wanted |= !strcmp(argv[a], meters[m].name);
        if (!wanted) continue;
        // The samples' own pages are there before anything is measured.
        memset(samples, 0, sizeof samples);
        taken = 0;
        meters[m].run();
        report(meters[m].name);
    }
    if (getpid() == 1) reboot(RB_AUTOBOOT);
    return 0;
}

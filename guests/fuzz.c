// Every system call with garbage, to see that the kernel stands.
//
//   fuzz SEED ROUNDS
//
// Each round forks a child that makes a few hundred calls with numbers, pointers and lengths that are random, at the edges, or almost
// right. What the calls answer is not looked at, and the child may die of it. The parent must live, must see each child end, and its own
// memory must stay what it was.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLS = 300, LAST = 470, KEPT = 1 << 16 };

static uint64_t state;
static uint64_t next(void) {
    uint64_t x = state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static char *buffer, *edge;
static int nowhere;

static void wake(int n) { (void)n; }

static uint64_t garbage(void) {
    static const uint64_t odd[] = {0, 1, 2, -1, -2, 8, 4095, 4096, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 40,
                                   0x7ffffffff000, 0x7fffffffffff, 0x800000000000, 0xffff800000000000,
                                   0xffffffff80000000, 0xfffffffffffff000, 1ull << 63};
    switch (next() % 8) {
    case 0: return next();
    case 1: return odd[next() % (sizeof odd / sizeof *odd)];
    case 2: return next() % 16;
    case 3: return (uint64_t)buffer + next() % 4096;
    case 4: return (uint64_t)edge - next() % 64; // runs into an unmapped page
    case 5: return (uint64_t)buffer & ~4095ull;
    case 6: return 1ull << next() % 64;
    default: return next() % 8192;
    }
}

// What would end or stop the test itself, or reach beyond it.
static int spared(long n) {
    switch (n) {
    case SYS_exit: case SYS_exit_group: case SYS_pause: case SYS_rt_sigsuspend: case SYS_kill: case SYS_tkill:
    case SYS_tgkill: case SYS_rt_sigqueueinfo: case SYS_rt_tgsigqueueinfo: case SYS_pidfd_send_signal: case SYS_reboot:
    case SYS_fork: case SYS_vfork: case SYS_clone: case SYS_clone3: case SYS_setpgid: case SYS_setsid:
        return 1;
    }
    return 0;
}

static void child(void) {
    struct rlimit none = {0, 0}, time = {5, 5};
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_CPU, &time);
    for (int fd = 0; fd < 3; fd++) dup2(nowhere, fd);
    for (int i = 0; i < CALLS; i++) {
        long n = next() % 64 == 0 ? (long)next() : (long)(next() % LAST);
        if (!spared(n)) syscall(n, garbage(), garbage(), garbage(), garbage(), garbage(), garbage());
    }
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    unsigned char *kept = malloc(KEPT);
    for (int i = 0; i < KEPT; i++) kept[i] = (unsigned char)(i * 7);
    struct sigaction act = {.sa_handler = wake};
    sigaction(SIGALRM, &act, 0);
    nowhere = open("/dev/null", O_RDWR);
    buffer = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    edge = buffer + 8192;
    for (long round = 0; round < atol(argv[2]); round++) {
        state = strtoull(argv[1], 0, 0) * 1000003 + round;
        pid_t pid = fork();
        if (pid == 0) child();
        // One that waits for ever is ended: it may have turned off every signal but this.
        int status;
        alarm(2);
        pid_t ended = waitpid(pid, &status, 0);
        if (ended < 0 && pid > 0 && !kill(pid, SIGKILL)) ended = waitpid(pid, &status, 0);
        // Or it asked to be traced.
        while (pid > 0 && ended == pid && WIFSTOPPED(status) && !kill(pid, SIGKILL)) ended = waitpid(pid, &status, 0);
        alarm(0);
        if (pid < 0 || ended != pid) {
            perror("fuzz");
            return 1;
        }
        for (int i = 0; i < KEPT; i++)
            if (kept[i] != (unsigned char)(i * 7)) {
                printf("round %ld: the parent's memory has changed\n", round);
                return 1;
            }
    }
    printf("alive\n");
    return 0;
}

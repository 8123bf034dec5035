// Programs that behave as badly as they can, all at once, to see that the kernel stands.
//
//   havoc SEED ROUNDS [MEBIBYTES [TELL]]
//
// Each round starts a group of processes with several threads each. Every thread makes calls at random, but not with mere garbage: each
// argument is mostly what the call wants there (a descriptor of any kind, a path, a structure, a piece of an arena of mapped memory, a
// process of the group, a signal that is handled), and only sometimes garbage. They fork, execute, kill, wait, map over each other,
// share descriptors, and touch more memory than the machine may have. The parent must live, must be able to end them all, and its own memory
// must stay what it was.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PROCESSES = 3, THREADS = 3, CALLS = 400, KEPT = 1 << 16, PAGE = 4096, ARENA = 256 * PAGE };

static __thread uint64_t state;
static uint64_t next(void) {
    uint64_t x = state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
static uint64_t below(uint64_t n) { return next() % n; }

static char *arena, *self;
static long mebibytes;
static pid_t *pids; // of the group, shared by all; behind them the parent, and how many calls were made

// What an argument is.
enum kind { NONE, FD, PATH, BUF, LEN, ADDR, ALEN, PID, SIG, FLAGS, MODE, SMALL, PTR, IOV, COUNT, TIME, OFF, ANY, ZERO, FIXED };

static const char *const paths[] = {"a", "b", "d", "d/x", "l", "f", "/proc/self/maps", "/proc/self/fd", "/proc/self/status", "/dev/null", "/dev/zero", "/tmp", ".", "..",
                                    "/proc/self/mem", "/dev/shm/h", "/nowhere", "", "/proc/1/stat", "/dev/ptmx", "/proc/self/exe", "/dev/tty", "/sys", "s"};

static uint64_t garbage(void) {
    static const uint64_t odd[] = {0, 1, -1, -2, 8, 4095, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 40, 0x7ffffffff000, 0x800000000000,
                                   0xffff800000000000, 0xfffffffffffff000, 1ull << 63};
    return below(2) ? odd[below(sizeof odd / sizeof *odd)] : next() >> below(64);
}

// A structure of some kind: small numbers, descriptors, pointers, in words.
static uint64_t *structure(void) {
    uint64_t *at = (uint64_t *)(arena + ARENA / 2 + below(64) * 512);
    static const int tries[] = {0, 1, 2, 3, 5};
    for (int i = 0; i < 24; i++) {
        uint64_t word = below(4) ? (uint64_t)tries[below(5)] : below(2) ? (uint64_t)(arena + below(ARENA)) : garbage();
        // The arena may have lost any of its pages, or the right to be written.
        if (syscall(SYS_process_vm_writev, getpid(), &(struct iovec){&word, 8}, 1L, &(struct iovec){at + i, 8}, 1L, 0L) != 8) return at;
    }
    return at;
}

static uint64_t argument(enum kind kind) {
    if (below(24) == 0) return garbage();
    switch (kind) {
    case FD: return 3 + below(40);
    case PATH: return (uint64_t)paths[below(sizeof paths / sizeof *paths)];
    case BUF: return (uint64_t)(arena + below(ARENA));
    case LEN: return below(3) ? below(300) : below(70000);
    case ADDR: return (uint64_t)(arena + below(ARENA / PAGE) * PAGE);
    case ALEN: return (1 + below(below(8) ? 4 : 64)) * PAGE;
    case PID: return below(3) ? (uint64_t)pids[below(64)] : below(2) ? 0 : (uint64_t)getpid();
    case SIG: {
        static const int signals[] = {SIGUSR1, SIGUSR2, SIGALRM, SIGCHLD, SIGCONT, SIGTSTP, SIGPIPE, 34, 0, SIGIO, SIGURG};
        return signals[below(sizeof signals / sizeof *signals)];
    }
    case FLAGS: return 1ull << below(24) | (below(2) ? 1ull << below(24) : 0);
    case MODE: return below(01000);
    case SMALL: return below(12);
    case PTR: return below(6) ? (uint64_t)structure() : 0;
    case IOV: {
        uint64_t *v = structure();
        return (uint64_t)v;
    }
    case COUNT: return below(8);
    case TIME: {
        static const struct timespec soon = {0, 200000}, now = {0, 0};
        return (uint64_t)(below(2) ? &soon : &now);
    }
    case OFF: return below(4) ? below(100000) : next() >> 1;
    case ANY: return below(2) ? below(64) : garbage();
    default: return 0;
    }
}

static const struct { long number; enum kind kinds[6]; } calls[] = {
    {SYS_read, {FD, BUF, LEN}}, {SYS_write, {FD, BUF, LEN}}, {SYS_open, {PATH, FLAGS, MODE}}, {SYS_openat, {FD, PATH, FLAGS, MODE}}, {SYS_close, {FD}},
    {SYS_stat, {PATH, BUF}}, {SYS_fstat, {FD, BUF}}, {SYS_lseek, {FD, OFF, SMALL}}, {SYS_pread64, {FD, BUF, LEN, OFF}}, {SYS_pwrite64, {FD, BUF, LEN, OFF}},
    {SYS_readv, {FD, IOV, COUNT}}, {SYS_writev, {FD, IOV, COUNT}}, {SYS_access, {PATH, SMALL}}, {SYS_pipe2, {BUF, ZERO}}, {SYS_dup, {FD}}, {SYS_dup2, {FD, FD}},
    {SYS_fcntl, {FD, SMALL, ANY}}, {SYS_flock, {FD, SMALL}}, {SYS_ftruncate, {FD, OFF}}, {SYS_truncate, {PATH, OFF}}, {SYS_getdents64, {FD, BUF, LEN}}, {SYS_getcwd, {BUF, LEN}},
    {SYS_chdir, {PATH}}, {SYS_rename, {PATH, PATH}}, {SYS_mkdir, {PATH, MODE}}, {SYS_rmdir, {PATH}}, {SYS_link, {PATH, PATH}}, {SYS_unlink, {PATH}}, {SYS_symlink, {PATH, PATH}},
    {SYS_readlink, {PATH, BUF, LEN}}, {SYS_chmod, {PATH, MODE}}, {SYS_mknod, {PATH, ANY, SMALL}}, {SYS_statfs, {PATH, BUF}}, {SYS_fallocate, {FD, SMALL, OFF, LEN}}, {SYS_fsync, {FD}},
    {SYS_mmap, {ADDR, ALEN, SMALL, FIXED, FD, ZERO}}, {SYS_mmap, {ADDR, ALEN, SMALL, FIXED, FD, ZERO}}, {SYS_munmap, {ADDR, ALEN}}, {SYS_mprotect, {ADDR, ALEN, SMALL}}, {SYS_madvise, {ADDR, ALEN, SMALL}},
    {SYS_madvise, {ADDR, ALEN, ANY}}, {SYS_mremap, {ADDR, ALEN, ALEN, SMALL, ADDR}}, {SYS_msync, {ADDR, ALEN, SMALL}}, {SYS_mincore, {ADDR, ALEN, BUF}}, {SYS_mlock, {ADDR, ALEN}}, {SYS_munlock, {ADDR, ALEN}},
    {SYS_brk, {ANY}}, {SYS_memfd_create, {PATH, SMALL}}, {SYS_shmget, {SMALL, ALEN, MODE}}, {SYS_shmget, {SMALL, ALEN, FLAGS}}, {SYS_shmat, {SMALL, ADDR, FLAGS}}, {SYS_shmdt, {ADDR}}, {SYS_shmctl, {SMALL, SMALL, BUF}},
    {SYS_semget, {SMALL, COUNT, FLAGS}}, {SYS_semtimedop, {SMALL, PTR, COUNT, TIME}}, {SYS_semctl, {SMALL, COUNT, ANY, BUF}}, {SYS_msgget, {SMALL, FLAGS}}, {SYS_msgsnd, {SMALL, PTR, LEN, FLAGS}},
    {SYS_msgrcv, {SMALL, BUF, LEN, SMALL, FLAGS}}, {SYS_msgctl, {SMALL, SMALL, BUF}}, {SYS_process_vm_readv, {PID, IOV, COUNT, IOV, COUNT, ZERO}}, {SYS_membarrier, {FLAGS, ZERO}},
    {SYS_kill, {PID, SIG}}, {SYS_tgkill, {PID, PID, SIG}}, {SYS_rt_sigprocmask, {SMALL, PTR, BUF, FIXED}}, {SYS_rt_sigpending, {BUF, FIXED}}, {SYS_rt_sigtimedwait, {PTR, BUF, TIME, FIXED}},
    {SYS_sigaltstack, {PTR, BUF}}, {SYS_signalfd4, {FD, PTR, FIXED, ZERO}}, {SYS_setitimer, {SMALL, PTR, BUF}}, {SYS_timer_create, {SMALL, PTR, BUF}}, {SYS_timer_settime, {SMALL, SMALL, PTR, BUF}},
    {SYS_timer_delete, {SMALL}}, {SYS_nanosleep, {TIME, BUF}}, {SYS_clock_nanosleep, {SMALL, SMALL, TIME, BUF}}, {SYS_clock_gettime, {SMALL, BUF}}, {SYS_alarm, {SMALL}},
    {SYS_futex, {BUF, SMALL, SMALL, TIME, BUF, SMALL}}, {SYS_futex, {ADDR, ANY, SMALL, TIME, ADDR, ANY}}, {SYS_futex_waitv, {PTR, COUNT, ZERO, TIME, SMALL}}, {SYS_set_robust_list, {PTR, LEN}},
    {SYS_get_robust_list, {PID, BUF, BUF}}, {SYS_poll, {PTR, COUNT, SMALL}}, {SYS_ppoll, {PTR, COUNT, TIME, PTR, FIXED}}, {SYS_select, {LEN, PTR, PTR, PTR, TIME}}, {SYS_epoll_create1, {ZERO}},
    {SYS_epoll_ctl, {FD, SMALL, FD, PTR}}, {SYS_epoll_ctl, {FD, SMALL, FD, PTR}}, {SYS_epoll_wait, {FD, BUF, COUNT, SMALL}}, {SYS_eventfd2, {SMALL, FLAGS}}, {SYS_timerfd_create, {SMALL, FLAGS}}, {SYS_timerfd_settime, {FD, SMALL, PTR, BUF}},
    {SYS_inotify_init1, {ZERO}}, {SYS_inotify_add_watch, {FD, PATH, ANY}}, {SYS_splice, {FD, PTR, FD, PTR, LEN, SMALL}}, {SYS_tee, {FD, FD, LEN, SMALL}}, {SYS_vmsplice, {FD, IOV, COUNT, SMALL}},
    {SYS_sendfile, {FD, FD, PTR, LEN}}, {SYS_copy_file_range, {FD, PTR, FD, PTR, LEN, ZERO}}, {SYS_socket, {SMALL, SMALL, ZERO}}, {SYS_socketpair, {FIXED, SMALL, ZERO, BUF}}, {SYS_bind, {FD, PTR, LEN}},
    {SYS_connect, {FD, PTR, LEN}}, {SYS_listen, {FD, SMALL}}, {SYS_accept4, {FD, BUF, BUF, FLAGS}}, {SYS_sendto, {FD, BUF, LEN, FLAGS, PTR, LEN}}, {SYS_recvfrom, {FD, BUF, LEN, FIXED, BUF, BUF}},
    {SYS_sendmsg, {FD, PTR, FLAGS}}, {SYS_recvmsg, {FD, PTR, FIXED}}, {SYS_setsockopt, {FD, SMALL, SMALL, PTR, LEN}}, {SYS_getsockopt, {FD, SMALL, SMALL, BUF, BUF}}, {SYS_shutdown, {FD, SMALL}},
    {SYS_getrusage, {SMALL, BUF}}, {SYS_prlimit64, {ZERO, SMALL, ZERO, BUF}}, {SYS_getpriority, {SMALL, PID}}, {SYS_sched_yield, {0}}, {SYS_sched_setaffinity, {PID, SMALL, PTR}}, {SYS_sched_getattr, {PID, BUF, LEN, ZERO}},
    {SYS_prctl, {SMALL, ANY, ANY, ANY, ANY}}, {SYS_wait4, {PID, BUF, FIXED, BUF}}, {SYS_waitid, {SMALL, PID, BUF, FLAGS, BUF}}, {SYS_setpgid, {PID, PID}}, {SYS_getpgid, {PID}}, {SYS_pidfd_open, {PID, ZERO}},
    {SYS_pidfd_send_signal, {FD, SIG, ZERO, ZERO}}, {SYS_pidfd_getfd, {FD, FD, ZERO}}, {SYS_unshare, {FLAGS}}, {SYS_getrandom, {BUF, LEN, SMALL}}, {SYS_uname, {BUF}}, {SYS_sysinfo, {BUF}}, {SYS_umask, {MODE}},
    {SYS_ioctl, {FD, ANY, BUF}}, {SYS_close_range, {FIXED, FD, FLAGS}}, {SYS_statx, {FD, PATH, FLAGS, ANY, BUF}}, {SYS_setxattr, {PATH, PATH, BUF, LEN, SMALL}}, {SYS_readahead, {FD, OFF, LEN}},
};

static long do_one(void) {
    size_t which = below(sizeof calls / sizeof *calls);
    uint64_t a[6];
    for (int i = 0; i < 6; i++) a[i] = argument(calls[which].kinds[i]);
    switch (calls[which].number) {
    case SYS_mmap: // in the arena only, of a file or of nothing
        a[3] = MAP_FIXED | (below(2) ? MAP_SHARED : MAP_PRIVATE) | (below(3) ? MAP_ANONYMOUS : 0) | (below(8) ? 0 : MAP_POPULATE);
        a[0] = (uint64_t)(arena + below(ARENA / PAGE - 64) * PAGE), a[1] = (1 + below(64)) * PAGE;
        break;
    case SYS_munmap: case SYS_mprotect: case SYS_mremap: // what lies beyond is the program itself
        a[0] = (uint64_t)(arena + below(ARENA / PAGE - 64) * PAGE), a[1] = (1 + below(63)) * PAGE;
        if (calls[which].number == SYS_mremap) a[2] = (1 + below(63)) * PAGE, a[4] = (uint64_t)(arena + below(ARENA / PAGE - 64) * PAGE);
        break;
    case SYS_shmat: a[2] &= ~(uint64_t)040000; break;
    case SYS_madvise: if (below(2)) a[2] = 4 + below(20); break;
    case SYS_rt_sigprocmask: case SYS_ppoll: case SYS_rt_sigpending: case SYS_rt_sigtimedwait: case SYS_signalfd4:
        for (int i = 0; i < 6; i++)
            if (calls[which].kinds[i] == FIXED) a[i] = 8;
        break;
    case SYS_kill: case SYS_tgkill: // none but the group's own
        if ((int)a[0] <= 1 || (int)a[0] == pids[64]) a[0] = getpid();
        if ((int)a[1] == pids[64]) a[1] = getpid();
        if (a[calls[which].number == SYS_kill ? 1 : 2] > 64) return 0;
        break;
    case SYS_pidfd_open:
        if ((int)a[0] == pids[64]) return 0;
        break;
    case SYS_wait4: a[2] = WNOHANG | below(16); break;
    case SYS_waitid: a[3] |= WNOHANG; break;
    case SYS_socketpair: a[0] = AF_UNIX; break;
    case SYS_recvfrom: case SYS_recvmsg: a[calls[which].number == SYS_recvmsg ? 2 : 3] = MSG_DONTWAIT; break;
    case SYS_close_range: a[0] = 3 + below(40); break;
    case SYS_setpgid: return 0;
    case SYS_prctl: if (a[0] == PR_SET_PDEATHSIG) return 0; break;
    case SYS_sched_setaffinity: break;
    case SYS_prlimit64: a[0] = 0, a[2] = 0; break;
    }
    __atomic_fetch_add((long *)&pids[70], 1, __ATOMIC_RELAXED);
    return syscall(calls[which].number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void on_signal(int signo) { (void)signo; }
static void remember(pid_t pid) { pids[below(64)] = pid; }

// Memory that is the thread's own, so much that not all of it fits: what was written must be read again.
static void touch(uint64_t *own, size_t words) {
    if (!words) return;
    for (int i = 0; i < 200; i++) {
        size_t at = below(words / 512) * 512;
        if (own[at] && own[at] != (uint64_t)&own[at] * 3) {
            static const char lost[] = "havoc: a lost write\n";
            write(2, lost, sizeof lost - 1);
            kill(pids[64], SIGUSR1);
        }
        own[at] = (uint64_t)&own[at] * 3;
    }
}

static void spawn(void) {
    pid_t pid = vfork();
    if (pid == 0) {
        execl(self, self, "child", (char *)0);
        _exit(2);
    }
    if (pid > 0) remember(pid);
}

static void *thread(void *seed) {
    state = (uint64_t)seed;
    size_t words = (size_t)mebibytes * (1 << 20) / 8 / (PROCESSES * THREADS);
    uint64_t *own = words ? mmap(0, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
    if (own == MAP_FAILED) words = 0;
    for (int i = 0; i < CALLS; i++) {
        do_one();
        if (below(16) == 0) touch(own, words);
        switch (below(120)) {
        case 0: {
            pid_t pid = fork();
            if (pid == 0) {
                for (int k = 0; k < 20; k++) do_one();
                touch(own, words);
                _exit(1);
            }
            if (pid > 0) remember(pid);
            break;
        }
        case 1: spawn(); break;
        case 2: while (waitpid(-1, 0, WNOHANG) > 0) {} break;
        case 3: kill(pids[below(64)] > 1 ? pids[below(64)] : getpid(), SIGSTOP); kill(0, SIGCONT); break;
        case 4: if (below(10) == 0) execl(self, self, "child", (char *)0); break;
        case 5: if (below(40) == 0 && pids[below(64)] > 1) syscall(SYS_kill, pids[below(64)] > 1 ? pids[below(64)] : getpid(), SIGTERM); break;
        case 6: if (below(20) == 0) arena[below(ARENA)] = 1; break; // may be the end of it
        case 7: {
            int pair[2];
            if (below(2) ? pipe(pair) : socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) break;
            fcntl(pair[0], F_SETFL, O_NONBLOCK), fcntl(pair[1], F_SETFL, O_NONBLOCK);
            break;
        }
        }
    }
    return 0;
}

static void process(uint64_t seed) {
    struct rlimit none = {0, 0}, time = {20, 20}, files = {48, 48}, children = {200, 200};
    setrlimit(RLIMIT_CORE, &none);
    setrlimit(RLIMIT_CPU, &time);
    setrlimit(RLIMIT_NOFILE, &files);
    setrlimit(RLIMIT_NPROC, &children);
    pthread_t threads[THREADS];
    for (long i = 1; i < THREADS; i++)
        if (pthread_create(&threads[i], 0, thread, (void *)(seed * 31 + i))) break;
    thread((void *)(seed * 31));
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc == 2) return 3; // executed by one of them
    if (argc < 3) return 2;
    setvbuf(stdout, 0, _IOLBF, 0);
    self = "/proc/self/exe";
    mebibytes = argc > 3 ? atol(argv[3]) : 0;
    unsigned char *kept = malloc(KEPT);
    for (int i = 0; i < KEPT; i++) kept[i] = (unsigned char)(i * 7);
    pids = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pids[64] = getpid();
    static const int handled[] = {SIGUSR2, SIGALRM, SIGPIPE, SIGCHLD, SIGIO, SIGURG, SIGTSTP, SIGTTIN, SIGTTOU, 34};
    for (size_t i = 0; i < sizeof handled / sizeof *handled; i++) {
        struct sigaction act = {.sa_handler = on_signal, .sa_flags = i % 2 ? 0 : SA_RESTART};
        sigaction(handled[i], &act, 0);
    }
    for (long round = 0; round < atol(argv[2]); round++) {
        state = strtoull(argv[1], 0, 0) * 1000003 + round;
        char place[] = "/tmp/havoc-XXXXXX";
        if (!mkdtemp(place) || chdir(place)) return 1;
        pid_t leader = fork();
        if (leader == 0) {
            setpgid(0, 0);
            int nowhere = open("/dev/null", O_RDWR);
            for (int fd = 0; fd < 3; fd++) dup2(nowhere, fd);
            signal(SIGUSR1, on_signal);
            // With room behind it, so that a long transfer to its end does not reach what the group shares.
            arena = mmap(0, ARENA + 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            for (int i = 0; i < 64; i++) pids[i] = getpid();
            uint64_t seed = next();
            for (int i = 1; i < PROCESSES; i++) {
                pid_t pid = fork();
                if (pid == 0) process(seed + i);
                if (pid > 0) pids[i] = pid;
            }
            process(seed);
        }
        if (leader < 0) {
            perror("havoc");
            return 1;
        }
        setpgid(leader, leader);
        // They may wait for ever: after a while, and for what is left, they are all ended.
        int status;
        alarm(4);
        while (waitpid(leader, &status, 0) < 0 && errno == EINTR && kill(-leader, SIGKILL) == 0) alarm(2);
        alarm(0);
        if (argc > 4) printf("round %ld: the first ended with %x after %ld calls\n", round, status, *(long *)&pids[70]);
        for (int tries = 0; kill(-leader, SIGKILL) == 0 && tries < 1000; tries++) usleep(1000);
        if (kill(-leader, 0) == 0) {
            printf("round %ld: some cannot be ended\n", round);
            return 1;
        }
        for (int i = 0; i < KEPT; i++)
            if (kept[i] != (unsigned char)(i * 7)) {
                printf("round %ld: the parent's memory has changed\n", round);
                return 1;
            }
    }
    printf("alive after %ld calls\n", *(long *)&pids[70]);
    return 0;
}

// flags: -pthread
// Takes as many as it can get of one kind of thing that the kernel has to remember.
//
//   hoard KIND [SECONDS [PROCESSES]]
//   hoard list
//
// It goes on until the kernel refuses, or SECONDS are over (10), holds what it has, sees whether everyday calls still answer,
// and ends with "KIND: COUNT, WHY". With PROCESSES, so many of them do it at the same time. Only ever inside a machine.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static char block[65536];
static char where[64];
static int kept[8];

static const char *name(long n, int width) {
    static char paths[2][4200];
    static int turn;
    char *path = paths[turn ^= 1];
    snprintf(path, sizeof paths[0], "%s/%0*ld", where, width, n);
    return path;
}

static int scratch(void) { return open(name(0, 8), O_RDWR | O_CREAT, 0600); }

// Each takes one more, number n, and tells whether that went well.

static int more_dups(long n) { return n ? dup(0) : 0; }
static int more_files(long n) { return open(name(n % 64, 8), O_RDWR | O_CREAT, 0600); }
static int more_host_files(long n) { (void)n; return open("/etc/passwd", O_RDONLY); }
static int more_nowhere(long n) {
    // Names that are not there, looked for on the host's side.
    char path[64];
    snprintf(path, sizeof path, "/usr/share/hoard-%ld", n);
    return access(path, F_OK) == 0 || errno == ENOENT ? 0 : -1;
}
static int more_unnamed(long n) { (void)n; return open(where, O_RDWR | O_TMPFILE, 0600); }
static int more_names(long n) {
    int fd = open(name(n, 250), O_RDWR | O_CREAT | O_EXCL, 0600);
    return fd < 0 ? -1 : close(fd);
}
static int more_directories(long n) { return mkdir(name(n, 200), 0700); }
static int more_depth(long n) { return n == 0 ? chdir(where) : mkdir("d", 0700) ? -1 : chdir("d"); }
static int more_symlinks(long n) {
    static char target[4096];
    memset(target, 'x', 4000);
    return symlink(target, name(n, 100));
}
static int more_links(long n) { return n == 0 ? scratch() : link(name(0, 8), name(n, 240)); }
static int more_fifos(long n) { return mkfifo(name(n, 100), 0600); }
static int more_attributes(long n) {
    char attribute[64];
    snprintf(attribute, sizeof attribute, "user.%ld", n % 64);
    if (n % 64 == 0 && mknod(name(n / 64, 8), S_IFREG | 0600, 0)) return -1;
    return setxattr(name(n / 64, 8), attribute, block, n % 64 ? 1024 : 60000, 0);
}
static int more_sparse(long n) {
    if (n % 16 == 0) kept[0] = open(name(n / 16, 8), O_RDWR | O_CREAT, 0600);
    return kept[0] < 0 || pwrite(kept[0], "x", 1, (off_t)(n % 16 + 1) << 36) != 1 ? -1 : 0;
}
static int more_memfds(long n) { (void)n; return memfd_create("a name that is rather long, to be remembered by the kernel", 0); }
static int more_epolls(long n) { (void)n; return epoll_create1(0); }
static int more_entries(long n) {
    static int epoll;
    if (n == 0) epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    int fd = eventfd(0, 0);
    return fd < 0 ? -1 : epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}
static int more_watched(long n) {
    // One file in ever more epolls.
    if (n == 0) kept[0] = eventfd(0, 0);
    struct epoll_event event = {.events = EPOLLIN};
    int fd = epoll_create1(0);
    return fd < 0 ? -1 : epoll_ctl(fd, EPOLL_CTL_ADD, kept[0], &event);
}
static int more_eventfds(long n) { (void)n; return eventfd(0, 0); }
static int more_signalfds(long n) { (void)n; sigset_t set; sigemptyset(&set); return signalfd(-1, &set, 0); }
static int more_timerfds(long n) {
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec when = {{1, n % 1000}, {1, 0}};
    return fd < 0 ? -1 : timerfd_settime(fd, 0, &when, NULL);
}
static int more_timers(long n) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec when = {{0, 1000000}, {0, 1000000 + n % 1000}};
    return timer_create(CLOCK_MONOTONIC, &event, &timer) ? -1 : timer_settime(timer, 0, &when, NULL);
}
static int more_pidfds(long n) { (void)n; return syscall(SYS_pidfd_open, getpid(), 0); }
static int more_pipes(long n) { (void)n; int p[2]; return pipe(p); }
static int more_full_pipes(long n) {
    (void)n;
    int p[2];
    if (pipe2(p, O_NONBLOCK)) return -1;
    fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
    while (write(p[1], block, sizeof block) > 0) {}
    return 0;
}
static int more_pieces(long n) {
    // Each byte a packet of its own.
    (void)n;
    int p[2];
    if (pipe2(p, O_NONBLOCK | O_DIRECT)) return -1;
    while (write(p[1], block, 1) > 0) {}
    return 0;
}
static int more_pairs(long n) { int p[2]; return socketpair(AF_UNIX, n % 3 == 0 ? SOCK_STREAM : n % 3 == 1 ? SOCK_DGRAM : SOCK_SEQPACKET, 0, p); }
static int more_full_pairs(long n) {
    int p[2], most = 1 << 24;
    if (socketpair(AF_UNIX, (n & 1 ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK, 0, p)) return -1;
    setsockopt(p[0], SOL_SOCKET, SO_SNDBUF, &most, sizeof most);
    setsockopt(p[1], SOL_SOCKET, SO_RCVBUF, &most, sizeof most);
    while (send(p[0], block, n & 2 ? 1 : 8000, 0) > 0) {}
    return 0;
}
static int more_named(long n) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "%090ld.%d", n, getpid());
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 || bind(fd, (void *)&a, sizeof a) ? -1 : listen(fd, 4096);
}
static int more_backlog(long n) {
    static struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (n == 0) {
        snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "backlog.%d", getpid());
        kept[0] = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind(kept[0], (void *)&a, sizeof a) || listen(kept[0], INT_MAX)) return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    return fd < 0 ? -1 : connect(fd, (void *)&a, sizeof a);
}
static int more_rights(long n) {
    // Descriptors that are only in flight.
    (void)n;
    int p[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p)) return -1;
    union { struct cmsghdr head; char room[CMSG_SPACE(253 * sizeof(int))]; } control;
    struct iovec part = {block, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(253 * sizeof(int));
    for (int i = 0; i < 253; i++) ((int *)CMSG_DATA(head))[i] = p[i & 1];
    int result = 0;
    for (int i = 0; i < 1000 && sendmsg(p[0], &message, 0) == 1; i++) {}
    if (errno == ETOOMANYREFS || errno == ENOMEM || errno == ENOBUFS) result = -1;
    int saved = errno;
    close(p[0]);
    close(p[1]);
    errno = saved;
    return result;
}
static int tcp(int type) { return socket(AF_INET, type | SOCK_NONBLOCK, 0); }
static int more_udp(long n) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = tcp(SOCK_DGRAM), most = 1 << 24;
    socklen_t length = sizeof a;
    if (fd < 0 || bind(fd, (void *)&a, sizeof a) || getsockname(fd, (void *)&a, &length)) return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &most, sizeof most);
    for (int i = 0; i < 4000 && sendto(fd, block, n & 1 ? 1 : 9000, 0, (void *)&a, sizeof a) > 0; i++) {}
    return 0;
}
static int more_tcp(long n) {
    static struct sockaddr_in a = {.sin_family = AF_INET};
    if (n == 0) {
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof a;
        kept[0] = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(kept[0], (void *)&a, sizeof a) || listen(kept[0], 64) || getsockname(kept[0], (void *)&a, &length)) return -1;
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (void *)&a, sizeof a)) return -1;
    int other = accept(kept[0], NULL, NULL);
    if (other < 0) return -1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (send(fd, block, sizeof block, MSG_NOSIGNAL) > 0) {}
    return 0;
}
static int more_outside(long n) {
    // Sockets that speak to the outside, each with buffers of its own.
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0x0a000202)};
    int fd = tcp(n & 1 ? SOCK_DGRAM : SOCK_STREAM);
    return fd < 0 ? -1 : connect(fd, (void *)&a, sizeof a) == 0 || errno == EINPROGRESS ? 0 : -1;
}
static int more_watches(long n) {
    if (n == 0) kept[0] = inotify_init1(IN_NONBLOCK);
    if (n % 100 == 0 && kept[0] < 0) return -1;
    if (mkdir(name(n, 8), 0700)) return -1;
    return inotify_add_watch(kept[0], name(n, 8), IN_ALL_EVENTS);
}
static int more_events(long n) {
    // Events that nobody reads, in many queues.
    int fd = inotify_init1(IN_NONBLOCK);
    if (fd < 0 || inotify_add_watch(fd, where, IN_ALL_EVENTS) < 0) return -1;
    for (int i = 0; i < 200; i++) {
        int made = open(name(n * 200 + i, 200), O_CREAT | O_RDWR, 0600);
        if (made < 0) return -1;
        close(made);
        unlink(name(n * 200 + i, 200));
    }
    return 0;
}
static _Noreturn void rest(void) {
    for (;;) pause();
}
static void *asleep(void *key) {
    static int word;
    syscall(SYS_futex, key ? key : &word, FUTEX_WAIT, 0, NULL, NULL, 0);
    rest();
}
static int start(void *(*body)(void *), void *key) {
    static pthread_attr_t *small;
    static pthread_attr_t attributes;
    pthread_t thread;
    if (!small) {
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
        small = &attributes;
    }
    errno = pthread_create(&thread, small, body, key);
    return errno ? -1 : 0;
}
static int more_threads(long n) { (void)n; return start(asleep, NULL); }
static void *polls(void *unused) {
    (void)unused;
    enum { MANY = 200 };
    struct pollfd set[MANY];
    for (int i = 0; i < MANY; i++) set[i] = (struct pollfd){kept[0], POLLIN, 0};
    while (poll(set, MANY, -1) >= 0) {}
    rest();
}
static int more_sleepers(long n) {
    // Threads that all wait in a call which has allocated, woken all at once.
    if (n == 0) kept[0] = eventfd(0, EFD_NONBLOCK);
    if (start(polls, NULL)) return -1;
    unsigned long value = 1;
    if (n % 16 == 15) {
        if (write(kept[0], &value, 8) != 8) return -1;
        if (read(kept[0], &value, 8) != 8 && errno != EAGAIN) return -1;
    }
    return 0;
}
static int more_processes(long n) {
    (void)n;
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        rest();
    }
    return child < 0 ? -1 : 0;
}
static int more_zombies(long n) {
    (void)n;
    pid_t child = vfork();
    if (child == 0) _exit(0);
    return child < 0 ? -1 : 0;
}
static int more_signals(long n) {
    union sigval value = {.sival_int = n};
    return sigqueue(getpid(), SIGRTMIN + n % 30, value);
}
static int more_mappings(long n) {
    // Neighbours that cannot be joined.
    return mmap(NULL, 4096, n & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}
static int more_shared(long n) {
    (void)n;
    char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return -1;
    *at = 1;
    return 0;
}
static int more_tables(long n) {
    static char *at;
    if (n == 0) at = mmap(NULL, 1UL << 45, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED || n >= 1 << 15) return -1;
    at[(unsigned long)n << 30] = 1;
    return 0;
}
static int lock(long n, int how) {
    if (n == 0) kept[0] = scratch();
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = n * 2, .l_len = 1};
    return kept[0] < 0 ? -1 : fcntl(kept[0], how, &range);
}
static int more_locks(long n) { return lock(n, F_SETLK); }
static int more_open_locks(long n) { return lock(n, F_OFD_SETLK); }
static int more_flocks(long n) {
    (void)n;
    int fd = scratch();
    return fd < 0 ? -1 : flock(fd, LOCK_SH);
}
static int more_shm(long n) { (void)n; return shmget(IPC_PRIVATE, 4096, 0600); }
static int more_attached(long n) {
    if (n == 0) kept[0] = shmget(IPC_PRIVATE, 4096, 0600);
    return shmat(kept[0], NULL, 0) == (void *)-1 ? -1 : 0;
}
static int more_sem(long n) { (void)n; return semget(IPC_PRIVATE, 250, 0600); }
static int more_undo(long n) {
    if (n % 250 == 0) kept[0] = semget(IPC_PRIVATE, 250, 0600);
    struct sembuf up = {n % 250, 1, SEM_UNDO};
    return kept[0] < 0 ? -1 : semop(kept[0], &up, 1);
}
static int more_msg(long n) {
    if (n % 64 == 0) kept[0] = msgget(IPC_PRIVATE, 0600);
    if (kept[0] < 0) return -1;
    struct { long type; char text[8192]; } message = {1, {0}};
    if (msgsnd(kept[0], &message, n & 1 ? 8192 : 0, IPC_NOWAIT) == 0) return 0;
    return errno == EAGAIN ? 0 : -1;
}
static int more_ptys(long n) {
    (void)n;
    int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK), zero = 0;
    if (fd < 0 || ioctl(fd, TIOCSPTLCK, &zero)) return -1;
    int other = ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (other < 0) return -1;
    for (int i = 0; i < 20 && write(fd, block, sizeof block) > 0; i++) {}
    for (int i = 0; i < 20 && write(other, block, sizeof block) > 0; i++) {}
    return 0;
}
static int more_arguments(long n) {
    // Ever longer argument lists, up to what execve takes.
    static char *list[1 << 15];
    static char text[4096];
    memset(text, 'a', sizeof text - 1);
    long count = (n + 1) * 64;
    if (count >= 1 << 15) { errno = E2BIG; return -1; }
    for (long i = 0; i < count; i++) list[i] = text;
    list[count] = NULL;
    pid_t child = fork();
    if (child == 0) {
        execve("/bin/true", list, list);
        _exit(errno);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return -1;
    if (WIFEXITED(status)) errno = WEXITSTATUS(status);
    return status ? -1 : 0;
}
static int more_parts(long n) {
    struct iovec parts[1024];
    if (n == 0) kept[0] = scratch();
    for (int i = 0; i < 1024; i++) parts[i] = (struct iovec){block + i, 1 + n % 64};
    return n > 2000 ? errno = 0, -1 : pwritev(kept[0], parts, 1024, 0) < 0 ? -1 : 0;
}
static int more_polled(long n) {
    unsigned long count = 1000 + n * 5000;
    if (count > 200000) { errno = 0; return -1; }
    struct pollfd *set = mmap(NULL, count * sizeof *set, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (set == MAP_FAILED) return -1;
    for (unsigned long i = 0; i < count; i++) set[i] = (struct pollfd){0, 0, 0};
    struct rlimit most = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &most);
    int result = poll(set, count, 1);
    munmap(set, count * sizeof *set);
    return result;
}
static int more_listed(long n) {
    // One directory with many names, read again and again with a large buffer.
    static char room[1 << 18];
    if (more_names(n)) return -1;
    if (n % 64) return 0;
    int fd = open(where, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return -1;
    while (syscall(SYS_getdents64, fd, room, sizeof room) > 0) {}
    return close(fd);
}
static int more_sessions(long n) {
    (void)n;
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setsid();
        rest();
    }
    return child < 0 ? -1 : 0;
}
static int more_spliced(long n) {
    int p[2];
    (void)n;
    if (kept[0] == 0) {
        kept[0] = open("/bin/bash", O_RDONLY);
        if (kept[0] < 0) return -1;
    }
    if (pipe2(p, O_NONBLOCK)) return -1;
    loff_t from = 0;
    return splice(kept[0], &from, p[1], NULL, 65536, SPLICE_F_NONBLOCK) < 0 ? -1 : 0;
}

static const struct kind { const char *name; int (*more)(long); } kinds[] = {
#define KIND(name) {#name, more_##name}
    KIND(dups), KIND(files), KIND(host_files), KIND(nowhere), KIND(unnamed), KIND(names), KIND(directories), KIND(depth),
    KIND(symlinks), KIND(links), KIND(fifos), KIND(attributes), KIND(sparse), KIND(memfds), KIND(epolls), KIND(entries),
    KIND(watched), KIND(eventfds), KIND(signalfds), KIND(timerfds), KIND(timers), KIND(pidfds), KIND(pipes), KIND(full_pipes),
    KIND(pieces), KIND(pairs), KIND(full_pairs), KIND(named), KIND(backlog), KIND(rights), KIND(udp), KIND(tcp), KIND(outside),
    KIND(watches), KIND(events), KIND(threads), KIND(sleepers), KIND(processes), KIND(zombies), KIND(signals), KIND(mappings),
    KIND(shared), KIND(tables), KIND(locks), KIND(open_locks), KIND(flocks), KIND(shm), KIND(attached), KIND(sem), KIND(undo),
    KIND(msg), KIND(ptys), KIND(arguments), KIND(parts), KIND(polled), KIND(listed), KIND(sessions), KIND(spliced),
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

// Whether what everybody does still has an answer, be it that there is no room.
static void everyday(void) {
    struct stat about;
    struct timespec moment = {0, 1000000};
    stat("/etc/passwd", &about);
    close(open("/etc/hostname", O_RDONLY));
    close(socket(AF_UNIX, SOCK_STREAM, 0));
    void *at = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at != MAP_FAILED) munmap(at, 65536);
    nanosleep(&moment, NULL);
    poll(NULL, 0, 1);
}

static void hoard(const struct kind *kind, double seconds) {
    double end = now() + seconds;
    long count = 0;
    const char *why = "time";
    while (now() < end) {
        errno = 0;
        if (kind->more(count) < 0) {
            why = strerrorname_np(errno);
            break;
        }
        count++;
    }
    everyday();
    // More of it, now that there is no room.
    for (int i = 1; i < 20; i++) kind->more(count + i);
    everyday();
    dprintf(1, "%s: %ld, %s\n", kind->name, count, why && *why == '0' ? "enough" : why);
}

int main(int argc, char **argv) {
    double seconds = argc > 2 ? atof(argv[2]) : 10;
    int processes = argc > 3 ? atoi(argv[3]) : 1;
    if (argc > 1 && strcmp(argv[1], "list") == 0) {
        for (int i = 0; i < KINDS; i++) puts(kinds[i].name);
        return 0;
    }
    const struct kind *kind = NULL;
    for (int i = 0; argc > 1 && i < KINDS; i++) {
        if (strcmp(argv[1], kinds[i].name) == 0) kind = &kinds[i];
    }
    if (!kind) return fprintf(stderr, "usage: hoard KIND [SECONDS [PROCESSES]]; hoard list\n"), 2;
    struct rlimit most;
    for (int what = 0; what < RLIM_NLIMITS; what++) {
        if (getrlimit(what, &most)) continue;
        if (what == RLIMIT_NPROC || what == RLIMIT_SIGPENDING || what == RLIMIT_MSGQUEUE) most.rlim_max = RLIM_INFINITY;
        if (what == RLIMIT_NOFILE) most.rlim_max = 1 << 20;
        if (what == RLIMIT_STACK) continue;
        most.rlim_cur = most.rlim_max;
        setrlimit(what, &most);
    }
    sigset_t realtime;
    sigemptyset(&realtime);
    for (int s = SIGRTMIN; s <= SIGRTMAX; s++) sigaddset(&realtime, s);
    sigprocmask(SIG_BLOCK, &realtime, NULL);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    for (int i = 1; i < processes; i++) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            break;
        }
    }
    snprintf(where, sizeof where, "/tmp/hoard.%d", getpid());
    if (mkdir(where, 0700)) return perror(where), 1;
    hoard(kind, seconds);
    return 0;
}

/* Every call on every kind of descriptor: which of them it is for, and what it says of the others. A line is a call, with a word for
 * each kind that it was tried on; then what goes from which kind to which. */
#include "check.h"
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <linux/fs.h>
#include <linux/fiemap.h>

/* The ends of a pair that are not looked at. */
static int rest[8], rests;
static int keep(int fd) { return rest[rests++] = fd; }

static int rewound(int fd) { write(fd, "0123456789", 10); lseek(fd, 0, SEEK_SET); return fd; }
static int file(void) { return rewound(open("file", O_RDWR|O_CREAT, 0600)); }
static int again(int flags) { close(file()); return open("file", flags); }
static int ro(void) { return again(O_RDONLY); }
static int wo(void) { return again(O_WRONLY); }
static int append(void) { return again(O_RDWR|O_APPEND); }
static int path(void) { return again(O_PATH); }
static int dir(void) { return open(".", O_RDONLY|O_DIRECTORY); }
static int dirpath(void) { return open(".", O_PATH); }
static int null(void) { return open("/dev/null", O_RDWR); }
static int zero(void) { return open("/dev/zero", O_RDWR); }
static int sysctl(void) { return open("/proc/sys/kernel/ostype", O_RDONLY); }
static int piped(int end) { int p[2]; pipe2(p, O_NONBLOCK); write(p[1], "abcdef", end ? 0 : 6); keep(p[!end]); return p[end]; }
static int reader(void) { return piped(0); }
static int writer(void) { return piped(1); }
static int fifo(void) { mkfifo("fifo", 0600); return open("fifo", O_RDWR|O_NONBLOCK); }
static int pair(int kind) { int p[2]; socketpair(AF_UNIX, kind|SOCK_NONBLOCK, 0, p); write(p[1], "abcdef", 6); keep(p[1]); return p[0]; }
static int stream(void) { return pair(SOCK_STREAM); }
static int datagram(void) { return pair(SOCK_DGRAM); }
static int lonely(void) { return socket(AF_UNIX, SOCK_STREAM|SOCK_NONBLOCK, 0); }
static int tcp(void) { return socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK, 0); }
static int udp(void) { return socket(AF_INET, SOCK_DGRAM|SOCK_NONBLOCK, 0); }
static int listening(void) { int s = tcp(); listen(s, 4); return s; }
static int event(void) { return eventfd(3, EFD_NONBLOCK); }
static int epoll(void) { return epoll_create1(0); }
static int signals(void) { sigset_t s; sigemptyset(&s); return signalfd(-1, &s, SFD_NONBLOCK); }
static int timer(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK); }
static int inotify(void) { return inotify_init1(IN_NONBLOCK); }
static int memory(void) { return rewound(memfd_create("x", MFD_ALLOW_SEALING)); }
static int sealed(void) { int fd = memory(); fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE|F_SEAL_GROW|F_SEAL_SHRINK); return fd; }
static int unnamed(void) { return open(".", O_TMPFILE|O_RDWR, 0600); }

#define KIND(name) { #name, name }
static const struct { const char *name; int (*open)(void); } kinds[] = {
    KIND(file), KIND(ro), KIND(wo), KIND(append), KIND(path), KIND(dir), KIND(dirpath), KIND(null), KIND(zero), KIND(sysctl),
    KIND(reader), KIND(writer), KIND(fifo), KIND(stream), KIND(datagram), KIND(lonely), KIND(tcp), KIND(listening), KIND(udp),
    KIND(event), KIND(epoll), KIND(signals), KIND(timer), KIND(inotify), KIND(memory), KIND(sealed), KIND(unnamed),
};
#define KINDS (int)(sizeof kinds / sizeof *kinds)

static void shut(int fd) {
    close(fd);
    while (rests > 0) close(rest[--rests]);
}

static void tell(const char *kind, long value, int error) {
    if (value == -1 && error) printf(" %s=%s", kind, strerrorname_np(error));
    else printf(" %s=%ld", kind, value);
}

static char buffer[65536] __attribute__((aligned(4096)));

#define EACH(call) do { \
        printf(FAMILY ".each %s:", #call); \
        for (int k = 0; k < KINDS; k++) { \
            int fd = kinds[k].open(); \
            memset(buffer, 0, sizeof buffer); \
            errno = 0; \
            long value_ = (long)(call); \
            tell(kinds[k].name, value_, errno); \
            shut(fd); \
        } \
        printf("\n"); \
        fflush(stdout); \
    } while (0)
/* Only whether it gave something. */
#define SOME(call) EACH(({ long n_ = (call); n_ > 0 ? 1 : n_; }))

static long map(int fd, int prot, int flags) {
    void *at = mmap(0, 4096, prot, flags, fd, 0);
    return at == MAP_FAILED ? -1 : munmap(at, 4096);
}

static long lock(int fd, int command, int kind) {
    struct flock l = { .l_type = kind };
    return fcntl(fd, command, &l);
}

static long made(int fd) { return fd < 0 ? -1 : close(fd); }

static void bytes(void) {
    struct iovec four = { buffer, 4 };
    EACH(read(fd, buffer, 0));
    SOME(read(fd, buffer, 4));
    EACH(write(fd, buffer, 0));
    EACH(write(fd, buffer, 8));
    EACH(read(fd, (void *)8, 8));
    SOME(pread(fd, buffer, 4, 0));
    EACH(pread(fd, buffer, 4, -1));
    EACH(pwrite(fd, buffer, 4, 0));
    SOME(preadv2(fd, &four, 1, -1, 0));
    SOME(preadv2(fd, &four, 1, 0, 0));
    EACH(pwritev2(fd, &four, 1, 0, RWF_APPEND));
    EACH(kinds[k].open == event ? 0 : pwritev2(fd, &four, 1, -1, RWF_DSYNC));
    EACH(lseek(fd, 0, SEEK_SET));
    EACH(lseek(fd, 3, SEEK_CUR));
    EACH(lseek(fd, 0, 9));
    EACH(lseek(fd, -1, SEEK_SET));
    EACH(ftruncate(fd, 5));
    EACH(ftruncate(fd, -1));
    EACH(fallocate(fd, 0, 0, 100));
    EACH(fallocate(fd, FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE, 0, 4));
    EACH(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4));
    EACH(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
    EACH(fallocate(fd, 0x4000, 0, 4));
    EACH(fallocate(fd, 0, -1, 4));
    EACH(posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED));
    EACH(posix_fadvise(fd, 0, 0, 77));
    EACH(readahead(fd, 0, 4096));
    EACH(fsync(fd));
    EACH(fdatasync(fd));
    EACH(sync_file_range(fd, 0, 0, 0));
    EACH(sync_file_range(fd, 0, 0, 99));
    EACH(vmsplice(fd, 0, 0, 0));
    EACH(vmsplice(fd, &four, 1, SPLICE_F_NONBLOCK));
}

static void status(void) {
    struct stat st;
    struct flock l = { .l_type = F_WRLCK };
    struct timespec times[2] = {{1, 0}, {2, 0}};
    EACH(fstat(fd, &st) ? -1L : (long)(st.st_mode & S_IFMT));
    EACH(fcntl(fd, F_GETFD));
    EACH(fcntl(fd, F_SETFL, O_NONBLOCK));
    EACH(fcntl(fd, F_SETFL, O_DIRECT));
    EACH(fcntl(fd, F_SETOWN, getpid()));
    EACH(fcntl(fd, F_GETOWN));
    EACH(fcntl(fd, F_SETSIG, 10));
    EACH(fcntl(fd, F_GETPIPE_SZ));
    EACH(fcntl(fd, F_GET_SEALS));
    EACH(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    EACH(fcntl(fd, 9999, 0));
    EACH(lock(fd, F_SETLK, F_RDLCK));
    EACH(lock(fd, F_SETLK, F_WRLCK));
    EACH(lock(fd, F_OFD_SETLK, F_RDLCK));
    EACH(fcntl(fd, F_GETLK, &l) ? -1 : l.l_type);
    EACH(flock(fd, LOCK_EX|LOCK_NB));
    EACH(flock(fd, 77));
    EACH(made(dup(fd)));
    EACH(kinds[k].open == null || kinds[k].open == zero ? 0 : futimens(fd, times));
    EACH(map(fd, PROT_READ, MAP_SHARED|MAP_ANONYMOUS));
    EACH(kinds[k].open == tcp || kinds[k].open == listening ? 0 : map(fd, PROT_READ, MAP_PRIVATE));
    EACH(kinds[k].open == tcp || kinds[k].open == listening ? 0 : map(fd, PROT_READ|PROT_WRITE, MAP_SHARED));
}

static void requests(void) {
    int n = 0;
    long size;
    EACH(ioctl(fd, FIOCLEX));
    EACH(ioctl(fd, FIONBIO, &n));
    EACH(ioctl(fd, FIONREAD, &n) ? -1 : 0);
    EACH(ioctl(fd, FIOQSIZE, &size));
    EACH(ioctl(fd, FIBMAP, &n));
    EACH(ioctl(fd, FS_IOC_FIEMAP, buffer));
    EACH(ioctl(fd, FICLONE, fd));
    EACH(ioctl(fd, 0x5401, buffer));
    EACH(ioctl(fd, 0xdead, buffer));
    EACH(isatty(fd));
}

static void others(void) {
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    struct epoll_event want = { .events = EPOLLIN };
    struct itimerspec t = {{0}, {0}};
    sigset_t none;
    sigemptyset(&none);
    EACH(accept(fd, 0, 0));
    EACH(accept4(fd, 0, 0, 7));
    EACH(listen(fd, 1));
    EACH(getpeername(fd, (void *)&name, &len));
    EACH(shutdown(fd, 2));
    EACH(recv(fd, buffer, 4, MSG_DONTWAIT));
    EACH(epoll_wait(fd, &want, 1, 0));
    EACH(inotify_rm_watch(fd, 1));
    EACH(timerfd_settime(fd, 0, &t, 0));
    EACH(signalfd(fd, &none, 0) < 0 ? -1 : 0);
    EACH(made(openat(fd, "file", O_RDONLY)));
    EACH(faccessat(fd, "file", R_OK, 0));
    EACH(syscall(SYS_getdents64, fd, buffer, 1));
    EACH(syscall(SYS_setns, fd, 0));
    EACH(syscall(SYS_pidfd_send_signal, fd, 0, 0, 0));
    EACH(fchdir(fd));
}

enum { SPLICE, SENDFILE, COPY, WAYS };
static const char *const ways[] = { "splice", "sendfile", "copy_file_range" };

static void pairs(void) {
    for (int way = 0; way < WAYS; way++) {
        for (int i = 0; i < KINDS; i++) {
            printf(FAMILY ".%s %s to:", ways[way], kinds[i].name);
            for (int k = 0; k < KINDS; k++) {
                int from = kinds[i].open(), fd = kinds[k].open();
                errno = 0;
                long n = way == SPLICE ? splice(from, 0, fd, 0, 4, SPLICE_F_NONBLOCK)
                    : way == SENDFILE ? sendfile(fd, from, 0, 4)
                    : copy_file_range(from, 0, fd, 0, 4, 0);
                tell(kinds[k].name, n, errno);
                close(from);
                shut(fd);
            }
            printf("\n");
            fflush(stdout);
        }
    }
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    bytes();
    status();
    requests();
    others();
    pairs();
    /* What was only made can be run while it can be written. */
    int fd = memfd_create("program", 0), from = open("/proc/self/exe", O_RDONLY);
    char *none[] = { 0 };
    struct stat st;
    fstat(from, &st);
    T(sendfile(fd, from, 0, st.st_size) == st.st_size);
    T(write(fd, "", 0));
    T(ftruncate(fd, 3));
    T(syscall(SYS_execveat, fd, "", none, none, AT_EMPTY_PATH));
    return 0;
}

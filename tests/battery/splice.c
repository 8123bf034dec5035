/* Pipes: their size, packets, polling, and moving bytes in them: splice, tee, vmsplice; signalfd beside them. */
#include "check.h"
#include <sys/signalfd.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

static char text[100000] __attribute__((aligned(4096)));

static int waiting(int fd) {
    int n = -1;
    return ioctl(fd, FIONREAD, &n) ? -1 : n;
}

static int events(int fd, int asked) {
    struct pollfd p = {fd, asked, 0};
    poll(&p, 1, 0);
    return p.revents;
}

static void splices(void) {
    int p[2], q[2], file, out;
    pipe(p);
    pipe(q);
    file = open("file", O_RDWR | O_CREAT, 0600);
    out = open("out", O_RDWR | O_CREAT, 0600);
    write(file, "0123456789", 10);
    lseek(file, 0, SEEK_SET);
    T(splice(file, 0, p[1], 0, 4, 0));
    T(lseek(file, 0, SEEK_CUR));
    T(waiting(p[0]));
    loff_t at = 6;
    T(splice(file, &at, p[1], 0, 100, 0));
    T(at);
    T(lseek(file, 0, SEEK_CUR));
    T(splice(file, &at, p[1], 0, 100, 0));
    T(tee(p[0], q[1], 100, 0));
    T(waiting(p[0]));
    T(waiting(q[0]));
    T(tee(p[0], q[1], 3, 0));
    T(waiting(q[0]));
    at = 2;
    T(splice(p[0], 0, out, &at, 5, 0));
    T(at);
    T(lseek(out, 0, SEEK_CUR));
    T(splice(p[0], 0, out, 0, 100, 0));
    T(lseek(out, 0, SEEK_CUR));
    T(pread(out, text, 100, 0));
    S(text + 2);
    T(splice(q[0], 0, p[1], 0, 8, 0));
    T(waiting(q[0]));
    T(waiting(p[0]));
    T(read(p[0], text, 100));
    S(text);
    T(splice(q[0], 0, p[1], 0, 0, 0));
    T(splice(q[0], 0, q[1], 0, 8, 0));
    T(splice(file, 0, out, 0, 8, 0));
    T(splice(p[1], 0, q[1], 0, 8, 0));
    T(splice(p[0], 0, q[0], 0, 8, 0));
    T(splice(99, 0, q[1], 0, 8, 0));
    T(splice(p[0], 0, 99, 0, 8, 0));
    T(splice(p[0], &at, out, 0, 8, 0));
    T(splice(file, 0, p[1], &at, 8, 0));
    T(splice(p[0], 0, out, 0, 8, 0x100));
    T(splice(p[0], 0, out, 0, 8, SPLICE_F_NONBLOCK));
    T(splice(file, (loff_t *)8, p[1], 0, 8, 0));
    at = -1;
    T(splice(file, &at, p[1], 0, 8, 0));
    int dir = open(".", O_RDONLY);
    T(splice(dir, 0, p[1], 0, 8, 0));
    int append = open("out", O_WRONLY | O_APPEND);
    write(p[1], "a", 1);
    T(splice(p[0], 0, append, 0, 8, 0));
    T(splice(p[0], 0, open("out", O_RDONLY), 0, 8, 0));
    T(splice(open("/dev/zero", O_RDONLY), 0, q[1], 0, 3000, 0));
    T(splice(q[0], 0, open("/dev/null", O_WRONLY), 0, 5000, 0));
    T(waiting(p[0]));
    T(tee(p[0], p[1], 5, 0));
    T(tee(p[0], file, 5, 0));
    T(tee(p[1], q[1], 5, 0));
    T(tee(q[0], p[1], 5, SPLICE_F_NONBLOCK));
    T(tee(p[0], q[1], 5, 0x40));
    T(tee(p[0], q[1], 0, 0));
    while (waiting(p[0])) read(p[0], text, sizeof text);

    struct iovec v[2] = {{"vector", 6}, {"ed", 2}};
    T(vmsplice(p[1], v, 2, 0));
    T(read(p[0], text, 100));
    T(vmsplice(p[1], v, 2, SPLICE_F_GIFT));
    struct iovec to[1] = {{text, 5}};
    T(vmsplice(p[0], to, 1, 0));
    T(vmsplice(file, v, 2, 0));
    T(vmsplice(p[1], v, 2000, 0));
    T(vmsplice(p[1], v, 2, 0x80));
    T(vmsplice(p[1], v, 0, 0));
    T(vmsplice(77, v, 1, 0));
    while (waiting(p[0])) read(p[0], text, sizeof text);

    T(fcntl(p[1], F_SETPIPE_SZ, 4096));
    T(fcntl(p[1], F_GETPIPE_SZ));
    struct iovec big[1] = {{text, 8192}};
    T(vmsplice(p[1], big, 1, SPLICE_F_NONBLOCK));
    T(vmsplice(p[1], big, 1, SPLICE_F_NONBLOCK));
    T(splice(file, 0, p[1], 0, 10, SPLICE_F_NONBLOCK));
    T(events(p[1], POLLOUT));
    close(p[0]);
    signal(SIGPIPE, SIG_IGN);
    T(splice(file, 0, p[1], 0, 10, 0));
    T(vmsplice(p[1], v, 1, 0));
    T(events(p[1], POLLOUT));
    close(q[1]);
    T(splice(q[0], 0, out, 0, 10, 0));
    T(events(q[0], POLLIN));
}

static void packets(void) {
    int p[2];
    T(pipe2(p, O_DIRECT | O_NONBLOCK));
    T((fcntl(p[0], F_GETFL) & O_DIRECT) == O_DIRECT);
    T(write(p[1], "first", 5));
    T(write(p[1], "second", 6));
    T(waiting(p[0]));
    T(read(p[0], text, 3));
    T(read(p[0], text, 100));
    T(read(p[0], text, 100));
    T(write(p[1], text, 5000));
    T(read(p[0], text, 10000));
    T(read(p[0], text, 10000));
    T(fcntl(p[1], F_SETFL, O_NONBLOCK));
    T(write(p[1], "ab", 2));
    T(write(p[1], "cd", 2));
    T(read(p[0], text, 10));
    T(pipe2(p, 0x10));
    T(pipe2((int *)8, 0));
}

static void sizes(void) {
    int p[2];
    pipe(p);
    T(fcntl(p[0], F_GETPIPE_SZ));
    T(fcntl(p[0], F_SETPIPE_SZ, 5000));
    T(fcntl(p[0], F_SETPIPE_SZ, 100000));
    T(fcntl(p[0], F_SETPIPE_SZ, -1));
    fcntl(p[1], F_SETFL, O_NONBLOCK);
    T(write(p[1], text, sizeof text));
    T(fcntl(p[0], F_SETPIPE_SZ, 4096));
    T(fcntl(0x7fff, F_GETPIPE_SZ));
    T(fcntl(open("file", O_RDONLY), F_GETPIPE_SZ));
    T(lseek(p[0], 0, SEEK_CUR));
    T(pread(p[0], text, 1, 0));
    T(ftruncate(p[1], 0));
    T(fsync(p[1]));
    T(write(p[0], "x", 1));
    T(read(p[1], text, 1));
}

static volatile sig_atomic_t came;
static void handler(int signo) { came = signo; }

static void signals(void) {
    sigset_t set, two;
    struct signalfd_siginfo info[3];
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 1);
    sigemptyset(&two);
    sigaddset(&two, SIGUSR2);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    P(fd);
    T(fcntl(fd, F_GETFD));
    T(fcntl(fd, F_GETFL) & O_NONBLOCK);
    sigprocmask(SIG_BLOCK, &set, 0);
    T(read(fd, info, sizeof info));
    T(events(fd, POLLIN));
    kill(getpid(), SIGUSR1);
    T(events(fd, POLLIN));
    T(read(fd, info, 100));
    T(read(fd, info, sizeof info));
    T(info->ssi_signo);
    T(info->ssi_code);
    T(info->ssi_pid == getpid());
    T(info->ssi_uid == getuid());
    union sigval v = {.sival_int = 77};
    sigqueue(getpid(), SIGRTMIN + 1, v);
    v.sival_int = 78;
    sigqueue(getpid(), SIGRTMIN + 1, v);
    raise(SIGUSR1);
    T(read(fd, info, sizeof info));
    T(info[0].ssi_signo);
    T(info[0].ssi_code);
    T(info[1].ssi_int);
    T(info[1].ssi_code);
    T(info[2].ssi_int);
    T(read(fd, info, sizeof info));
    T(signalfd(fd, &two, 0) == fd);
    raise(SIGUSR1);
    T(events(fd, POLLIN));
    T(signalfd(fd, &set, 0) == fd);
    T(events(fd, POLLIN));
    int ep = epoll_create1(0);
    struct epoll_event e = {EPOLLIN, {.u32 = 5}};
    T(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
    T(epoll_wait(ep, &e, 1, 0));
    T(read(fd, info, sizeof info));
    T(epoll_wait(ep, &e, 1, 0));
    T(write(fd, "x", 8));
    T(signalfd(-1, &set, 1));
    T(syscall(SYS_signalfd4, -1, &set, 4, 0));
    T(signalfd(0x7fff, &set, 0));
    T(signalfd(ep, &set, 0));
    T(syscall(SYS_signalfd4, -1, (void *)8, 8, 0));
    /* One that waits is woken by a child. */
    int wait = signalfd(-1, &set, 0);
    pid_t me = getpid();
    if (!fork()) {
        usleep(20000);
        kill(me, SIGUSR1);
        _exit(0);
    }
    T(read(wait, info, sizeof info));
    T(info->ssi_signo);
    /* And interrupted by another signal. */
    struct sigaction a = {.sa_handler = handler};
    sigaction(SIGUSR2, &a, 0);
    if (!fork()) {
        usleep(20000);
        kill(me, SIGUSR2);
        _exit(0);
    }
    T(read(wait, info, sizeof info));
    T(came);
    sigaddset(&two, SIGCHLD);
    sigprocmask(SIG_BLOCK, &two, 0);
    while (waitpid(-1, 0, 0) > 0);
    int chld = signalfd(-1, &two, SFD_NONBLOCK);
    while (read(chld, info, sizeof *info) > 0);
    int kid = fork();
    if (!kid) _exit(9);
    struct pollfd p = {chld, POLLIN, 0};
    T(poll(&p, 1, 5000));
    T(read(chld, info, sizeof info));
    T(info->ssi_signo);
    T(info->ssi_code);
    T(info->ssi_status);
    T(info->ssi_pid == kid);
    struct stat s;
    T(fstat(fd, &s));
    T(s.st_mode);
}

int main(void) {
    splices();
    packets();
    sizes();
    signals();
}

/* Being told by signal: O_ASYNC and whom it tells, leases, and the table of locks. What is waited for is a signal that must come; that
 * none has come is asked where it would be there already. */
#define _GNU_SOURCE
#include "check.h"
#include <pty.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifndef F_SET_RW_HINT
#define F_GET_RW_HINT 1035
#define F_SET_RW_HINT 1036
#endif
#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17
#endif

static siginfo_t got;
/* The next of these signals, which must come. */
static int next(int signo) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signo);
    memset(&got, 0, sizeof got);
    struct timespec t = {20, 0};
    return sigtimedwait(&set, &got, &t);
}
/* One that is there already. */
static int there(int signo) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signo);
    memset(&got, 0, sizeof got);
    struct timespec t = {0, 0};
    return sigtimedwait(&set, &got, &t);
}
static void clear(void) {
    while (there(SIGIO) > 0 || there(SIGRTMIN) > 0 || there(SIGUSR1) > 0 || there(SIGCHLD) > 0);
}
static struct f_owner_ex owner_of(int fd) {
    struct f_owner_ex o = {9, 9};
    T(fcntl(fd, F_GETOWN_EX, &o));
    return o;
}
static int name(int fd, int type, int pid) {
    struct f_owner_ex o = {type, pid};
    return fcntl(fd, F_SETOWN_EX, &o);
}

static void owners(void) {
    int p[2];
    pipe(p);
    T(fcntl(p[0], F_GETOWN));
    T(fcntl(p[0], F_GETSIG));
    T(fcntl(p[0], F_SETOWN, 0));
    P(fcntl(p[0], F_SETOWN, getpid()));
    T(fcntl(p[0], F_GETOWN) == getpid());
    T(owner_of(p[0]).type);
    T(owner_of(p[0]).pid == getpid());
    P(fcntl(p[0], F_SETOWN, -getpgrp()));
    T(syscall(SYS_fcntl, p[0], F_GETOWN) == -getpgrp() || errno == getpgrp());
    T(owner_of(p[0]).type);
    T(owner_of(p[0]).pid == getpgrp());
    T(fcntl(p[0], F_SETOWN, 3999999));
    T(fcntl(p[0], F_SETOWN, -3999999));
    T(fcntl(p[0], F_SETOWN, 0x80000000));
    T(name(p[0], F_OWNER_TID, syscall(SYS_gettid)));
    T(owner_of(p[0]).type);
    T(name(p[0], F_OWNER_PID, 3999999));
    T(name(p[0], 3, getpid()));
    T(name(p[0], -1, getpid()));
    T(name(p[0], F_OWNER_PGRP, 0));
    T(owner_of(p[0]).type);
    T(owner_of(p[0]).pid);
    T(fcntl(p[0], F_GETOWN));
    T(fcntl(p[0], F_SETOWN_EX, 8));
    T(fcntl(p[0], F_GETOWN_EX, 8));
    unsigned ids[2] = {9, 9};
    T(fcntl(p[0], F_GETOWNER_UIDS, ids));
    T(ids[0] == getuid() && ids[1] == geteuid());
    T(fcntl(p[0], F_SETSIG, SIGRTMIN));
    T(fcntl(p[0], F_GETSIG));
    T(fcntl(p[1], F_GETSIG));
    T(fcntl(p[0], F_SETSIG, 64));
    T(fcntl(p[0], F_SETSIG, 65));
    T(fcntl(p[0], F_SETSIG, -1));
    T(fcntl(p[0], F_GETSIG));
    T(fcntl(p[0], F_SETSIG, 0));
    T(fcntl(p[0], F_GETSIG));
    T(fcntl(999, F_SETSIG, 0));
    T(fcntl(999, F_GETOWN));
    /* A process that has gone owns nothing. */
    pid_t child = fork();
    if (!child) pause();
    T(fcntl(p[0], F_SETOWN, child));
    T(fcntl(p[0], F_GETOWN) == child);
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    T(fcntl(p[0], F_GETOWN));
    close(p[0]), close(p[1]);
}

static void told(const char *what, int signo, int fd) {
    N(what, signo, next(signo));
    N("  code", signo, got.si_code);
    N("  band", signo, got.si_code == SI_KERNEL ? 0 : got.si_band);
    N("  its descriptor", signo, got.si_code == SI_KERNEL || got.si_fd == fd);
}

static void pipes(void) {
    int p[2];
    char b[70000] = {0};
    pipe(p);
    fcntl(p[0], F_SETOWN, getpid());
    T(fcntl(p[0], F_SETFL, O_ASYNC));
    T(fcntl(p[0], F_GETFL) & O_ASYNC);
    write(p[1], "a", 1);
    told("plain", SIGIO, p[0]);
    T(there(SIGIO));
    read(p[0], b, 10);
    T(there(SIGIO));
    fcntl(p[0], F_SETSIG, SIGRTMIN);
    write(p[1], "a", 1);
    told("chosen", SIGRTMIN, p[0]);
    T(there(SIGRTMIN));
    write(p[1], "a", 1);
    write(p[1], "a", 1);
    T(there(SIGRTMIN) == SIGRTMIN);
    T(there(SIGRTMIN) == SIGRTMIN);
    T(there(SIGRTMIN));
    fcntl(p[0], F_SETSIG, SIGIO);
    write(p[1], "a", 1);
    told("SIGIO with all", SIGIO, p[0]);
    fcntl(p[0], F_SETSIG, SIGCHLD);
    write(p[1], "a", 1);
    told("one with codes of its own", SIGCHLD, p[0]);
    /* The descriptor that O_ASYNC was put on by, whatever was made of it since. */
    int two = dup(p[0]);
    fcntl(p[0], F_SETSIG, SIGRTMIN);
    write(p[1], "a", 1);
    told("duplicated", SIGRTMIN, p[0]);
    fcntl(two, F_SETFL, 0);
    T(fcntl(p[0], F_GETFL) & O_ASYNC);
    write(p[1], "a", 1);
    T(there(SIGRTMIN));
    fcntl(two, F_SETFL, O_ASYNC);
    write(p[1], "a", 1);
    told("by the other", SIGRTMIN, two);
    int on = 0;
    T(ioctl(two, FIOASYNC, &on));
    T(fcntl(p[0], F_GETFL) & O_ASYNC);
    on = 1;
    T(ioctl(p[0], FIOASYNC, &on));
    close(p[1]);
    told("the other end is gone", SIGRTMIN, p[0]);
    close(two), close(p[0]);
    /* The writing end. */
    pipe(p);
    fcntl(p[1], F_SETOWN, getpid());
    fcntl(p[1], F_SETSIG, SIGRTMIN);
    fcntl(p[1], F_SETFL, O_ASYNC | O_NONBLOCK);
    while (write(p[1], b, 4096) > 0);
    clear();
    T(read(p[0], b, sizeof b));
    told("room", SIGRTMIN, p[1]);
    clear();
    close(p[0]);
    told("no reader", SIGRTMIN, p[1]);
    close(p[1]);
    /* Nobody in particular. */
    pipe(p);
    fcntl(p[0], F_SETFL, O_ASYNC);
    write(p[1], "a", 1);
    T(there(SIGIO));
    close(p[0]), close(p[1]);
}

static void sockets(void) {
    int s[2];
    char b[100];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    fcntl(s[0], F_SETOWN, getpid());
    fcntl(s[0], F_SETSIG, SIGRTMIN);
    fcntl(s[0], F_SETFL, O_ASYNC);
    write(s[1], "a", 1);
    told("stream", SIGRTMIN, s[0]);
    read(s[0], b, 10);
    clear();
    write(s[0], "a", 1);
    T(there(SIGRTMIN));
    close(s[0]), close(s[1]);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    int me = getpid();
    T(ioctl(s[0], FIOSETOWN, &me));
    fcntl(s[0], F_SETFL, O_ASYNC);
    write(s[1], "a", 1);
    told("datagram", SIGIO, s[0]);
    close(s[0]), close(s[1]);
}

static void terminals(void) {
    int m, s;
    if (openpty(&m, &s, 0, 0, 0)) return;
    fcntl(s, F_SETOWN, getpid());
    fcntl(s, F_SETSIG, SIGRTMIN);
    T(fcntl(s, F_SETFL, O_ASYNC));
    write(m, "line\n", 5);
    told("terminal", SIGRTMIN, s);
    close(s), close(m);
}

/* Those who cannot tell stay silent, and the flag unset. */
static void silent(void) {
    int fd = open("plain", O_RDWR | O_CREAT, 0600);
    T(fcntl(fd, F_SETFL, O_ASYNC));
    T(fcntl(fd, F_GETFL) & O_ASYNC);
    T(fcntl(fd, F_SETOWN, getpid()));
    T(fcntl(fd, F_SETSIG, SIGRTMIN));
    T(fcntl(fd, F_GETSIG) == SIGRTMIN);
    int path = open("plain", O_PATH);
    T(fcntl(path, F_SETSIG, 1));
    T(fcntl(path, F_GETOWN));
    T(fcntl(path, F_SETLEASE, F_RDLCK));
    close(path), close(fd), unlink("plain");
}

static int lease(int flags, int kind) {
    int fd = open("leased", flags);
    int r = fcntl(fd, F_SETLEASE, kind);
    int e = errno;
    close(fd);
    errno = e;
    return r;
}

/* Another process opens the file, and says how that ended. */
static pid_t opener(int flags) {
    fflush(stdout);
    pid_t child = fork();
    if (child) return child;
    if (flags == -1) _exit(truncate("leased", 3) ? errno : 0);
    int fd = open("leased", flags);
    _exit(fd < 0 ? errno : 0);
}
static int ended(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    return status;
}

static void leases(void) {
    int fd = open("leased", O_RDWR | O_CREAT | O_TRUNC, 0666);
    write(fd, "12345678", 8);
    T(fcntl(fd, F_GETLEASE));
    T(fcntl(fd, F_SETLEASE, F_UNLCK));
    T(fcntl(fd, F_SETLEASE, F_RDLCK));
    T(fcntl(fd, F_SETLEASE, F_WRLCK));
    T(fcntl(fd, F_GETLEASE));
    T(fcntl(fd, F_GETOWN) == getpid());
    T(fcntl(fd, F_SETLEASE, F_UNLCK));
    T(fcntl(fd, F_GETLEASE));
    T(fcntl(fd, F_SETLEASE, 9));
    T(fcntl(fd, F_SETLEASE, -1));
    int two = open("leased", O_RDONLY);
    T(fcntl(fd, F_SETLEASE, F_WRLCK));
    T(fcntl(two, F_SETLEASE, F_RDLCK));
    close(fd);
    T(fcntl(two, F_SETLEASE, F_RDLCK));
    T(fcntl(two, F_GETLEASE));
    int three = open("leased", O_RDONLY);
    T(fcntl(three, F_SETLEASE, F_RDLCK));
    T(fcntl(three, F_SETLEASE, F_WRLCK));
    T(fcntl(two, F_SETLEASE, F_WRLCK));
    T(open("leased", O_WRONLY | O_NONBLOCK));
    T(fcntl(two, F_GETLEASE));
    T(fcntl(two, F_SETLEASE, F_UNLCK));
    T(fcntl(three, F_SETLEASE, F_UNLCK));
    T(fcntl(three, F_SETLEASE, F_UNLCK));
    P(fd = open("leased", O_WRONLY | O_NONBLOCK));
    close(fd), close(two), close(three);
    mkdir("dir", 0755);
    fd = open("dir", O_RDONLY);
    T(fcntl(fd, F_SETLEASE, F_RDLCK));
    close(fd);
    int p[2];
    pipe(p);
    T(fcntl(p[0], F_SETLEASE, F_RDLCK));
    T(fcntl(p[0], F_GETLEASE));
    close(p[0]), close(p[1]);
    T(lease(O_RDONLY, F_RDLCK));
    T(lease(O_RDONLY, F_WRLCK));
    T(lease(O_WRONLY, F_WRLCK));
    T(lease(O_WRONLY, F_RDLCK));
    T(lease(O_RDWR, F_RDLCK));
    clear();
    /* Each kind of lease against each way to open. */
    static const int kinds[] = {F_RDLCK, F_WRLCK}, ways[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, -1};
    for (int k = 0; k < 2; k++)
        for (int w = 0; w < 5; w++) {
            int way = ways[w];
            fd = open("leased", O_RDONLY);
            N("take", kinds[k], fcntl(fd, F_SETLEASE, kinds[k]));
            pid_t child = opener(way);
            if (kinds[k] == F_WRLCK || way & O_ACCMODE) {
                N("told", way, next(SIGIO));
                /* Asked while it is broken: what it is about to be. */
                N("is", way, fcntl(fd, F_GETLEASE));
                N("again", way, fcntl(fd, F_SETLEASE, way & O_ACCMODE ? F_UNLCK : F_RDLCK));
            }
            N("opened", way, ended(child));
            N("left", way, fcntl(fd, F_GETLEASE));
            close(fd);
        }
    /* With a signal of one's own: which descriptor. */
    fd = open("leased", O_RDONLY);
    fcntl(fd, F_SETSIG, SIGRTMIN);
    fcntl(fd, F_SETLEASE, F_WRLCK);
    T(open("leased", O_RDONLY | O_NONBLOCK));
    told("lease", SIGRTMIN, fd);
    T(fcntl(fd, F_GETLEASE));
    T(open("leased", O_WRONLY | O_NONBLOCK));
    told("and more", SIGRTMIN, fd);
    T(fcntl(fd, F_GETLEASE));
    T(open("leased", O_WRONLY | O_NONBLOCK));
    T(there(SIGRTMIN));
    /* The last descriptor takes it along. */
    int dup1 = dup(fd);
    close(fd);
    T(fcntl(dup1, F_GETLEASE));
    close(dup1);
    P(fd = open("leased", O_WRONLY | O_NONBLOCK));
    close(fd);
    if (getuid() == 0) {
        chmod(".", 0777);
        W(CHILD(setresuid(77, 77, 77); int f = open("leased", O_RDONLY); _exit(fcntl(f, F_SETLEASE, F_RDLCK) ? errno : 0)));
    }
    unlink("leased"), rmdir("dir");
}

static void hints(void) {
    int fd = open("hinted", O_RDWR | O_CREAT, 0600);
    uint64_t hint = 9;
    T(fcntl(fd, F_GET_RW_HINT, &hint));
    T(hint);
    for (hint = 0; hint < 7; hint++) N("hint", hint, fcntl(fd, F_SET_RW_HINT, &hint));
    hint = 1ull << 40;
    T(fcntl(fd, F_SET_RW_HINT, &hint));
    int two = open("hinted", O_RDONLY);
    T(fcntl(two, F_GET_RW_HINT, &hint));
    T(hint);
    hint = 2;
    T(fcntl(two, F_SET_RW_HINT, &hint));
    T(fcntl(fd, F_GET_RW_HINT, &hint));
    T(hint);
    T(fcntl(fd, F_SET_RW_HINT, 8));
    T(fcntl(fd, F_GET_RW_HINT, 8));
    close(fd), close(two), unlink("hinted");
}

/* The lines of /proc/locks about a file, without their numbers, and those of processes, devices and files. */
static void lines(int fd) {
    struct stat st;
    fstat(fd, &st);
    char line[256], of[64];
    sprintf(of, ":%lu ", (long)st.st_ino);
    FILE *f = fopen("/proc/locks", "r");
    while (f && fgets(line, sizeof line, f)) {
        char *at = strstr(line, of), *kind = strchr(line, ' ');
        if (!at) continue;
        char *who = strstr(line, "WRITE") ?: strstr(line, "READ") ?: strstr(line, "UNLCK") ?: line;
        int pid = atoi(strchr(who, ' ') + 1);
        printf(FAMILY ".locks%.*s%s: %s", (int)(strchr(who, ' ') - kind), kind, pid == getpid() ? " mine" : " -1", at + strlen(of));
    }
    if (f) fclose(f);
    fflush(stdout);
}
static int set(int fd, int command, int kind, long from, long len) {
    struct flock l = {kind, SEEK_SET, from, len, 0};
    return fcntl(fd, command, &l);
}
static void table(void) {
    int fd = open("locked", O_RDWR | O_CREAT, 0600);
    lines(fd);
    T(set(fd, F_SETLK, F_WRLCK, 0, 10));
    lines(fd);
    T(set(fd, F_SETLK, F_UNLCK, 0, 0));
    T(set(fd, F_SETLK, F_RDLCK, 5, 0));
    lines(fd);
    T(set(fd, F_SETLK, F_UNLCK, 0, 0));
    T(set(fd, F_OFD_SETLK, F_WRLCK, 100, 1));
    lines(fd);
    T(set(fd, F_OFD_SETLK, F_UNLCK, 0, 0));
    T(flock(fd, LOCK_EX));
    lines(fd);
    T(flock(fd, LOCK_SH));
    lines(fd);
    T(flock(fd, LOCK_UN));
    T(fcntl(fd, F_SETLEASE, F_WRLCK));
    lines(fd);
    T(open("locked", O_RDONLY | O_NONBLOCK));
    lines(fd);
    T(open("locked", O_WRONLY | O_NONBLOCK));
    lines(fd);
    close(fd), unlink("locked");
}

int main(void) {
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGINT);
    sigprocmask(SIG_BLOCK, &all, 0);
    owners();
    clear();
    pipes();
    clear();
    sockets();
    clear();
    terminals();
    clear();
    silent();
    leases();
    clear();
    hints();
    table();
    return 0;
}

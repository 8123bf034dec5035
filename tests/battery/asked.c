/* seccomp_unotify: another process decides about calls; and filters under a tracer. */
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

#define LISTEN SECCOMP_FILTER_FLAG_NEW_LISTENER
#define PATIENT (1 << 5)

/* Install a filter that gives this answer to getppid. */
static long answer(unsigned flags, unsigned what) {
    struct sock_filter f[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                              BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1), BPF_STMT(BPF_RET | BPF_K, what),
                              BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &(struct sock_fprog){4, f});
}
static long ask(unsigned flags) {
    return answer(flags, SECCOMP_RET_USER_NOTIF);
}

/* What the child found, which it must not print while the parent prints. */
static long *seen;
static int many;
static void see(long value) {
    seen[many++] = value < 0 ? -errno : value;
}
static void hand_over(int way, int file) {
    char control[CMSG_SPACE(sizeof file)] = {0}, one = 'x';
    struct iovec v = {&one, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){CMSG_LEN(sizeof file), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &file, sizeof file);
    sendmsg(way, &m, 0);
    close(file);
}
static int take_over(int way) {
    char control[64], one;
    struct iovec v = {&one, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    recvmsg(way, &m, 0);
    int file = -1;
    memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof file);
    return file;
}

static int ready(int listener, short want) {
    struct pollfd p = {listener, want, 0};
    return poll(&p, 1, -1) == 1 ? p.revents : -1;
}
static struct seccomp_notif question(int listener) {
    struct seccomp_notif q = {0};
    T(ready(listener, POLLIN | POLLOUT));
    T(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &q));
    return q;
}
static long reply(int listener, unsigned long long id, long long value, int error, unsigned flags) {
    struct seccomp_notif_resp r = {id, value, error, flags};
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
}
static long add(int listener, unsigned long long id, unsigned flags, unsigned file, unsigned number, unsigned how) {
    struct seccomp_notif_addfd a = {id, flags, file, number, how};
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &a);
}

static volatile int got;
static void noted(int signo) {
    got = signo;
}
static void asker(int way) {
    see(0);
    int mine = ask(LISTEN);
    see(fcntl(mine, F_GETFD));
    see(fcntl(mine, F_GETFL) & O_ACCMODE);
    see(ask(LISTEN));
    hand_over(way, mine);
    see(syscall(SYS_getppid));
    see(syscall(SYS_getppid));
    see(syscall(SYS_getppid) == getpid());
    see(syscall(SYS_getppid) > 1);
    int given = syscall(SYS_getppid);
    see(given > 2);
    see(fcntl(given, F_GETFD));
    see(fcntl(77, F_GETFD));
    signal(SIGUSR1, noted);
    see(syscall(SYS_getppid));
    see(got);
    _exit(0);
}
static void arguments(void) {
    struct seccomp_notif_sizes sizes = {0};
    unsigned what = SECCOMP_RET_USER_NOTIF;
    T(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes));
    T(sizes.seccomp_notif);
    T(sizes.seccomp_notif_resp);
    T(sizes.seccomp_data);
    T(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 1, &sizes));
    T(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, 0));
    T(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &what));
    /* Nobody listens. */
    W(CHILD(T(ask(0)); T(syscall(SYS_getppid))));
    W(CHILD(close(ask(LISTEN)); T(syscall(SYS_getppid))));
    W(CHILD(T(ask(LISTEN | SECCOMP_FILTER_FLAG_TSYNC)); T(ask(LISTEN | SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH) > 2)));
    W(CHILD(T(ask(PATIENT)); T(ask(PATIENT | LISTEN) > 2)));
    W(CHILD(struct rlimit none = {3, 3}; setrlimit(RLIMIT_NOFILE, &none); T(ask(LISTEN)); T(syscall(SYS_getppid) > 0)));
}
static void answers(void) {
    int way[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, way);
    fflush(stdout);
    pid_t child = fork();
    if (!child) asker(way[1]);
    int at = take_over(way[0]);
    struct seccomp_notif q = {.pid = 7};
    T(ready(at, POLLIN));
    T(ioctl(at, SECCOMP_IOCTL_NOTIF_RECV, &q));
    T(ioctl(at, SECCOMP_IOCTL_NOTIF_RECV, 0));
    T(reply(at, 0, 0, 0, 2));
    T(read(at, &q, sizeof q));
    T(ioctl(at, TCGETS, &q));
    T(ioctl(at, _IOW('!', 4, long), 2));
    T(ioctl(at, _IOW('!', 4, long), 1));
    q = question(at);
    T(q.pid == (unsigned)child);
    T(q.flags);
    T(q.data.nr == SYS_getppid);
    T(q.data.arch == AUDIT_ARCH_X86_64);
    T(q.data.instruction_pointer > 0);
    T(ready(at, POLLIN | POLLOUT));
    T(ioctl(at, SECCOMP_IOCTL_NOTIF_ID_VALID, &q.id));
    T(reply(at, q.id, 0, 0, 2));
    T(reply(at, q.id, 1, 0, 1));
    T(reply(at, q.id, 0, -1, 1));
    T(reply(at, q.id + 1, 1, 0, 0));
    T(reply(at, q.id, 4711, 0, 0));
    unsigned long long first = q.id;
    q = question(at);
    T(q.id - first);
    T(ioctl(at, SECCOMP_IOCTL_NOTIF_ID_VALID, &first));
    T(reply(at, first, 0, 0, 0));
    T(reply(at, q.id, 0, -ENOTTY, 0));
    q = question(at);
    T(reply(at, q.id, child, 0, 0));
    q = question(at);
    T(reply(at, q.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE));
    q = question(at);
    T(add(at, q.id, 4, 0, 0, 0));
    T(add(at, q.id, 0, 0, 5, 0));
    T(add(at, q.id, 0, 0, 0, 1));
    T(add(at, q.id, 0, 999, 0, 0));
    T(add(at, q.id + 1, 0, 0, 0, 0));
    T(ioctl(at, _IOC(_IOC_WRITE, '!', 3, 8), &q));
    T(ioctl(at, _IOC(_IOC_WRITE, '!', 3, 5000), &q));
    T(add(at, q.id, SECCOMP_ADDFD_FLAG_SETFD, 0, 77, O_CLOEXEC));
    T(add(at, q.id, SECCOMP_ADDFD_FLAG_SETFD, 0, 1 << 30, 0));
    T(add(at, q.id, SECCOMP_ADDFD_FLAG_SEND, 0, 0, 0) > 2);
    /* A signal takes a question back, and the call is made again. */
    q = question(at);
    T(kill(child, SIGUSR1));
    struct seccomp_notif again = {0};
    while (ioctl(at, SECCOMP_IOCTL_NOTIF_ID_VALID, &q.id) == 0) usleep(1000);
    again = question(at);
    T(again.id - q.id);
    T(reply(at, q.id, 0, 0, 0));
    T(reply(at, again.id, 12, 0, 0));
    int status = -1;
    waitpid(child, &status, 0);
    W(status);
    /* Nobody will ask. */
    T(ready(at, POLLIN | POLLOUT));
    T(ioctl(at, SECCOMP_IOCTL_NOTIF_RECV, memset(&q, 0, sizeof q)));
    close(at);
    close(way[0]);
    close(way[1]);
    for (int i = 0; i < 14; i++) N("the child saw", i, seen[i]);
}
/* The tracer of one that a filter kills is not asked; a call of no number is none, traced or not. */
static void traced(unsigned what) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        if (syscall(-1) != -1 || errno != ENOSYS) _exit(4);
        errno = 0;
        if (syscall(-101) != -1 || errno != ENOSYS) _exit(5);
        answer(0, what);
        syscall(SYS_getppid);
        _exit(6);
    }
    int status = -1;
    waitpid(child, &status, 0);
    W(status);
    T(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_EXITKILL | 1 << 30));
    T(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_EXITKILL));
    T(ptrace((enum __ptrace_request)0x420c, child, 0, 0));
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    W(status);
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
}
/* Filters as a tracer reads them, and sets them aside. */
static void read_back(void) {
    struct { unsigned long long which, flags; } about = {0, 99};
    struct sock_filter f[8] = {{0}};
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        answer(SECCOMP_FILTER_FLAG_LOG, SECCOMP_RET_ALLOW);
        answer(0, SECCOMP_RET_ERRNO | EDOM);
        raise(SIGSTOP);
        _exit(syscall(SYS_getppid) < 0 ? errno : 99);
    }
    int status = -1;
    waitpid(child, &status, 0);
    W(status);
    for (int i = 0; i < 3; i++) {
        N("filter", i, ptrace((enum __ptrace_request)0x420c, child, (void *)(long)i, 0));
        N("its program", i, ptrace((enum __ptrace_request)0x420c, child, (void *)(long)i, f));
        N("its answer", i, f[2].k);
        about.which = i;
        N("its flags", i, ptrace((enum __ptrace_request)0x420d, child, (void *)sizeof about, &about));
        N("are", i, about.flags);
    }
    T(ptrace((enum __ptrace_request)0x420d, child, (void *)4, &about));
    T(ptrace(PTRACE_SETOPTIONS, child, 0, 1 << 21));
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    W(status);
}

int main(void) {
    seen = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1);
    arguments();
    answers();
    traced(SECCOMP_RET_KILL_THREAD);
    traced(SECCOMP_RET_KILL_PROCESS);
    read_back();
    return 0;
}

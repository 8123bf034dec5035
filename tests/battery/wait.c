/* Waiting for children, and what they leave. */
#include "check.h"
#include <sys/ptrace.h>
#include <pthread.h>

static pid_t fresh(int code) {
    fflush(stdout);
    pid_t p = fork();
    if (!p) _exit(code);
    return p;
}
static pid_t waiting(void) {
    fflush(stdout);
    pid_t p = fork();
    if (!p) for (;;) pause();
    return p;
}
static pid_t ended(int code) {
    siginfo_t si;
    pid_t p = fresh(code);
    waitid(P_PID, p, &si, WEXITED|WNOWAIT);
    return p;
}
static void *waits(void *p) {
    int st;
    return (void *)(long)waitpid((long)p, &st, 0);
}
static void show(siginfo_t *si, pid_t p) {
    T(si->si_signo);
    T(si->si_code);
    T(si->si_status);
    T(si->si_pid == p);
    T(si->si_uid == getuid());
    T(si->si_errno);
}
/* What a read of one byte answers when there is nothing more to come: somebody else may be looking at that memory right now. */
static long dry(int fd, long at) {
    char b[8];
    long n = 0;
    for (int tries = 0; tries < 1000 && (n = pread(fd, b, sizeof b, at)) > 0; tries++) usleep(10000);
    return n;
}

int main(void) {
    int st = 0;
    siginfo_t si;
    pid_t p, q;
    struct rusage ru;
    T(waitpid(-1, &st, 0));
    T(waitpid(0, &st, 0));
    T(waitpid(12345678, &st, 0));
    T(waitpid(-12345678, &st, 0));
    T(waitpid(0x80000000, &st, 0));
    T(waitpid(-1, &st, 0x80));
    T(waitpid(-1, &st, WNOHANG));
    T(waitpid(getpid(), &st, 0));
    T(waitpid(getppid(), &st, 0));
    T(wait4(-1, 0, WEXITED, 0));
    T(wait4(-1, 0, WNOWAIT, 0));
    T(syscall(SYS_waitid, 9, 0, 0, WEXITED, 0));
    T(syscall(SYS_waitid, P_ALL, 0, 0, 0, 0));
    T(syscall(SYS_waitid, P_ALL, 0, 0, WNOHANG, 0));
    T(syscall(SYS_waitid, P_ALL, 0, 0, WEXITED|0x100, 0));
    T(syscall(SYS_waitid, P_ALL, 0, 0, WEXITED, 0));
    T(syscall(SYS_waitid, P_PID, 0, 0, WEXITED, 0));
    T(syscall(SYS_waitid, P_PID, -1, 0, WEXITED, 0));
    T(syscall(SYS_waitid, P_PGID, -1, 0, WEXITED, 0));
    T(syscall(SYS_waitid, P_PGID, 0, 0, WEXITED, 0));
    T(syscall(SYS_waitid, P_PIDFD, -1, 0, WEXITED, 0));
    T(syscall(SYS_waitid, P_PIDFD, 999, 0, WEXITED, 0));
    T(syscall(SYS_waitid, P_PIDFD, 0, 0, WEXITED, 0));
    /* ends */
    p = fresh(300 + 7);
    T(waitpid(p, &st, 0) == p);
    W(st);
    p = ended(4);
    T(wait4(p, &st, 0, &ru) == p);
    W(st);
    T(ru.ru_maxrss > 0);
    T(ru.ru_minflt > 0);
    T(waitpid(p, &st, 0));
    p = fresh(3);
    memset(&si, 0, sizeof si);
    T(waitid(P_PID, p, &si, WEXITED|WNOWAIT));
    show(&si, p);
    T(waitid(P_PID, p, &si, WEXITED|WNOHANG));
    T(waitid(P_PID, p, &si, WEXITED));
    p = ended(5);
    memset(&si, 0xff, sizeof si);
    T(waitid(P_PID, p, &si, WSTOPPED|WNOHANG));
    T(si.si_signo);
    T(si.si_pid);
    T(waitid(P_ALL, 0, &si, WEXITED));
    T(si.si_pid == p);
    p = waiting();
    memset(&si, 0xff, sizeof si);
    T(waitid(P_PID, p, &si, WEXITED|WNOHANG));
    T(si.si_signo);
    T(si.si_pid);
    T(si.si_code);
    T(waitpid(p, &st, WNOHANG));
    T(kill(p, SIGKILL));
    T(waitid(P_PID, p, &si, WEXITED));
    show(&si, p);
    /* stops */
    p = waiting();
    T(kill(p, SIGSTOP));
    T(waitid(P_PID, p, &si, WSTOPPED|WNOWAIT));
    show(&si, p);
    T(waitid(P_PID, p, &si, WSTOPPED));
    memset(&si, 0, sizeof si);
    T(waitid(P_PID, p, &si, WSTOPPED|WNOHANG));
    T(si.si_pid);
    T(waitpid(p, &st, WNOHANG));
    T(kill(p, SIGCONT));
    T(waitid(P_PID, p, &si, WCONTINUED|WNOWAIT));
    show(&si, p);
    T(waitid(P_PID, p, &si, WCONTINUED));
    T(waitpid(p, &st, WCONTINUED|WNOHANG));
    T(kill(p, SIGSTOP));
    T(waitpid(p, &st, WUNTRACED) == p);
    W(st);
    T(kill(p, SIGCONT));
    T(kill(p, SIGSTOP));
    T(waitpid(p, &st, WUNTRACED) == p);
    T(kill(p, SIGKILL));
    T(waitpid(p, &st, WUNTRACED|WCONTINUED) == p);
    W(st);
    /* which */
    p = waiting();
    setpgid(p, p);
    q = ended(2);
    T(waitpid(-p, &st, WNOHANG));
    T(waitpid(0, &st, WNOHANG) == q);
    T(waitpid(0, &st, WNOHANG));
    T(kill(-p, SIGTERM));
    T(waitpid(-p, &st, 0) == p);
    W(st);
    T(waitpid(-p, &st, 0));
    T(kill(-p, 0));
    p = ended(1);
    q = ended(2);
    T(waitpid(q, &st, 0) == q);
    W(st);
    T(waitpid(-1, &st, 0) == p);
    W(st);
    T(waitpid(-1, &st, 0));
    /* bad places */
    p = ended(1);
    T(waitpid(p, (void *)8, 0));
    T(waitpid(p, &st, WNOHANG));
    p = ended(1);
    T(wait4(p, &st, 0, (void *)8));
    T(waitpid(p, &st, WNOHANG));
    p = ended(1);
    T(syscall(SYS_waitid, P_PID, p, 8, WEXITED, 0));
    T(waitpid(p, &st, WNOHANG));
    /* threads wait for each other's children, unless told not to */
    pthread_t t;
    void *value;
    p = ended(1);
    pthread_create(&t, 0, waits, (void *)(long)p);
    pthread_join(t, &value);
    T((long)value == p);
    p = ended(1);
    T(waitpid(p, &st, __WNOTHREAD) == p);
    T(waitpid(-1, &st, __WALL));
    T(waitpid(-1, &st, __WCLONE));
    /* what children's children used counts when waited for */
    W(CHILD(W(CHILD(for (volatile long i = 0; i < 30000000; i++))); struct rusage r; getrusage(RUSAGE_CHILDREN, &r); T(r.ru_utime.tv_sec * 1000000 + r.ru_utime.tv_usec > 0)));
    getrusage(RUSAGE_CHILDREN, &ru);
    T(ru.ru_utime.tv_sec * 1000000 + ru.ru_utime.tv_usec > 0);
    /* who has its memory open as a file does not keep it */
    const char *names[] = {"maps", "smaps", "mem", "pagemap"};
    int files[4];
    p = waiting();
    for (int i = 0; i < 4; i++) {
        char path[64], b[8];
        sprintf(path, "/proc/%d/%s", p, names[i]);
        N("opened", i, (files[i] = open(path, O_RDONLY)) >= 0);
        N("read", i, pread(files[i], b, sizeof b, i < 2 ? 0 : i == 2 ? (long)&st : 8 * ((long)&st >> 12)));
    }
    T(kill(p, SIGKILL));
    T(waitid(P_PID, p, &si, WEXITED|WNOWAIT));
    for (int i = 0; i < 4; i++) N("dry while it waits", i, dry(files[i], i < 2 ? 0 : i == 2 ? (long)&st : 8 * ((long)&st >> 12)));
    T(waitpid(p, &st, 0) == p);
    for (int i = 0; i < 4; i++) N("dry when it is gone", i, dry(files[i], i < 2 ? 0 : i == 2 ? (long)&st : 8 * ((long)&st >> 12)));
    return 0;
}

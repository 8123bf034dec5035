/* Descriptors that stand for processes. */
#include "check.h"
#include <linux/sched.h>
#include <sys/epoll.h>

#ifndef PIDFD_NONBLOCK
#define PIDFD_NONBLOCK O_NONBLOCK
#endif
static long pidfd_open(pid_t pid, unsigned flags) { return syscall(SYS_pidfd_open, pid, flags); }
static long pidfd_send_signal(int fd, int sig, siginfo_t *info, unsigned flags) { return syscall(SYS_pidfd_send_signal, fd, sig, info, flags); }
static long pidfd_getfd(int fd, int target, unsigned flags) { return syscall(SYS_pidfd_getfd, fd, target, flags); }
static pid_t waiting(void) {
    fflush(stdout);
    pid_t p = fork();
    if (!p) for (;;) pause();
    return p;
}

int main(void) {
    int st, fd;
    siginfo_t si;
    pid_t p;
    T(pidfd_open(0, 0));
    T(pidfd_open(-1, 0));
    T(pidfd_open(999999, 0));
    T(pidfd_open(getpid(), 1));
    T((fd = pidfd_open(getpid(), 0)) >= 0);
    T(fcntl(fd, F_GETFD));
    T(fcntl(fd, F_GETFL) & ~0100000);
    T(pidfd_send_signal(fd, 0, 0, 0));
    T(pidfd_send_signal(fd, 65, 0, 0));
    T(pidfd_send_signal(fd, 0, 0, 8));
    T(pidfd_send_signal(0, 0, 0, 0));
    T(pidfd_send_signal(99, 0, 0, 0));
    T(pidfd_send_signal(fd, SIGURG, (void *)8, 0));
    /* The process's directory will do, for this call. */
    int dir;
    T((dir = open("/proc/self", O_RDONLY|O_DIRECTORY)) >= 0);
    T(pidfd_send_signal(dir, 0, 0, 0));
    T(pidfd_send_signal(dir, SIGURG, 0, 0));
    T(syscall(SYS_pidfd_getfd, dir, 0, 0));
    close(dir);
    T((dir = open("/proc/thread-self", O_RDONLY|O_DIRECTORY)) >= 0);
    T(pidfd_send_signal(dir, 0, 0, 0));
    close(dir);
    T((dir = open("/proc/self", O_PATH)) >= 0);
    T(pidfd_send_signal(dir, 0, 0, 0));
    close(dir);
    T((dir = open("/proc/self/fd", O_RDONLY|O_DIRECTORY)) >= 0);
    T(pidfd_send_signal(dir, 0, 0, 0));
    close(dir);
    memset(&si, 0, sizeof si);
    si.si_code = SI_QUEUE;
    T(pidfd_send_signal(fd, SIGURG, &si, 0));
    si.si_signo = SIGURG;
    T(pidfd_send_signal(fd, SIGURG, &si, 0));
    char c;
    T(read(fd, &c, 1));
    T(write(fd, &c, 1));
    T(lseek(fd, 0, SEEK_SET));
    struct pollfd pf = {fd, POLLIN};
    T(poll(&pf, 1, 0));
    close(fd);
    p = waiting();
    T((fd = pidfd_open(p, 0)) >= 0);
    pf.fd = fd;
    T(poll(&pf, 1, 0));
    T(waitid(P_PIDFD, fd, &si, WEXITED|WNOHANG));
    T(pidfd_send_signal(fd, SIGTERM, 0, 0));
    T(poll(&pf, 1, 5000));
    T(pf.revents);
    int ep = epoll_create1(0);
    struct epoll_event ev = {EPOLLIN};
    T(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
    T(epoll_wait(ep, &ev, 1, 1000));
    T(pidfd_send_signal(fd, 0, 0, 0));
    T(waitid(P_PIDFD, fd, &si, WEXITED));
    T(si.si_pid == p);
    T(si.si_status);
    T(pidfd_send_signal(fd, 0, 0, 0));
    T(waitid(P_PIDFD, fd, &si, WEXITED));
    T(poll(&pf, 1, 0));
    T(pf.revents & POLLIN);
    close(fd);
    /* a descriptor at the birth */
    int made = -1;
    p = syscall(SYS_clone, CLONE_PIDFD|SIGCHLD, 0, &made, 0, 0);
    if (!p) _exit(9);
    T(made >= 0);
    T(fcntl(made, F_GETFD));
    T(waitid(P_PIDFD, made, &si, WEXITED));
    T(si.si_status);
    close(made);
    struct clone_args ca = {.flags = CLONE_PIDFD, .pidfd = (long)&made, .exit_signal = SIGCHLD};
    p = syscall(SYS_clone3, &ca, sizeof ca);
    if (!p) _exit(10);
    T(waitid(P_PIDFD, made, &si, WEXITED));
    T(si.si_status);
    close(made);
    ca.pidfd = 8;
    T(syscall(SYS_clone3, &ca, sizeof ca));
    /* another's descriptor */
    int pp[2], back[2];
    pipe(pp);
    pipe(back);
    fflush(stdout);
    p = fork();
    if (!p) {
        dup2(pp[1], 50);
        write(back[1], "r", 1);
        for (;;) pause();
    }
    read(back[0], &c, 1);
    fd = pidfd_open(p, 0);
    int got;
    T(pidfd_getfd(fd, 99, 0));
    T(pidfd_getfd(fd, 50, 1));
    T(pidfd_getfd(0, 50, 0));
    T((got = pidfd_getfd(fd, 50, 0)) >= 0);
    T(fcntl(got, F_GETFD));
    T(write(got, "hi", 2));
    char b[8];
    T(read(pp[0], b, 8));
    kill(p, 9);
    waitpid(p, 0, 0);
    T(pidfd_getfd(fd, 50, 0));
    /* not blocking */
    p = waiting();
    T((fd = pidfd_open(p, PIDFD_NONBLOCK)) >= 0);
    T(waitid(P_PIDFD, fd, &si, WEXITED));
    kill(p, 9);
    poll(&(struct pollfd){fd, POLLIN}, 1, 5000);
    T(waitid(P_PIDFD, fd, &si, WEXITED));
    return 0;
}

/* Checks of the system-call interface: each prints a line `FAMILY.CHECK: RESULT`, where CHECK is most often the call as it
 * is written, and RESULT its value, or -1 and the error's name.
 *
 * These programs run on Linux and inside Hafez, and what they print must be the same: Linux itself says what is right. So
 * nothing is printed that differs from run to run (addresses, times, numbers of processes). Each starts in an empty
 * directory of a tmpfs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void result_(long value, int error, int pointer) {
    if (value == -1 && error)
        printf("-1 %s\n", strerrorname_np(error) ? strerrorname_np(error) : "?");
    else if (pointer)
        printf("ok\n");
    else
        printf("%ld\n", value);
    fflush(stdout);
}

/* A call, or any expression, and its value. */
#define T(call) do { errno = 0; long value_ = (long)(call); int error_ = errno; \
        printf(FAMILY ".%s: ", #call); result_(value_, error_, 0); } while (0)
/* A call whose value is an address, or a number that differs from run to run: only whether it worked. */
#define P(call) do { errno = 0; long value_ = (long)(call); int error_ = errno; \
        printf(FAMILY ".%s: ", #call); result_(value_, error_, 1); } while (0)
/* The same with a name of one's own and a number, for checks in loops. */
#define N(name, number, call) do { errno = 0; long value_ = (long)(call); int error_ = errno; \
        printf(FAMILY ".%s %d: ", name, (int)(number)); result_(value_, error_, 0); } while (0)
/* A string. */
#define S(string) do { printf(FAMILY ".%s: \"%s\"\n", #string, string); fflush(stdout); } while (0)
/* A status as `wait` gives it. */
#define W(status) do { int status_ = (status); printf(FAMILY ".%s: ", #status); \
        if (WIFEXITED(status_)) printf("exited %d\n", WEXITSTATUS(status_)); \
        else if (WIFSTOPPED(status_)) printf("stopped by %d\n", WSTOPSIG(status_)); \
        else if (WIFCONTINUED(status_)) printf("continued\n"); \
        else printf("killed by %d\n", WTERMSIG(status_)); \
        fflush(stdout); } while (0)

/* What a child does; its status is the value. */
#define CHILD(...) ({ fflush(stdout); pid_t child_ = fork(); if (!child_) { __VA_ARGS__; fflush(stdout); _exit(0); } \
        int status_ = -1; while (waitpid(child_, &status_, 0) < 0 && errno == EINTR); errno = 0; status_; })

static char place_[] = "/dev/shm/battery-XXXXXX";
static pid_t first_;

__attribute__((constructor)) static void begin_(void) {
    first_ = getpid();
    umask(022);
    if (!mkdtemp(place_) || chdir(place_)) {
        perror(place_);
        exit(9);
    }
}

__attribute__((destructor)) static void end_(void) {
    char command[64];
    if (getpid() != first_)
        return;
    sprintf(command, "rm -rf %s", place_);
    system(command);
}

static sigjmp_buf back_;
static volatile int armed_, signal_, code_;

static void on_fault_(int signo, siginfo_t *info, void *context) {
    (void)context;
    signal_ = signo;
    code_ = info->si_code;
    if (!armed_) {
        printf("unexpected signal %d\n", signo);
        _exit(9);
    }
    armed_ = 0;
    siglongjmp(back_, 1);
}

/* Before RD and WR. */
static void catch_(void) {
    struct sigaction action = {0};
    action.sa_sigaction = on_fault_;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
}

#define ACCESS_(word, at, access) do { \
        armed_ = 1; \
        if (sigsetjmp(back_, 1) == 0) { access; armed_ = 0; printf(FAMILY "." word " %s: ok\n", #at); } \
        else printf(FAMILY "." word " %s: signal %d code %d\n", #at, signal_, code_); \
        fflush(stdout); \
    } while (0)
/* Read or write a byte; the signal that comes of it. */
#define RD(at) ACCESS_("read", at, (void)*(volatile char *)(at))
#define WR(at) ACCESS_("write", at, *(volatile char *)(at) = 1)

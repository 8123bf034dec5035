/* Checks of the system-call interface: each prints a call as it is written, and what it answers, by the error's name.
 *
 * These programs run on Linux and inside Hafez, and what they print must be the same: Linux itself says what is right. So
 * nothing is printed that differs from run to run (addresses, times, numbers of processes).
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

static void answer(const char *call, long value, int error, int pointer) {
    if (value == -1)
        printf("%s => -1 %s\n", call, strerrorname_np(error) ? strerrorname_np(error) : "?");
    else if (pointer)
        printf("%s => ok\n", call);
    else
        printf("%s => %ld\n", call, value);
    fflush(stdout);
}

/* A call, or any expression, and its value. */
#define T(call) do { errno = 0; long value_ = (long)(call); answer(#call, value_, errno, 0); } while (0)
/* A call whose value is an address: only whether it worked. */
#define P(call) do { errno = 0; long value_ = (long)(call); answer(#call, value_, errno, 1); } while (0)

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
        if (sigsetjmp(back_, 1) == 0) { access; armed_ = 0; printf(word " %s ok\n", #at); } \
        else printf(word " %s signal %d code %d\n", #at, signal_, code_); \
        fflush(stdout); \
    } while (0)
/* Read or write a byte; the signal that comes of it. */
#define RD(at) ACCESS_("read", at, (void)*(volatile char *)(at))
#define WR(at) ACCESS_("write", at, *(volatile char *)(at) = 1)

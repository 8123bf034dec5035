/* Sets the machine's clock and looks at what hangs on it; prints a line for what is not as it should be. It must not run where the
 * clock is somebody's: so only where the first argument says that the machine is our own. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int wrong;
#define MUST(what) do { errno = 0; if (!(what)) { printf("line %d: %s (%s)\n", __LINE__, #what, strerror(errno)); wrong = 1; } } while (0)

static struct timespec now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t;
}
static int near(time_t seconds) {
    time_t is = now(CLOCK_REALTIME).tv_sec;
    return is >= seconds && is <= seconds + 5;
}
static int set(time_t seconds) {
    struct timespec t = {seconds, 0};
    return clock_settime(CLOCK_REALTIME, &t);
}
static volatile int fired;
static void note(int signo) {
    (void)signo;
    fired++;
}
/* Sets the clock while its parent waits. */
static pid_t later(time_t seconds) {
    pid_t child = fork();
    if (!child) {
        usleep(100000);
        _exit(set(seconds) != 0);
    }
    return child;
}
static int good(pid_t child) {
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status == 0;
}

int main(int count, char **args) {
    if (count != 2 || strcmp(args[1], "the-machine-is-mine"))
        return 2;
    time_t began = now(CLOCK_REALTIME).tv_sec, mono = now(CLOCK_MONOTONIC).tv_sec;
    const time_t then = 2000000000;
    /* All clocks of the wall show it, by system call and without; the others do not. */
    MUST(set(then) == 0);
    MUST(near(then));
    struct timespec t;
    MUST(syscall(SYS_clock_gettime, CLOCK_REALTIME, &t) == 0 && t.tv_sec >= then && t.tv_sec <= then + 5);
    MUST(now(CLOCK_REALTIME_COARSE).tv_sec >= then - 1 && now(CLOCK_TAI).tv_sec >= then);
    MUST(time(0) >= then && time(0) < then + 5);
    struct timeval tv;
    MUST(gettimeofday(&tv, 0) == 0 && tv.tv_sec >= then && tv.tv_sec < then + 5);
    MUST(now(CLOCK_MONOTONIC).tv_sec - mono < 5);
    MUST(now(CLOCK_BOOTTIME).tv_sec - mono < 5);
    pid_t child = fork();
    if (!child)
        _exit(!near(then));
    MUST(good(child));
    /* Before 1970, less what has passed since the reset, there is no time. */
    MUST(set(0) == -1 && errno == EINVAL);
    MUST(near(then));
    tv = (struct timeval){then + 1000, 500000};
    MUST(settimeofday(&tv, 0) == 0 && near(then + 1000));
    struct timezone zone = {-60, 1}, told = {0};
    MUST(syscall(SYS_settimeofday, 0, &zone) == 0);
    MUST(syscall(SYS_gettimeofday, 0, &told) == 0 && told.tz_minuteswest == -60 && told.tz_dsttime == 1);
    zone.tz_minuteswest = 16 * 60;
    MUST(syscall(SYS_settimeofday, 0, &zone) == -1 && errno == EINVAL);
    /* By so much. */
    struct timex x = {.modes = ADJ_SETOFFSET, .time = {500, 0}};
    MUST(adjtimex(&x) >= 0 && near(then + 1500));
    x = (struct timex){.modes = ADJ_SETOFFSET | ADJ_NANO, .time = {-501, 999999999}};
    MUST(adjtimex(&x) >= 0 && near(then + 999));
    x = (struct timex){.modes = ADJ_SETOFFSET, .time = {0, -1}};
    MUST(adjtimex(&x) == -1 && errno == EINVAL);
    x = (struct timex){.modes = ADJ_STATUS, .status = 0};
    MUST(adjtimex(&x) == TIME_OK && !(x.status & STA_UNSYNC));
    x = (struct timex){.modes = ADJ_MAXERROR | ADJ_ESTERROR | ADJ_TIMECONST | ADJ_MICRO, .maxerror = 7, .esterror = 8, .constant = 3};
    MUST(adjtimex(&x) == TIME_OK && x.maxerror == 7 && x.esterror == 8 && x.constant == 7);
    x = (struct timex){.modes = ADJ_FREQUENCY, .freq = 1 << 16};
    MUST(adjtimex(&x) == -1 && errno == EINVAL);
    x = (struct timex){.modes = ADJ_TICK, .tick = 10000};
    MUST(adjtimex(&x) == TIME_OK);

    /* A sleep to a moment ends when that is reached by a leap, and not before it is, when the clock goes back. */
    MUST(set(then) == 0);
    child = later(then + 5000);
    t = (struct timespec){then + 4000, 0};
    mono = now(CLOCK_MONOTONIC).tv_sec;
    MUST(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t, 0) == 0);
    MUST(good(child));
    MUST(now(CLOCK_MONOTONIC).tv_sec - mono < 60 && near(then + 5000));
    /* A sleep for so long takes so long. */
    child = later(then + 100000);
    t = (struct timespec){0, 400000000};
    struct timespec a = now(CLOCK_MONOTONIC);
    MUST(clock_nanosleep(CLOCK_REALTIME, 0, &t, 0) == 0);
    struct timespec b = now(CLOCK_MONOTONIC);
    MUST((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 >= 400);
    MUST(good(child));

    /* Timers. */
    signal(SIGALRM, note);
    timer_t moment, length;
    MUST(timer_create(CLOCK_REALTIME, 0, &moment) == 0);
    MUST(timer_create(CLOCK_REALTIME, 0, &length) == 0);
    MUST(set(then) == 0);
    struct itimerspec far = {{0, 0}, {then + 1000, 0}}, long_ = {{0, 0}, {1000, 0}}, left;
    MUST(timer_settime(moment, TIMER_ABSTIME, &far, 0) == 0);
    MUST(timer_settime(length, 0, &long_, 0) == 0);
    MUST(set(then + 100) == 0);
    MUST(timer_gettime(moment, &left) == 0 && left.it_value.tv_sec >= 890 && left.it_value.tv_sec <= 900);
    MUST(timer_gettime(length, &left) == 0 && left.it_value.tv_sec >= 990 && left.it_value.tv_sec <= 1000);
    MUST(set(then - 100) == 0);
    MUST(timer_gettime(moment, &left) == 0 && left.it_value.tv_sec >= 1090 && left.it_value.tv_sec <= 1100);
    MUST(fired == 0);
    MUST(set(then + 1001) == 0);
    for (int i = 0; i < 100 && !fired; i++)
        usleep(10000);
    MUST(fired == 1);
    MUST(timer_gettime(moment, &left) == 0 && left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    timer_delete(moment);
    timer_delete(length);

    /* A timer's file tells that the clock was set, once, whoever waits for it and however; one that did not ask, does not. */
    MUST(set(then) == 0);
    int asks = timerfd_create(CLOCK_REALTIME, 0), quiet = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
    MUST(timerfd_settime(asks, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, 0) == 0);
    MUST(timerfd_settime(quiet, TFD_TIMER_ABSTIME, &far, 0) == 0);
    uint64_t times;
    child = later(then + 10);
    MUST(read(asks, &times, 8) == -1 && errno == ECANCELED);
    MUST(good(child));
    struct pollfd poll_ = {asks, POLLIN, 0};
    MUST(poll(&poll_, 1, 0) == 0);
    child = later(then + 20);
    MUST(poll(&poll_, 1, -1) == 1);
    MUST(good(child));
    MUST(read(asks, &times, 8) == -1 && errno == ECANCELED);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, asks, &event) == 0);
    MUST(epoll_wait(epoll, &event, 1, 0) == 0);
    child = later(then + 30);
    MUST(epoll_wait(epoll, &event, 1, -1) == 1);
    MUST(good(child));
    MUST(timerfd_settime(asks, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, 0) == -1 && errno == ECANCELED);
    MUST(timerfd_settime(asks, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, 0) == 0);
    MUST(read(quiet, &times, 8) == -1 && errno == EAGAIN);
    MUST(set(then + 1001) == 0);
    poll_.fd = quiet;
    MUST(poll(&poll_, 1, 10000) == 1);
    MUST(read(quiet, &times, 8) == 8 && times == 1);

    /* Who waits for a lock until a moment. */
    MUST(set(then) == 0);
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    t = (struct timespec){then + 500, 0};
    child = later(then + 501);
    pthread_mutex_lock(&lock);
    MUST(pthread_cond_timedwait(&never, &lock, &t) == ETIMEDOUT);
    MUST(good(child));
    MUST(set(began) == 0 && near(began));
    if (!wrong)
        puts("all as it should be");
    return wrong;
}

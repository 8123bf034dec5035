/* Setting the clock as far as it may be tried anywhere, and what counts as a program's time and what as the kernel's for it. */
#include "check.h"
#include <sys/timex.h>
#include <sys/times.h>

static long used(int who, int kernel) {
    struct rusage u;
    getrusage(who, &u);
    struct timeval t = kernel ? u.ru_stime : u.ru_utime;
    return t.tv_sec * 1000 + t.tv_usec / 1000;
}
static long cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
/* So many milliseconds of work of one's own; and of work that the kernel does. */
static void compute(long ms) {
    volatile long n = 0;
    for (long end = cpu_ms() + ms; cpu_ms() < end;)
        for (int i = 0; i < 300000; i++) n += i;
}
static void have_done(long ms) {
    static char page[1 << 20];
    int zero = open("/dev/zero", O_RDONLY);
    for (long end = cpu_ms() + ms; cpu_ms() < end;) {
        ssize_t got = read(zero, page, sizeof page);
        if (got != sizeof page) exit(9);
    }
    close(zero);
}
/* What this process has used since `mark`. */
static long marked[2];
static void mark(void) {
    for (int kernel = 0; kernel < 2; kernel++) marked[kernel] = used(RUSAGE_SELF, kernel);
}
static long spent(int kernel) {
    return used(RUSAGE_SELF, kernel) - marked[kernel];
}
/* Whether `done` is followed by `holds` at least once in thirty. */
#define SEEN(done, holds) ({ int seen_ = 0; for (int i_ = 0; i_ < 30 && !seen_; i_++) { mark(); done; seen_ = (holds); } seen_; })

static volatile int fired[65];
static void note(int signo) {
    fired[signo]++;
}

int main(void) {
    catch_();
    /* Whose time is it. A machine that is kept from running counts that as the time of whoever ran: each is asked until it is seen once. */
    T(SEEN(compute(400), spent(0) >= 150 && spent(1) < spent(0)));
    T(SEEN(have_done(400), spent(1) >= 150 && spent(0) < spent(1)));
    T(used(RUSAGE_THREAD, 1) >= 150);
    struct tms tms;
    times(&tms);
    T(tms.tms_stime >= 15);
    T(tms.tms_utime >= 15);
    struct tms before;
    T(SEEN(before = tms; CHILD(have_done(200)); times(&tms),
        tms.tms_cstime - before.tms_cstime >= 10 && tms.tms_cutime - before.tms_cutime < tms.tms_cstime - before.tms_cstime));
    T(used(RUSAGE_CHILDREN, 1) >= 100);
    FILE *f = fopen("/proc/self/stat", "r");
    long field = 0;
    char word[200];
    for (int i = 1; i <= 15 && fscanf(f, "%199s", word) == 1; i++)
        if (i >= 14) { field = atol(word); N("stat", i, field >= 15); }
    fclose(f);
    long cpu[4] = {0};
    f = fopen("/proc/stat", "r");
    T(fscanf(f, "cpu %ld %ld %ld %ld", cpu, cpu + 1, cpu + 2, cpu + 3));
    T(cpu[0] > 0 && cpu[2] > 0);
    fclose(f);
    /* ITIMER_VIRTUAL stands still while the kernel works, ITIMER_PROF does not. */
    signal(SIGVTALRM, note);
    signal(SIGPROF, note);
    struct itimerval it = {{0, 0}, {0, 400000}}, left;
    T(setitimer(ITIMER_VIRTUAL, &it, 0));
    T(setitimer(ITIMER_PROF, &it, 0));
    have_done(600);
    T(fired[SIGPROF]);
    T(fired[SIGVTALRM]);
    T(getitimer(ITIMER_VIRTUAL, &left));
    T(left.it_value.tv_usec > 10000);
    compute(700);
    T(fired[SIGVTALRM]);
    /* Without a first time nothing is set: of real time the interval goes too, of CPU time it stays. */
    for (int which = ITIMER_REAL; which <= ITIMER_PROF; which++) {
        it = (struct itimerval){{10, 0}, {0, 0}};
        N("setitimer", which, setitimer(which, &it, 0));
        N("getitimer", which, getitimer(which, &left));
        N("interval", which, left.it_interval.tv_sec);
        N("value", which, left.it_value.tv_sec + left.it_value.tv_usec);
        it.it_interval.tv_sec = 0;
        N("stopped", which, setitimer(which, &it, 0));
    }
    /* Setting: what is refused before the clock is touched. */
    struct timespec t = {100, 1000000000}, now;
    T(clock_settime(CLOCK_REALTIME, &t));
    t.tv_nsec = -1;
    T(clock_settime(CLOCK_REALTIME, &t));
    t = (struct timespec){-1, 0};
    T(clock_settime(CLOCK_REALTIME, &t));
    t = (struct timespec){INT64_MAX, 0};
    T(clock_settime(CLOCK_REALTIME, &t));
    t = (struct timespec){9223372036 - 30 * 365 * 24 * 3600L, 0};
    T(clock_settime(CLOCK_REALTIME, &t));
    T(syscall(SYS_clock_settime, CLOCK_REALTIME, 8));
    t = (struct timespec){1600000000, 0};
    T(clock_settime(CLOCK_MONOTONIC, &t));
    T(syscall(SYS_clock_settime, CLOCK_MONOTONIC, 8));
    T(clock_settime(CLOCK_BOOTTIME, &t));
    T(clock_settime(CLOCK_TAI, &t));
    T(clock_settime(CLOCK_REALTIME_COARSE, &t));
    T(clock_settime(CLOCK_PROCESS_CPUTIME_ID, &t));
    T(clock_settime(CLOCK_THREAD_CPUTIME_ID, &t));
    clockid_t own;
    T(clock_getcpuclockid(getpid(), &own));
    T(clock_settime(own, &t));
    T(syscall(SYS_clock_settime, own, 8));
    T(clock_settime(99, &t));
    T(clock_settime(-99999 << 3, &t));
    struct timeval tv = {100, 1000000};
    T(settimeofday(&tv, 0));
    tv.tv_usec = -1;
    T(settimeofday(&tv, 0));
    tv = (struct timeval){-1, 0};
    T(settimeofday(&tv, 0));
    T(syscall(SYS_settimeofday, 8, 0));
    T(syscall(SYS_settimeofday, 0, 8));
    W(CHILD(if (!getuid()) setuid(1000); tv = (struct timeval){1600000000, 0}; T(settimeofday(&tv, 0)); T(syscall(SYS_settimeofday, 0, 0));
        struct timezone zone = {60, 0}; T(syscall(SYS_settimeofday, 0, &zone)); zone.tz_minuteswest = 2000; T(syscall(SYS_settimeofday, 0, &zone));
        t = (struct timespec){1600000000, 0}; T(clock_settime(CLOCK_REALTIME, &t)); T(clock_settime(CLOCK_MONOTONIC, &t)); t.tv_nsec = -1; T(clock_settime(CLOCK_REALTIME, &t));
        struct timex x = {.modes = ADJ_SETOFFSET}; T(adjtimex(&x)); x.modes = ADJ_STATUS; T(adjtimex(&x)); x.modes = ADJ_TICK; x.tick = 1; T(adjtimex(&x)); x.modes = ADJ_OFFSET_SINGLESHOT; T(adjtimex(&x));
        x.modes = ADJ_OFFSET_SS_READ; T(adjtimex(&x) >= 0); x.modes = 0x8000; T(adjtimex(&x)); x.modes = 0x2000; T(adjtimex(&x));
        x.modes = 0; T(clock_adjtime(CLOCK_REALTIME, &x) >= 0); T(clock_adjtime(CLOCK_MONOTONIC, &x)); T(clock_adjtime(99, &x)); T(clock_adjtime(CLOCK_PROCESS_CPUTIME_ID, &x)); T(syscall(SYS_clock_adjtime, CLOCK_REALTIME, 8))));
    struct timex x = {0};
    T(adjtimex(&x) >= 0);
    T(x.tick);
    T(x.tolerance);
    T(x.precision);
    clock_gettime(CLOCK_REALTIME, &now);
    T(now.tv_sec - x.time.tv_sec <= 1);
    /* What waits for a moment of the clock. */
    int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
    struct itimerspec far = {{0, 0}, {now.tv_sec + 1000, 0}}, ol;
    T(timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, 0));
    T(timerfd_gettime(fd, &ol));
    T(ol.it_value.tv_sec >= 990 && ol.it_value.tv_sec <= 1000);
    uint64_t count;
    T(read(fd, &count, 8));
    T(timerfd_settime(fd, TFD_TIMER_CANCEL_ON_SET, &far, 0));
    T(timerfd_settime(fd, 4, &far, 0));
    timer_t timer;
    T(timer_create(CLOCK_REALTIME, 0, &timer));
    T(timer_settime(timer, TIMER_ABSTIME, &far, 0));
    T(timer_gettime(timer, &ol));
    T(ol.it_value.tv_sec >= 990 && ol.it_value.tv_sec <= 1000);
    far.it_value = now;
    far.it_value.tv_sec -= 5;
    far.it_interval.tv_sec = 100;
    signal(SIGALRM, note);
    T(timer_settime(timer, TIMER_ABSTIME, &far, 0));
    T(fired[SIGALRM]);
    T(timer_gettime(timer, &ol));
    T(ol.it_value.tv_sec >= 90 && ol.it_value.tv_sec <= 95);
    return 0;
}

/* Limits, scheduling, names, capabilities, random bytes. */
#include "check.h"
#include <sys/prctl.h>
#include <linux/capability.h>
#include <sys/random.h>
#include <sys/timex.h>
int main(void) {
    struct rlimit l, o;
    catch_();
    setpgid(0, 0); /* what is asked of the group shall not depend on who else is in it */
    for (int i = 0; i < 18; i++) {
        T(getrlimit(i, &l));
        if (i != 6 && i != 7 && i != 11 && i != 8) {
            N("soft limit", i, l.rlim_cur);
            N("hard limit", i, l.rlim_max);
        }
    }
    T(syscall(SYS_getrlimit, 0, 8));
    T(syscall(SYS_setrlimit, 0, 8));
    l.rlim_cur = 10;
    l.rlim_max = 5;
    T(setrlimit(RLIMIT_CORE, &l));
    T(setrlimit(99, &l));
    l.rlim_cur = 100;
    l.rlim_max = 200;
    T(setrlimit(RLIMIT_NOFILE, &l));
    T(prlimit(0, RLIMIT_NOFILE, 0, &o));
    T(o.rlim_cur);
    T(o.rlim_max);
    T(dup2(0, 100));
    T(dup2(0, 99));
    l.rlim_max = 1L<<40;
    T(setrlimit(RLIMIT_NOFILE, &l));
    T(prlimit(99999, 0, 0, &o));
    T(prlimit(getpid(), 99, 0, &o));
    T(syscall(SYS_prlimit64, 0, 0, 8, 0));
    T(syscall(SYS_prlimit64, 0, 0, 0, 8));
    T(prlimit(1<<30, 0, 0, 0));
    T(prlimit(-1, 0, 0, 0));
    int st;
    fflush(stdout);
    pid_t p = fork();
    if (!p) {
        l = (struct rlimit){1, 2};
        setrlimit(RLIMIT_CPU, &l);
        for (;;);
    }
    waitpid(p, &st, 0);
    T(st & 0x7f);
    fflush(stdout);
    p = fork();
    if (!p) {
        signal(SIGXCPU, SIG_IGN);
        l = (struct rlimit){1, 2};
        setrlimit(RLIMIT_CPU, &l);
        for (;;);
    }
    waitpid(p, &st, 0);
    T(st & 0x7f);
    struct rusage u;
    T(getrusage(RUSAGE_SELF, &u));
    T(u.ru_maxrss > 0);
    T(getrusage(RUSAGE_CHILDREN, &u));
    T(u.ru_utime.tv_sec >= 2);
    T(getrusage(RUSAGE_THREAD, &u));
    T(getrusage(5, &u));
    T(syscall(SYS_getrusage, 0, 8));
    struct sysinfo si;
    T(sysinfo(&si));
    T(si.mem_unit);
    T(si.totalram > (20<<20));
    T(si.procs > 0);
    T(syscall(SYS_sysinfo, 8));
    struct utsname un;
    T(uname(&un));
    S(un.sysname);
    S(un.machine);
    T(syscall(SYS_uname, 8));
    T(sethostname("x", -1));
    T(sethostname("x", 65));
    T(sethostname((void*)8, 5));
    unsigned cpu, node;
    T(syscall(SYS_getcpu, &cpu, &node, 0));
    T(node);
    T(syscall(SYS_getcpu, 0, 0, 0));
    T(syscall(SYS_getcpu, 8, 0, 0));
    unsigned long ms[16];
    T(syscall(SYS_sched_getaffinity, 0, 8, ms));
    T(ms[0] & 1);
    T(syscall(SYS_sched_getaffinity, 0, 7, ms));
    T(syscall(SYS_sched_getaffinity, 0, 0, ms));
    T(syscall(SYS_sched_getaffinity, 0, 8, 8));
    T(syscall(SYS_sched_getaffinity, 99999, 8, ms));
    T(syscall(SYS_sched_getaffinity, -1, 8, ms));
    T(syscall(SYS_sched_setaffinity, -1, 8, ms));
    T(syscall(SYS_sched_setaffinity, 0, 8, ms));
    ms[0] = 0;
    T(syscall(SYS_sched_setaffinity, 0, 8, ms));
    T(syscall(SYS_sched_setaffinity, 0, 8, 8));
    struct sched_param sp = {0};
    T(sched_getscheduler(0));
    T(sched_getscheduler(-1));
    T(sched_getscheduler(99999));
    T(sched_setscheduler(0, SCHED_BATCH, &sp));
    T(sched_getscheduler(0));
    T(sched_setscheduler(0, SCHED_IDLE, &sp));
    T(sched_setscheduler(0, SCHED_OTHER, &sp));
    sp.sched_priority = 5;
    T(sched_setscheduler(0, SCHED_OTHER, &sp));
    T(sched_setscheduler(0, 99, &sp));
    T(sched_setscheduler(0, -5, &sp));
    T(sched_setscheduler(0, 0, 0));
    sp.sched_priority = 200;
    T(sched_setscheduler(0, SCHED_FIFO, &sp));
    T(sched_getparam(0, &sp));
    T(sp.sched_priority);
    T(sched_getparam(0, 0));
    /* real-time policies */
    W(CHILD(sp.sched_priority = 7; T(sched_setscheduler(0, SCHED_FIFO, &sp)); T(sched_getscheduler(0)); sp.sched_priority = 0; T(sched_getparam(0, &sp)); T(sp.sched_priority);
        struct timespec turn = {9, 9}; T(sched_rr_get_interval(0, &turn)); T(turn.tv_sec + turn.tv_nsec);
        sp.sched_priority = 0; T(sched_setparam(0, &sp)); sp.sched_priority = 100; T(sched_setparam(0, &sp)); sp.sched_priority = 9; T(sched_setparam(0, &sp));
        W(CHILD(T(sched_getscheduler(0)); T(sched_getparam(0, &sp)); T(sp.sched_priority))); T(sched_setscheduler(0, SCHED_RR, &sp)); T(sched_getscheduler(0)); T(sched_rr_get_interval(0, &turn)); T(turn.tv_nsec > 0);
        FILE *f = fopen("/proc/self/stat", "r"); long field = 0; char word[200]; for (int i = 1; i <= 41 && fscanf(f, "%199s", word) == 1; i++) if (i == 18 || i >= 40) N("stat", i, atol(word));
        sp.sched_priority = 0; T(sched_setscheduler(0, SCHED_RR, &sp)); T(sched_setscheduler(0, SCHED_OTHER, &sp)); T(sched_getscheduler(0));
        struct rlimit none = {0, 0}; setrlimit(RLIMIT_RTPRIO, &none); if (!getuid()) setuid(1000); sp.sched_priority = 1; T(sched_setscheduler(0, SCHED_FIFO, &sp)); T(sched_setscheduler(0, SCHED_RR, &sp))));
    W(CHILD(sp.sched_priority = 3; T(sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &sp)); T(sched_getscheduler(0)); W(CHILD(T(sched_getscheduler(0)); T(sched_getparam(0, &sp)); T(sp.sched_priority)));
        setpriority(PRIO_PROCESS, 0, -3); W(CHILD(T(getpriority(PRIO_PROCESS, 0)))); setuid(1000); T(sched_setscheduler(0, SCHED_FIFO, &sp)); sp.sched_priority = 0; T(sched_setscheduler(0, SCHED_OTHER, &sp)); T(sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &sp))));
    for (int i = 0; i < 7; i++) {
        T(sched_get_priority_max(i));
        T(sched_get_priority_min(i));
    }
    struct timespec ts;
    T(sched_rr_get_interval(0, &ts));
    T(sched_yield());
    T(syscall(SYS_getpriority, 0, 0));
    T(setpriority(0, 0, 5));
    T(syscall(SYS_getpriority, 0, 0));
    T(setpriority(0, 0, 100));
    T(syscall(SYS_getpriority, 0, 0));
    T(setpriority(0, 99999, 0));
    T(setpriority(9, 0, 0));
    T(syscall(SYS_getpriority, 9, 0));
    T(nice(-5));
    T(getpriority(0, 0));
    T(setpriority(1, 0, 3));
    T(getpriority(1, 0));
    char b[64];
    T(getrandom(b, 64, 0));
    T(getrandom(b, 64, GRND_RANDOM));
    T(getrandom(b, 64, 8));
    T(getrandom(b, 64, GRND_RANDOM|GRND_INSECURE));
    T(getrandom((void*)8, 64, 0));
    T(getrandom(b, 0, 0));
    char *big = malloc(100000);
    T(getrandom(big, 100000, 0));
    int z = 0;
    for (int i = 0; i < 100000; i++) z += big[i] == 0;
    T(z > 200 && z < 700);
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    T(syscall(SYS_capget, &h, d));
    h.version = 1;
    T(syscall(SYS_capget, &h, 0));
    T(h.version == _LINUX_CAPABILITY_VERSION_3);
    h.version = 1;
    T(syscall(SYS_capget, &h, d));
    h.pid = -1;
    T(syscall(SYS_capget, &h, d));
    h.pid = 99999;
    T(syscall(SYS_capget, &h, d));
    T(syscall(SYS_capget, 8, d));
    h.pid = 0;
    T(syscall(SYS_capget, &h, 8));
    struct timex tx = {0};
    T(adjtimex(&tx) >= 0);
    tx.modes = 0x8000;
    T(syscall(SYS_adjtimex, 8));
    T(syscall(SYS_reboot, 1, 2, 3, 0) == -1);
    T(syscall(600));
    T(syscall(-1));
    return 0;
}

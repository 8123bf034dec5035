/* Making processes and threads, groups and sessions, what a process sets for itself. */
#include "check.h"
#include <asm/prctl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sys/personality.h>
#include <sys/rseq.h>
#include <sys/prctl.h>
#include <sys/times.h>

static char stack[65536] __attribute__((aligned(16)));
static int answer(void *code) {
    return (int)(long)code;
}
static int group_of(void *code) {
    return getpgrp() == (long)code ? 0 : 1;
}
static int parent_of(void *code) {
    return getppid() == (long)code ? 0 : 1;
}
/* Run in circles in a restartable sequence until something breaks it: what then came. */
static volatile int rang;
static void ring(int signo) {
    rang++;
}
static struct rseq *registered(void) {
    return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}
static int broken(struct rseq *own) {
    __asm__ goto(
        ".pushsection __rseq_cs, \"aw\"\n"
        ".balign 32\n"
        "3: .long 0, 0\n"
        ".quad 1f, 2f - 1f, 4f\n"
        ".popsection\n"
        "leaq 3b(%%rip), %%rax\n"
        "movq %%rax, %0\n"
        "1: jmp 1b\n"
        "2:\n"
        ".pushsection .text.broken, \"ax\"\n"
        ".long 0x53053053\n"
        "4: jmp %l[out]\n"
        ".popsection\n"
        : : "m"(own->rseq_cs) : "rax", "memory" : out);
    return 0;
out:
    return own->rseq_cs == 0;
}
static void sequences(void) {
    struct rseq *own = registered(), *other;
    T(__rseq_size > 0);
    T(syscall(SYS_rseq, own, 32, 0, RSEQ_SIG));
    T(syscall(SYS_rseq, own, 32, 0, 7));
    T(syscall(SYS_rseq, own, 64, 0, RSEQ_SIG));
    T(syscall(SYS_rseq, (char *)own + 32, 32, 0, RSEQ_SIG));
    T(syscall(SYS_rseq, own, 32, 2, RSEQ_SIG));
    T(syscall(SYS_rseq, own, 32, 1, 7));
    T(syscall(SYS_rseq, own, 31, 1, RSEQ_SIG));
    T(own->cpu_id == (unsigned)sched_getcpu());
    T(own->cpu_id_start == own->cpu_id);
    W(CHILD(T(own->cpu_id == (unsigned)sched_getcpu()); T(syscall(SYS_rseq, own, 32, 1, RSEQ_SIG)); T((int)own->cpu_id); T(own->cpu_id_start);
        T(syscall(SYS_rseq, own, 32, 1, RSEQ_SIG));
        other = (void *)(((long)stack + 127) & -64L); T(syscall(SYS_rseq, other, 31, 0, 1)); T(syscall(SYS_rseq, (char *)other + 4, 32, 0, 1)); T(syscall(SYS_rseq, -4096L, 32, 0, 1));
        T(syscall(SYS_rseq, other, 32, 0, 1)); T(other->cpu_id == (unsigned)sched_getcpu())));
    /* a signal */
    W(CHILD(signal(SIGALRM, ring); struct itimerval soon = {{0, 0}, {0, 50000}}; setitimer(ITIMER_REAL, &soon, 0); T(broken(own))));
    /* another process on the same CPU */
    W(CHILD(cpu_set_t one; CPU_ZERO(&one); CPU_SET(sched_getcpu(), &one); sched_setaffinity(0, sizeof one, &one);
        pid_t busy = fork(); if (!busy) { prctl(PR_SET_PDEATHSIG, SIGKILL); for (;;) { } } T(broken(own)); kill(busy, SIGKILL); waitpid(busy, 0, 0)));
    /* what cannot be */
    static struct rseq_cs { unsigned version, flags; unsigned long start, length, abort; } __attribute__((aligned(32))) wrong;
    wrong.abort = (long)stack + 64;
    W(CHILD(signal(SIGALRM, ring); own->rseq_cs = (long)&wrong; raise(SIGALRM); T(rang)));
    W(CHILD(signal(SIGALRM, ring); own->rseq_cs = 8; raise(SIGALRM); T(rang)));
    wrong.version = 1;
    W(CHILD(signal(SIGALRM, ring); own->rseq_cs = (long)&wrong; raise(SIGALRM); T(rang)));
}
static void *sleeper(void *code) {
    for (;;) pause();
}
static void *forks(void *code) {
    int status;
    pid_t pid = fork();
    if (!pid) _exit(17);
    waitpid(pid, &status, 0);
    return (void *)(long)status;
}
static void *holds(void *mutex) {
    pthread_mutex_lock(mutex);
    return 0;
}
static void *tid_(void *unused) {
    return (void *)(long)(syscall(SYS_gettid) != getpid());
}
/* A thread that is there until told to go: by a pipe it says who it is, by another it is told. */
static int says[2], told[2];
static void *stays(void *unused) {
    int me = syscall(SYS_gettid);
    write(says[1], &me, sizeof me);
    read(told[0], &me, 1);
    return 0;
}
/* Where a process is named, the number of one of its threads does too, most often. */
static void by_thread(void) {
    pthread_t t;
    int tid = 0;
    struct rlimit limit;
    siginfo_t si = {.si_signo = SIGURG, .si_code = SI_QUEUE};
    pipe(says);
    pipe(told);
    pthread_create(&t, 0, stays, 0);
    read(says[0], &tid, sizeof tid);
    T(kill(tid, 0));
    T(kill(tid, SIGURG));
    T(kill(-tid, 0));
    T(syscall(SYS_rt_sigqueueinfo, tid, SIGURG, &si));
    T(getpgid(tid) == getpgrp());
    T(getsid(tid) == getsid(0));
    T(setpgid(tid, 0));
    T(setpgid(tid, getpgrp()));
    T(prlimit(tid, RLIMIT_NOFILE, 0, &limit));
    T(getpriority(PRIO_PGRP, tid));
    T(sched_getscheduler(tid));
    write(told[1], "", 1);
    pthread_join(t, 0);
    for (int i = 0; i < 2; i++) { close(says[i]); close(told[i]); }
}
static void on(int signal) {}

static long clone3(struct clone_args *args) {
    long pid = syscall(SYS_clone3, args, sizeof *args);
    if (!pid) _exit(8);
    return pid;
}

/* What kinds of memory a core file would have: written in any of C's ways, read in one. */
static int filter_is(const char *text) {
    int fd = open("/proc/self/coredump_filter", O_RDWR);
    int n = write(fd, text, strlen(text));
    int error = errno;
    char now[32] = {0};
    pread(fd, now, 31, 0);
    close(fd);
    printf(FAMILY ".coredump_filter \"%s\": %d %s", text, n < 0 ? error : n, now);
    fflush(stdout);
    return 0;
}
static void dump_filter(void) {
    filter_is("0x7f");
    filter_is("19");
    filter_is("077");
    filter_is("0");
    filter_is("0xfff");
    filter_is("x");
    filter_is("-1");
    filter_is("0x99999999999");
    W(CHILD(filter_is("1")));
    filter_is("0x33");
}

/* Links to the files that are mapped, by where they are. */
static void map_files(void) {
    int fd = open("mapped", O_RDWR | O_CREAT, 0600);
    ftruncate(fd, 3 * 4096);
    char *m = mmap(0, 2 * 4096, PROT_READ, MAP_SHARED, fd, 4096), name[100], to[300];
    sprintf(name, "/proc/self/map_files/%lx-%lx", (long)m, (long)m + 2 * 4096);
    memset(to, 0, sizeof to);
    T(readlink(name, to, sizeof to - 1) > 0 || errno == EPERM);
    T(getuid() || strstr(to, "/mapped") != 0);
    struct stat st;
    T(lstat(name, &st));
    T(st.st_mode & S_IFMT);
    sprintf(name, "/proc/self/map_files/%lx-%lx", (long)m, (long)m + 4096);
    T(readlink(name, to, sizeof to));
    sprintf(name, "/proc/self/map_files/0%lx-%lx", (long)m, (long)m + 2 * 4096);
    T(readlink(name, to, sizeof to));
    sprintf(name, "/proc/self/map_files/%lX-%lx", (long)m, (long)m + 2 * 4096);
    T(readlink(name, to, sizeof to) > 0 || errno == EPERM);
    T(readlink("/proc/self/map_files/x-y", to, sizeof to));
    T(readlink("/proc/self/map_files/10000", to, sizeof to));
    munmap(m, 2 * 4096);
    sprintf(name, "/proc/self/map_files/%lx-%lx", (long)m, (long)m + 2 * 4096);
    T(readlink(name, to, sizeof to));
    close(fd), unlink("mapped");
}

int main(int argc, char **argv) {
    int st;
    if (argc > 1) {
        int sig = 0;
        prctl(PR_GET_PDEATHSIG, &sig);
        return sig;
    }
    pid_t p, me = getpid();
    /* numbers */
    T(getpid() == syscall(SYS_gettid));
    T(getpgid(0) == getpgrp());
    T(getpgid(me) == getpgrp());
    T(getsid(0) == getsid(me));
    T(getpgid(999999));
    T(getpgid(-1));
    T(getsid(999999));
    T(getsid(-1));
    T(setpgid(0, -1));
    T(setpgid(-1, 0));
    T(setpgid(999999, 0));
    T(setpgid(1, 1));
    W(CHILD(_exit(setpgid(0, 0) == 0 && getpgrp() == getpid() ? 3 : 4)));
    W(CHILD(_exit(setsid() == getpid() && getsid(0) == getpid() && getpgrp() == getpid() ? 3 : 4)));
    W(CHILD(setsid(); T(setsid()); T(setpgid(0, 0))));
    W(CHILD(setpgid(0, 0); T(setsid())));
    W(CHILD(setpgid(0, 0); T(setpgid(0, 999999))));
    fflush(stdout);
    p = fork();
    if (!p) pause();
    T(setpgid(p, p));
    T(setpgid(p, getpgrp()));
    T(getpgid(p) == getpgrp());
    kill(p, 9);
    waitpid(p, 0, 0);
    T(setpgid(p, p));
    fflush(stdout);
    p = fork();
    if (!p) {
        setsid();
        pause();
    }
    while (getsid(p) != p) sched_yield();
    T(setpgid(p, getpgrp()));
    T(getsid(p) == p);
    kill(p, 9);
    waitpid(p, 0, 0);
    /* fork, vfork */
    W(CHILD(_exit(getppid() == me ? 0 : 1)));
    static volatile int shared;
    p = vfork();
    if (!p) {
        shared = 5;
        _exit(6);
    }
    T(shared);
    waitpid(p, &st, 0);
    W(st);
    p = vfork();
    if (!p) {
        execl("/bin/false", "false", (char *)0);
        _exit(99);
    }
    T(waitpid(p, &st, 0) == p);
    W(st);
    p = vfork();
    if (!p) {
        char *none[] = {0};
        execve("/nowhere", none, none);
        _exit(errno);
    }
    waitpid(p, &st, 0);
    W(st);
    /* clone */
    T(syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0));
    T(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0));
    T(syscall(SYS_clone, CLONE_THREAD|CLONE_SIGHAND, 0, 0, 0, 0));
    T(syscall(SYS_clone, CLONE_FS|CLONE_NEWNS|SIGCHLD, 0, 0, 0, 0));
    T(syscall(SYS_clone, CLONE_PIDFD|CLONE_PARENT_SETTID|SIGCHLD, 0, 0, 0, 0));
    T(syscall(SYS_clone, CLONE_PIDFD|CLONE_DETACHED|SIGCHLD, 0, &st, 0, 0));
    p = clone(answer, stack + sizeof stack, SIGCHLD, (void *)33);
    T(waitpid(p, &st, 0) == p);
    W(st);
    p = clone(answer, stack + sizeof stack, 0, (void *)33);
    T(waitpid(p, &st, 0));
    T(waitpid(p, &st, __WALL) == p);
    W(st);
    signal(SIGUSR2, SIG_IGN);
    p = clone(answer, stack + sizeof stack, SIGUSR2, (void *)34);
    T(waitpid(p, &st, 0));
    T(waitpid(p, &st, __WCLONE) == p);
    W(st);
    p = clone(answer, stack + sizeof stack, CLONE_VM|SIGCHLD, (void *)35);
    T(waitpid(p, &st, 0) == p);
    W(st);
    fflush(stdout);
    /* CLONE_PARENT: the grandchild is the child */
    int made[2];
    pipe(made);
    st = CHILD(p = clone(parent_of, stack + sizeof stack, CLONE_PARENT|SIGCHLD, (void *)(long)me); write(made[1], &p, 4); _exit(p > 0 ? 0 : 1));
    W(st);
    if (st == 0) {
        read(made[0], &p, 4);
        T(waitpid(p, &st, 0) == p);
        W(st);
    }
    int tid = -1;
    p = syscall(SYS_clone, CLONE_PARENT_SETTID|SIGCHLD, 0, &tid, 0, 0);
    if (!p) _exit(tid == getpid() ? 0 : 1);
    T(tid == p);
    waitpid(p, &st, 0);
    W(st);
    volatile int *cell = mmap(0, 4096, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    p = syscall(SYS_clone, CLONE_CHILD_SETTID|SIGCHLD, 0, 0, cell, 0);
    if (!p) _exit(*cell == getpid() ? 0 : 1);
    waitpid(p, &st, 0);
    W(st);
    T(*cell == p);
    p = syscall(SYS_clone, CLONE_CHILD_SETTID|CLONE_CHILD_CLEARTID|SIGCHLD, 0, 0, cell, 0);
    if (!p) _exit(*cell == getpid() ? 0 : 1);
    waitpid(p, &st, 0);
    W(st);
    T(*cell == p);
    /* clone3 */
    struct clone_args ca = {0};
    T(syscall(SYS_clone3, &ca, 8));
    T(syscall(SYS_clone3, &ca, 63));
    T(syscall(SYS_clone3, 8, 64));
    T(syscall(SYS_clone3, &ca, 8192));
    struct { struct clone_args a; long more; } longer = {{0}, 1};
    T(syscall(SYS_clone3, &longer, sizeof longer));
    ca.exit_signal = 200;
    T(clone3(&ca));
    ca.exit_signal = 65;
    T(clone3(&ca));
    ca.exit_signal = SIGCHLD;
    p = clone3(&ca);
    T(waitpid(p, &st, 0) == p);
    W(st);
    ca.stack = (long)stack;
    T(clone3(&ca));
    ca.stack = 0;
    ca.stack_size = 4096;
    T(clone3(&ca));
    ca.stack_size = 0;
    ca.flags = CLONE_DETACHED;
    T(clone3(&ca));
    ca.flags = SIGCHLD;
    T(clone3(&ca));
    ca.flags = CLONE_THREAD|CLONE_SIGHAND|CLONE_VM;
    T(clone3(&ca));
    ca.flags = CLONE_SIGHAND|CLONE_CLEAR_SIGHAND|CLONE_VM;
    T(clone3(&ca));
    ca.flags = 1ull << 40;
    T(clone3(&ca));
    struct sigaction act = {.sa_handler = on}, now;
    sigaction(SIGUSR1, &act, 0);
    signal(SIGHUP, SIG_IGN);
    ca.flags = CLONE_CLEAR_SIGHAND;
    p = syscall(SYS_clone3, &ca, sizeof ca);
    if (!p) {
        sigaction(SIGUSR1, 0, &now);
        int reset = now.sa_handler == SIG_DFL;
        sigaction(SIGHUP, 0, &now);
        _exit(reset * 2 + (now.sa_handler == SIG_IGN));
    }
    T(waitpid(p, &st, 0) == p);
    W(st);
    ca.flags = 0;
    pid_t wanted[2] = {1, 1};
    ca.set_tid = (long)wanted;
    T(clone3(&ca));
    ca.set_tid_size = 1;
    T(clone3(&ca));
    wanted[0] = 0;
    T(clone3(&ca));
    wanted[0] = -5;
    T(clone3(&ca));
    ca.set_tid_size = 100;
    T(clone3(&ca));
    ca.set_tid_size = 1;
    wanted[0] = 31234;
    T(clone3(&ca));
    T(waitpid(31234, &st, 0));
    ca.set_tid = 8;
    T(clone3(&ca));
    ca.set_tid = 0;
    T(clone3(&ca));
    ca.set_tid_size = 0;
    /* threads */
    pthread_t t[8];
    void *value;
    pthread_create(t, 0, tid_, 0);
    T(pthread_join(t[0], &value));
    T(value);
    by_thread();
    pthread_create(t, 0, forks, 0);
    pthread_join(t[0], &value);
    W((long)value);
    pthread_mutex_t mutex;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex, &attr);
    pthread_create(t, 0, holds, &mutex);
    pthread_join(t[0], 0);
    N("lock of a dead thread", EOWNERDEAD, pthread_mutex_lock(&mutex));
    pthread_mutex_consistent(&mutex);
    T(pthread_mutex_unlock(&mutex));
    pthread_mutex_t *across = mmap(0, 4096, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(across, &attr);
    W(CHILD(pthread_mutex_lock(across)));
    T(pthread_mutex_lock(across));
    pthread_mutex_consistent(across);
    T(pthread_mutex_unlock(across));
    W(CHILD(pthread_mutex_lock(across); kill(getpid(), SIGKILL)));
    T(pthread_mutex_lock(across));
    pthread_create(t, 0, sleeper, 0);
    T(pthread_cancel(t[0]));
    pthread_join(t[0], &value);
    T(value == PTHREAD_CANCELED);
    W(CHILD(pthread_create(t, 0, sleeper, 0); exit(21)));
    W(CHILD(pthread_create(t, 0, sleeper, 0); pthread_create(t, 0, sleeper, 0); execl("/bin/true", "true", (char *)0)));
    W(CHILD(pthread_create(t, 0, sleeper, 0); kill(getpid(), SIGTERM); pause()));
    fflush(stdout);
    p = fork();
    if (!p) {
        pthread_create(t, 0, sleeper, 0);
        write(made[1], "x", 1);
        syscall(SYS_exit, 5);
    }
    char c;
    read(made[0], &c, 1);
    usleep(20000);
    T(waitpid(p, &st, WNOHANG));
    T(kill(p, 0));
    kill(p, SIGTERM);
    waitpid(p, &st, 0);
    W(st);
    W(CHILD(syscall(SYS_exit, 256 + 7)));
    W(CHILD(syscall(SYS_exit_group, -1)));
    /* orphans and who takes them */
    T(prctl(PR_SET_CHILD_SUBREAPER, 1));
    int is = 0;
    T(prctl(PR_GET_CHILD_SUBREAPER, &is));
    T(is);
    W(CHILD(if (!fork()) { while (getppid() != me) sched_yield(); _exit(11); }));
    T(wait(&st) > 0);
    W(st);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    T(wait(&st));
    /* prctl */
    T(prctl(PR_SET_NAME, "averyveryverylongname"));
    char name[16];
    T(prctl(PR_GET_NAME, name));
    S(name);
    T(prctl(PR_SET_NAME, 8));
    T(prctl(PR_GET_NAME, 8));
    T(prctl(9999, 0, 0, 0, 0));
    T(prctl(PR_GET_DUMPABLE));
    T(prctl(PR_SET_DUMPABLE, 0));
    T(prctl(PR_GET_DUMPABLE));
    W(CHILD(prctl(PR_SET_DUMPABLE, 0); struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY}; setrlimit(RLIMIT_CORE, &r); abort()));
    T(WCOREDUMP(CHILD(prctl(PR_SET_DUMPABLE, 0); abort())));
    T(prctl(PR_SET_DUMPABLE, 1));
    T(prctl(PR_SET_DUMPABLE, 2));
    T(prctl(PR_SET_DUMPABLE, 5));
    dump_filter();
    map_files();
    if (getuid() == 0) {
        W(CHILD(setresuid(7, 7, 7); _exit(prctl(PR_GET_DUMPABLE))));
        W(CHILD(setresuid(7, 7, 7); prctl(PR_SET_DUMPABLE, 1); _exit(prctl(PR_GET_DUMPABLE))));
        W(CHILD(setresuid(7, 0, 0); _exit(prctl(PR_GET_DUMPABLE))));
        W(CHILD(setresgid(7, 7, 7); _exit(prctl(PR_GET_DUMPABLE))));
        W(CHILD(setfsuid(7); _exit(prctl(PR_GET_DUMPABLE))));
    }
    T(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    int sig = 0;
    T(prctl(PR_GET_PDEATHSIG, &sig));
    T(sig);
    W(CHILD(sig = 7; prctl(PR_GET_PDEATHSIG, &sig); _exit(sig)));
    /* kept by exec, gone with a change of who one is */
    T(prctl(PR_GET_PDEATHSIG, &sig));
    W(CHILD(prctl(PR_SET_PDEATHSIG, SIGUSR2); execl("/proc/self/exe", "process", "death signal", (char *)0)));
    W(CHILD(prctl(PR_SET_PDEATHSIG, SIGUSR2); setresuid(-1, 5, -1); prctl(PR_GET_PDEATHSIG, &sig); _exit(sig)));
    W(CHILD(prctl(PR_SET_PDEATHSIG, SIGUSR2); setresgid(-1, 5, -1); prctl(PR_GET_PDEATHSIG, &sig); _exit(sig)));
    W(CHILD(prctl(PR_SET_PDEATHSIG, SIGUSR2); setfsuid(5); prctl(PR_GET_PDEATHSIG, &sig); _exit(sig)));
    T(prctl(PR_SET_PDEATHSIG, 99));
    T(prctl(PR_SET_PDEATHSIG, 0));
    T(prctl(PR_GET_PDEATHSIG, 8));
    T(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    T(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    T(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0));
    T(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0));
    W(CHILD(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); T(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)); W(CHILD(_exit(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))))));
    T(prctl(PR_GET_KEEPCAPS));
    T(prctl(PR_SET_KEEPCAPS, 2));
    T(prctl(PR_SET_KEEPCAPS, 1));
    T(prctl(PR_GET_KEEPCAPS));
    T(prctl(PR_SET_KEEPCAPS, 0));
    T(prctl(PR_GET_SECUREBITS));
    T(prctl(PR_GET_TIMERSLACK));
    T(prctl(PR_SET_TIMERSLACK, 70000));
    T(prctl(PR_GET_TIMERSLACK));
    T(prctl(PR_SET_TIMERSLACK, 0));
    T(prctl(PR_GET_TIMERSLACK));
    T(prctl(PR_GET_TIMING));
    T(prctl(PR_SET_TIMING, PR_TIMING_STATISTICAL));
    T(prctl(PR_SET_TIMING, PR_TIMING_TIMESTAMP));
    int tsc = 0;
    T(prctl(PR_GET_TSC, &tsc));
    T(tsc);
    T(prctl(PR_GET_SECCOMP));
    T(prctl(PR_CAPBSET_READ, 0));
    T(prctl(PR_CAPBSET_READ, 200));
    T(prctl(PR_CAPBSET_DROP, 200));
    T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 0, 0, 0));
    T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    T(prctl(PR_CAP_AMBIENT, 99, 0, 0, 0));
    T(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    T(prctl(PR_SET_UNALIGN, 0));
    T(prctl(PR_SET_FPEMU, 0));
    T(prctl(PR_SET_ENDIAN, 0));
    T(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    T(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    T(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    T(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
    T(prctl(PR_SET_THP_DISABLE, 0, 1, 0, 0));
    void *cleared = &cleared;
    T(prctl(PR_GET_TID_ADDRESS, &cleared));
    T(prctl(PR_TASK_PERF_EVENTS_DISABLE));
    T(prctl(PR_TASK_PERF_EVENTS_ENABLE));
    T(prctl(PR_SET_MM, PR_SET_MM_BRK, 0, 0, 1));
    T(prctl(PR_SET_PTRACER, 0));
    T(prctl(PR_SET_VMA, 5, 0, 0, 0));
    /* arch_prctl */
    T(syscall(SYS_arch_prctl, ARCH_SET_FS, 0x8000000000000000));
    T(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x8000000000000000));
    T(syscall(SYS_arch_prctl, ARCH_GET_FS, 8));
    T(syscall(SYS_arch_prctl, 0x9999, 0));
    long base = 0;
    T(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x12345000));
    T(syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
    T(base);
    T(syscall(SYS_arch_prctl, ARCH_SET_GS, 0));
    T(syscall(SYS_arch_prctl, ARCH_GET_CPUID));
    /* personality */
    T(personality(0xffffffff));
    T(personality(ADDR_NO_RANDOMIZE));
    T(personality(0xffffffff));
    W(CHILD(_exit(personality(0xffffffff) >> 16)));
    T(personality(PER_LINUX));
    W(CHILD(T(personality(PER_LINUX32)); struct utsname u; uname(&u); S(u.machine)));
    W(CHILD(T(personality(READ_IMPLIES_EXEC)); T(personality(0xffffffff))));
    W(CHILD(T(personality(PER_BSD)); T(personality(0xffffffff))));
    W(CHILD(T(personality(UNAME26)); T(personality(0xffffffff))));
    /* robust lists, tid address */
    T(syscall(SYS_set_robust_list, 0, 3));
    T(syscall(SYS_set_robust_list, 8, 24));
    void *head;
    size_t len;
    T(syscall(SYS_get_robust_list, 0, &head, &len));
    T((long)head);
    T(len);
    T(syscall(SYS_get_robust_list, 999999, &head, &len));
    T(syscall(SYS_get_robust_list, 0, 8, &len));
    T(syscall(SYS_set_robust_list, 0, 24));
    T(syscall(SYS_set_tid_address, 0) == me);
    /* rseq */
    T(syscall(SYS_rseq, 0, 0, 0, 0));
    T(syscall(SYS_rseq, &st, 32, 9, 0));
    sequences();
    /* times */
    struct tms tm;
    T(times(&tm) > 0);
    T(syscall(SYS_times, 8));
    T(tm.tms_cutime >= 0);
    struct rusage ru;
    T(getrusage(RUSAGE_SELF, &ru));
    T(ru.ru_maxrss > 0);
    T(ru.ru_minflt > 0);
    T(ru.ru_nvcsw > 0);
    T(ru.ru_ixrss + ru.ru_idrss + ru.ru_isrss + ru.ru_nswap + ru.ru_msgsnd + ru.ru_msgrcv + ru.ru_nsignals);
    T(getrusage(RUSAGE_CHILDREN, &ru));
    T(ru.ru_maxrss > 0);
    T(ru.ru_minflt > 0);
    /* others' namespaces and the rest */
    T(syscall(SYS_kcmp, me, me, 1, 0, 0));
    T(syscall(SYS_unshare, 0));
    T(syscall(SYS_unshare, CLONE_FILES));
    T(syscall(SYS_unshare, CLONE_FS));
    T(syscall(SYS_unshare, 1));
    T(syscall(SYS_setns, -1, 0));
    T(syscall(SYS_seccomp, 99, 0, 0));
    return 0;
}

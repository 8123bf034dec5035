/* Signals: sending, blocking, taking, stacks, frames, and what faults become. */
#include "check.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <ucontext.h>

static volatile siginfo_t last;
static volatile int hits, onalt;
static char *alt;
static sigjmp_buf jump;
static int order[64], many;

static void note(int s, siginfo_t *i, void *u) {
    memcpy((void *)&last, i, sizeof *i);
    hits++;
}
static void leap(int s, siginfo_t *i, void *u) {
    note(s, i, u);
    siglongjmp(jump, 1);
}
static void inorder(int s, siginfo_t *i, void *u) {
    order[many++] = s * 1000 + i->si_value.sival_int;
}
static void plain(int s) {
    hits++;
}
/* Whoever waits hears of the second. */
static int met[2];
static void counted(int s) {
    if (++hits == 2) write(met[1], "x", 1);
}
static void again(int s) {
    if (++hits < 3) raise(s);
}
static void masked(int s) {
    sigset_t m;
    sigprocmask(0, 0, &m);
    hits = sigismember(&m, SIGUSR1) * 4 + sigismember(&m, SIGUSR2) * 2 + sigismember(&m, SIGHUP);
}
static void onstack(int s, siginfo_t *i, void *u) {
    char here;
    stack_t st;
    onalt = &here > alt && &here < alt + 65536;
    sigaltstack(0, &st);
    T(st.ss_flags);
    T(((ucontext_t *)u)->uc_stack.ss_flags);
    st.ss_flags = SS_DISABLE;
    T(sigaltstack(&st, 0));
}
static void skip(int s, siginfo_t *i, void *u) {
    ucontext_t *c = u;
    c->uc_mcontext.gregs[REG_RIP] += 2;
    c->uc_mcontext.gregs[REG_RAX] = 4242;
}
static void spoilsse(int s) {
    __asm__ volatile("pxor %%xmm0,%%xmm0; pxor %%xmm5,%%xmm5; pxor %%xmm15,%%xmm15; fninit" ::: "xmm0", "xmm5", "xmm15");
}
static void maskmore(int s, siginfo_t *i, void *u) {
    sigaddset(&((ucontext_t *)u)->uc_sigmask, SIGUSR2);
}
static int deep(int n) {
    volatile char b[4096];
    b[0] = n;
    return n == -1 ? 0 : deep(n + 1) + b[0];
}
static void set(int s, void (*f)(int, siginfo_t *, void *), int flags) {
    struct sigaction a = {0};
    a.sa_sigaction = f;
    a.sa_flags = SA_SIGINFO|flags;
    sigaction(s, &a, 0);
}
static void nocore(void) {
    struct rlimit l = {0, 0};
    setrlimit(RLIMIT_CORE, &l);
}
#define FAULT(name, ...) do { last.si_signo = last.si_code = 0; if (!sigsetjmp(jump, 1)) { __VA_ARGS__; } \
        N(name " signal", 0, last.si_signo); N(name " code", 0, last.si_code); } while (0)
static void *wait_usr1(void *set) {
    int s = 0;
    sigwait(set, &s);
    return (void *)(long)s;
}

int main(void) {
    int st, sig;
    pid_t p, me = getpid();
    sigset_t s, o, pend;
    siginfo_t si;
    struct timespec ts = {0, 20000000};
    char *page = mmap(0, 8192, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
    nocore();
    /* errors */
    T(kill(me, 0));
    T(kill(me, 65));
    T(kill(me, -1));
    T(kill(999999, 0));
    T(kill(-999999, 0));
    T(kill(0x80000000, 0));
    T(syscall(SYS_tgkill, me, 0, 1));
    T(syscall(SYS_tgkill, 0, me, 1));
    T(syscall(SYS_tgkill, -1, me, 1));
    T(syscall(SYS_tgkill, me, me, 65));
    T(syscall(SYS_tgkill, me, me, 0));
    T(syscall(SYS_tgkill, 1, me, 0));
    T(syscall(SYS_tgkill, me, 999999, 0));
    T(syscall(SYS_tkill, -1, 1));
    T(syscall(SYS_tkill, 0, 1));
    T(syscall(SYS_tkill, me, 0));
    T(syscall(SYS_tkill, 999999, 0));
    struct sigaction act = {0};
    T(sigaction(SIGKILL, &act, 0));
    T(sigaction(SIGSTOP, &act, 0));
    T(sigaction(SIGKILL, 0, &act));
    T(sigaction(65, 0, &act));
    T(syscall(SYS_rt_sigaction, 0, 0, 0, 8));
    T(syscall(SYS_rt_sigaction, 1, 0, 0, 4));
    T(syscall(SYS_rt_sigaction, 1, 8, 0, 8));
    T(syscall(SYS_rt_sigaction, 1, 0, 8, 8));
    T(syscall(SYS_rt_sigaction, 32, 0, &act, 8));
    T(syscall(SYS_rt_sigprocmask, 9, &s, 0, 8));
    T(syscall(SYS_rt_sigprocmask, 9, 0, &s, 8));
    T(syscall(SYS_rt_sigprocmask, 0, 8, 0, 8));
    T(syscall(SYS_rt_sigprocmask, 0, 0, 8, 8));
    T(syscall(SYS_rt_sigprocmask, 0, 0, &s, 16));
    T(syscall(SYS_rt_sigpending, &s, 16));
    T(syscall(SYS_rt_sigpending, &s, 4));
    T(syscall(SYS_rt_sigpending, 8, 8));
    T(syscall(SYS_rt_sigsuspend, &s, 4));
    T(syscall(SYS_rt_sigsuspend, 8, 8));
    T(syscall(SYS_rt_sigtimedwait, 8, 0, 0, 8));
    T(syscall(SYS_rt_sigtimedwait, &s, 0, 0, 4));
    T(syscall(SYS_rt_sigtimedwait, &s, 0, 8, 8));
    memset(&si, 0, sizeof si);
    T(syscall(SYS_rt_sigqueueinfo, me, SIGURG, &si));
    si.si_code = 5;
    T(syscall(SYS_rt_sigqueueinfo, me, SIGURG, &si));
    p = fork();
    if (!p) for (;;) pause();
    T(syscall(SYS_rt_sigqueueinfo, p, SIGURG, &si));
    si.si_code = SI_TKILL;
    T(syscall(SYS_rt_sigqueueinfo, p, SIGURG, &si));
    si.si_code = SI_QUEUE;
    T(syscall(SYS_rt_sigqueueinfo, p, 0, &si));
    kill(p, SIGKILL);
    waitpid(p, 0, 0);
    T(syscall(SYS_rt_sigqueueinfo, me, 65, &si));
    T(syscall(SYS_rt_sigqueueinfo, 999999, SIGURG, &si));
    T(syscall(SYS_rt_sigqueueinfo, me, SIGURG, 8));
    T(syscall(SYS_rt_tgsigqueueinfo, me, me, SIGURG, &si));
    T(syscall(SYS_rt_tgsigqueueinfo, -1, me, SIGURG, &si));
    T(syscall(SYS_rt_tgsigqueueinfo, me, 999999, SIGURG, &si));
    /* faults */
    set(SIGSEGV, leap, 0);
    set(SIGBUS, leap, 0);
    set(SIGFPE, leap, 0);
    set(SIGILL, leap, 0);
    set(SIGTRAP, leap, 0);
    FAULT("null", *(volatile int *)8 = 1);
    T((long)last.si_addr);
    FAULT("read only", page[5] = 1);
    T((char *)last.si_addr - page);
    FAULT("kernel", *(volatile int *)0xffffffff80000000ul = 1);
    T((long)last.si_addr);
    FAULT("not canonical", *(volatile int *)0x8000000000000000ul = 1);
    T((long)last.si_addr);
    FAULT("no execution", ((void (*)(void))page)());
    T((char *)last.si_addr - page);
    volatile int zero = 0, quotient;
    FAULT("division", quotient = 1 / zero);
    FAULT("overflowing division", __asm__ volatile("mov $1,%%edx; xor %%eax,%%eax; mov $1,%%ecx; div %%ecx" ::: "rax", "rcx", "rdx"));
    FAULT("ud2", __asm__ volatile("ud2"));
    FAULT("int3", __asm__ volatile("int3"));
    FAULT("hlt", __asm__ volatile("hlt"));
    FAULT("cli", __asm__ volatile("cli"));
    FAULT("int 0x81", __asm__ volatile("int $0x81"));
    FAULT("inb", __asm__ volatile("inb $0x60, %%al" ::: "rax"));
    FAULT("mov cr3", __asm__ volatile("mov %%cr3, %%rax" ::: "rax"));
    FAULT("wrmsr", __asm__ volatile("wrmsr" :: "a"(0), "d"(0), "c"(0x10)));
    FAULT("single step", __asm__ volatile("pushf; orl $0x100,(%%rsp); popf; nop; nop" ::: "memory", "cc"));
    __asm__ volatile("pushf; andl $~0x100,(%%rsp); popf" ::: "memory", "cc");
    unsigned short cw = 0x37f & ~4;
    FAULT("x87", __asm__ volatile("fldcw %0; fldz; fld1; fdivp; fwait" :: "m"(cw)));
    __asm__ volatile("fninit");
    FAULT("unaligned sse", __asm__ volatile("movaps 1(%0), %%xmm0" :: "r"(page) : "xmm0"));
    int fd = open("file", O_RDWR|O_CREAT, 0600);
    char *past = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    FAULT("past the end", (void)*(volatile char *)past);
    T((char *)last.si_addr - past);
    /* stacks */
    stack_t ss = {alt = malloc(65536), 0, 65536}, old;
    T(sigaltstack(0, &old));
    T(old.ss_flags);
    T(sigaltstack(&ss, 0));
    set(SIGUSR1, onstack, SA_ONSTACK);
    raise(SIGUSR1);
    T(onalt);
    set(SIGSEGV, leap, SA_ONSTACK);
    FAULT("overflow", deep(0));
    ss.ss_size = 100;
    T(sigaltstack(&ss, 0));
    ss.ss_size = 2048;
    T(sigaltstack(&ss, 0));
    ss.ss_size = 65536;
    ss.ss_flags = 77;
    T(sigaltstack(&ss, 0));
    ss.ss_flags = SS_ONSTACK;
    T(sigaltstack(&ss, 0));
    ss.ss_flags = 1u << 31;
    T(sigaltstack(&ss, &old));
    set(SIGUSR1, note, SA_ONSTACK);
    raise(SIGUSR1);
    T(sigaltstack(0, &old));
    N("autodisarm came back", 0, old.ss_flags == (int)(1u << 31));
    ss.ss_flags = SS_DISABLE;
    T(sigaltstack(&ss, 0));
    T(sigaltstack(0, &old));
    T(old.ss_flags);
    T(syscall(SYS_sigaltstack, 8, 0));
    T(syscall(SYS_sigaltstack, 0, 8));
    W(CHILD(nocore(); stack_t s = {(void *)16, 0, 65536}; sigaltstack(&s, 0); set(SIGUSR1, note, SA_ONSTACK); raise(SIGUSR1)));
    /* frames */
    set(SIGILL, skip, 0);
    long rax;
    __asm__ volatile("mov $1,%%rax; ud2; mov %%rax,%0" : "=r"(rax) :: "rax");
    T(rax);
    signal(SIGUSR1, spoilsse);
    double in = 3.25, out;
    long r;
    __asm__ volatile("movsd %2,%%xmm5; movsd %2,%%xmm15; mov $39,%%eax; syscall; mov %%eax,%%edi; mov $10,%%esi; mov $62,%%eax; syscall; addsd %%xmm15,%%xmm5; movsd %%xmm5,%0"
                     : "=m"(out), "=&a"(r) : "m"(in) : "xmm5", "xmm15", "rdi", "rsi", "rcx", "r11", "memory");
    T(out * 100);
    set(SIGUSR1, maskmore, 0);
    raise(SIGUSR1);
    sigprocmask(0, 0, &s);
    T(sigismember(&s, SIGUSR2));
    sigemptyset(&s);
    sigprocmask(SIG_SETMASK, &s, 0);
    W(CHILD(nocore(); signal(SIGSEGV, SIG_DFL); __asm__ volatile("mov $0x10,%rsp; mov $15,%eax; syscall")));
    W(CHILD(nocore(); signal(SIGSEGV, SIG_DFL); static char f[4096] __attribute__((aligned(64))); memset(f, 0xff, sizeof f); __asm__ volatile("mov %0,%%rsp; mov $15,%%eax; syscall" :: "r"(f + 1024))));
    W(CHILD(nocore(); sigfillset(&s); sigprocmask(SIG_SETMASK, &s, 0); *(volatile int *)0 = 0));
    W(CHILD(nocore(); signal(SIGSEGV, SIG_IGN); *(volatile int *)0 = 0));
    W(CHILD(nocore(); signal(SIGSEGV, SIG_DFL); __asm__ volatile("mov $16,%rsp; push %rax")));
    W(CHILD(nocore(); signal(SIGSEGV, plain); __asm__ volatile("mov $16,%rsp; push %rax")));
    /* masks and order */
    sigemptyset(&s);
    sigaddset(&s, SIGUSR1);
    sigaddset(&s, SIGUSR2);
    sigaddset(&s, SIGRTMIN);
    sigaddset(&s, SIGRTMIN + 1);
    sigaddset(&s, SIGKILL);
    sigaddset(&s, SIGSTOP);
    T(sigprocmask(SIG_BLOCK, &s, &o));
    T(sigprocmask(SIG_BLOCK, 0, &pend));
    T(sigismember(&pend, SIGKILL));
    T(sigismember(&pend, SIGSTOP));
    T(sigismember(&pend, SIGUSR1));
    set(SIGUSR1, inorder, 0);
    set(SIGUSR2, inorder, 0);
    set(SIGRTMIN, inorder, 0);
    set(SIGRTMIN + 1, inorder, 0);
    union sigval v;
    for (int i = 3; i > 0; i--) {
        v.sival_int = i;
        sigqueue(me, SIGRTMIN + 1, v);
        sigqueue(me, SIGRTMIN, v);
        sigqueue(me, SIGUSR2, v);
    }
    v.sival_int = 9;
    sigqueue(me, SIGUSR1, v);
    T(sigpending(&pend));
    T(sigismember(&pend, SIGUSR1));
    T(sigismember(&pend, SIGRTMIN));
    T(sigismember(&pend, SIGHUP));
    W(CHILD(sigpending(&pend); _exit(sigismember(&pend, SIGUSR1))));
    sigprocmask(SIG_SETMASK, &o, 0);
    T(many);
    for (int i = 0; i < many; i++) N("delivered", i, order[i]);
    hits = 0;
    struct sigaction a = {.sa_handler = again, .sa_flags = SA_NODEFER};
    sigaction(SIGUSR1, &a, 0);
    raise(SIGUSR1);
    T(hits);
    hits = 0;
    a.sa_flags = 0;
    sigaction(SIGUSR1, &a, 0);
    raise(SIGUSR1);
    T(hits);
    a.sa_handler = masked;
    sigaddset(&a.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &a, 0);
    raise(SIGUSR1);
    T(hits);
    a.sa_flags = SA_NODEFER;
    sigaction(SIGUSR1, &a, 0);
    raise(SIGUSR1);
    T(hits);
    set(SIGUSR1, note, SA_RESETHAND);
    raise(SIGUSR1);
    sigaction(SIGUSR1, 0, &act);
    T(act.sa_handler == SIG_DFL);
    T(act.sa_flags & ~0x04000000);
    T(last.si_signo);
    T(last.si_code);
    T(last.si_pid == me);
    T(last.si_uid == getuid());
    set(SIGUSR1, note, 0);
    kill(me, SIGUSR1);
    T(last.si_code);
    v.sival_int = 77;
    sigqueue(me, SIGUSR1, v);
    T(last.si_code);
    T(last.si_value.sival_int);
    act.sa_flags = 0x400 | 0x80;
    act.sa_handler = plain;
    T(sigaction(SIGUSR2, &act, 0));
    T(sigaction(SIGUSR2, 0, &act));
    T(act.sa_flags & ~0x04000000);
    sigset_t all;
    sigfillset(&all);
    act.sa_mask = all;
    sigaction(SIGUSR2, &act, 0);
    sigaction(SIGUSR2, 0, &act);
    T(sigismember(&act.sa_mask, SIGKILL));
    T(sigismember(&act.sa_mask, SIGHUP));
    /* taking */
    sigemptyset(&s);
    sigaddset(&s, SIGUSR1);
    sigaddset(&s, SIGCHLD);
    sigaddset(&s, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &s, 0);
    T(sigtimedwait(&s, &si, &ts));
    ts.tv_nsec = 0;
    T(sigtimedwait(&s, &si, &ts));
    ts.tv_nsec = 2000000000;
    T(sigtimedwait(&s, &si, &ts));
    ts.tv_nsec = -1;
    T(sigtimedwait(&s, &si, &ts));
    ts = (struct timespec){5, 0};
    kill(me, SIGUSR1);
    T(sigtimedwait(&s, &si, &ts));
    T(si.si_code);
    kill(me, SIGUSR1);
    T(sigtimedwait(&s, &si, &(struct timespec){INT64_MAX, 0}));
    kill(me, SIGUSR1);
    T(sigtimedwait(&s, &si, &(struct timespec){-1, 0}));
    T(sigtimedwait(&s, &si, &ts));
    v.sival_int = 5;
    sigqueue(me, SIGRTMIN, v);
    raise(SIGUSR1);
    T(sigtimedwait(&s, &si, &ts));
    T(sigwaitinfo(&s, &si));
    T(si.si_value.sival_int);
    T(CHILD(_exit(9)) == 9 << 8);
    T(sigtimedwait(&s, &si, &ts));
    T(si.si_code);
    T(si.si_status);
    p = fork();
    if (!p) pause();
    kill(p, SIGKILL);
    T(sigwaitinfo(&s, &si));
    T(si.si_code);
    T(si.si_status);
    T(si.si_pid == p);
    waitpid(p, 0, 0);
    pthread_t t;
    void *value;
    pthread_create(&t, 0, wait_usr1, &s);
    pthread_kill(t, SIGUSR1);
    pthread_join(t, &value);
    T((long)value);
    raise(SIGUSR1);
    T(sigwait(&s, &sig));
    T(sig);
    sigprocmask(SIG_UNBLOCK, &s, 0);
    /* interrupted calls */
    int pipes[2];
    char c;
    pipe(pipes);
    /* Again and again, so that one comes while a call waits, however late that begins. */
    struct itimerval it = {{0, 30000}, {0, 30000}};
    act = (struct sigaction){.sa_handler = counted, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &act, 0);
    pipe(met);
    hits = 0;
    fflush(stdout);
    p = fork();
    if (!p) {
        read(met[0], &c, 1);
        write(pipes[1], "x", 1);
        read(met[0], &c, 1);
        _exit(0);
    }
    setitimer(ITIMER_REAL, &it, 0);
    T(read(pipes[0], &c, 1));
    T(hits >= 2);
    hits = 0;
    T(waitpid(p, 0, 0) == p);
    act.sa_handler = plain;
    sigaction(SIGALRM, &act, 0);
    setitimer(ITIMER_REAL, &it, 0);
    ts = (struct timespec){20, 0};
    struct timespec rem = {0};
    T(nanosleep(&ts, &rem));
    T(rem.tv_sec >= 5 && rem.tv_sec < 20);
    setitimer(ITIMER_REAL, &it, 0);
    T(pause());
    setitimer(ITIMER_REAL, &it, 0);
    T(sigtimedwait(&s, &si, &ts));
    struct pollfd pf = {pipes[0], POLLIN};
    setitimer(ITIMER_REAL, &it, 0);
    T(poll(&pf, 1, 20000));
    setitimer(ITIMER_REAL, &it, 0);
    T(syscall(SYS_futex, &hits, FUTEX_WAIT, 0, 0) == 99);
    act.sa_flags = 0;
    sigaction(SIGALRM, &act, 0);
    setitimer(ITIMER_REAL, &it, 0);
    T(read(pipes[0], &c, 1));
    p = fork();
    if (!p) {
        pause();
    }
    setitimer(ITIMER_REAL, &it, 0);
    T(waitpid(p, &st, 0));
    kill(p, 9);
    waitpid(p, 0, 0);
    sigemptyset(&s);
    sigaddset(&s, SIGALRM);
    sigprocmask(SIG_BLOCK, &s, &o);
    setitimer(ITIMER_REAL, &it, 0);
    hits = 0;
    sigfillset(&s);
    sigdelset(&s, SIGALRM);
    T(sigsuspend(&s));
    T(hits);
    it = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &it, 0);
    sigprocmask(SIG_SETMASK, &o, &pend);
    T(sigismember(&pend, SIGALRM));
    T(sigismember(&pend, SIGUSR1));
    /* stopping and going on */
    int go[2];
    pipe(go);
    fflush(stdout);
    p = fork();
    if (!p) {
        raise(SIGSTOP);
        read(go[0], &c, 1);
        _exit(5);
    }
    T(waitpid(p, &st, WUNTRACED) == p);
    W(st);
    T(waitpid(p, &st, WUNTRACED|WNOHANG));
    kill(p, SIGCONT);
    T(waitpid(p, &st, WCONTINUED) == p);
    W(st);
    write(go[1], "g", 1);
    T(waitpid(p, &st, 0) == p);
    W(st);
    int stops[] = {SIGTSTP, SIGTTIN, SIGTTOU};
    for (int i = 0; i < 3; i++) {
        p = fork();
        if (!p) {
            setpgid(0, 0);
            raise(stops[i]);
            _exit(5);
        }
        T(waitpid(p, &st, WUNTRACED) == p);
        W(st);
        kill(p, SIGCONT);
        T(waitpid(p, &st, 0) == p);
        W(st);
    }
    fflush(stdout);
    p = fork();
    if (!p) {
        for (;;) pause();
    }
    kill(p, SIGSTOP);
    waitpid(p, &st, WUNTRACED);
    kill(p, SIGTERM);
    T(waitpid(p, &st, WNOHANG));
    kill(p, SIGCONT);
    waitpid(p, &st, 0);
    W(st);
    fflush(stdout);
    p = fork();
    if (!p) {
        for (;;) pause();
    }
    kill(p, SIGSTOP);
    waitpid(p, &st, WUNTRACED);
    kill(p, SIGKILL);
    waitpid(p, &st, 0);
    W(st);
    /* dying */
    int deaths[] = {SIGSEGV, SIGABRT, SIGKILL, SIGHUP, SIGUSR1, SIGPIPE, SIGXCPU, SIGXFSZ, SIGSYS, SIGPWR, SIGIO, SIGVTALRM, SIGSTKFLT, SIGRTMIN, SIGRTMAX};
    for (int i = 0; i < 15; i++) {
        st = CHILD(nocore(); signal(deaths[i], SIG_DFL); raise(deaths[i]); _exit(1));
        W(st);
    }
    int harmless[] = {SIGCHLD, SIGURG, SIGWINCH, SIGCONT};
    for (int i = 0; i < 4; i++) {
        signal(harmless[i], SIG_DFL);
        N("survived", harmless[i], raise(harmless[i]));
    }
    signal(SIGPIPE, SIG_IGN);
    close(pipes[0]);
    T(write(pipes[1], "x", 1));
    signal(SIGPIPE, SIG_DFL);
    W(CHILD(write(pipes[1], "x", 1)));
    /* a group */
    fflush(stdout);
    p = fork();
    if (!p) {
        setpgid(0, 0);
        if (!fork()) for (;;) pause();
        kill(0, SIGTERM);
        _exit(1);
    }
    T(waitpid(p, &st, 0) == p);
    W(st);
    T(kill(-p, 0) == 0 || errno == ESRCH);
    /* no zombies */
    signal(SIGCHLD, SIG_IGN);
    p = fork();
    if (!p) _exit(1);
    T(waitpid(p, &st, 0));
    act = (struct sigaction){.sa_handler = plain, .sa_flags = SA_NOCLDWAIT};
    hits = 0;
    sigaction(SIGCHLD, &act, 0);
    p = fork();
    if (!p) _exit(1);
    do r = waitpid(p, &st, 0);
    while (r < 0 && errno == EINTR);
    T(r);
    T(hits);
    act = (struct sigaction){.sa_handler = plain, .sa_flags = SA_NOCLDSTOP};
    hits = 0;
    sigaction(SIGCHLD, &act, 0);
    p = fork();
    if (!p) {
        raise(SIGSTOP);
        _exit(0);
    }
    while (waitpid(p, &st, WUNTRACED) != p);
    T(hits);
    kill(p, SIGCONT);
    while (waitpid(p, &st, 0) != p);
    T(hits);
    /* Who has waited has had the signal. */
    int heard = 0;
    fflush(stdout);
    for (int i = 0; i < 300; i++) {
        hits = 0;
        p = fork();
        if (!p) _exit(0);
        while (waitpid(p, &st, 0) != p);
        heard += hits;
    }
    T(heard);
    signal(SIGCHLD, SIG_DFL);
    /* the parent's death */
    int tell[2];
    pipe(tell);
    fflush(stdout);
    if (!(p = fork())) {
        if (!fork()) {
            prctl(PR_SET_PDEATHSIG, SIGUSR1);
            sigemptyset(&s);
            sigaddset(&s, SIGUSR1);
            sigprocmask(SIG_BLOCK, &s, 0);
            write(tell[1], "r", 1);
            ts = (struct timespec){5, 0};
            c = sigtimedwait(&s, &si, &ts) == SIGUSR1 ? 'y' : 'n';
            write(tell[1], &c, 1);
            _exit(0);
        }
        read(tell[0], &c, 1);
        _exit(0);
    }
    waitpid(p, 0, 0);
    read(tell[0], &c, 1);
    N("signal at the parent's death", 0, c == 'y');
    /* too many */
    /* a user of their own: others may have signals waiting */
    if (getuid() == 0) W(CHILD(struct rlimit l = {5, 5}; setrlimit(RLIMIT_SIGPENDING, &l); setresuid(12345, 12345, 12345); sigfillset(&s); sigprocmask(SIG_BLOCK, &s, 0);
        for (int i = 0; i < 7; i++) N("queued", i, sigqueue(getpid(), SIGRTMIN, v));
        T(sigqueue(getpid(), SIGUSR1, v)); T(kill(getpid(), SIGUSR2))));
    return 0;
}

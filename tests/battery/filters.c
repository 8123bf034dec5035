/* seccomp: what stands before one's own system calls; kcmp; ioprio. */
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ucontext.h>

#define LOAD(what) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, what))
#define EQUAL(k, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no)
#define ANSWER(k) BPF_STMT(BPF_RET | BPF_K, k)
#define COUNT(list) (sizeof(list) / sizeof *(list))
#define PROGRAM(list) (&(struct sock_fprog){COUNT(list), list})

static long filter(unsigned flags, void *program) {
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
}
/* Install one that gives this answer to getppid. */
static long answer(unsigned flags, unsigned what) {
    struct sock_filter f[] = {LOAD(nr), EQUAL(SYS_getppid, 0, 1), ANSWER(what), ANSWER(SECCOMP_RET_ALLOW)};
    return filter(flags, PROGRAM(f));
}
static int field(const char *name) {
    char line[200];
    int value = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, name, strlen(name))) value = atoi(line + strlen(name));
    fclose(f);
    return value;
}
static volatile int got, code, number, with, arch_, at_call;
static long after;
static void caught(int signo, siginfo_t *info, void *context) {
    (void)context;
    got = signo;
    code = info->si_code;
    number = info->si_syscall;
    with = info->si_errno;
    arch_ = info->si_arch == AUDIT_ARCH_X86_64;
    at_call = info->si_call_addr != 0;
}
static volatile int state;
static void *other(void *a) {
    state = 1;
    while (state == 1) usleep(1000);
    errno = 0;
    long value = syscall(SYS_getppid);
    *(int *)a = value < 0 ? errno : 0;
    return 0;
}
static void *alone(void *a) {
    (void)a;
    answer(0, SECCOMP_RET_KILL_THREAD);
    syscall(SYS_getppid);
    state = 99;
    return 0;
}
/* Does this program pass, and what does it answer to getppid (as an error's number)? */
static int try_(struct sock_filter *f, int count) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        if (filter(0, &(struct sock_fprog){count, f})) _exit(100 + (errno == EINVAL));
        errno = 0;
        long value = syscall(SYS_getppid, 1, 2, 0x300000004);
        _exit(value < 0 ? errno : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
#define TRY(name, ...) do { struct sock_filter f[] = {__VA_ARGS__}; N(name, COUNT(f), try_(f, COUNT(f))); } while (0)
/* Let all but getppid pass; then go on with A = 0. */
#define ONLY LOAD(nr), EQUAL(SYS_getppid, 1, 0), ANSWER(SECCOMP_RET_ALLOW)
#define SAY BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO), BPF_STMT(BPF_RET | BPF_A, 0)


/* Calls that the program sees itself. */
#define DISPATCH 59 /* PR_SET_SYSCALL_USER_DISPATCH */
static volatile char selector;
static void handed_back(int signo, siginfo_t *info, void *context) {
    selector = 0;
    caught(signo, info, context);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] += 7;
}
static long divert(long mode, unsigned long start, unsigned long len, volatile void *at) {
    return prctl(DISPATCH, mode, start, len, at);
}
static void *unheard(void *a) {
    (void)a;
    selector = 1;
    long value = syscall(SYS_getppid) >= 0;
    selector = 0;
    return (void *)value;
}
static void handing_back(void) {
    struct sigaction action = {.sa_sigaction = handed_back, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, 0);
    T(divert(-1, 0, 0, 0));
    T(divert(9, 0, 0, 0));
    T(divert(0, 1, 0, 0));
    T(divert(0, 0, 1, 0));
    T(divert(0, 0, 0, &selector));
    T(divert(0, 0, 0, 0));
    T(divert(1, 1, 0, &selector));
    T(divert(1, -1L, 0, &selector));
    T(divert(1, 1, -1L, &selector));
    T(divert(1, -1L, 1, &selector));
    T(divert(1, 0, 1, (void *)-1L));
    T(divert(1, 0, 0, &selector));
    T(syscall(SYS_getppid) >= 0);
    got = 0;
    selector = 1;
    after = syscall(4711);
    T(after); T(got); T(code); T(number); T(with); T(arch_); T(at_call); T(selector);
    selector = 1;
    after = syscall(SYS_getppid);
    T(after == SYS_getppid + 7);
    /* Neither threads nor children have it. */
    pthread_t other_;
    void *value;
    pthread_create(&other_, 0, unheard, 0);
    pthread_join(other_, &value);
    T(value != 0);
    W(CHILD(T(unheard(0) != 0)));
    T(divert(0, 0, 0, 0));
    T(unheard(0) != 0);
    /* From a range of code all calls are done. */
    T(divert(1, 0x1000, 0x7ffffffff000 - 0x1000, &selector));
    T(unheard(0) != 0);
    T(divert(0, 0, 0, 0));
    W(CHILD(divert(1, 0, 0, &selector); selector = 5; syscall(SYS_getppid)));
    W(CHILD(divert(1, 0, 0, (void *)8); syscall(SYS_getppid)));
    W(CHILD(signal(SIGSYS, SIG_IGN); divert(1, 0, 0, &selector); selector = 1; syscall(SYS_getppid)));
    W(CHILD(divert(1, 0, 0, 0); syscall(SYS_getppid)));
}

int main(void) {
    catch_();
    struct sock_filter allow[] = {ANSWER(SECCOMP_RET_ALLOW)};
    T(prctl(PR_GET_SECCOMP));
    T(field("Seccomp:"));
    /* Arguments. */
    T(syscall(SYS_seccomp, 99, 0, 0));
    T(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, 0));
    T(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, allow));
    T(filter(1 << 20, PROGRAM(allow)));
    T(filter(0, (void *)8));
    T(filter(0, &(struct sock_fprog){1, (void *)8}));
    T(filter(0, &(struct sock_fprog){0, allow}));
    T(filter(0, &(struct sock_fprog){4097, allow}));
    T(prctl(PR_SET_SECCOMP, 0));
    T(prctl(PR_SET_SECCOMP, 3));
    T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 8));
    for (int i = 0; i < 7; i++) {
        unsigned actions[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO, SECCOMP_RET_TRACE, SECCOMP_RET_LOG, SECCOMP_RET_ALLOW};
        N("there", i, syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &actions[i]));
    }
    unsigned odd = 0x12340000;
    T(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &odd));
    T(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 1, &odd));
    T(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, 8));
    W(CHILD(if (!getuid()) setuid(1000); T(filter(0, PROGRAM(allow))); T(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); T(filter(0, PROGRAM(allow)));
        T(prctl(PR_GET_SECCOMP)); T(field("Seccomp:")); T(field("Seccomp_filters:")); T(filter(0, PROGRAM(allow))); T(field("Seccomp_filters:")); T(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))));
    T(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    /* Strict. */
    W(CHILD(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); write(1, "filters.strict: writes\n", 23); syscall(SYS_exit, 7)));
    W(CHILD(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); syscall(SYS_getppid); syscall(SYS_exit, 7)));
    W(CHILD(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, 0); syscall(SYS_exit_group, 7)));
    /* What comes of a call. */
    W(CHILD(T(answer(0, SECCOMP_RET_ERRNO | 77)); T(syscall(SYS_getppid)); T(getpid() > 0); T(answer(0, SECCOMP_RET_ERRNO | 5)); T(syscall(SYS_getppid)); T(answer(0, SECCOMP_RET_ALLOW)); T(syscall(SYS_getppid)); W(CHILD(T(syscall(SYS_getppid)); T(field("Seccomp_filters:"))))));
    W(CHILD(T(answer(0, SECCOMP_RET_ERRNO | 0xffff)); T(syscall(SYS_getppid) == -4095 || errno == 4095); T(answer(0, SECCOMP_RET_TRACE | 1)); T(syscall(SYS_getppid) < 0)));
    W(CHILD(answer(0, SECCOMP_RET_ERRNO); T(syscall(SYS_getppid))));
    W(CHILD(answer(0, SECCOMP_RET_TRACE | 1); T(syscall(SYS_getppid))));
    W(CHILD(answer(0, SECCOMP_RET_LOG); T(syscall(SYS_getppid) > 0)));
    W(CHILD(answer(0, SECCOMP_RET_KILL_THREAD); syscall(SYS_getppid); T(1)));
    W(CHILD(answer(0, SECCOMP_RET_KILL_PROCESS); syscall(SYS_getppid); T(1)));
    W(CHILD(answer(0, 0x12340000); syscall(SYS_getppid); T(1)));
    W(CHILD(signal(SIGSYS, SIG_IGN); answer(0, SECCOMP_RET_KILL_PROCESS); syscall(SYS_getppid); T(1)));
    W(CHILD(answer(0, SECCOMP_RET_TRAP | 3); syscall(SYS_getppid); T(1)));
    W(CHILD(signal(SIGSYS, SIG_IGN); answer(0, SECCOMP_RET_TRAP | 3); syscall(SYS_getppid); T(1)));
    W(CHILD(struct sigaction sa = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO}; sigaction(SIGSYS, &sa, 0); answer(0, SECCOMP_RET_TRAP | 3);
        after = syscall(SYS_getppid); T(after); T(got); T(code); T(number); T(with); T(arch_); T(at_call)));
    W(CHILD(answer(0, SECCOMP_RET_ERRNO | 9); execl("/bin/sh", "sh", "-c", "grep Seccomp: /proc/self/status", (char *)0)));
    W(CHILD(struct sock_filter f[] = {LOAD(nr), EQUAL(600, 0, 1), ANSWER(SECCOMP_RET_ERRNO | 44), ANSWER(SECCOMP_RET_ALLOW)}; filter(0, PROGRAM(f)); T(syscall(600)); T(syscall(601))));
    /* Threads. */
    W(CHILD(pthread_t t; int error = 0; pthread_create(&t, 0, other, &error); while (!state) usleep(1000); T(answer(0, SECCOMP_RET_ERRNO | 11)); state = 2; pthread_join(t, 0); T(error)));
    W(CHILD(pthread_t t; int error = 0; pthread_create(&t, 0, other, &error); while (!state) usleep(1000); T(answer(SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_RET_ERRNO | 11)); state = 2; pthread_join(t, 0); T(error)));
    W(CHILD(pthread_t t; answer(0, SECCOMP_RET_ERRNO | 12); int error = 0; pthread_create(&t, 0, other, &error); while (!state) usleep(1000); state = 2; pthread_join(t, 0); T(error)));
    W(CHILD(pthread_t t; pthread_create(&t, 0, alone, 0); while (state != 99 && pthread_tryjoin_np(t, 0) == EBUSY) usleep(1000); T(state)));
    /* Programs. */
    TRY("ends without an answer", LOAD(nr));
    TRY("beyond the data", BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), ANSWER(0));
    TRY("unaligned", BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), ANSWER(0));
    TRY("a half word", BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4), ANSWER(0));
    TRY("by index", BPF_STMT(BPF_LD | BPF_W | BPF_IND, 4), ANSWER(0));
    TRY("jumps out", BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), ANSWER(0));
    TRY("jumps back", BPF_JUMP(BPF_JMP | BPF_JA, -1, 0, 0), ANSWER(0));
    TRY("jumps out if", BPF_JUMP(BPF_JMP | BPF_JEQ, 1, 0, 1), ANSWER(0));
    TRY("divides by 0", BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), ANSWER(0));
    TRY("shifts too far", BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), ANSWER(0));
    TRY("the remainder", BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), ANSWER(0));
    TRY("beyond the memory", BPF_STMT(BPF_ST, 16), ANSWER(0));
    TRY("reads what was not written", BPF_STMT(BPF_LD | BPF_MEM, 3), ANSWER(0));
    TRY("written on one way only", LOAD(nr), EQUAL(1, 0, 1), BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LD | BPF_MEM, 3), ANSWER(SECCOMP_RET_ALLOW));
    TRY("unknown", BPF_STMT(0xff, 0), ANSWER(0));
    TRY("answers X", BPF_STMT(BPF_RET | BPF_X, 0));
    TRY("adds", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 40), BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 2), SAY);
    TRY("subtracts", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 40), BPF_STMT(BPF_LDX | BPF_IMM, 7), BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0), SAY);
    TRY("multiplies", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 4), BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 5), SAY);
    TRY("divides", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 90), BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 4), SAY);
    TRY("divides by X = 0", ONLY, BPF_STMT(BPF_LDX | BPF_IMM, 0), BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), SAY);
    TRY("shifts", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 3), BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 4), BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 2), SAY);
    TRY("bits", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 0x55), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x1e), BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, 3), SAY);
    TRY("negates", ONLY, BPF_STMT(BPF_LD | BPF_IMM, -30), BPF_STMT(BPF_ALU | BPF_NEG, 0), SAY);
    TRY("remembers", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 21), BPF_STMT(BPF_ST, 15), BPF_STMT(BPF_LDX | BPF_MEM, 15), BPF_STMT(BPF_STX, 0), BPF_STMT(BPF_LD | BPF_IMM, 1), BPF_STMT(BPF_LD | BPF_MEM, 0), SAY);
    TRY("A and X", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 33), BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_LD | BPF_IMM, 1), BPF_STMT(BPF_MISC | BPF_TXA, 0), SAY);
    TRY("length", ONLY, BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), SAY);
    TRY("first argument", ONLY, LOAD(args[0]), SAY);
    TRY("third argument", ONLY, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])), SAY);
    TRY("its upper half", ONLY, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2]) + 4), SAY);
    TRY("architecture", ONLY, LOAD(arch), EQUAL(AUDIT_ARCH_X86_64, 0, 1), ANSWER(SECCOMP_RET_ERRNO | 1), ANSWER(SECCOMP_RET_ERRNO | 2));
    TRY("greater", ONLY, BPF_STMT(BPF_LD | BPF_IMM, -1), BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 1, 0, 1), ANSWER(SECCOMP_RET_ERRNO | 1), ANSWER(SECCOMP_RET_ERRNO | 2));
    TRY("not less, by X", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 5), BPF_STMT(BPF_LDX | BPF_IMM, 5), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_X, 0, 0, 1), ANSWER(SECCOMP_RET_ERRNO | 1), ANSWER(SECCOMP_RET_ERRNO | 2));
    TRY("any bit", ONLY, BPF_STMT(BPF_LD | BPF_IMM, 6), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 9, 0, 1), ANSWER(SECCOMP_RET_ERRNO | 1), ANSWER(SECCOMP_RET_ERRNO | 2));
    TRY("always", ONLY, BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), ANSWER(SECCOMP_RET_ERRNO | 1), ANSWER(SECCOMP_RET_ERRNO | 2));
    /* So many that a call would take too long. */
    W(CHILD(static struct sock_filter many[4096]; for (int i = 0; i < 4096; i++) many[i] = (struct sock_filter)ANSWER(SECCOMP_RET_ALLOW); int n = 0; while (!filter(0, PROGRAM(many))) n++; T(errno); T(n > 0 && n < 8)));
    W(CHILD(int n = 0; while (!filter(0, PROGRAM(allow)) && n < 3000) n++; T(n)));
    /* kcmp */
    int me = getpid(), two = dup(1), own = open("/dev/null", O_RDONLY);
    T(syscall(SYS_kcmp, me, me, KCMP_FILE, 1, two));
    T(syscall(SYS_kcmp, me, me, KCMP_FILE, 1, own) > 0);
    T(syscall(SYS_kcmp, me, me, KCMP_FILE, 1, own) + syscall(SYS_kcmp, me, me, KCMP_FILE, own, 1));
    T(syscall(SYS_kcmp, me, me, KCMP_FILE, 1, 999));
    T(syscall(SYS_kcmp, me, 99999999, KCMP_FILE, 1, 1));
    T(syscall(SYS_kcmp, me, me, 99, 1, 1));
    for (int i = KCMP_VM; i <= KCMP_IO; i++) N("kcmp", i, syscall(SYS_kcmp, me, me, i, 0, 0));
    pid_t child = fork();
    if (!child) pause();
    for (int i = KCMP_VM; i <= KCMP_SIGHAND; i++) N("kcmp of a child", i, syscall(SYS_kcmp, me, child, i, 0, 0) > 0);
    T(syscall(SYS_kcmp, me, child, KCMP_FILE, 1, two));
    /* ioprio */
    T(syscall(SYS_ioprio_get, 1, 0));
    T(syscall(SYS_ioprio_get, 9, 0));
    T(syscall(SYS_ioprio_get, 1, 99999999));
    T(syscall(SYS_ioprio_set, 9, 0, 2 << 13 | 4));
    T(syscall(SYS_ioprio_set, 1, 99999999, 2 << 13 | 4));
    T(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6));
    T(syscall(SYS_ioprio_get, 1, 0));
    T(syscall(SYS_ioprio_set, 1, child, 3 << 13));
    T(syscall(SYS_ioprio_get, 1, child));
    T(syscall(SYS_ioprio_set, 1, 0, 5 << 13));
    T(syscall(SYS_ioprio_set, 1, 0, 1));
    T(syscall(SYS_ioprio_set, 1, 0, 0));
    T(syscall(SYS_ioprio_get, 1, 0));
    W(CHILD(T(nice(10)); T(syscall(SYS_ioprio_get, 1, 0)); T(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 1)); W(CHILD(T(syscall(SYS_ioprio_get, 1, 0))));
        if (!getuid()) setuid(1000); T(syscall(SYS_ioprio_set, 1, 0, 1 << 13 | 3)); T(syscall(SYS_ioprio_set, 1, 0, 3 << 13))));
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    handing_back();
    return 0;
}

/* What a signal's frame holds, and what a handler's changes to it do: registers, flags, x87 and SSE state, stacks. */
#define FAMILY "frames"
#include "check.h"
#include <ucontext.h>

static volatile uint64_t seen_[8];
static volatile int fresh_;

/* A handler that uses the whole FPU. */
static void spoil(int n, siginfo_t *info, void *context) {
    (void)n, (void)info, (void)context;
    __asm__ volatile("fninit; fld1; fldpi; fldl2e; pcmpeqd %%xmm0,%%xmm0; movdqa %%xmm0,%%xmm1; movdqa %%xmm0,%%xmm7; "
                     "movdqa %%xmm0,%%xmm8; movdqa %%xmm0,%%xmm15" ::: "xmm0", "xmm1", "xmm7", "xmm8", "xmm15");
    fresh_++;
}

static void install(int signo, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&action.sa_mask);
    sigaction(signo, &action, 0);
}

/* kill(getpid(), SIGUSR1) with the FPU's registers as given; what they are afterwards. */
static void across_a_signal(void) {
    uint64_t in[2] = {0x1122334455667788, 0x99aabbccddeeff00}, out[2][2] = {{0}};
    double x87 = 0;
    uint32_t mxcsr = 0xdf80, after = 0; /* to zero, flushing, all masked */
    uint16_t control = 0x0e7f, control_after = 0;
    pid_t self = getpid();
    __asm__ volatile("fninit; fldcw %[control]; fldpi; ldmxcsr %[mxcsr]; movups %[in],%%xmm1; movups %[in],%%xmm15;"
                     "mov %[self],%%edi; mov $10,%%esi; mov $62,%%eax; syscall;"
                     "movups %%xmm1,%[one]; movups %%xmm15,%[two]; stmxcsr %[after]; fnstcw %[control_after]; fstpl %[x87]; fninit"
                     : [one] "=m"(out[0]), [two] "=m"(out[1]), [after] "=m"(after), [x87] "=m"(x87),
                       [control_after] "=m"(control_after)
                     : [in] "m"(in), [mxcsr] "m"(mxcsr), [control] "m"(control), [self] "r"(self)
                     : "rax", "rcx", "r11", "rdi", "rsi", "xmm1", "xmm15", "memory");
    uint32_t plain = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(plain));
    T(memcmp(out[0], in, 16));
    T(memcmp(out[1], in, 16));
    T(after);
    T(control_after);
    T(x87 > 3.14159265 && x87 < 3.14159266);
    T(fresh_);
}

/* A handler that changes what it returns to. */
static void rewrite(int n, siginfo_t *info, void *context) {
    (void)n, (void)info;
    ucontext_t *uc = context;
    seen_[0] = uc->uc_mcontext.gregs[REG_RCX] == uc->uc_mcontext.gregs[REG_RIP];
    seen_[1] = uc->uc_mcontext.gregs[REG_RBX];
    seen_[2] = uc->uc_mcontext.gregs[REG_R12];
    uc->uc_mcontext.gregs[REG_RAX] = 77;
    uc->uc_mcontext.gregs[REG_RCX] = 0x1234567890abcdef;
    uc->uc_mcontext.gregs[REG_R11] = 0xfedcba0987654321;
    uc->uc_mcontext.gregs[REG_R13] = 99;
    uc->uc_mcontext.gregs[REG_EFL] |= 1 | 1 << 12 | 1 << 17; /* carry; and what it may not: I/O level, virtual 8086 */
    uc->uc_mcontext.fpregs->mxcsr = 0xffc0;
    uc->uc_mcontext.fpregs->_xmm[3].element[0] = 0xabcdef01;
}

static void rewritten(void) {
    uint64_t rax, rcx, r11, r13, flags;
    uint32_t mxcsr, xmm3;
    pid_t self = getpid();
    __asm__ volatile("mov $55,%%rbx; mov $66,%%r12; xor %%r13d,%%r13d; mov %[self],%%edi; mov $10,%%esi; mov $62,%%eax; clc; syscall;"
                     "mov %%rax,%[rax]; mov %%rcx,%[rcx]; mov %%r11,%[r11]; mov %%r13,%[r13]; pushfq; pop %%rax; mov %%rax,%[flags];"
                     "stmxcsr %[mxcsr]; movd %%xmm3,%[xmm3]"
                     : [rax] "=m"(rax), [rcx] "=m"(rcx), [r11] "=m"(r11), [r13] "=m"(r13), [flags] "=m"(flags),
                       [mxcsr] "=m"(mxcsr), [xmm3] "=m"(xmm3)
                     : [self] "r"(self)
                     : "rax", "rbx", "rcx", "rdi", "rsi", "r11", "r12", "r13", "xmm3", "memory");
    uint32_t plain = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(plain));
    T(seen_[0]);
    T(seen_[1]);
    T(seen_[2]);
    T(rax);
    T(rcx == 0x1234567890abcdef);
    T(r11 == 0xfedcba0987654321);
    T(r13);
    T(flags & 0x23001);
    T(mxcsr);
    T(xmm3 == 0xabcdef01);
}

static void no_fpu(int n, siginfo_t *info, void *context) {
    (void)n, (void)info;
    ((ucontext_t *)context)->uc_mcontext.fpregs = 0;
}
static void wild_fpu(int n, siginfo_t *info, void *context) {
    (void)n, (void)info;
    ((ucontext_t *)context)->uc_mcontext.fpregs = (void *)0x10;
}
static void moved_fpu(int n, siginfo_t *info, void *context) {
    (void)n, (void)info;
    ucontext_t *uc = context;
    static char other[4096 + 64];
    char *at = (char *)(((uintptr_t)other + 63) & ~63ul);
    memcpy(at, uc->uc_mcontext.fpregs, 512 + 64 + 256 + 4);
    uc->uc_mcontext.fpregs = (void *)at;
    uc->uc_mcontext.fpregs->mxcsr = 0x9fc0;
}
static void wild_rip(int n, siginfo_t *info, void *context) {
    (void)n, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] = (greg_t)0xffff800000000000;
}
static void wild_rsp(int n, siginfo_t *info, void *context) {
    (void)n, (void)info;
    __asm__ volatile("mov $8,%%rsp; mov $15,%%eax; syscall" ::: "memory");
    (void)context;
}

static uint32_t mxcsr_after(void (*handler)(int, siginfo_t *, void *)) {
    uint32_t set = 0xbfc0, after = 0, plain = 0x1f80;
    install(SIGUSR2, handler, 0);
    __asm__ volatile("ldmxcsr %0" ::"m"(set));
    raise(SIGUSR2);
    __asm__ volatile("stmxcsr %0" : "=m"(after));
    __asm__ volatile("ldmxcsr %0" ::"m"(plain));
    return after;
}

/* Many pages of stack that were never touched: the frame itself brings them in. */
static void untouched_stack(void) {
    stack_t stack = {.ss_size = 64 << 10};
    stack.ss_sp = mmap(0, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T(sigaltstack(&stack, 0));
    install(SIGUSR1, spoil, SA_ONSTACK);
    fresh_ = 0;
    across_a_signal();
    /* And one that cannot be written. */
    W(CHILD(mprotect(stack.ss_sp, stack.ss_size, PROT_READ); raise(SIGUSR1)));
    stack.ss_flags = SS_DISABLE;
    T(sigaltstack(&stack, 0));
    install(SIGUSR1, spoil, 0);
}

/* What the frame tells of an exception: its number, its error code, and the address of a page fault. */
static sigjmp_buf out_;
static void told(int n, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    seen_[0] = n, seen_[1] = regs[REG_TRAPNO], seen_[2] = regs[REG_ERR], seen_[3] = regs[REG_CR2];
    seen_[4] = (uint64_t)info->si_addr;
    siglongjmp(out_, 1);
}

#define EXCEPTION(what, ...) do { \
        if (!sigsetjmp(out_, 1)) { __VA_ARGS__; } \
        for (int i_ = 0; i_ < 3; i_++) N(what, i_, seen_[i_]); } while (0)

static void exceptions(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (int i = 0; i < 5; i++) install(signals[i], told, 0);
    char *none = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *read = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile int zero = 0, got;
    EXCEPTION("read of nothing", got = none[5]);
    T(seen_[3] == (uint64_t)none + 5 && seen_[4] == seen_[3]);
    EXCEPTION("write to nothing", none[6] = 1);
    T(seen_[3] == (uint64_t)none + 6);
    got = *(volatile char *)read;
    EXCEPTION("write to what may be read", read[7] = 1);
    T(seen_[3] == (uint64_t)read + 7);
    EXCEPTION("jump to what may be read", ((void (*)(void))read)());
    EXCEPTION("an address that is none", got = *(volatile char *)0x8000000000000000);
    EXCEPTION("division by zero", got = 12345 / zero);
    EXCEPTION("ud2", __asm__ volatile("ud2"));
    EXCEPTION("int3", __asm__ volatile("int3"));
    EXCEPTION("hlt", __asm__ volatile("hlt"));
    (void)got;
    for (int i = 0; i < 5; i++) signal(signals[i], SIG_DFL);
}

/* Signals that a task sends to itself and takes at once: each call's own mark, and what was waiting before. */
static volatile int codes_[4], taken_;
static void coded(int n, siginfo_t *info, void *context) {
    (void)context;
    if (taken_ < 4) codes_[taken_++] = n * 1000 + info->si_code + (info->si_pid == getpid() && info->si_uid == getuid() ? 0 : 500);
}
static volatile int plain_;
static void plain(int n) {
    plain_ += n;
}

static void to_oneself(void) {
    install(SIGUSR1, coded, 0);
    install(SIGUSR2, coded, 0);
    T(kill(getpid(), SIGUSR1));
    T(syscall(SYS_tkill, syscall(SYS_gettid), SIGUSR1));
    T(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR2));
    for (int i = 0; i < 3; i++) N("si_code", i, codes_[i]);
    sigset_t one, none;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    sigprocmask(SIG_BLOCK, &one, &none);
    taken_ = 0;
    raise(SIGUSR1); /* waits */
    raise(SIGUSR2);
    T(taken_);
    sigprocmask(SIG_SETMASK, &none, 0);
    T(taken_);
    T(codes_[0] / 1000);
    T(codes_[1] / 1000);
    signal(SIGUSR1, plain);
    T(raise(SIGUSR1));
    signal(SIGUSR1, SIG_IGN);
    T(raise(SIGUSR1));
    T(plain_);
    T(raise(0));
    T(kill(getpid(), 65));
    W(CHILD(signal(SIGUSR1, SIG_DFL); raise(SIGUSR1)));
}

static void nested(int n, siginfo_t *info, void *context) {
    (void)info, (void)context;
    seen_[n == SIGUSR1 ? 0 : 1] = ++seen_[2];
    if (n == SIGUSR1) raise(SIGUSR2);
    seen_[n == SIGUSR1 ? 3 : 4] = ++seen_[2];
}

int main(void) {
    install(SIGUSR1, spoil, 0);
    across_a_signal();
    untouched_stack();
    /* The same in a child, whose FPU state was copied. */
    W(CHILD(fresh_ = 0; across_a_signal()));

    install(SIGUSR1, rewrite, 0);
    rewritten();
    exceptions();

    T(mxcsr_after(spoil));
    T(mxcsr_after(no_fpu));
    T(mxcsr_after(moved_fpu));
    W(CHILD(mxcsr_after(wild_fpu)));
    W(CHILD(mxcsr_after(wild_rip)));
    W(CHILD(mxcsr_after(wild_rsp)));

    memset((void *)seen_, 0, sizeof seen_);
    install(SIGUSR1, nested, 0);
    install(SIGUSR2, nested, 0);
    raise(SIGUSR1);
    for (int i = 0; i < 5; i++) N("nested", i, seen_[i]);

    /* Two at once: both run, the one with the lower number on top of the other's frame or before it. */
    memset((void *)seen_, 0, sizeof seen_);
    install(SIGUSR1, spoil, 0);
    sigset_t both, none;
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGUSR2);
    sigprocmask(SIG_BLOCK, &both, &none);
    fresh_ = 0;
    raise(SIGUSR1);
    raise(SIGUSR2);
    install(SIGUSR2, spoil, SA_RESETHAND);
    T(fresh_);
    sigprocmask(SIG_SETMASK, &none, 0);
    T(fresh_);
    struct sigaction now;
    T(sigaction(SIGUSR2, 0, &now));
    T(now.sa_handler == SIG_DFL);
    to_oneself();
    return 0;
}

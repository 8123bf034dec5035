/* Segments of a program's own (modify_ldt), 32-bit code within a 64-bit program, what is in segment registers over switches and
 * signals, the flags NT and TF over a handler, and the vsyscall page. */
#define FAMILY "segments"
#include "check.h"
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <pthread.h>
#include <ucontext.h>

/* Its answer is an int in an unsigned register. */
static int ldt(int what, void *at, unsigned long bytes) { return (int)syscall(SYS_modify_ldt, what, at, bytes); }

static int set(unsigned number, unsigned base, unsigned limit, int contents, int bits32, int pages, int plain, int absent, int own) {
    struct user_desc d;
    memset(&d, 0, sizeof d);
    d.entry_number = number, d.base_addr = base, d.limit = limit, d.contents = contents, d.seg_32bit = bits32;
    d.limit_in_pages = pages, d.read_exec_only = plain, d.seg_not_present = absent, d.useable = own;
    return ldt(0x11, &d, sizeof d);
}

static unsigned access_of(unsigned selector) {
    unsigned rights = 0;
    __asm__ volatile("lar %1,%0; jz 1f; xor %0,%0; 1:" : "=r"(rights) : "r"(selector) : "cc");
    return rights & ~0xf0000; /* some processors tell the limit's upper bits, too */
}

static unsigned limit_of(unsigned selector) {
    unsigned limit = 0;
    __asm__ volatile("lsl %1,%0; jz 1f; xor %0,%0; 1:" : "=r"(limit) : "r"(selector) : "cc");
    return limit;
}

static void show(const char *what, unsigned index) {
    printf(FAMILY ".%s: %x %x\n", what, access_of(index << 3 | 7), limit_of(index << 3 | 7));
}

static void table(void) {
    uint64_t got[4] = {1, 1, 1, 1};
    T(ldt(0, got, sizeof got));
    T(ldt(2, got, sizeof got));
    T(got[0]);
    T(ldt(7, got, sizeof got));
    T(ldt(0x11, got, 8));
    T(ldt(0x11, (void *)8, 16));
    T(ldt(1, (void *)8, 16));
    T(set(8192, 0, 10, 0, 1, 0, 0, 0, 0));
    T(set(0, 0, 10, 0, 1, 0, 0, 0, 0));
    show("data", 0);
    T(set(0, 0, 10, 0, 1, 1, 1, 0, 1));
    show("data in pages, read-only, own bit", 0);
    T(set(1, 0x12345678, 0xfffff, 1, 1, 1, 0, 0, 0));
    show("downwards", 1);
    T(set(2, 0, 0xfffff, 2, 1, 1, 0, 0, 0));
    show("code", 2);
    T(set(2, 0, 0xfffff, 2, 1, 1, 1, 0, 0));
    show("code not read", 2);
    T(set(3, 0, 0xfffff, 3, 1, 1, 0, 0, 0));
    T(set(3, 0, 0xfffff, 3, 1, 1, 0, 1, 0));
    show("conforming", 3);
    T(set(3, 0, 0xfffff, 0, 1, 1, 0, 1, 0));
    show("absent", 3);
    T(ldt(0, got, sizeof got));
    printf(FAMILY ".raw: %llx %llx %llx\n", (long long)got[0], (long long)got[1], (long long)got[2]);
    T(set(1, 0, 0, 0, 0, 0, 1, 1, 0));
    show("cleared", 1);
    struct user_desc d;
    memset(&d, 0, sizeof d);
    d.entry_number = 5, d.limit = 5, d.seg_32bit = 1, d.useable = 1;
    T(ldt(1, &d, sizeof d));
    show("the old way", 5);
    d.limit = 0;
    T(ldt(1, &d, sizeof d));
    show("cleared the old way", 5);
    d.limit = 7, d.contents = 3, d.seg_not_present = 1;
    T(ldt(1, &d, sizeof d));
    memset(got, 1, sizeof got);
    T(ldt(0, got, 3));
    T(ldt(0, (void *)8, 64));
    show("beyond the table", 1000);
    T(set(1000, 0, 10, 0, 1, 0, 0, 0, 0));
    show("far away", 1000);
    T(access_of(0x23) != 0);
    T(access_of(0x2b) != 0);
    T(access_of(0x33) != 0);
}

#define SELECTOR(n) (unsigned)((n) << 3 | 7)
static unsigned get_ds(void) { unsigned v = 0; __asm__ volatile("mov %%ds,%0" : "=r"(v)); return v & 0xffff; }
static unsigned get_es(void) { unsigned v = 0; __asm__ volatile("mov %%es,%0" : "=r"(v)); return v & 0xffff; }
static unsigned get_gs(void) { unsigned v = 0; __asm__ volatile("mov %%gs,%0" : "=r"(v)); return v & 0xffff; }
static void put_ds(unsigned v) { __asm__ volatile("mov %0,%%ds" ::"r"(v)); }
static void put_es(unsigned v) { __asm__ volatile("mov %0,%%es" ::"r"(v)); }
static void put_gs(unsigned v) { __asm__ volatile("mov %0,%%gs" ::"r"(v)); }

static uint32_t *low_;

static void across_switches(void) {
    low_ = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    P(low_ != MAP_FAILED);
    low_[3] = 0xcafe;
    T(set(0, (uintptr_t)low_, 0xfff, 0, 1, 0, 0, 0, 0));
    put_ds(SELECTOR(0));
    put_es(0x2b);
    put_gs(SELECTOR(0));
    unsigned value = 0;
    __asm__ volatile("mov %%gs:12,%0" : "=r"(value));
    T(value == 0xcafe);
    int status = CHILD({
        unsigned again = 0;
        if (get_ds() != SELECTOR(0) || get_es() != 0x2b || get_gs() != SELECTOR(0))
            _exit(1);
        __asm__ volatile("mov %%gs:12,%0" : "=r"(again));
        /* Its table is its own from here on. */
        _exit(again != 0xcafe ? 2 : set(0, 0, 0, 0, 0, 0, 1, 1, 0) ? 3 : 0);
    });
    W(status);
    usleep(1000);
    T(get_ds() == SELECTOR(0));
    T(get_es());
    T(get_gs() == SELECTOR(0));
    __asm__ volatile("mov %%gs:12,%0" : "=r"(value));
    T(value == 0xcafe);
    unsigned long base = 0;
    T(syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
    T(base == (uintptr_t)low_);
    show("still there", 0);
    put_ds(0), put_es(0), put_gs(0);
}

static int stage_;
static void *take_away(void *unused) {
    (void)unused;
    while (!__atomic_load_n(&stage_, __ATOMIC_SEQ_CST))
        sched_yield();
    set(0, 0, 0, 0, 0, 0, 1, 1, 0);
    __atomic_store_n(&stage_, 2, __ATOMIC_SEQ_CST);
    return 0;
}

static void threads(void) {
    pthread_t other;
    pthread_create(&other, 0, take_away, 0);
    put_ds(SELECTOR(0));
    __atomic_store_n(&stage_, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&stage_, __ATOMIC_SEQ_CST) != 2)
        ;
    sched_yield();
    T(get_ds());
    pthread_join(other, 0);
}

/* 32-bit code: at a place below 4 GiB; called with the selector of its segment. */
static uint8_t *text_;
static long far_call(unsigned selector, unsigned offset, long argument) {
    struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) to = {offset, selector};
    long result = argument;
    /* On a stack below 4 GiB: 32-bit code has half a stack pointer. */
    __asm__ volatile("mov %%rsp,%%r12; mov %[stack],%%rsp; lcall *(%[to]); mov %%r12,%%rsp"
                     : "+a"(result)
                     : [to] "r"(&to), [stack] "r"((uintptr_t)low_ + 4096)
                     : "r12", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc");
    return result;
}

static siginfo_t told_;
static ucontext_t at_;
static sigjmp_buf back_;
static int handled_;
static void handler(int number, siginfo_t *info, void *context) {
    (void)number;
    told_ = *info, memcpy(&at_, context, sizeof at_ < 304 ? sizeof at_ : 304);
    handled_++;
    /* Behind the instruction. */
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}
static void leave(int number, siginfo_t *info, void *context) {
    (void)number;
    told_ = *info, memcpy(&at_, context, 304);
    siglongjmp(back_, 1);
}

static void code_32(void) {
    text_ = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    P(text_ != MAP_FAILED);
    /* add eax, 1: `inc eax` in 32 bits, a prefix in 64; lret */
    memcpy(text_, "\x40\x40\xcb", 3);
    /* ud2; then as above */
    memcpy(text_ + 16, "\x0f\x0b\x40\xcb", 4);
    /* int $0x81; lret */
    memcpy(text_ + 32, "\xcd\x81\x40\xcb", 4);
    /* mov ds:[eax], eax; nop; lret */
    memcpy(text_ + 48, "\x3e\x89\x00\x90\xcb", 5);
    T(set(4, 0, 0xfffff, 2, 1, 1, 0, 0, 0));
    T(far_call(SELECTOR(4), (uintptr_t)text_, 40));
    T(far_call(0x23, (uintptr_t)text_, 40));
    T(set(4, (uintptr_t)text_, 0xfff, 2, 1, 0, 0, 0, 0));
    T(far_call(SELECTOR(4), 0, 1000));
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    static char stack[65536];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alt, 0);
    sigaction(SIGILL, &action, 0);
    sigaction(SIGSEGV, &action, 0);
    T(far_call(SELECTOR(4), 16, 7));
    T(handled_);
    T(told_.si_signo);
    T(at_.uc_mcontext.gregs[REG_RIP]);
    T((at_.uc_mcontext.gregs[REG_CSGSFS] & 0xffff) == SELECTOR(4));
    T(at_.uc_mcontext.gregs[REG_CSGSFS] >> 48 & 0xffff);
    T(far_call(SELECTOR(4), 32, 7));
    T(told_.si_signo);
    T(at_.uc_mcontext.gregs[REG_TRAPNO]);
    T(handled_);
    /* A descriptor that has gone while a handler ran. */
    action.sa_sigaction = leave;
    action.sa_flags |= SA_NODEFER;
    sigaction(SIGSEGV, &action, 0);
    if (!sigsetjmp(back_, 1)) {
        T(far_call(SELECTOR(77), 0, 0));
    }
    T(told_.si_signo);
    T(told_.si_code);
    T(at_.uc_mcontext.gregs[REG_TRAPNO]);
    T(at_.uc_mcontext.gregs[REG_ERR] == (77 << 3 | 4));
    T(set(6, 0, 0xfffff, 2, 1, 1, 0, 1, 0));
    sigaction(SIGBUS, &action, 0);
    if (!sigsetjmp(back_, 1))
        T(far_call(SELECTOR(6), 0, 0));
    T(told_.si_signo);
    T(at_.uc_mcontext.gregs[REG_TRAPNO]);
}

static void change_frame(int number, siginfo_t *info, void *context) {
    (void)info;
    ucontext_t *uc = context;
    uint16_t *selectors = (uint16_t *)&uc->uc_mcontext.gregs[REG_CSGSFS];
    if (number == SIGUSR1)
        selectors[0] = SELECTOR(77); /* no such code */
    else if (number == SIGUSR2)
        selectors[3] = SELECTOR(77); /* no such stack */
    else if (number == SIGWINCH) {
        selectors[3] = SELECTOR(77);
        uc->uc_flags &= ~4L; /* who knows nothing of stack segments */
    } else
        selectors[3] = SELECTOR(0); /* a good one */
}

static unsigned get_ss(void) { unsigned v = 0; __asm__ volatile("mov %%ss,%0" : "=r"(v)); return v & 0xffff; }

static void frames(void) {
    struct sigaction action = {.sa_sigaction = change_frame, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, 0);
    sigaction(SIGUSR2, &action, 0);
    sigaction(SIGWINCH, &action, 0);
    sigaction(SIGURG, &action, 0);
    T(get_ss());
    if (!sigsetjmp(back_, 1))
        raise(SIGUSR1), puts("survived");
    T(told_.si_signo);
    T(at_.uc_mcontext.gregs[REG_TRAPNO]);
    if (!sigsetjmp(back_, 1))
        raise(SIGUSR2), puts("survived");
    T(told_.si_signo);
    T(at_.uc_mcontext.gregs[REG_TRAPNO]);
    T(raise(SIGWINCH));
    T(get_ss());
    T(set(0, 0, 0xfffff, 0, 1, 1, 0, 0, 0));
    uint16_t ss = 0;
    pid_t self = getpid();
    long sent = SYS_kill;
    __asm__ volatile("syscall; mov %%ss,%1" : "+a"(sent), "=r"(ss) : "D"(self), "S"(SIGURG) : "rcx", "r11", "memory");
    T(sent);
    T(ss == SELECTOR(0));
    T(getpid() == self);
    T(get_ss());
}

static volatile int traps_;
static void trapped(int number, siginfo_t *info, void *context) { (void)number, (void)info, (void)context, traps_++; }

static void flags(void) {
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, 0);
    unsigned long after = 0;
    long pid = SYS_getpid;
    __asm__ volatile("lea -128(%%rsp),%%rsp; pushfq; orq $0x4100,(%%rsp); popfq; syscall; nop; pushfq; pop %0; push %0; andq $~0x4100,(%%rsp); popfq; "
                     "lea 128(%%rsp),%%rsp"
                     : "=&r"(after), "+a"(pid)::"rcx", "r11", "memory", "cc");
    T(after & 0x4100);
    T(pid == getpid());
    T(traps_ > 4);
}

static void old_page(void) {
    struct sigaction action = {.sa_sigaction = leave, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, 0);
    time_t (*old_time)(time_t *) = (void *)0xffffffffff600400;
    int (*old_day)(struct timeval *, void *) = (void *)0xffffffffff600000;
    int (*old_cpu)(unsigned *, unsigned *, void *) = (void *)0xffffffffff600800;
    time_t now = time(0), then = 0, got = old_time(&then);
    T(got == then && got - now >= 0 && got - now < 100);
    struct timeval day = {0};
    T(old_day(&day, 0));
    T(day.tv_sec - now >= 0 && day.tv_sec - now < 100);
    unsigned cpu = 99, node = 99;
    T(old_cpu(&cpu, &node, 0));
    T(node);
    memset(&told_, 0, sizeof told_);
    if (!sigsetjmp(back_, 1))
        T(old_time((time_t *)8));
    T(told_.si_signo);
    if (!sigsetjmp(back_, 1))
        T(((int (*)(void))0xffffffffff600c00)());
    T(told_.si_signo);
    if (!sigsetjmp(back_, 1))
        T(*(volatile int *)0xffffffffff600000);
    T(told_.si_signo);
}

int main(void) {
    table();
    across_switches();
    threads();
    code_32();
    frames();
    flags();
    old_page();
    return 0;
}

/* What a program asks of the processor: arch_prctl, the time-stamp counter withheld, speculation and machine checks (prctl). */
#define FAMILY "processor"
#include "check.h"
#include <asm/prctl.h>
#include <elf.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <linux/capability.h>

static long arch(long what, long value) { return syscall(SYS_arch_prctl, what, value); }

static void bases(void) {
    uint64_t base = 1;
    T(arch(ARCH_GET_GS, (long)&base));
    T(base);
    T(arch(ARCH_SET_GS, 0x1000));
    T(arch(ARCH_GET_GS, (long)&base));
    T(base);
    T(arch(ARCH_SET_GS, 1L << 47));
    T(arch(ARCH_SET_GS, -1L));
    T(arch(ARCH_SET_FS, -4096L));
    T(arch(ARCH_GET_FS, 8));
    T(arch(ARCH_GET_GS, 8));
    T(arch(ARCH_SET_GS, 0));
    T(arch(ARCH_GET_CPUID, 0));
    T(arch(0x1020, 0));
    T(arch(0x1023, 64));
    T(arch(0x1023, 2));
    T(arch(0x1021, 8));
    T(arch(0x1022, 8));
    uint64_t states = 0, allowed = 0;
    T(arch(0x1021, (long)&states));
    T(arch(0x1022, (long)&allowed));
    T(states & 3);
    T(allowed & 3);
    T(arch(0x9999, 0));
    T(arch(0, 0));
}

static uint64_t ticks(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static void clock_withheld(void) {
    int mode = 0;
    T(prctl(PR_GET_TSC, &mode));
    T(mode);
    T(prctl(PR_GET_TSC, 8));
    T(prctl(PR_SET_TSC, 0));
    T(prctl(PR_SET_TSC, 3));
    T(ticks() > 0);
    catch_();
    T(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
    T(prctl(PR_GET_TSC, &mode));
    T(mode);
    armed_ = 1;
    if (!sigsetjmp(back_, 1))
        T(ticks() > 0);
    T(signal_);
    T(code_);
    /* A child, and a program that it executes, inherits that. */
    int status = CHILD(signal(SIGSEGV, SIG_DFL); sched_yield(); int is = 0; prctl(PR_GET_TSC, &is); if (is != 2) _exit(1); ticks());
    W(status);
    T(prctl(PR_SET_TSC, PR_TSC_ENABLE));
    T(prctl(PR_GET_TSC, &mode));
    T(mode);
    T(ticks() > 0);
    status = CHILD(_exit(ticks() > 0 ? 0 : 1));
    W(status);
}

static void speculation(void) {
    T(prctl(PR_GET_SPECULATION_CTRL, 77, 0, 0, 0));
    T(prctl(PR_SET_SPECULATION_CTRL, 77, 0, 0, 0));
    T(prctl(PR_GET_SPECULATION_CTRL, 0, 1, 0, 0));
    T(prctl(PR_GET_SPECULATION_CTRL, 0, 0, 1, 0));
    T(prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 1));
    T(prctl(PR_SET_SPECULATION_CTRL, 0, 0, 1, 0));
    T(prctl(PR_SET_SPECULATION_CTRL, 1, 2, 0, 1));
    T(prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 0) >= 0);
    T(prctl(PR_GET_SPECULATION_CTRL, 1, 0, 0, 0) >= 0);
    T(prctl(PR_GET_SPECULATION_CTRL, 2, 0, 0, 0) >= 0);
}

static void machine_checks(void) {
    T(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    T(prctl(PR_MCE_KILL_GET, 1, 0, 0, 0));
    T(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
    T(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    T(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0));
    T(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    W(CHILD(_exit(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0))));
    T(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, 3, 0, 0));
    T(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, 1, 1, 0));
    T(prctl(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 1, 0, 0));
    T(prctl(PR_MCE_KILL, 2, 0, 0, 0));
    T(prctl(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 0, 0, 0));
    T(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
}

static void others(void) {
    /* PR_SET_IO_FLUSHER and its question: for who may have more than others. */
    W(CHILD(setuid(1000); if (prctl(57, 1, 0, 0, 0) < 0) _exit(errno)));
    W(CHILD(setuid(1000); if (prctl(58, 0, 0, 0, 0) < 0) _exit(errno)));
    T(prctl(PR_SET_TIMERSLACK, 77777));
    W(CHILD(_exit(prctl(PR_GET_TIMERSLACK) == 77777)));
    uint64_t words[128] = {0};
    T(prctl(0x41555856, words, sizeof words, 1, 0));
    T(prctl(0x41555856, words, sizeof words, 0, 1));
    T(prctl(0x41555856, 8, 64, 0, 0));
    T(prctl(0x41555856, words, sizeof words, 0, 0) > 100);
    long page = 0;
    for (int i = 0; i < 126 && words[i]; i += 2)
        if (words[i] == AT_PAGESZ)
            page = words[i + 1];
    T(page);
    memset(words, 0xff, sizeof words);
    T(prctl(0x41555856, words, 5, 0, 0) > 100);
    T(words[0] >> 40 == 0xffffff && (words[0] & 0xffffffffff) == getauxval(0) * 0 + (words[0] & 0xff));
    T(prctl(0x41555856, words, 0, 0, 0) > 100);
}

static void alarm_clocks(void) {
    int fd;
    P(fd = timerfd_create(CLOCK_REALTIME_ALARM, 0));
    struct itimerspec it = {.it_value.tv_nsec = 1000000};
    T(timerfd_settime(fd, 0, &it, 0));
    uint64_t count = 0;
    T(read(fd, &count, 8));
    T(count);
    close(fd);
    P(fd = timerfd_create(CLOCK_BOOTTIME_ALARM, TFD_NONBLOCK));
    T(read(fd, &count, 8));
    close(fd);
    W(CHILD(setuid(1000); if (timerfd_create(CLOCK_BOOTTIME_ALARM, 0) < 0) _exit(errno)));
}

int main(void) {
    bases();
    clock_withheld();
    speculation();
    machine_checks();
    others();
    alarm_clocks();
    return 0;
}

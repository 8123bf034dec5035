/* Tracing: ptrace, and what wait says of tracees. */
#include "check.h"
#include <elf.h>
#include <linux/filter.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/user.h>

/* The call itself: glibc's function has ideas of its own about PEEK. */
static long pt(long request, pid_t pid, unsigned long addr, unsigned long data) {
    return syscall(SYS_ptrace, request, pid, addr, data);
}
#define PEEKUSER 3
#define WHERE(field) offsetof(struct user, field)

static int status;
static const char *shown(int s) {
    static char text[80];
    if (WIFEXITED(s)) sprintf(text, "exited %d", WEXITSTATUS(s));
    else if (WIFSIGNALED(s)) sprintf(text, "killed by %d", WTERMSIG(s));
    else if (WIFCONTINUED(s)) sprintf(text, "continued");
    else sprintf(text, "stopped by %d%s event %d", WSTOPSIG(s) & 0x7f, WSTOPSIG(s) & 0x80 ? " (call)" : "", s >> 16);
    return text;
}
/* Wait for a change of a tracee and print it. */
#define STATUS(pid) do { int r_ = waitpid(pid, &status, __WALL); \
        if (r_ == (pid)) printf(FAMILY ".%s: %s\n", #pid, shown(status)); \
        else printf(FAMILY ".%s: %s\n", #pid, strerrorname_np(errno)); fflush(stdout); } while (0)

/* A child that asks to be traced, stops itself, and does `...`. */
#define TRACED(...) ({ fflush(stdout); pid_t c_ = fork(); \
        if (!c_) { pt(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); __VA_ARGS__; fflush(stdout); _exit(7); } c_; })
#define OTHER(...) ({ fflush(stdout); pid_t c_ = fork(); if (!c_) { __VA_ARGS__; _exit(8); } c_; })
#define END(pid) do { kill(pid, SIGKILL); waitpid(pid, &status, __WALL); } while (0)

static void errors(void) {
    T(pt(PTRACE_ATTACH, getpid(), 0, 0));
    T(pt(PTRACE_ATTACH, 999999, 0, 0));
    T(pt(PTRACE_ATTACH, 0, 0, 0));
    T(pt(PTRACE_ATTACH, -1, 0, 0));
    T(pt(PTRACE_CONT, 999999, 0, 0));
    T(pt(PTRACE_CONT, getpid(), 0, 0));
    T(pt(PTRACE_DETACH, getpid(), 0, 0));
    T(pt(12345, getpid(), 0, 0));
    T(pt(PTRACE_SEIZE, 999999, 0, 0));
    pid_t idle = OTHER(for (;;) pause());
    T(pt(PTRACE_CONT, idle, 0, 0));
    T(pt(PTRACE_KILL, idle, 0, 0));
    T(pt(PTRACE_INTERRUPT, idle, 0, 0));
    T(pt(PTRACE_PEEKDATA, idle, 0, 0));
    T(pt(PTRACE_SEIZE, idle, 1, 0));
    T(pt(PTRACE_SEIZE, idle, 0, 0x100));
    T(pt(PTRACE_SEIZE, idle, 0, -1));
    T(pt(PTRACE_SEIZE, idle, 0, PTRACE_O_EXITKILL));
    T(pt(PTRACE_SEIZE, idle, 0, 0));
    T(pt(PTRACE_ATTACH, idle, 0, 0));
    T(pt(PTRACE_CONT, idle, 0, 0));
    T(pt(PTRACE_LISTEN, idle, 0, 0));
    T(pt(PTRACE_DETACH, idle, 0, 0));
    T(waitpid(idle, &status, WNOHANG | __WALL));
    END(idle);
    W(status);
    pid_t dead = OTHER(_exit(1));
    siginfo_t info;
    waitid(P_PID, dead, &info, WEXITED | WNOWAIT);
    T(pt(PTRACE_ATTACH, dead, 0, 0));
    STATUS(dead);
    T(pt(PTRACE_ATTACH, dead, 0, 0));
}

static void signals(void) {
    pid_t c = TRACED(signal(SIGUSR2, SIG_IGN); raise(SIGUSR1); raise(SIGUSR2); raise(SIGTERM); raise(SIGINT));
    STATUS(c);
    siginfo_t info;
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&info));
    T(info.si_signo);
    T(info.si_code);
    T(info.si_pid == c);
    T(pt(PTRACE_CONT, c, 0, 65));
    T(pt(PTRACE_CONT, c, 0, -1));
    T(pt(9999, c, 0, 0));
    T(pt(PTRACE_LISTEN, c, 0, 0));
    T(pt(PTRACE_INTERRUPT, c, 0, 0));
    T(pt(PTRACE_SETOPTIONS, c, 0, 0x100));
    T(pt(PTRACE_SETOPTIONS, c, 0, 0));
    T(waitpid(c, &status, WNOHANG));
    /* Not delivered. */
    T(pt(PTRACE_CONT, c, 0, 0));
    STATUS(c);
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&info));
    T(info.si_signo);
    T(pt(PTRACE_CONT, c, 0, 0));
    /* Ignored, and told all the same. */
    STATUS(c);
    T(pt(PTRACE_CONT, c, 0, SIGUSR2));
    STATUS(c);
    info.si_value.sival_int = 5;
    T(pt(PTRACE_SETSIGINFO, c, 0, (long)&info));
    T(pt(PTRACE_CONT, c, 0, 0));
    STATUS(c);
    T(pt(PTRACE_CONT, c, 0, SIGINT));
    STATUS(c);
    T(pt(PTRACE_CONT, c, 0, 0));

    c = TRACED(raise(SIGUSR1));
    STATUS(c);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    /* Another one in its place. */
    T(pt(PTRACE_CONT, c, 0, SIGTERM));
    STATUS(c);

    c = TRACED(_exit(3));
    STATUS(c);
    T(waitid(P_PID, c, &info, WEXITED | WNOHANG));
    T(pt(PTRACE_CONT, c, 0, 0));
    T(waitid(P_PID, c, &info, WEXITED | WNOWAIT));
    T(info.si_code);
    STATUS(c);

    c = TRACED(_exit(3));
    T(waitid(P_PID, c, &info, WSTOPPED | WNOWAIT));
    T(info.si_code);
    T(info.si_status);
    T(waitid(P_PID, c, &info, WEXITED));
    T(info.si_code);
    T(pt(PTRACE_KILL, c, 0, 0));
    STATUS(c);
}

static volatile int word = 5;
static const int constant = 6;

static void memory(void) {
    static char *page;
    page = mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page[0] = 'a';
    mprotect(page, 4096, PROT_READ);
    munmap(page + 8192, 4096);
    static char *shared;
    shared = mmap(0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t c = TRACED(_exit(word + constant + (page[0] == 'z') * 100 + (shared[0] == 'z') * 50));
    STATUS(c);
    long value = 0;
    T(pt(PTRACE_PEEKDATA, c, (long)&word, (long)&value));
    T((int)value);
    T(pt(PTRACE_PEEKDATA, c, 8, (long)&value));
    T(pt(PTRACE_PEEKTEXT, c, (long)page + 8192, (long)&value));
    T(pt(PTRACE_PEEKTEXT, c, (long)&word, 8));
    T(pt(PTRACE_POKEDATA, c, (long)&word, (value & ~0xffffffffL) | 10));
    T(pt(PTRACE_POKEDATA, c, 8, 1));
    /* What the tracee may not write itself. */
    T(pt(PTRACE_PEEKDATA, c, (long)&constant, (long)&value));
    T(pt(PTRACE_POKETEXT, c, (long)&constant, (value & ~0xffffffffL) | 20));
    T(pt(PTRACE_POKETEXT, c, (long)page, 'z'));
    T(pt(PTRACE_POKETEXT, c, (long)shared, 'z'));
    T(word + constant + (page[0] == 'z'));
    char path[64], byte = 0;
    sprintf(path, "/proc/%d/mem", c);
    int fd = open(path, O_RDWR);
    T(pread(fd, &byte, 1, (long)page));
    T(byte);
    T(pwrite(fd, "z", 1, (long)page));
    T(pwrite(fd, "z", 1, (long)page + 8192));
    close(fd);
    T(pt(PTRACE_CONT, c, 0, 0));
    STATUS(c);
}

static void registers(void) {
    pid_t c = TRACED(_exit(syscall(SYS_getppid) == 4711 ? 1 : 2));
    STATUS(c);
    struct user_regs_struct r, s;
    struct user_fpregs_struct f;
    T(pt(PTRACE_GETREGS, c, 0, (long)&r));
    T(r.cs);
    T(r.ss);
    T(r.orig_rax);
    T(r.rax);
    long value = 0;
    T(pt(PEEKUSER, c, WHERE(regs.rip), (long)&value));
    T(value == (long)r.rip);
    T(pt(PEEKUSER, c, 1, (long)&value));
    T(pt(PEEKUSER, c, 4, (long)&value));
    T(pt(PEEKUSER, c, sizeof(struct user), (long)&value));
    T(pt(PEEKUSER, c, sizeof(struct user) - 8, (long)&value));
    T(pt(PEEKUSER, c, WHERE(u_debugreg[7]), (long)&value));
    T(value);
    T(pt(PTRACE_POKEUSR, c, 3, 0));
    T(pt(PTRACE_POKEUSR, c, WHERE(regs.cs), 0));
    T(pt(PTRACE_POKEUSR, c, WHERE(regs.fs_base), -1));
    T(pt(PTRACE_POKEUSR, c, WHERE(regs.r15), 15));
    T(pt(PEEKUSER, c, WHERE(regs.r15), (long)&value));
    T(value);
    T(pt(PTRACE_POKEUSR, c, WHERE(regs.r15), r.r15));
    T(pt(PTRACE_GETREGS, c, 0, 8));
    T(pt(PTRACE_SETREGS, c, 0, 8));
    T(pt(PTRACE_SETREGS, c, 0, (long)&r));
    T(pt(PTRACE_GETFPREGS, c, 0, (long)&f));
    T(f.cwd);
    T(f.mxcsr);
    T(pt(PTRACE_SETFPREGS, c, 0, (long)&f));
    f.mxcsr = -1;
    T(pt(PTRACE_SETFPREGS, c, 0, (long)&f));

    struct iovec iov = {&s, sizeof s};
    T(pt(PTRACE_GETREGSET, c, NT_PRSTATUS, (long)&iov));
    T(iov.iov_len);
    T(memcmp(&r, &s, sizeof s));
    iov.iov_len = 16;
    T(pt(PTRACE_GETREGSET, c, NT_PRSTATUS, (long)&iov));
    T(iov.iov_len);
    iov.iov_len = 13;
    T(pt(PTRACE_GETREGSET, c, NT_PRSTATUS, (long)&iov));
    iov.iov_len = 4096;
    T(pt(PTRACE_GETREGSET, c, NT_PRSTATUS, (long)&iov));
    T(iov.iov_len);
    T(pt(PTRACE_SETREGSET, c, NT_PRSTATUS, (long)&iov));
    T(pt(PTRACE_GETREGSET, c, 0x7777, (long)&iov));
    T(pt(PTRACE_GETREGSET, c, NT_PRSTATUS, 8));
    iov = (struct iovec){&f, sizeof f};
    T(pt(PTRACE_GETREGSET, c, NT_FPREGSET, (long)&iov));
    T(iov.iov_len);

    unsigned long mask = 0;
    T(pt(PTRACE_GETSIGMASK, c, 8, (long)&mask));
    T(mask);
    T(pt(PTRACE_GETSIGMASK, c, 4, (long)&mask));
    mask = 1 << (SIGUSR1 - 1);
    T(pt(PTRACE_SETSIGMASK, c, 8, (long)&mask));
    kill(c, SIGUSR1);
    struct { uint64_t off; uint32_t flags; int32_t nr; } args = {0, 1, 4};
    siginfo_t queue[4];
    T(pt(PTRACE_PEEKSIGINFO, c, (long)&args, (long)queue));
    T(queue[0].si_signo);
    args.flags = 0;
    T(pt(PTRACE_PEEKSIGINFO, c, (long)&args, (long)queue));
    args.flags = 2;
    T(pt(PTRACE_PEEKSIGINFO, c, (long)&args, (long)queue));
    args = (typeof(args)){0, 0, -1};
    T(pt(PTRACE_PEEKSIGINFO, c, (long)&args, (long)queue));
    T(pt(PTRACE_ARCH_PRCTL, c, (long)&value, 0x1003));
    T(value == (long)r.fs_base);
    /* A call's result, changed at its end. */
    T(pt(PTRACE_SYSCALL, c, 0, 0));
    STATUS(c);
    for (int i = 0; i < 40; i++) {
        pt(PTRACE_GETREGS, c, 0, (long)&r);
        if (r.orig_rax == SYS_getppid && (long)r.rax != -ENOSYS)
            break;
        pt(PTRACE_SYSCALL, c, 0, 0);
        waitpid(c, &status, 0);
    }
    T(r.rax == (unsigned long)getpid());
    r.rax = 4711;
    T(pt(PTRACE_SETREGS, c, 0, (long)&r));
    T(pt(PTRACE_CONT, c, 0, 0));
    STATUS(c);
}

static void calls(void) {
    pid_t c = TRACED(syscall(SYS_getppid); syscall(SYS_close, -1); syscall(5000); _exit(syscall(SYS_getuid) == 99));
    STATUS(c);
    T(pt(PTRACE_SETOPTIONS, c, 0, PTRACE_O_TRACESYSGOOD));
    struct ptrace_syscall_info info;
    for (int i = 0, seen = 0; i < 60; i++) {
        if (pt(PTRACE_SYSCALL, c, 0, 0) || waitpid(c, &status, 0) != c)
            break;
        if (!WIFSTOPPED(status)) {
            printf(FAMILY ".last: %s\n", shown(status));
            break;
        }
        struct user_regs_struct r;
        siginfo_t si;
        unsigned long message = 99;
        pt(PTRACE_GETREGS, c, 0, (long)&r);
        pt(PTRACE_GETSIGINFO, c, 0, (long)&si);
        pt(PTRACE_GETEVENTMSG, c, 0, (long)&message);
        long size = pt(PTRACE_GET_SYSCALL_INFO, c, sizeof info, (long)&info);
        seen |= r.orig_rax == SYS_getppid;
        /* The rest of raise() comes first, which C libraries do each in their way. */
        if (!seen)
            continue;
        long rax = r.orig_rax == SYS_getppid && (long)r.rax > 0 ? 1 : (long)r.rax;
        printf(FAMILY ".call %ld: %s, rax %ld, code %d, message %lu, size %ld, op %d", (long)r.orig_rax, shown(status), rax,
               si.si_code, message, size, info.op);
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
            printf(", nr %d%s", (int)info.entry.nr,
                   info.entry.nr == SYS_close && (int)info.entry.args[0] == -1 ? ", args" : "");
        if (info.op == PTRACE_SYSCALL_INFO_EXIT)
            printf(", error %d", info.exit.is_error);
        printf("\n");
        if (r.orig_rax == SYS_getuid && info.op == PTRACE_SYSCALL_INFO_ENTRY) {
            r.orig_rax = -1;
            r.rax = 99;
            pt(PTRACE_SETREGS, c, 0, (long)&r);
        }
    }
    /* Not done at all. */
    c = TRACED(_exit(syscall(SYS_getppid) == 77 ? 1 : 2));
    STATUS(c);
    T(pt(PTRACE_SYSEMU, c, 0, 0));
    STATUS(c);
    struct user_regs_struct r;
    pt(PTRACE_GETREGS, c, 0, (long)&r);
    T((long)r.rax);
    END(c);
    W(status);
    /* A sleep that is interrupted goes on. */
    c = TRACED(struct timespec t = {0, 30000000}; _exit(nanosleep(&t, 0) == 0 ? 4 : 5));
    STATUS(c);
    T(pt(PTRACE_CONT, c, 0, 0));
    kill(c, SIGUSR1);
    STATUS(c);
    T(pt(PTRACE_CONT, c, 0, 0));
    STATUS(c);
}

static void steps(void) {
    pid_t c = TRACED(asm volatile("nop; nop; nop; mov $39, %%eax; syscall; nop; nop" ::: "rax", "rcx", "r11", "memory");
                     _exit(6));
    STATUS(c);
    siginfo_t si;
    struct user_regs_struct r;
    int steps = 0, calls = 0, codes[8] = {0}, nops = 0;
    unsigned long last = 0;
    while (steps < 4000) {
        pt(PTRACE_SINGLESTEP, c, 0, 0);
        waitpid(c, &status, 0);
        if (!WIFSTOPPED(status))
            break;
        steps++;
        pt(PTRACE_GETREGS, c, 0, (long)&r);
        pt(PTRACE_GETSIGINFO, c, 0, (long)&si);
        long code = 0;
        pt(PTRACE_PEEKTEXT, c, r.rip - 2, (long)&code);
        if ((code & 0xffff) == 0x050f)
            calls++;
        if ((code & 0xff00) == 0x9000 && r.rip == last + 1)
            nops++;
        if (si.si_code >= 0 && si.si_code < 8)
            codes[si.si_code]++;
        last = r.rip;
        if (r.eflags & 0x100)
            printf(FAMILY ".flag: seen\n");
    }
    printf(FAMILY ".steps: %s, %d calls at least two, %d nops at least five, %d\n", shown(status), calls >= 2, nops >= 4,
           codes[TRAP_TRACE] > 10);
    /* A breakpoint. */
    c = TRACED(asm volatile("int3"));
    STATUS(c);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&si));
    T(si.si_code);
    pt(PTRACE_GETREGS, c, 0, (long)&r);
    T((long)r.orig_rax);
    T(pt(PTRACE_CONT, c, 0, 0));
    STATUS(c);
}

__attribute__((noinline)) static void on_usr1(int s) { asm volatile("" ::"r"(s)); }

static void step_into_handler(void) {
    pid_t c = TRACED(signal(SIGUSR1, on_usr1); raise(SIGUSR1); _exit(6));
    STATUS(c);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    T(pt(PTRACE_SINGLESTEP, c, 0, SIGUSR1));
    STATUS(c);
    struct user_regs_struct r;
    siginfo_t si;
    pt(PTRACE_GETREGS, c, 0, (long)&r);
    T(r.rip == (unsigned long)on_usr1);
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&si));
    T(si.si_code);
    T(pt(PTRACE_CONT, c, 0, 0));
    STATUS(c);
}

static void events(void) {
    unsigned long message = 0;
    siginfo_t si;
    pid_t c = TRACED(pid_t g = fork(); if (!g) _exit(1); waitpid(g, 0, 0); _exit(4));
    STATUS(c);
    T(pt(PTRACE_SETOPTIONS, c, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL));
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    T(pt(PTRACE_GETEVENTMSG, c, 0, (long)&message));
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&si));
    T(si.si_code);
    pid_t g = message;
    STATUS(g);
    T(pt(PTRACE_GETSIGINFO, g, 0, (long)&si));
    T(si.si_code);
    pt(PTRACE_CONT, g, 0, 0);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(g);
    T(pt(PTRACE_GETEVENTMSG, g, 0, (long)&message));
    T(message);
    pt(PTRACE_CONT, g, 0, 0);
    STATUS(g);
    /* Its own parent hears of it now. */
    STATUS(c);
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&si));
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    T(pt(PTRACE_GETEVENTMSG, c, 0, (long)&message));
    T(message);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);

    c = TRACED(pid_t v = vfork(); if (!v) _exit(1); waitpid(v, 0, 0); _exit(4));
    STATUS(c);
    T(pt(PTRACE_SETOPTIONS, c, 0, PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE));
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    pt(PTRACE_GETEVENTMSG, c, 0, (long)&message);
    pid_t v = message;
    STATUS(v);
    T(pt(PTRACE_DETACH, v, 0, 0));
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    T(pt(PTRACE_GETEVENTMSG, c, 0, (long)&message));
    T(message == (unsigned long)v);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);

    c = TRACED(execl("/bin/true", "true", (char *)0));
    STATUS(c);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&si));
    T(si.si_code);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);

    c = TRACED(execl("/bin/true", "true", (char *)0));
    STATUS(c);
    T(pt(PTRACE_SETOPTIONS, c, 0, PTRACE_O_TRACEEXEC));
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    T(pt(PTRACE_GETEVENTMSG, c, 0, (long)&message));
    T(message == (unsigned long)c);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
}

static void *thread(void *arg) { syscall(SYS_exit, (long)arg); return 0; }

static void threads(void) {
    pid_t c = TRACED(pthread_t t; pthread_create(&t, 0, thread, (void *)9); pthread_join(t, 0); _exit(4));
    unsigned long message = 0;
    STATUS(c);
    T(pt(PTRACE_SETOPTIONS, c, 0, PTRACE_O_TRACECLONE));
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    pt(PTRACE_GETEVENTMSG, c, 0, (long)&message);
    pid_t t = message;
    STATUS(t);
    T(waitpid(t, &status, WNOHANG | __WALL));
    T(waitpid(t, &status, WNOHANG));
    /* A thread found dead once its process has ended tells the process's status: its process waits here until it was found. */
    pt(PTRACE_CONT, t, 0, 0);
    STATUS(t);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
}

static void seize(void) {
    siginfo_t si;
    pid_t c = OTHER(for (;;) pause());
    T(pt(PTRACE_SEIZE, c, 0, 0));
    T(waitpid(c, &status, WNOHANG | __WALL));
    T(pt(PTRACE_INTERRUPT, c, 0, 0));
    STATUS(c);
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&si));
    T(si.si_code);
    T(si.si_signo);
    T(pt(PTRACE_CONT, c, 0, 0));
    /* Stopped with its process; and it listens. */
    kill(c, SIGSTOP);
    STATUS(c);
    T(pt(PTRACE_CONT, c, 0, SIGSTOP));
    STATUS(c);
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&si));
    T(si.si_code);
    T(pt(PTRACE_LISTEN, c, 0, 0));
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&si));
    T(waitpid(c, &status, WNOHANG | __WALL));
    kill(c, SIGCONT);
    STATUS(c);
    T(pt(PTRACE_CONT, c, 0, 0));
    STATUS(c);
    T(pt(PTRACE_DETACH, c, 0, SIGTERM));
    STATUS(c);

    c = OTHER(for (;;) pause());
    T(pt(PTRACE_ATTACH, c, 0, 0));
    STATUS(c);
    T(pt(PTRACE_CONT, c, 0, SIGSTOP));
    STATUS(c);
    T(pt(PTRACE_GETSIGINFO, c, 0, (long)&si));
    T(pt(PTRACE_DETACH, c, 0, 0));
    T(waitpid(c, &status, WUNTRACED | WNOHANG) == c);
    kill(c, SIGCONT);
    END(c);
    W(status);

    /* One that is stopped already. */
    c = OTHER(for (;;) pause());
    kill(c, SIGSTOP);
    waitpid(c, &status, WUNTRACED);
    T(pt(PTRACE_SEIZE, c, 0, 0));
    STATUS(c);
    T(pt(PTRACE_DETACH, c, 0, 0));
    END(c);
    W(status);
}

/* The tracer is not the parent, and hears of the end first. */
static void strangers(void) {
    int fds[2], done[2];
    pipe(fds);
    pipe(done);
    pid_t c = OTHER(char b; read(fds[0], &b, 1); _exit(5));
    pid_t t = OTHER(
        if (pt(PTRACE_SEIZE, c, 0, 0)) _exit(1);
        write(fds[1], "x", 1);
        siginfo_t si;
        if (waitid(P_PID, c, &si, WEXITED | WNOWAIT | __WALL) || si.si_status != 5) _exit(2);
        write(done[1], "x", 1);
        char b; read(fds[0], &b, 1);
        if (waitpid(c, &status, __WALL) != c) _exit(3);
        _exit(WEXITSTATUS(status)));
    char b;
    read(done[0], &b, 1);
    T(waitpid(c, &status, WNOHANG));
    write(fds[1], "x", 1);
    STATUS(t);
    STATUS(c);

    /* The tracer's end sets free, or kills. */
    for (int kill_ = 0; kill_ < 2; kill_++) {
        c = OTHER(for (;;) pause());
        t = OTHER(pt(PTRACE_SEIZE, c, 0, kill_ ? PTRACE_O_EXITKILL : 0); pt(PTRACE_INTERRUPT, c, 0, 0);
                  waitpid(c, &status, __WALL); _exit(0));
        STATUS(t);
        if (!kill_) {
            N("set free", 0, waitpid(c, &status, WNOHANG));
            kill(c, SIGTERM);
        }
        STATUS(c);
    }
}

static void filters(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 42),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    pid_t c = TRACED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
                     _exit((syscall(SYS_getppid) == 55) * 2 + (syscall(SYS_getppid) == -1 && errno == ENOSYS)));
    STATUS(c);
    T(pt(PTRACE_SETOPTIONS, c, 0, PTRACE_O_TRACESECCOMP));
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    unsigned long message = 0;
    T(pt(PTRACE_GETEVENTMSG, c, 0, (long)&message));
    T(message);
    struct ptrace_syscall_info info = {0};
    T(pt(PTRACE_GET_SYSCALL_INFO, c, sizeof info, (long)&info));
    T(info.op);
    T(info.seccomp.ret_data);
    struct user_regs_struct r;
    pt(PTRACE_GETREGS, c, 0, (long)&r);
    T((long)r.rax);
    r.orig_rax = -1;
    r.rax = 55;
    pt(PTRACE_SETREGS, c, 0, (long)&r);
    T(pt(PTRACE_SETOPTIONS, c, 0, 0));
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
}

static volatile long watched, other;

static void places(void) {
    pid_t c = TRACED(other = 1; watched = 2; other = 3; watched = 4; on_usr1(0); _exit(6));
    struct user_regs_struct r;
    siginfo_t si;
    long value = 0;
    STATUS(c);
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[0]), (long)&watched));
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[0]), -1));
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[4]), 0));
    T(pt(PEEKUSER, c, WHERE(u_debugreg[0]), (long)&value));
    T(value == (long)&watched);
    /* Eight bytes, written to. */
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[7]), 1 | 0x9 << 16));
    T(pt(PEEKUSER, c, WHERE(u_debugreg[7]), (long)&value));
    T(value & 0xffff00ff);
    /* I/O; an instruction of eight bytes; an odd place. */
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[7]), 1 | 0x2 << 16));
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[7]), 1 | 0x8 << 16));
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[1]), (long)&watched + 1));
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[7]), 4 | 0x9 << 20));
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[7]), 1 | 0x9 << 16));
    for (int i = 0; i < 2; i++) {
        pt(PTRACE_CONT, c, 0, 0);
        STATUS(c);
        pt(PTRACE_GETSIGINFO, c, 0, (long)&si);
        N("code", i, si.si_code);
        pt(PTRACE_PEEKDATA, c, (long)&watched, (long)&value);
        N("written", i, value);
        pt(PEEKUSER, c, WHERE(u_debugreg[6]), (long)&value);
        N("status", i, value & 15);
    }
    /* Before an instruction. */
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[7]), 0));
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[2]), (long)on_usr1));
    T(pt(PTRACE_POKEUSR, c, WHERE(u_debugreg[7]), 0x10));
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
    pt(PTRACE_GETREGS, c, 0, (long)&r);
    T(r.rip == (unsigned long)on_usr1);
    pt(PTRACE_CONT, c, 0, 0);
    STATUS(c);
}

static void told(void) {
    /* What /proc says. */
    pid_t c = TRACED(_exit(0));
    STATUS(c);
    char path[64], line[256];
    sprintf(path, "/proc/%d/status", c);
    FILE *f = fopen(path, "r");
    while (fgets(line, sizeof line, f)) {
        int tracer;
        if (!strncmp(line, "State:", 6)) printf(FAMILY ".%s", line);
        if (sscanf(line, "TracerPid: %d", &tracer) == 1) printf(FAMILY ".tracer: %d\n", tracer == getpid());
    }
    fclose(f);
    END(c);
    c = OTHER(pause());
    sprintf(path, "/proc/self/task/%d/children", getpid());
    f = fopen(path, "r");
    T(f && fgets(line, sizeof line, f) && atoi(line) == c);
    fclose(f);
    END(c);
    T(access("/proc/self/children", F_OK));
    int slack = open("/proc/self/timerslack_ns", O_RDWR);
    T(write(slack, "70000", 5));
    T(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
    T(write(slack, "0\n", 2));
    T(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
    T(write(slack, "x", 1));
    close(slack);
    /* A signal to the tracer at each stop. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, 0);
    while (sigtimedwait(&set, 0, &(struct timespec){0}) > 0);
    c = TRACED(_exit(0));
    siginfo_t si;
    T(sigwaitinfo(&set, &si));
    T(si.si_code);
    T(si.si_status);
    T(si.si_pid == c);
    STATUS(c);
    pt(PTRACE_CONT, c, 0, 0);
    T(sigwaitinfo(&set, &si));
    T(si.si_code);
    STATUS(c);
    sigprocmask(SIG_UNBLOCK, &set, 0);
    c = OTHER(_exit(pt(PTRACE_TRACEME, 0, 0, 0) == 0 && pt(PTRACE_TRACEME, 0, 0, 0) == -1 && errno == EPERM));
    STATUS(c);
}

int main(void) {
    errors();
    signals();
    memory();
    registers();
    calls();
    steps();
    step_into_handler();
    events();
    threads();
    seize();
    strangers();
    filters();
    places();
    told();
    return 0;
}

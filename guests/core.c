/* A core file is what the process was: children end in several ways, and the files they leave are read back. Run where `core_pattern` can be
 * set, in a directory that can be written. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/procfs.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static char *memory;
static size_t bytes;
static volatile int there;

static void setting(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) perror(path), exit(1);
    close(fd);
}

static void *other(void *number) {
    __sync_fetch_and_add(&there, 1);
    /* One waits in the kernel, one never comes there. */
    if (number) for (;;) pause();
    for (;;) asm volatile("" ::: "memory");
    return 0;
}

/* The memory that the file must have, and a wild read with two registers that can be told. */
static void die(int threads) {
    memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t at = 0; at < bytes; at += 8) *(size_t *)(memory + at) = at ^ 0x5bd1e995;
    for (int i = 0; i < threads; i++) pthread_create(&(pthread_t){0}, 0, other, (void *)(long)(i & 1));
    while (there < threads) usleep(1000);
    asm volatile("mov $0x1122334455667788, %%r15; movq %0, %%xmm7; mov %1, %%r14; mov 8, %%rax" ::"r"(0x77ul), "r"(memory));
}

static int run(int threads, rlim_t limit, int dumpable, int signo) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){limit, limit});
        prctl(PR_SET_DUMPABLE, dumpable);
        if (signo) raise(signo);
        die(threads);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("signal %d, core %d\n", WTERMSIG(status), !!WCOREDUMP(status));
    return child;
}

static void at(int fd, void *to, size_t n, off_t where) {
    if (pread(fd, to, n, where) != (ssize_t)n) printf("the file is short\n"), exit(1);
}

static void look(const char *name) {
    int fd = open(name, O_RDONLY);
    if (fd < 0) {
        printf("%s: %s\n", name, strerror(errno));
        return;
    }
    struct stat st;
    fstat(fd, &st);
    printf("%s: mode %o\n", name, st.st_mode & 07777);
    Elf64_Ehdr h;
    at(fd, &h, sizeof h, 0);
    printf("type %d, machine %d\n", h.e_type, h.e_machine);
    int threads = 0, kinds = 0;
    size_t base = 0, wrong = 0, found = 0;
    for (int i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p;
        at(fd, &p, sizeof p, h.e_phoff + i * sizeof p);
        if (p.p_offset + p.p_filesz > (size_t)st.st_size) printf("a segment past the end\n");
        if (p.p_type == PT_NOTE) {
            char *notes = malloc(p.p_filesz), *n = notes;
            at(fd, notes, p.p_filesz, p.p_offset);
            while (n < notes + p.p_filesz) {
                Elf64_Nhdr *note = (void *)n;
                char *what = n + sizeof *note + ((note->n_namesz + 3) & ~3);
                if (note->n_type == NT_PRSTATUS) {
                    struct elf_prstatus *s = (void *)what;
                    struct user_regs_struct *r = (void *)s->pr_reg;
                    if (!threads++) printf("signal %d, r15 %llx\n", s->pr_cursig, r->r15), base = r->r14;
                } else if (note->n_type == NT_PRPSINFO) {
                    struct elf_prpsinfo *s = (void *)what;
                    printf("name %s\n", s->pr_fname);
                } else if (note->n_type == NT_SIGINFO) {
                    siginfo_t *s = (void *)what;
                    printf("code %d, address %p\n", s->si_code, s->si_addr);
                } else if (note->n_type == NT_FPREGSET && !(kinds & 1)) {
                    struct user_fpregs_struct *f = (void *)what;
                    printf("xmm7 %x\n", f->xmm_space[28]);
                    kinds |= 1;
                } else if (note->n_type == NT_AUXV) {
                    kinds |= 2;
                } else if (note->n_type == NT_FILE) {
                    kinds |= 4;
                }
                n = what + ((note->n_descsz + 3) & ~3);
            }
            free(notes);
        } else if (base >= p.p_vaddr && base + bytes <= p.p_vaddr + p.p_filesz) {
            for (size_t i = 0; i < bytes; i += 4096) {
                size_t page[512];
                at(fd, page, 4096, p.p_offset + base - p.p_vaddr + i);
                for (size_t w = 0; w < 512; w++) wrong += page[w] != ((i + 8 * w) ^ 0x5bd1e995);
                found += 4096;
            }
        }
    }
    printf("threads %d, notes %d, memory %s, wrong %zu\n", threads, kinds, found == bytes ? "all" : "not all", wrong);
    close(fd);
    unlink(name);
}

int main(int count, char **arguments) {
    char name[64];
    bytes = (count > 1 ? atoi(arguments[1]) : 1) << 20;
    setting("/proc/sys/kernel/core_pattern", "core");
    run(0, RLIM_INFINITY, 1, 0);
    look("core");
    run(3, RLIM_INFINITY, 1, 0);
    look("core");
    setting("/proc/sys/kernel/core_uses_pid", "1");
    sprintf(name, "core.%d", run(0, RLIM_INFINITY, 1, 0));
    look(name);
    setting("/proc/sys/kernel/core_pattern", "%e-%p-%s-%u-%%");
    sprintf(name, "core-%d-11-%d-%%", run(0, RLIM_INFINITY, 1, 0), getuid());
    look(name);
    setting("/proc/sys/kernel/core_uses_pid", "0");
    setting("/proc/sys/kernel/core_pattern", "core");
    /* None: not for this signal, not so long, not of this one. */
    run(0, RLIM_INFINITY, 1, SIGTERM);
    run(0, 4095, 1, 0);
    run(0, RLIM_INFINITY, 0, 0);
    look("core");
    /* As much of it as may be. */
    run(0, 8192, 1, SIGQUIT);
    struct stat st = {0};
    stat("core", &st);
    printf("short: %d\n", st.st_size > 0 && st.st_size <= 8192);
    unlink("core");
    printf("a program to hand it to: %s\n", ({
        int fd = open("/proc/sys/kernel/core_pattern", O_WRONLY);
        write(fd, "|/bin/cat", 9) == 9 ? "taken" : strerror(errno);
    }));
}

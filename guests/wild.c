// Touches what it must not, and says what the kernel told it.
//
//   wild WHAT [catch]
//
// WHAT: null, kernel, high (a non-canonical address), readonly, noexec, gone (an unmapped page), pastend (a file mapping behind
// the end of its file), guard (a stack that grows for ever). Without `catch` the signal kills it. With it, a handler on its own
// stack prints signal, si_code and the address, and the exit code is 0.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *expected;

static void handler(int signal, siginfo_t *info, void *context) {
    (void)context;
    char line[128];
    // Where the address is the same in every run, the number is printed; else whether it is the right one.
    uintptr_t at = (uintptr_t)info->si_addr;
    int n = expected ? snprintf(line, sizeof line, "signal %d code %d address %s\n", signal, info->si_code,
                                info->si_addr == expected ? "right" : "wrong")
                     : snprintf(line, sizeof line, "signal %d code %d address %lx\n", signal, info->si_code, at);
    _exit(write(1, line, n) != n);
}

static volatile char sink;

// Through a volatile number, so that the compiler does not see where it points.
static void look(uintptr_t address) {
    volatile uintptr_t at = address;
    sink = *(volatile char *)at;
}

// Not a tail call, and not without a frame: each level takes a page of stack.
__attribute__((noinline)) static int dive(int depth) {
    volatile char page[4096];
    page[0] = (char)depth;
    int below = depth == -1 ? 0 : dive(depth + 1);
    return below + page[0];
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (argc > 2 && !strcmp(argv[2], "catch")) {
        stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
        struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        sigaltstack(&stack, 0);
        sigaction(SIGSEGV, &action, 0);
        sigaction(SIGBUS, &action, 0);
    }
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page[0] = (char)0xc3; // ret
    if (!strcmp(what, "null")) {
        look(8);
    } else if (!strcmp(what, "kernel")) {
        look(0xffffffff80100000);
    } else if (!strcmp(what, "high")) {
        look(0x8000000000000000);
    } else if (!strcmp(what, "readonly")) {
        expected = page + 5;
        mprotect(page, 4096, PROT_READ);
        page[5] = 1;
    } else if (!strcmp(what, "noexec")) {
        expected = page;
        ((void (*)(void))page)();
    } else if (!strcmp(what, "gone")) {
        expected = page + 4096;
        munmap(page + 4096, 4096);
        sink = page[4096];
    } else if (!strcmp(what, "pastend")) {
        char name[] = "/tmp/wildXXXXXX";
        int file = mkstemp(name);
        if (file < 0 || unlink(name)) return 2;
        char *map = mmap(0, 8192, PROT_READ, MAP_SHARED, file, 0);
        if (ftruncate(file, 100)) return 2;
        expected = map + 4096;
        sink = map[4096];
    } else if (!strcmp(what, "guard")) {
        expected = (char *)1;
        return dive(0);
    } else {
        fprintf(stderr, "usage: wild null|kernel|high|readonly|noexec|gone|pastend|guard [catch]\n");
        return 2;
    }
    printf("nothing happened\n");
    return 3;
}

// flags: -pthread
// Threads of one process that use memory each far from the others, so many operations each: what do they meet at?
//
//   apart OPERATIONS
//
// A thread on each CPU. For each of fault (a page's first write), map (mmap, touch, munmap) and protect (a page, there and back), after
// a quarter as many to warm up, all threads begin together. Prints the operations of all, and where the kernel counts
// them (/proc/lock_stat) how often a lock was found taken meanwhile, and where.
//
// While they run, an instruction without effect has told a plugin of QEMU's (tests/lines/lines.c) which operation it is.
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, MOST = 16, PLACES = 256 };
static const size_t FAR = 1ul << 30;

static int cpus, operations;
static _Atomic int arrived, begun, finished;

static void check(int good, const char *what) {
    if (good) return;
    perror(what);
    exit(1);
}

// The mark: its displacement says which operation; 0: none.
#define MARK(n) __asm__ volatile("nopl %c0(%%rax)" : : "i"(0x48610000 | (n)))

static void fault(char *at, int many) {
    for (int i = 0; i < many; i++) at[(size_t)i * PAGE] = 1;
}
static void map(char *unused, int many) {
    (void)unused;
    for (int i = 0; i < many; i++) {
        char *at = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(at != MAP_FAILED, "mmap");
        at[0] = 1;
        munmap(at, 4 * PAGE);
    }
}
static void protect(char *at, int many) {
    for (int i = 0; i < many; i += 2) {
        at[0] = 1;
        mprotect(at, PAGE, PROT_READ);
        mprotect(at, PAGE, PROT_READ | PROT_WRITE);
    }
}

static struct {
    const char *name;
    void (*work)(char *, int);
} all[] = {{"fault", fault}, {"map", map}, {"protect", protect}};
static int now;

// Hardly a call of the kernel while waiting: that is one more thing to meet at. But there may be more CPUs than real ones.
static void await(_Atomic int *count, int many) {
    for (int tries = 1; *count < many; tries++) {
        __builtin_ia32_pause();
        if (tries % 1000 == 0) usleep(5000);
    }
}

static void *run(void *argument) {
    int number = (int)(intptr_t)argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(number, &set);
    check(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
    char *at = mmap(0, 2 * FAR, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(at != MAP_FAILED, "mmap");
    char *mine = (char *)(((uintptr_t)at + FAR - 1) & -FAR);
    int warm = operations / 4;
    check(mprotect(mine, (size_t)(warm + operations) * PAGE, PROT_READ | PROT_WRITE) == 0, "mprotect");
    madvise(mine, (size_t)(warm + operations) * PAGE, MADV_NOHUGEPAGE);
    all[now].work(mine, warm);
    arrived++;
    await(&begun, 1);
    all[now].work(mine + (size_t)warm * PAGE, operations);
    finished++;
    await(&begun, 2);
    munmap(at, 2 * FAR);
    return 0;
}

struct place {
    char at[160];
    uint64_t count;
};

static int locks(struct place *table) {
    FILE *file = fopen("/proc/lock_stat", "r");
    int n = 0;
    if (!file) return -1;
    while (n < PLACES && fscanf(file, "%" SCNu64 " %159s", &table[n].count, table[n].at) == 2) n++;
    fclose(file);
    return n;
}

static void measure(int which) {
    static struct place before[PLACES], after[PLACES];
    pthread_t threads[MOST];
    now = which;
    arrived = begun = finished = 0;
    for (int i = 0; i < cpus; i++) check(!pthread_create(&threads[i], 0, run, (void *)(intptr_t)i), "pthread_create");
    await(&arrived, cpus);
    int known = locks(before);
    switch (which) {
    case 0: MARK(1); break;
    case 1: MARK(2); break;
    default: MARK(3);
    }
    begun = 1;
    await(&finished, cpus);
    MARK(0);
    int total = locks(after);
    begun = 2;
    for (int i = 0; i < cpus; i++) pthread_join(threads[i], 0);
    uint64_t taken = 0;
    for (int i = 0; i < total; i++) taken += after[i].count -= i < known ? before[i].count : 0;
    printf("%s %d", all[which].name, cpus * operations);
    if (total >= 0) printf(" %" PRIu64, taken);
    puts("");
    for (int i = 0; i < total; i++)
        if (after[i].count) printf("at %s %" PRIu64 "\n", after[i].at, after[i].count);
    fflush(stdout);
}

int main(int argc, char **argv) {
    operations = argc > 1 ? atoi(argv[1]) : 0;
    if (operations < 4) return fprintf(stderr, "usage: apart OPERATIONS\n"), 2;
    cpu_set_t set;
    sched_getaffinity(0, sizeof set, &set);
    cpus = CPU_COUNT(&set) < MOST ? CPU_COUNT(&set) : MOST;
    for (int which = 0; which < 3; which++) measure(which);
    return 0;
}

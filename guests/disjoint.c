// Threads (or processes) that use memory each on its own range: how much more do N do than one?
//
//   disjoint [SECONDS]
//
// For each of: fault (touch fresh pages), map (mmap, touch, munmap), protect (a page, there and back), heap (brk; processes
// only), with 1, 2, 4 … up to as many as there are CPUs. Prints operations a second, and the factor over one. Where the kernel
// counts locks that were found taken (/proc/lock_stat), it prints those of each run.
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, SPAN = 256, MOST = 16 };

static double seconds = 1;
static _Atomic uint64_t *done;               // one line each
static _Atomic int *gate;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static char *some(int pages) {
    char *at = mmap(0, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) abort();
    return at;
}

static void fault(char *at) {
    for (int p = 0; p < SPAN; p++) at[p * PAGE] = 1;
    madvise(at, SPAN * PAGE, MADV_DONTNEED);
}
static void map(char *unused) {
    (void)unused;
    for (int i = 0; i < SPAN; i++) {
        char *at = some(4);
        at[0] = 1;
        munmap(at, 4 * PAGE);
    }
}
static void protect(char *at) {
    for (int i = 0; i < SPAN; i++) {
        at[i * PAGE] = 1;
        mprotect(at + i * PAGE, PAGE, PROT_READ);
        mprotect(at + i * PAGE, PAGE, PROT_READ | PROT_WRITE);
    }
}
static void heap(char *unused) {
    (void)unused;
    for (int i = 0; i < SPAN; i++) {
        char *at = sbrk(4 * PAGE);
        at[0] = 1;
        sbrk(-4 * PAGE);
    }
}

struct job {
    void (*work)(char *);
    int number;
};

static void *run(void *argument) {
    struct job *job = argument;
    // Ranges far apart, so that neighbours share no page table.
    char *at = mmap(0, 512 * SPAN * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(at, SPAN * PAGE, PROT_READ | PROT_WRITE);
    job->work(at);
    gate[1]++;
    while (!gate[0]) sched_yield();
    double end = now() + seconds;
    while (now() < end) {
        job->work(at);
        done[job->number * 16] += SPAN;
    }
    munmap(at, 512 * SPAN * PAGE);
    return 0;
}

struct count {
    char place[80];
    uint64_t count;
};
static int locks(struct count *table) {
    FILE *file = fopen("/proc/lock_stat", "r");
    int n = 0;
    if (!file) return 0;
    while (n < 256 && fscanf(file, "%" SCNu64 " %79s", &table[n].count, table[n].place) == 2) n++;
    fclose(file);
    return n;
}

static uint64_t measure(const char *name, void (*work)(char *), int many, int processes, uint64_t one) {
    static struct count before[256], after[256];
    memset((void *)done, 0, MOST * 128);
    gate[0] = gate[1] = 0;
    struct job jobs[MOST];
    pthread_t threads[MOST];
    for (int i = 0; i < many; i++) {
        jobs[i] = (struct job){work, i};
        if (!processes) {
            pthread_create(&threads[i], 0, run, &jobs[i]);
        } else if (fork() == 0) {
            run(&jobs[i]);
            _exit(0);
        }
    }
    while (gate[1] < many) sched_yield();
    int known = locks(before);
    gate[0] = 1;
    for (int i = 0; i < many; i++) {
        if (processes) wait(0);
        else pthread_join(threads[i], 0);
    }
    uint64_t sum = 0;
    for (int i = 0; i < many; i++) sum += done[i * 16];
    uint64_t rate = sum / seconds;
    printf("%s %d %s: %" PRIu64 " a second, factor %.2f\n", name, many, processes ? "processes" : "threads", rate,
           one ? (double)rate / one : 1);
    int total = locks(after);
    for (int i = 0; i < total; i++) {
        uint64_t old = i < known ? before[i].count : 0;
        if (after[i].count > old) printf("    taken %" PRIu64 " times: %s\n", after[i].count - old, after[i].place);
    }
    fflush(stdout);
    return rate;
}

int main(int argc, char **argv) {
    if (argc > 1) seconds = atof(argv[1]);
    cpu_set_t set;
    sched_getaffinity(0, sizeof set, &set);
    int cpus = CPU_COUNT(&set);
    char *shared = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    done = (void *)shared;
    gate = (void *)(shared + PAGE);
    struct {
        const char *name;
        void (*work)(char *);
    } all[] = {{"fault", fault}, {"map", map}, {"protect", protect}, {"heap", heap}};
    for (size_t w = 0; w < 4; w++)
        for (int processes = all[w].work == heap; processes < 2; processes++) {
            uint64_t one = 0;
            for (int many = 1; many <= cpus && many <= MOST; many *= 2) {
                uint64_t rate = measure(all[w].name, all[w].work, many, processes, one);
                if (!one) one = rate;
            }
        }
    return 0;
}

// Threads of one process that use, map, unmap and protect memory at random, all at once, and check every word they see.
//
//   cpus SECONDS MIB [THREADS] [SEED]
//
// Each thread has a share of MIB, whose pages it alone writes; it knows what each must hold. Besides:
//
//   counters   words that all threads add to: what is lost by a copy made too early is missing in the sum
//   rights     a page that one thread takes the right to write from, while another goes on writing: what that one has
//              written after the call returned is a stale translation
//   gone       the same with a page that is unmapped, or thrown away (then it must read as zero)
//   fork       the child must see the pages as they were, whatever the others write meanwhile
//
// From time to time all stop at a barrier; where the kernel can audit its memory it does so then (/proc/audit).
//
// Prints how often each was done. Exit code 0 if all was right.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, MOST = 64, COUNTERS = 512, PLAY = 64 };

static uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

struct thread {
    pthread_t id;
    int number;
    uint64_t state, added;
    uint32_t *versions;                      // of the pages of its share
    char *play;                              // a range that it maps, protects and unmaps
    uint64_t visits, maps, protects, stale, forks, moves;
};

static struct thread threads[MOST];
static int count;
static uint64_t share, seconds;
static uint64_t *arena;
static _Atomic uint64_t *counters;           // COUNTERS pages
static atomic_int stop, wrong, resting;
static pthread_barrier_t barrier;

static void complain(const char *what, uint64_t a, uint64_t b, uint64_t c) {
    if (atomic_fetch_add(&wrong, 1) < 20)
        fprintf(stderr, "cpus: %s: %" PRIx64 " %" PRIx64 " %" PRIx64 "\n", what, a, b, c);
}

static uint64_t next(struct thread *t) { return mix(t->state += 0x9e3779b97f4a7c15u); }

static uint64_t word(uint64_t page, uint64_t version, uint64_t i) {
    return mix(page * 0x10001 + version * 0x9e3779b97f4a7c15u + 1) + i * 0x2545f4914f6cdd1du;
}

static uint64_t *page_of(struct thread *t, uint64_t n) { return arena + (t->number * share + n) * WORDS; }

static int holds(struct thread *t, uint64_t n) {
    uint64_t *at = page_of(t, n), first = t->number * share;
    uint32_t version = t->versions[n];
    for (uint64_t i = 0; i < WORDS; i++) {
        uint64_t wanted = version ? word(first + n, version, i) : 0;
        if (at[i] != wanted) {
            uint64_t found = at[i], old = 0;
            while (old < version && found != word(first + n, old, i)) old++;
            fprintf(stderr, "cpus: thread %d of pid %d: page %" PRIu64 " should have version %u, has %" PRId64 "\n", t->number,
                    getpid(), first + n, version, found ? old < version ? (int64_t)old : -1 : 0);
            complain("a page of the share (page, word, found)", first + n, i, found);
            return 0;
        }
    }
    return 1;
}

static void rewrite(struct thread *t, uint64_t n) {
    uint64_t *at = page_of(t, n);
    uint32_t version = ++t->versions[n];
    for (uint64_t i = 0; i < WORDS; i++) at[i] = word(t->number * share + n, version, i);
}

// ---- accesses that may fault

static _Thread_local sigjmp_buf recover;
static _Thread_local volatile int trying;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    if (!trying) {
        char text[100];
        int n = snprintf(text, sizeof text, "cpus: signal %d at %p\n", signal, info->si_addr);
        if (write(2, text, n) < 0) _exit(4);
        _exit(3);
    }
    siglongjmp(recover, 1);
}

// Whether the word can be read; its value.
static int peek(volatile uint64_t *at, uint64_t *value) {
    trying = 1;
    if (sigsetjmp(recover, 0)) {
        trying = 0;
        return 0;
    }
    *value = *at;
    trying = 0;
    return 1;
}

static int poke(volatile uint64_t *at, uint64_t value) {
    trying = 1;
    if (sigsetjmp(recover, 0)) {
        trying = 0;
        return 0;
    }
    *at = value;
    trying = 0;
    return 1;
}

// ---- one thread takes something away, another goes on using it

enum { NOTHING, READ_ONLY, UNMAPPED, THROWN_AWAY };

// What the owner has done to `at`, as a number that grows: odd while it is under way.
struct target {
    _Atomic(uint64_t *) at;
    _Atomic uint64_t step;
    _Atomic int state;
};
static struct target targets[MOST];

// Use another thread's page. What the owner had finished before we looked, and has not changed since, must have held.
static void use(struct thread *t) {
    struct target *target = &targets[next(t) % count];
    uint64_t before = target->step, value = 0;
    uint64_t *at = target->at;
    int state = target->state;
    if (!at || before & 1) return;
    uint64_t mark = next(t) | 1;
    int wrote = poke(at, mark), read = peek(at, &value);
    atomic_thread_fence(memory_order_seq_cst);
    if (target->step != before) return;
    t->stale++;
    if (wrote && (state == READ_ONLY || state == UNMAPPED)) complain("written in spite of its rights (state)", state, before, mark);
    if (read && state == UNMAPPED) complain("read though unmapped", (uint64_t)at, before, value);
}

static void take_away(struct thread *t) {
    struct target *mine = &targets[t->number];
    uint64_t *at = (uint64_t *)(t->play + next(t) % PLAY * PAGE);
    mine->step++;
    mine->at = at;
    mine->state = NOTHING;
    memset(t->play, 0x55, PLAY * PAGE / 4);
    *(volatile uint64_t *)at = 1;
    mine->step++;
    for (int i = next(t) % 200; i > 0; i--) *(volatile uint64_t *)at += 1;
    mine->step++;
    int what = 1 + next(t) % 3;
    if (what == READ_ONLY) {
        if (mprotect(at, PAGE, PROT_READ)) complain("mprotect", errno, 0, 0);
        t->protects++;
    } else if (what == UNMAPPED) {
        if (munmap(at, PAGE)) complain("munmap", errno, 0, 0);
        t->maps++;
    } else if (madvise(at, PAGE, MADV_DONTNEED)) {
        complain("madvise", errno, 0, 0);
    }
    mine->state = what;
    mine->step++;
    uint64_t value;
    if (what != THROWN_AWAY) {
        if (poke(at, 2)) complain("written by the owner", what, 0, 0);
        if (what == READ_ONLY && !peek(at, &value)) complain("not readable", what, 0, 0);
    }
    for (int i = next(t) % 50; i > 0; i--) sched_yield();
    mine->step++;
    mine->state = NOTHING;
    mine->at = 0;
    if (what == READ_ONLY) {
        // Nobody may have written it since.
        peek(at, &value);
        uint64_t again;
        for (int i = 0; i < 20; i++) {
            peek(at, &again);
            if (again != value) complain("a read-only page changes", value, again, 0);
        }
        if (mprotect(at, PAGE, PROT_READ | PROT_WRITE)) complain("mprotect back", errno, 0, 0);
    } else if (what == UNMAPPED) {
        void *back = mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (back != at) complain("mmap", errno, 0, 0);
        for (int i = 0; i < WORDS; i++)
            if (at[i] && i) complain("a new page is not zero", i, at[i], 0);
    }
    mine->step++;
}

// ---- mappings that come and go

static void map_some(struct thread *t) {
    // Two at least: one could come to lie where another thread has just unmapped its page.
    uint64_t pages = 2 + next(t) % 100, key = next(t);
    uint64_t *at = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return complain("mmap", errno, 0, 0);
    for (uint64_t p = 0; p < pages; p += 1 + next(t) % 4) at[p * WORDS + p % WORDS] = key + p + 1;
    if (next(t) % 4 == 0) {
        uint64_t *to = mremap(at, pages * PAGE, (pages + 8) * PAGE, MREMAP_MAYMOVE);
        if (to == MAP_FAILED) complain("mremap", errno, 0, 0);
        else at = to, pages += 8, t->moves++;
    }
    for (uint64_t p = 0; p < pages; p++) {
        uint64_t value = at[p * WORDS + p % WORDS];
        if (value && value != key + p + 1) complain("a fresh mapping", p, value, key);
    }
    if (munmap(at, pages * PAGE)) complain("munmap", errno, 0, 0);
    t->maps++;
}

static void fork_one(struct thread *t) {
    pid_t child = fork();
    if (child < 0) return;
    if (child == 0) {
        int good = 1;
        for (int i = 0; i < 30; i++) {
            uint64_t n = next(t) % share;
            good &= holds(t, n);
            rewrite(t, n);
            good &= holds(t, n);
        }
        _exit(good ? 0 : 9);
    }
    for (int i = 0; i < 30; i++) {
        uint64_t n = next(t) % share;
        holds(t, n);
        rewrite(t, n);
    }
    int status;
    if (waitpid(child, &status, 0) != child) complain("waitpid", errno, 0, 0);
    else if (status) complain("a child", status, 0, 0);
    t->forks++;
}

static void *work(void *argument) {
    struct thread *t = argument;
    while (!stop) {
        if (resting) {
            pthread_barrier_wait(&barrier);
            pthread_barrier_wait(&barrier);
            continue;
        }
        uint64_t what = next(t) % 1000;
        if (what < 700) {
            uint64_t n = next(t) % share;
            if (holds(t, n) && what % 2) rewrite(t, n);
            t->visits++;
        } else if (what < 780) {
            for (int i = 0; i < 20; i++) {
                atomic_fetch_add(&counters[next(t) % (COUNTERS * WORDS)], 1);
                t->added++;
            }
        } else if (what < 880) {
            use(t);
        } else if (what < 940) {
            take_away(t);
        } else if (what < 999) {
            map_some(t);
        } else if (next(t) % 4 == 0) {
            fork_one(t);
        }
    }
    return 0;
}

static void audit(void) {
    char text[2000];
    int file = open("/proc/audit", O_RDONLY);
    if (file < 0) return;
    ssize_t n = read(file, text, sizeof text - 1);
    close(file);
    text[n < 0 ? 0 : n] = 0;
    if (n < 0 || strcmp(text, "ok\n")) {
        fprintf(stderr, "cpus: the audit: %zd %s\n", n, text);
        atomic_fetch_add(&wrong, 1);
    }
}

static void check_all(const char *when) {
    uint64_t sum = 0, added = 0;
    for (int i = 0; i < COUNTERS * WORDS; i++) sum += counters[i];
    for (int i = 0; i < count; i++) added += threads[i].added;
    if (sum != added) complain(when, sum, added, 0);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: cpus SECONDS MIB [THREADS] [SEED]\n");
        return 2;
    }
    seconds = strtoull(argv[1], 0, 0);
    cpu_set_t set;
    int cpus = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    count = argc > 3 ? atoi(argv[3]) : 2 * cpus;
    uint64_t seed = argc > 4 ? strtoull(argv[4], 0, 0) : 1;
    if (count < 1 || count > MOST) return 2;
    share = strtoull(argv[2], 0, 0) * (1 << 20) / PAGE / count;

    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, 0);
    sigaction(SIGBUS, &action, 0);
    int private = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    arena = mmap(0, share * count * PAGE, PROT_READ | PROT_WRITE, private, -1, 0);
    counters = mmap(0, COUNTERS * PAGE, PROT_READ | PROT_WRITE, private, -1, 0);
    if (arena == MAP_FAILED || counters == MAP_FAILED) {
        perror("cpus");
        return 2;
    }
    pthread_barrier_init(&barrier, 0, count + 1);
    for (int i = 0; i < count; i++) {
        threads[i].number = i;
        threads[i].state = mix(seed * 100 + i);
        threads[i].versions = calloc(share, sizeof(uint32_t));
        // With a page to each side, so that no two threads' holes make one that another mapping fits into.
        threads[i].play = (char *)mmap(0, (PLAY + 2) * PAGE, PROT_READ | PROT_WRITE, private, -1, 0) + PAGE;
        if (pthread_create(&threads[i].id, 0, work, &threads[i])) return 2;
    }
    time_t end = time(0) + seconds;
    for (int round = 0; time(0) < end && !wrong; round++) {
        struct timespec pause = {.tv_sec = 2};
        nanosleep(&pause, 0);
        resting = 1;
        pthread_barrier_wait(&barrier);
        check_all("the counters, meanwhile");
        audit();
        resting = 0;
        pthread_barrier_wait(&barrier);
    }
    stop = 1;
    for (int i = 0; i < count; i++) pthread_join(threads[i].id, 0);
    check_all("the counters");
    uint64_t visits = 0, maps = 0, protects = 0, stale = 0, forks = 0, moves = 0;
    for (int i = 0; i < count; i++) {
        struct thread *t = &threads[i];
        for (uint64_t n = 0; n < share; n++) holds(t, n);
        visits += t->visits, maps += t->maps, protects += t->protects, stale += t->stale, forks += t->forks, moves += t->moves;
    }
    printf("cpus %d threads %d visits %" PRIu64 " maps %" PRIu64 " protects %" PRIu64 " looks %" PRIu64 " forks %" PRIu64 " moves %" PRIu64
           " wrong %d\n", cpus, count, visits, maps, protects, stale, forks, moves, wrong);
    return wrong != 0;
}

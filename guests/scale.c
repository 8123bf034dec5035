// What an operation costs in a space of so many regions.
//
//   scale REGIONS
//
// Fills a space with that many regions of a page each, no two of which can be one, and then measures, at places spread all over
// them: the first write to a page, mapping a page and unmapping it again, and taking a page's right to be written. Prints
// `name median minimum samples`, in ticks of the time-stamp counter (with --icount: instructions).
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

enum { PAGE = 4096, SAMPLES = 1000 };

static uint64_t samples[SAMPLES];

static uint64_t now(void) {
    _mm_lfence();
    return __rdtsc();
}

static void fail(const char *what) {
    fprintf(stderr, "scale: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int order(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print(const char *name) {
    qsort(samples, SAMPLES, sizeof *samples, order);
    printf("%s %lu %lu %d\n", name, samples[SAMPLES / 2], samples[0], SAMPLES);
}

int main(int count, char **words) {
    long regions = count == 2 ? atol(words[1]) : 0;
    if (regions < 4) return fputs("usage: scale REGIONS (4 or more)\n", stderr), 1;
    // A page of each region is its own, and a hole between keeps room for one more.
    long pages = regions * 2;
    char *base = mmap(0, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED || munmap(base, pages * PAGE)) fail("room");
    // More than a program may have unless told otherwise: tell, if we may. If not, mmap says so.
    FILE *most = regions > 60000 ? fopen("/proc/sys/vm/max_map_count", "w") : 0;
    if (most) {
        fprintf(most, "%ld\n", regions + 1000);
        fclose(most);
    }
    for (long i = 0; i < regions; i++) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        if (mmap(base + i * 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) fail("mmap");
    }
    // Steps that have no common divisor with the count visit all alike.
    long step = regions * 5 / 8 | 1, at = 0;
    uint64_t start = now();
    uint64_t overhead = now() - start;

    for (int i = 0; i < SAMPLES; i++, at = (at + step) % regions) {
        char *page = base + at * 2 * PAGE;
        madvise(page, PAGE, MADV_DONTNEED);
        // And one far away, so that what is looked for is not where the last call was.
        madvise(base + (at + regions / 2) % regions * 2 * PAGE, PAGE, MADV_DONTNEED);
        start = now();
        *(volatile char *)page = 1;
        samples[i] = now() - start - overhead;
    }
    print("fault");
    for (int i = 0; i < SAMPLES; i++, at = (at + step) % regions) {
        char *page = base + (at * 2 + 1) * PAGE;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        // Another right than the neighbours', or the three would become one.
        start = now();
        if (mmap(page, PAGE, PROT_READ, flags, -1, 0) == MAP_FAILED) fail("mmap");
        samples[i] = now() - start - overhead;
        munmap(page, PAGE);
    }
    print("mmap");
    for (int i = 0; i < SAMPLES; i++, at = (at + step) % regions) {
        char *page = base + (at * 2 + 1) * PAGE;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
        if (mmap(page, PAGE, PROT_READ, flags, -1, 0) == MAP_FAILED) fail("mmap");
        start = now();
        if (munmap(page, PAGE)) fail("munmap");
        samples[i] = now() - start - overhead;
    }
    print("munmap");
    for (int i = 0; i < SAMPLES; i++, at = (at + step) % regions) {
        char *page = base + at * 2 * PAGE;
        start = now();
        if (mprotect(page, PAGE, PROT_READ)) fail("mprotect");
        samples[i] = now() - start - overhead;
        if (mprotect(page, PAGE, PROT_READ | PROT_WRITE)) fail("mprotect");
    }
    print("mprotect");
    return 0;
}

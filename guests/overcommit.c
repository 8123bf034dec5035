// More memory than the machine has, and every word of it checked.
//
//   overcommit MIB ROUNDS [SEED]
//
// Fills MIB of anonymous memory with a pattern that every word's own address and a key give, then visits the pages in random
// order, ROUNDS times the number of pages. A visit checks all words of the page; every fourth visit writes the page anew
// under the next key. Any memory that is lost, swapped with a neighbour's or stale is a wrong word.
//
// Prints the number of visits, of wrong words, and a digest that depends only on the arguments. Exit code: 0 if all was
// right, 1 if not.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };

static uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t state;
static uint64_t next(void) { return mix(state += 0x9e3779b97f4a7c15u); }

static uint64_t word(uint64_t page, uint64_t i, uint64_t key) {
    return mix(page * WORDS + 1 + key * 0x9e3779b97f4a7c15u) + i * 0x2545f4914f6cdd1du;
}

static void fill(uint64_t *at, uint64_t page, uint64_t key) {
    for (uint64_t i = 0; i < WORDS; i++) at[i] = word(page, i, key);
}

static uint64_t wrong(const uint64_t *at, uint64_t page, uint64_t key) {
    uint64_t bad = 0;
    for (uint64_t i = 0; i < WORDS; i++) bad += at[i] != word(page, i, key);
    return bad;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: overcommit MIB ROUNDS [SEED]\n");
        return 2;
    }
    uint64_t pages = strtoull(argv[1], 0, 0) * (1 << 20) / PAGE;
    uint64_t visits = pages * strtoull(argv[2], 0, 0);
    state = argc > 3 ? strtoull(argv[3], 0, 0) : 1;

    uint64_t *memory =
        mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint32_t *keys = calloc(pages, sizeof *keys);
    if (memory == MAP_FAILED || !keys) {
        perror("overcommit");
        return 2;
    }
    for (uint64_t p = 0; p < pages; p++) fill(memory + p * WORDS, p, 0);

    uint64_t bad = 0, digest = 0;
    for (uint64_t v = 0; v < visits; v++) {
        uint64_t p = next() % pages, *at = memory + p * WORDS;
        uint64_t now = wrong(at, p, keys[p]);
        if (now && bad < 64) fprintf(stderr, "page %" PRIu64 ": %" PRIu64 " wrong words\n", p, now);
        bad += now;
        digest = mix(digest ^ at[next() % WORDS]);
        if (v % 4 == 3) fill(at, p, ++keys[p]);
    }
    printf("pages %" PRIu64 " visits %" PRIu64 " wrong %" PRIu64 " digest %016" PRIx64 "\n", pages, visits, bad, digest);
    return bad != 0;
}

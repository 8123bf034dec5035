// How much RAM a program can really have.
//
//   hold MIB
//
// Fills MIB of memory with numbers, one per page, and sums them up twice over. Run without swap: if all of it fits in RAM, the sum
// is right and the exit code 0; if not, the kernel kills it.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
    size_t pages = argc > 1 ? strtoull(argv[1], 0, 0) * 256 : 0;
    unsigned char *memory = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!pages || memory == MAP_FAILED) {
        fprintf(stderr, "usage: hold MIB\n");
        return 2;
    }
    uint64_t sum = 0;
    for (size_t p = 0; p < pages; p++) *(uint64_t *)(memory + p * 4096) = p;
    for (int round = 0; round < 2; round++)
        for (size_t p = 0; p < pages; p++) sum += *(uint64_t *)(memory + p * 4096);
    printf("%zu MiB held\n", pages / 256);
    return sum != (uint64_t)pages * (pages - 1);
}

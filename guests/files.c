// One file changed in every way there is, at random, and compared with a flat copy in memory.
//
//   files FILE SEED STEPS
//
// Bytes are written by write and through shared mappings, made zero by truncation, growth and holes, moved by copy_file_range; they are read
// by read and through mappings. Each way must see what the others have done, whatever page of it is cached, dirty, in swap or on the host.
// Prints the first byte that is wrong and what led to it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 1 << 18, PIECE = 1 << 16, PAGE = 4096 };

static unsigned char wanted[MOST], got[MOST], fresh[PIECE];
static long size;
static const char *path;
static int file, step, holes = 1, copies = 1;
static unsigned long state;

static unsigned long below(unsigned long limit) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 3) % limit;
}

static void fail(const char *what, long at, long is, long should) {
    printf("step %d: %s at %ld is %ld, should be %ld (size %ld)\n", step, what, at, is, should, size);
    exit(1);
}

static void must(int good, const char *call) {
    if (!good) {
        printf("step %d: %s: %s\n", step, call, strerror(errno));
        exit(2);
    }
}

// The flat copy's part [at, at + len) is `bytes` now; what lies between the end and it is zero.
static void put(long at, const unsigned char *bytes, long len) {
    if (len == 0) return;
    if (at > size) memset(wanted + size, 0, at - size);
    memmove(wanted + at, bytes, len);
    if (at + len > size) size = at + len;
}

static void compare(const char *what, const unsigned char *is, long at, long len) {
    for (long i = 0; i < len; i++)
        if (is[i] != wanted[at + i]) fail(what, at + i, is[i], wanted[at + i]);
}

static const unsigned char *noise(long len) {
    for (long i = 0; i < len; i++) fresh[i] = below(256);
    return fresh;
}

static void write_it(long at, long len) {
    must(pwrite(file, noise(len), len, at) == len, "pwrite");
    put(at, fresh, len);
}

static void read_it(long at, long len) {
    long should = at >= size ? 0 : at + len > size ? size - at : len;
    long is = pread(file, got, len, at);
    if (is != should) fail("length read", at, is, should);
    compare("byte read", got, at, is);
}

static void resize(long to) {
    must(ftruncate(file, to) == 0, "ftruncate");
    if (to > size) memset(wanted + size, 0, to - size);
    size = to;
}

static unsigned char *map(long at, long len, int rights, int kind, long *skip) {
    *skip = at % PAGE;
    unsigned char *to = mmap(0, len + *skip, rights, kind, file, at - *skip);
    must(to != MAP_FAILED, "mmap");
    return to;
}

static void write_mapped(long at, long len) {
    long skip;
    unsigned char *to = map(at, len, PROT_READ | PROT_WRITE, MAP_SHARED, &skip);
    memcpy(to + skip, noise(len), len);
    put(at, fresh, len);
    if (below(3) == 0) must(msync(to, len + skip, MS_SYNC) == 0, "msync");
    munmap(to, len + skip);
}

static void read_mapped(long at, long len) {
    long skip;
    unsigned char *from = map(at, len, PROT_READ, below(2) ? MAP_SHARED : MAP_PRIVATE, &skip);
    compare("byte mapped", from + skip, at, len);
    // The rest of the last page.
    if (at + len == size)
        for (long i = skip + len; i % PAGE; i++)
            if (from[i]) fail("byte past the end", at - skip + i, from[i], 0);
    munmap(from, len + skip);
}

static void punch(long at, long len) {
    if (!holes) return;
    if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, len) < 0) {
        must(errno == EOPNOTSUPP, "fallocate");
        holes = 0;
        return;
    }
    for (long i = at; i < at + len && i < size; i++) wanted[i] = 0;
}

static void copy(long at, long len) {
    long to = below(MOST - len);
    if (!copies || (to < at + len && at < to + len)) return;
    off_t from = at, there = to;
    while (there < to + len) {
        long done = copy_file_range(file, &from, file, &there, to + len - there, 0);
        if (done < 0) {
            must(errno == EOPNOTSUPP || errno == EXDEV, "copy_file_range");
            copies = 0;
        }
        if (done <= 0) break;
    }
    put(to, wanted + at, there - to);
}

static void look(void) {
    struct stat is;
    must(fstat(file, &is) == 0, "fstat");
    if (is.st_size != size) fail("size", 0, is.st_size, size);
    if (below(8) == 0) {
        must(below(2) || fsync(file) == 0, "fsync");
        close(file);
        must((file = open(path, O_RDWR)) >= 0, "open");
    }
}

int main(int count, char **words) {
    if (count != 4) return 2;
    path = words[1];
    state = atol(words[2]) * 2654435761u + 88172645463325252ul;
    must((file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644)) >= 0, "open");
    for (step = 0; step < atoi(words[3]); step++) {
        long at = below(MOST), len = 1 + below(PIECE - 1);
        if (at + len > MOST) len = MOST - at;
        // What mappings and copies can reach: they end where the file does.
        long inside = at + len > size ? size - at : len;
        switch (below(9)) {
        case 0: case 1: write_it(at, len); break;
        case 2: case 3: read_it(at, len); break;
        case 4: if (inside > 0) write_mapped(at, inside); break;
        case 5: if (inside > 0) read_mapped(at, inside); break;
        case 6: punch(at, len); break;
        case 7: if (inside > 0) copy(at, inside); break;
        default: if (below(2)) look(); else resize(at);
        }
    }
    read_it(0, MOST);
    printf("%ld bytes%s%s\n", size, holes ? ", holes" : "", copies ? ", copies" : "");
    return 0;
}

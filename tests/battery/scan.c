/* Questions to open files of /proc: which pages of a range (PAGEMAP_SCAN), which region (PROCMAP_QUERY). */
#include "check.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#define PG 4096L
#define AN (MAP_PRIVATE|MAP_ANONYMOUS)
#define RW (PROT_READ|PROT_WRITE)
/* Categories; swapped ones are not asked for: there Linux counts pages that were guarded before they were. */
enum { NOTED = 1, WRITTEN = 2, FROM_FILE = 4, PRESENT = 8, ZEROES = 32, ALL = 1 + 2 + 4 + 8 + 32 + 64 };
enum { GUARD = 1, CHECK = 2 };
struct run { uint64_t start, end, what; };
struct scan { uint64_t size, flags, start, end, walk_end, vec, vec_len, most, inverted, mask, any, shown; };
#define SCAN _IOWR('f', 16, struct scan)
static int pages;
static struct run runs[32];
static char found[1024];
static char *base;
/* What a scan of so many pages finds: runs in pages, and where it ended. */
static char *scan(long count, int flags, int inverted, int mask, int any, int shown, int most, int room) {
    struct scan a = { sizeof a, flags, (long)base, (long)base + count*PG, 7, room ? (long)runs : 0, room, most, inverted, mask, any, shown };
    int n = ioctl(pages, SCAN, &a), e = errno;
    char *to = found + sprintf(found, "%d", n);
    if (n < 0) to += sprintf(to, " %s", strerrorname_np(e));
    to += sprintf(to, " to %ld", ((long)a.walk_end - (long)base)/PG);
    for (int i = 0; i < n; i++)
        to += sprintf(to, " %ld-%ld=%x", ((long)runs[i].start - (long)base)/PG, ((long)runs[i].end - (long)base)/PG, (int)runs[i].what);
    return found;
}
static void arguments(void) {
    struct scan good = { sizeof good, 0, (long)base, (long)base + PG, 0, (long)runs, 32, 0, 0, 0, 0, PRESENT }, a;
#define E(field, value) (a = good, a.field = (value), ioctl(pages, SCAN, &a))
    T(E(size, 96)); T(E(size, 95)); T(E(size, 104)); T(E(size, 0));
    T(E(flags, 4)); T(E(flags, 1ull << 32));
    T(E(start, (long)base + 1)); T(E(end, (long)base)); T(E(end, (long)base - PG)); T(E(end, -1)); T(E(end, (long)base + 1));
    T(E(vec, 0)); T(E(vec, 8)); T(E(vec, -8)); T(E(vec_len, 1ull << 62)); T(E(vec_len, 0));
    T(E(inverted, 1 << 20)); T(E(mask, 1 << 20)); T(E(any, 1 << 20)); T(E(shown, 1 << 20));
    T(ioctl(pages, SCAN, 0)); T(ioctl(pages, SCAN, 8)); T(ioctl(pages, _IOWR('f', 15, struct scan), &good));
    T((a = good, a.vec_len = 0, a.vec = 0, ioctl(pages, SCAN, &a)));
    T((a = good, a.start = a.end = 0, ioctl(pages, SCAN, &a)));
    T((a = good, a.start = 0, a.end = PG, ioctl(pages, SCAN, &a)));
    T((a = good, a.start = 0, a.end = PG, ioctl(pages, SCAN, &a), a.walk_end == PG));
    int other = open("/proc/self/status", O_RDONLY);
    T(ioctl(other, SCAN, &good));
    close(other);
}
static void plain(void) {
    base = mmap(0, 16*PG, RW, AN, -1, 0);
    base[0] = base[PG] = base[5*PG] = 1;
    volatile char read = base[3*PG];
    S(scan(16, 0, 0, 0, 0, ALL, 0, 32));
    S(scan(16, 0, 0, WRITTEN, 0, WRITTEN, 0, 32));
    S(scan(16, 0, 0, PRESENT, 0, PRESENT, 0, 32));
    S(scan(16, 0, PRESENT, PRESENT, 0, ALL, 0, 32));
    S(scan(16, 0, 0, 0, PRESENT|FROM_FILE, PRESENT, 0, 32));
    S(scan(16, 0, 0, PRESENT, ZEROES|FROM_FILE, PRESENT, 0, 32));
    S(scan(16, 0, ZEROES, PRESENT|ZEROES, 0, PRESENT, 0, 32));
    S(scan(16, 0, 0, PRESENT, 0, 0, 0, 32));
    for (int most = 1; most < 6; most++) S(scan(16, 0, 0, PRESENT, 0, PRESENT, most, 32));
    for (int room = 0; room < 4; room++) S(scan(16, 0, 0, PRESENT, 0, PRESENT, 0, room));
    S(scan(2, 0, 0, PRESENT, 0, PRESENT, 2, 1));
    S(scan(16, GUARD, 0, PRESENT, 0, PRESENT, 0, 32));
    S(scan(16, CHECK, 0, PRESENT, 0, PRESENT, 0, 32));
    S(scan(16, 0, 0, NOTED, 0, ALL, 0, 32));
    S(scan(16, 0, NOTED, NOTED, 0, ALL, 0, 32));
    mprotect(base + 2*PG, PG, PROT_NONE);
    munmap(base + 7*PG, PG);
    S(scan(16, 0, 0, 0, 0, ALL, 0, 32));
    int fd = memfd_create("x", 0);
    ftruncate(fd, 4*PG);
    T(mmap(base + 8*PG, 4*PG, RW, MAP_SHARED|MAP_FIXED, fd, 0) == base + 8*PG);
    base[8*PG] = 1;
    T(mmap(base + 12*PG, 4*PG, RW, MAP_PRIVATE|MAP_FIXED, fd, 0) == base + 12*PG);
    read = base[12*PG];
    base[13*PG] = 1;
    S(scan(12, 0, 0, PRESENT, 0, ALL, 0, 32));
    base += 12*PG;
    S(scan(2, 0, 0, PRESENT, 0, ALL, 0, 32));
    base -= 12*PG;
    munmap(base, 16*PG);
    close(fd);
}
/* Writes to guarded pages that nobody is told of. */
static void noted(int shared) {
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC|UFFD_USER_MODE_ONLY);
    struct uffdio_api api = { UFFD_API, 1 << 15 };
    T(ioctl(fd, UFFDIO_API, &api));
    base = mmap(0, 16*PG, RW, MAP_ANONYMOUS|(shared ? MAP_SHARED : MAP_PRIVATE), -1, 0);
    base[0] = base[PG] = 1;
    struct uffdio_register r = { { (long)base, 16*PG }, UFFDIO_REGISTER_MODE_WP };
    T(ioctl(fd, UFFDIO_REGISTER, &r));
    S(scan(16, CHECK, 0, 0, 0, ALL, 0, 32));
    S(scan(8, GUARD|CHECK, 0, WRITTEN, 0, WRITTEN, 0, 32));
    S(scan(16, 0, 0, 0, 0, ALL, 0, 32));
    struct uffdio_writeprotect w = { { (long)base, 16*PG }, 1 };
    T(ioctl(fd, UFFDIO_WRITEPROTECT, &w));
    S(scan(16, 0, 0, 0, 0, ALL, 0, 32));
    base[PG] = base[5*PG] = 2;
    volatile char looked = base[7*PG];
    S(scan(16, 0, 0, 0, 0, ALL, 0, 32));
    S(scan(16, GUARD, 0, WRITTEN, 0, WRITTEN, 1, 32));
    S(scan(16, GUARD, 0, WRITTEN, 0, WRITTEN, 0, 32));
    S(scan(16, GUARD, 0, WRITTEN, 0, WRITTEN, 0, 32));
    base[5*PG] = 3;
    T(base[5*PG] + base[PG] + base[0]);
    S(scan(16, GUARD, WRITTEN, WRITTEN, 0, WRITTEN, 0, 0));
    S(scan(16, GUARD, 0, WRITTEN, 0, WRITTEN, 0, 0));
    S(scan(16, 0, 0, WRITTEN, 0, WRITTEN, 0, 32));
    pid_t child = fork();
    if (!child) {
        base[2*PG] = 1;
        _exit(base[5*PG] != 3);
    }
    int status;
    waitpid(child, &status, 0);
    W(status);
    S(scan(16, 0, 0, WRITTEN, 0, WRITTEN, 0, 32));
    T(pipe((int*)runs));
    T(write(((int*)runs)[1], "abc", 3));
    T(read(((int*)runs)[0], base + 4*PG, 3));
    S(scan(16, GUARD, 0, WRITTEN, 0, WRITTEN, 0, 32));
    if (!shared) {
        T(madvise(base, 6*PG, MADV_DONTNEED));
        S(scan(16, 0, 0, WRITTEN, 0, WRITTEN, 0, 32));
    }
    base[3*PG] = 1;
    w.mode = 0;
    T(ioctl(fd, UFFDIO_WRITEPROTECT, &w));
    S(scan(16, 0, 0, WRITTEN, 0, WRITTEN, 0, 32));
    T(ioctl(fd, UFFDIO_UNREGISTER, &r.range));
    S(scan(16, 0, 0, 0, 0, ALL & ~PRESENT & ~ZEROES & ~FROM_FILE, 0, 32));
    close(fd);
    munmap(base, 16*PG);
}

struct query { uint64_t size, flags, at, start, end, kind, page, offset, ino; uint32_t major, minor, name_len, build_len; uint64_t name, build, more[4]; };
#define QUERY 0xc0686611
static int maps;
static char name[5000], build[64];
static char *query(long size, int flags, void *at, int name_len, void *name_at, int build_len, void *build_at) {
    struct query q = { size, flags, (long)at, .name_len = name_len, .build_len = build_len, .name = (long)name_at, .build = (long)build_at };
    memset(name, 0, sizeof name);
    int done = ioctl(maps, QUERY, &q), e = errno;
    if (done) sprintf(found, "%s", strerrorname_np(e));
    else sprintf(found, "%ld-%ld kind %d page %ld offset %ld ino %d dev %d name %s build %d", (long)(q.start - (long)base)/PG,
        (long)(q.end - (long)base)/PG, (int)q.kind, (long)q.page, (long)q.offset, q.ino != 0, q.major + q.minor != 0,
        name[0] == '/' ? "(path)" : name, q.build_len);
    return found;
}
static void regions(void) {
    maps = open("/proc/self/maps", O_RDONLY);
    base = mmap(0, 16*PG, RW, AN, -1, 0);
    mprotect(base, PG, PROT_NONE);
    mprotect(base + PG, PG, PROT_READ);
    mprotect(base + 3*PG, PG, PROT_READ|PROT_EXEC);
    munmap(base + 5*PG, PG);
    int fd = memfd_create("x", 0);
    ftruncate(fd, 16*PG);
    mmap(base + 8*PG, 2*PG, RW, MAP_SHARED|MAP_FIXED, fd, PG);
    mprotect(base + 15*PG, PG, PROT_NONE);
    for (int i = 0; i < 15; i++) { printf("%d ", i); S(query(104, 0, base + i*PG + 5, 0, 0, 0, 0)); }
    S(query(104, 16, base + 5*PG, 0, 0, 0, 0));
    S(query(104, 48, base, 0, 0, 0, 0));
    S(query(104, 32, base, 0, 0, 0, 0));
    S(query(104, 32, base + 8*PG, 0, 0, 0, 0));
    S(query(104, 16|4, base, 0, 0, 0, 0));
    S(query(104, 16|2|1, base, 0, 0, 0, 0));
    S(query(104, 4, base, 0, 0, 0, 0));
    S(query(104, 16|8, base, 0, 0, 0, 0));
    S(query(104, 0, base + 8*PG, 100, name, 0, 0));
    T(!strcmp(name, "/memfd:x (deleted)"));
    S(query(104, 0, base + 8*PG, 19, name, 0, 0));
    S(query(104, 0, base + 8*PG, 18, name, 0, 0));
    S(query(104, 0, base + 10*PG, 1, name, 0, 0));
    S(query(104, 0, base + 8*PG, 100, (void*)8, 0, 0));
    T((query(104, 0, &maps + 0, 0, 0, 0, 0), 0));
    T((query(104, 16, __builtin_frame_address(0), 100, name, 0, 0), strcmp(name, "[stack]")));
    T((query(104, 0, sbrk(0) - 1, 100, name, 0, 0), strcmp(name, "[heap]")));
    for (int size = 0; size < 136; size += 8) { printf("%d ", size); T(strlen(query(size, 0, base + PG, 0, 0, 0, 0)) < 10); }
    S(query(23, 0, base, 0, 0, 0, 0)); T(strlen(query(24, 0, base + PG, 0, 0, 0, 0)) < 10);
    S(query(4096, 0, base, 0, 0, 0, 0)); S(query(4097, 0, base, 0, 0, 0, 0));
    S(query(104, 64, base, 0, 0, 0, 0));
    S(query(104, 0, base, 5, 0, 0, 0)); S(query(104, 0, base, 0, name, 0, 0));
    S(query(104, 0, base, 0, 0, 5, 0)); S(query(104, 0, base, 0, 0, 0, build));
    S(query(104, 0, base, 0, 0, 20, build));
    /* This program's own build identity, if it has one. */
    extern char __executable_start[];
    T(strlen(query(104, 0, __executable_start, 0, 0, 0, 0)) > 10);
    T((query(104, 0, __executable_start, 0, 0, 20, build), strstr(found, "build 20") != 0 || strstr(found, "build 0") != 0));
    int long_enough = strstr(found, "build 20") != 0;
    T(long_enough && strcmp(query(104, 0, __executable_start, 0, 0, 19, build), "ENAMETOOLONG"));
    S(query(104, 0, (void*)-5, 0, 0, 0, 0)); S(query(104, 16, (void*)-5, 0, 0, 0, 0)); S(query(104, 0, 0, 0, 0, 0, 0));
    T(ioctl(maps, QUERY, 0)); T(ioctl(maps, QUERY, 8)); T(ioctl(maps, QUERY + 1, base));
    maps = open("/proc/self/smaps", O_RDONLY);
    S(query(104, 0, base, 0, 0, 0, 0));
    maps = open("/proc/self/pagemap", O_RDONLY);
    S(query(104, 0, base, 0, 0, 0, 0));
}
int main(void) {
    pages = open("/proc/self/pagemap", O_RDONLY);
    base = mmap(0, 16*PG, RW, AN, -1, 0);
    arguments();
    plain();
    noted(0);
    noted(1);
    regions();
}

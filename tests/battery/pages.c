/* Pages as /proc shows them, and what can be set of memory; segments of shared memory in numbers. */
#include "check.h"
#include <stdint.h>
#include <sys/shm.h>
#include <sys/ipc.h>
#define PG 4096L
#define AN (MAP_PRIVATE|MAP_ANONYMOUS)
#define RW (PROT_READ|PROT_WRITE)
static int map;
static int pm(void *at) {
    uint64_t w = 99;
    pread(map, &w, 8, (uintptr_t)at/PG*8);
    /* present, swapped, of a file, exclusive */
    return (w>>63&1)*1000 + (w>>62&1)*100 + (w>>61&1)*10 + (w>>56&1);
}
static uint64_t pfn(void *at) {
    uint64_t w = 0;
    pread(map, &w, 8, (uintptr_t)at/PG*8);
    return w & ((1L<<55)-1);
}
static long of_file(const char *name, uint64_t at) {
    uint64_t w = -1; int fd = open(name, O_RDONLY);
    if (pread(fd, &w, 8, at*8) != 8) w = -2;
    close(fd);
    return w;
}
/* A line of smaps for the region at `at`, in KiB; -1: not there. */
static long smap(void *at, const char *name) {
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[400];
    unsigned long from, to, kib; int here = 0; long found = -1;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2 && strchr(line, '-') < strchr(line, ' ')) here = from <= (uintptr_t)at && (uintptr_t)at < to;
        else if (here && !strncmp(line, name, strlen(name)) && sscanf(line+strlen(name), ": %lu", &kib) == 1) found = kib;
    }
    fclose(f);
    return found;
}
static int marked(void *at, const char *mark) {
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[400];
    unsigned long from, to; int here = 0, found = 0;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2 && strchr(line, '-') < strchr(line, ' ')) here = from <= (uintptr_t)at && (uintptr_t)at < to;
        else if (here && !strncmp(line, "VmFlags:", 8)) found = !!strstr(line, mark);
    }
    fclose(f);
    return found;
}
static int put(const char *name, const char *text) {
    int fd = open(name, O_WRONLY), n;
    if (fd < 0) return -1;
    n = write(fd, text, strlen(text));
    int e = errno;
    close(fd);
    errno = e;
    return n;
}
static void pagemap(void) {
    char *a = mmap(0, 8*PG, RW, AN, -1, 0), *s = mmap(0, 4*PG, RW, MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    int fd = open("/tmp/pages-file", O_RDWR|O_CREAT|O_TRUNC, 0600), up[2], st;
    char buf[64];
    T((map = open("/proc/self/pagemap", O_RDONLY)) >= 0);
    ftruncate(fd, 4*PG);
    char *f = mmap(0, 4*PG, RW, MAP_SHARED, fd, 0), *p = mmap(0, 4*PG, RW, MAP_PRIVATE, fd, 0);
    a[0] = 1; RD(a+PG); s[0] = 1; f[0] = 1; RD(f); RD(p); p[PG] = 2;
    T(pm(a)); T(pm(a+2*PG)); T(pm(s)); T(pm(s+2*PG)); T(pm(p+PG)); T(pm(p+3*PG) == 0 || 1);
    T(pm((void*)(8*PG)));
    T(pread(map, buf, 7, 0)); T(pread(map, buf, 8, 4)); T(pread(map, buf, 0, 0));
    T(pread(map, buf, 8, (1L<<47)/PG*8)); T(pread(map, buf, 16, (1L<<47)/PG*8-16));
    T(pread(map, (void*)8, 8, 0));
    T(write(map, buf, 8));
    T(lseek(map, 16, SEEK_SET)); T(read(map, buf, 8)); T(lseek(map, 0, SEEK_CUR));
    T(mprotect(a, PG, PROT_NONE)); T(pm(a));
    T(madvise(a, PG, MADV_DONTNEED)); T(pm(a));
    T(mprotect(a, PG, RW));
    a[0] = 5;
    T(pfn(a) != 0);
    T(of_file("/proc/kpagecount", pfn(a)));
    T((of_file("/proc/kpageflags", pfn(a)) >> 12) & 1);
    T((of_file("/proc/kpageflags", pfn(a)) >> 14) & 1);
    T((of_file("/proc/kpageflags", pfn(s)) >> 12) & 1);
    pipe(up);
    fflush(stdout);
    pid_t c = fork();
    if (!c) { char x; close(up[1]); x = a[0]; read(up[0], &x, 1); _exit(0); }
    T(pm(a));
    a[0] = 6;
    T(pm(a));
    close(up[1]); close(up[0]);
    waitpid(c, &st, 0);
    T(access("/proc/kpagecount", W_OK));
    close(map);
    unlink("/tmp/pages-file");
}
static void smaps(void) {
    char *a = mmap(0, 8*PG, RW, AN, -1, 0), *b;
    mprotect(a+6*PG, 2*PG, PROT_READ);
    for (int n = 0; n < 4; n++) a[n*PG] = 1;
    RD(a+4*PG);
    T(smap(a, "Size")); T(smap(a, "Rss")); T(smap(a, "Pss")); T(smap(a, "Pss_Dirty")); T(smap(a, "Private_Dirty")); T(smap(a, "Shared_Clean")); T(smap(a, "Shared_Dirty"));
    T(smap(a, "Anonymous")); T(smap(a, "Locked")); T(smap(a, "Swap")); T(smap(a, "KernelPageSize"));
    T(smap(a, "Referenced"));
    T(put("/proc/self/clear_refs", "1"));
    T(smap(a, "Referenced"));
    a[PG] = 7;
    T(put("/proc/self/clear_refs", "2"));
    T(smap(a, "Referenced"));
    T(put("/proc/self/clear_refs", "3"));
    T(put("/proc/self/clear_refs", "0")); T(put("/proc/self/clear_refs", "6")); T(put("/proc/self/clear_refs", "x")); T(put("/proc/self/clear_refs", "5"));
    T(open("/proc/self/clear_refs", O_RDONLY) < 0 ? errno : read(3, a, 1));
    T(mlock(a, 2*PG)); T(smap(a, "Locked")); T(marked(a, "lo ")); T(munlock(a, 2*PG)); T(marked(a, "lo "));
    T(madvise(a, PG, MADV_DONTFORK)); T(marked(a, "dc ")); T(madvise(a, PG, MADV_DOFORK));
    T(madvise(a, PG, MADV_WIPEONFORK)); T(marked(a, "wf "));
    T(madvise(a, PG, MADV_DONTDUMP)); T(marked(a, "dd "));
    T(madvise(a, PG, MADV_RANDOM)); T(marked(a, "rr ")); T(madvise(a, PG, MADV_SEQUENTIAL)); T(marked(a, "sr "));
    T(madvise(a, PG, MADV_HUGEPAGE)); T(marked(a, "hg ")); T(madvise(a, PG, MADV_NOHUGEPAGE)); T(marked(a, "nh "));
    b = mmap(0, PG, RW, MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    T(marked(b, "sh ")); T(marked(b, "ms ")); T(marked(b, "mr mw me "));
    b = mmap(0, PG, RW, AN|MAP_NORESERVE, -1, 0);
    T(marked(b, "nr "));
    int up[2], st;
    char *d = mmap(0, 4*PG, RW, AN, -1, 0);
    memset(d, 1, 4*PG);
    mprotect(d+4*PG, PG, PROT_READ);
    pipe(up);
    fflush(stdout);
    pid_t c = fork();
    if (!c) { char x; close(up[1]); d[0] = 2; write(up[0], &x, 1); read(up[0], &x, 1); _exit(0); }
    while (smap(d, "Private_Dirty") != 4) sched_yield();
    T(smap(d, "Rss")); T(smap(d, "Pss")); T(smap(d, "Shared_Dirty")); T(smap(d, "Private_Dirty")); T(smap(d, "Pss_Dirty"));
    close(up[1]); close(up[0]);
    waitpid(c, &st, 0);
    T(smap(d, "Pss")); T(smap(d, "Private_Dirty"));
}
/* The text is the same, however it is read. */
static void text(const char *name) {
    static char a[1<<20], b[1<<20];
    int fd = open(name, O_RDONLY);
    long n = 0, m = 0, k;
    while ((k = read(fd, a+n, 4096)) > 0) n += k;
    T(lseek(fd, 0, SEEK_SET));
    while ((k = read(fd, b+m, 7)) > 0) m += k;
    T(n > 0); T(a[n-1]);
    T(n == m && !memcmp(a, b, n));
    T(pread(fd, b, 10, 20) == 10 && !memcmp(a+20, b, 10));
    T(pread(fd, b, 10, n+5));
    T(write(fd, b, 1));
    close(fd);
    T(access(name, W_OK));
}
static void many(void) {
    /* Many regions: every second page has other rights. */
    char *a = mmap(0, 4000*PG, PROT_READ, AN, -1, 0), line[400];
    for (int n = 0; n < 4000; n += 2) mprotect(a+n*PG, PG, RW);
    FILE *f = fopen("/proc/self/maps", "r");
    unsigned long from, to, last = 0; int lines = 0, ordered = 1;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx", &from, &to) != 2) continue;
        ordered &= from >= last && to > from; last = to;
        lines += from >= (uintptr_t)a && to <= (uintptr_t)a+4000*PG;
    }
    fclose(f);
    T(lines >= 3999); T(ordered);
    T(smap(a+2000*PG, "Size"));
    munmap(a, 4000*PG);
}
static void adjust(void) {
#define A "/proc/self/oom_adj"
#define B "/proc/self/oom_score_adj"
    char buf[20] = "";
    for (int n = 0; n < 8; n++) {
        const char *v[] = { "1", "5", "8", "15", "16", "-18", "x", "15" };
        N("oom_adj", n, put(A, v[n]));
        int fd = open(B, O_RDONLY); buf[read(fd, buf, 19)] = 0; close(fd);
        T(atoi(buf));
        fd = open(A, O_RDONLY); buf[read(fd, buf, 19)] = 0; close(fd);
        T(atoi(buf));
    }
}
static void segments(void) {
    struct shmid_ds d; struct shm_info i; struct shminfo l;
    int id = shmget(IPC_PRIVATE, 3*PG+1, IPC_CREAT|0600);
    char *a = shmat(id, 0, 0), line[400];
    a[0] = 1; a[PG] = 1;
    T(shmctl(0, SHM_INFO, (void*)&i) >= 0); T(i.used_ids >= 1); T(i.shm_tot >= 4); T(i.shm_rss >= 2);
    int high = shmctl(0, SHM_INFO, (void*)&i), found = 0;
    for (int n = 0; n <= high; n++) found += shmctl(n, SHM_STAT, &d) == id;
    T(found);
    found = 0;
    for (int n = 0; n <= high; n++) if (shmctl(n, 15, &d) == id) { T(d.shm_segsz); T(d.shm_nattch); found++; }
    T(found);
    T(shmctl(-1, SHM_STAT, &d)); T(shmctl(0x7fffffff, SHM_STAT, &d)); T(shmctl(0, SHM_INFO, 8)); T(shmctl(id, 99, &d));
    T(shmctl(0, IPC_INFO, (void*)&l) >= 0); T(l.shmmin);
    T(shmctl(id, SHM_LOCK, 0)); T(shmctl(id, IPC_STAT, &d)); T(d.shm_perm.mode & 07777);
    T(shmctl(id, SHM_LOCK, 0)); T(shmctl(id, SHM_UNLOCK, 0)); T(shmctl(id, SHM_UNLOCK, 0));
    T(shmctl(id, IPC_STAT, &d)); T(d.shm_perm.mode & 07777); T(shmctl(-1, SHM_LOCK, 0));
    FILE *f = fopen("/proc/sysvipc/shm", "r");
    fgets(line, sizeof line, f); S(line);
    found = 0;
    while (fgets(line, sizeof line, f)) {
        int key, num, mode, cpid, lpid, n; unsigned long size;
        if (sscanf(line, "%d %d %o %lu %d %d %d", &key, &num, &mode, &size, &cpid, &lpid, &n) == 7 && num == id)
            found = mode == 0600 && size == 3*PG+1 && cpid == getpid() && n == 1;
    }
    T(found);
    fclose(f);
    shmdt(a);
    shmctl(id, IPC_RMID, 0);
}
static void settings(void) {
#define VM "/proc/sys/vm/"
    char *a;
    T(put(VM "overcommit_memory", "3")); T(put(VM "overcommit_memory", "-1")); T(put(VM "overcommit_memory", "x"));
    T(put(VM "drop_caches", "0")); T(put(VM "drop_caches", "x"));
    /* Only what this process does is refused, and soon allowed again. */
    fflush(stdout);
    T(access(VM "max_map_count", W_OK)); T(access("/proc/buddyinfo", R_OK)); T(access("/proc/zoneinfo", R_OK));
    T(access("/proc/pagetypeinfo", R_OK)); T(access("/proc/slabinfo", R_OK)); T(access("/proc/self/numa_maps", R_OK));
}
int main(void) {
    catch_();
    pagemap();
    smaps();
    text("/proc/self/maps");
    many();
    adjust();
    segments();
    settings();
    return 0;
}

/* Memory that a program can do without (MAP_DROPPABLE); and what else is said of memory. */
#include "check.h"
#include <sys/syscall.h>
#define PG 4096L
#define AN MAP_ANONYMOUS
#define RW (PROT_READ|PROT_WRITE)
#define DROPPABLE 8
static char *at;
/* Whether smaps says so of the region that begins here. */
static int marked(const char *mark) {
    char line[512], start[32];
    FILE *f = fopen("/proc/self/smaps", "r");
    int here = 0, is = 0;
    sprintf(start, "%lx-", (long)at);
    while (fgets(line, sizeof line, f)) {
        if (!strncmp(line, start, strlen(start))) here = 1;
        if (here && !strncmp(line, "VmFlags:", 8)) { is = strstr(line, mark) != 0; break; }
    }
    fclose(f);
    return is;
}
int main(void) {
    int fd = open("file", O_RDWR|O_CREAT, 0600), zero = open("/dev/zero", O_RDWR);
    ftruncate(fd, 4*PG);
    P(mmap(0, 4*PG, RW, DROPPABLE|AN, -1, 0));
    T(mmap(0, 4*PG, RW, DROPPABLE, fd, 0)); T(mmap(0, 4*PG, RW, DROPPABLE, zero, 0)); T(mmap(0, 4*PG, RW, DROPPABLE|AN|MAP_LOCKED, -1, 0));
    T(mmap(0, 4*PG, RW, DROPPABLE|AN|MAP_GROWSDOWN, -1, 0)); T(mmap(0, 4*PG, RW, DROPPABLE|MAP_PRIVATE|AN, -1, 0));
    T(mmap(0, 4*PG, RW, DROPPABLE|MAP_SHARED|AN, -1, 0)); T(mmap(0, 4*PG, RW, DROPPABLE|3|AN, -1, 0));
    T(mmap(0, 0, RW, DROPPABLE|AN, -1, 0)); T(mmap(0, 4*PG, RW, DROPPABLE|AN, -1, 1));
    P(mmap(0, 4*PG, RW, DROPPABLE|AN|MAP_NORESERVE|MAP_POPULATE|MAP_STACK, -1, 0));
    at = mmap(0, 4*PG, RW, DROPPABLE|AN, -1, 0);
    T(mprotect(at + PG, PG, PROT_NONE)); T(mprotect(at + PG, PG, RW));
    T(marked(" dp")); T(marked(" wf")); T(marked(" dd")); T(marked(" nr")); T(marked(" lo"));
    T(madvise(at, 4*PG, MADV_KEEPONFORK)); T(madvise(at, 4*PG, MADV_WIPEONFORK)); T(madvise(at, 4*PG, MADV_DODUMP)); T(madvise(at, 4*PG, MADV_DONTDUMP));
    T(madvise(at, 4*PG, MADV_DOFORK)); T(madvise(at, 4*PG, MADV_DONTNEED)); T(madvise(at, 4*PG, MADV_WILLNEED)); T(madvise(at, 4*PG, MADV_REMOVE));
    T(mlock(at, 4*PG)); T(marked(" lo")); T(munlock(at, 4*PG)); T(syscall(SYS_mlock2, at, PG, 1));
    at[0] = 5;
    int status;
    if (!fork()) _exit(at[0] + at[PG]);
    wait(&status); W(status);
    T(at[0] == 5 || at[0] == 0);
    P(at = mremap(at, 4*PG, 8*PG, MREMAP_MAYMOVE)); T(marked(" dp")); T(marked(" wf"));
    at[7*PG] = 1;
    T(munmap(at, 8*PG));
    /* Holes do not keep advice from what lies around them. */
    char *m = mmap(0, 4*PG, RW, MAP_SHARED|AN, -1, 0);
    m[0] = m[PG] = m[2*PG] = m[3*PG] = 1;
    munmap(m + PG, PG);
    T(madvise(m, 4*PG, MADV_REMOVE)); T(m[0]); T(m[2*PG]); T(m[3*PG]);
    m = mmap(0, 4*PG, RW, MAP_PRIVATE, zero, 0); T(madvise(m, 4*PG, MADV_REMOVE));
    m = mmap(0, 4*PG, RW, MAP_PRIVATE|AN, -1, 0); T(madvise(m, 4*PG, MADV_REMOVE));
    int ro = open("file", O_RDONLY);
    m = mmap(0, 4*PG, PROT_READ, MAP_SHARED, ro, 0); T(remap_file_pages(m, PG, 0, 2, 0));
    m = mmap(0, 4*PG, PROT_READ, MAP_SHARED, fd, 0); T(remap_file_pages(m, PG, 0, 2, 0));
    /* What another may not read here cannot be read from outside either. */
    static char bytes[8];
    struct iovec to = { bytes, 8 }, from = { 0, 8 };
    for (int rights = 0; rights < 8; rights++) {
        from.iov_base = mmap(0, PG, rights, MAP_PRIVATE|AN, -1, 0);
        N("readv", rights, process_vm_readv(getpid(), &to, 1, &from, 1, 0));
        N("writev", rights, process_vm_writev(getpid(), &to, 1, &from, 1, 0));
    }
}

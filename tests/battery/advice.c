/* What a program says of its memory: advice, seals, names, nodes; and what it may ask. */
#include "check.h"
#include <linux/mempolicy.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#define PG 4096L
#define AN (MAP_PRIVATE|MAP_ANONYMOUS)
#define RW (PROT_READ|PROT_WRITE)
#define MSEAL 462
#define CACHESTAT 451
#define HOME_NODE 450
#define COLLAPSE 25
#define LOCKED 24
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
static char *pages(long n) { return mmap(0, n*PG, RW, AN, -1, 0); }

static void sealed(void) {
    char *a = pages(8), *b;
    T(syscall(MSEAL, a, PG, 1));
    T(syscall(MSEAL, a+1, PG, 0));
    T(syscall(MSEAL, a, 0, 0));
    T(syscall(MSEAL, a, -1L, 0));
    T(syscall(MSEAL, a, -PG, 0));
    T(syscall(MSEAL, 16*PG, PG, 0));
    munmap(a+6*PG, PG);
    T(syscall(MSEAL, a+5*PG, 3*PG, 0));
    T(munmap(a+5*PG, PG));
    strcpy(a+2*PG, "kept");
    T(syscall(MSEAL, a+2*PG, 100, 0));
    T(syscall(MSEAL, a+2*PG, 100, 0));
    T(munmap(a+2*PG, PG));
    T(munmap(a, 4*PG));
    RD(a);
    T(munmap(a+3*PG, PG));
    T(mprotect(a+2*PG, PG, PROT_READ));
    T(mprotect(a+PG, 2*PG, PROT_READ));
    WR(a+PG);
    T(mprotect(a+2*PG, PG, RW));
    P(mmap(a+2*PG, PG, RW, AN|MAP_FIXED, -1, 0));
    P(mmap(a+PG, 2*PG, RW, AN|MAP_FIXED, -1, 0));
    P(mremap(a+2*PG, PG, 2*PG, MREMAP_MAYMOVE));
    P(mremap(a+2*PG, PG, PG, MREMAP_MAYMOVE));
    b = pages(1);
    P(mremap(b, PG, PG, MREMAP_MAYMOVE|MREMAP_FIXED, a+2*PG));
    P(mremap(a+2*PG, PG, PG, MREMAP_MAYMOVE|MREMAP_FIXED, b));
    T(madvise(a+2*PG, PG, MADV_DONTNEED));
    T(a[2*PG]);
    T(madvise(a+2*PG, PG, MADV_RANDOM));
    b = pages(2);
    strcpy(b, "kept");
    mprotect(b, PG, PROT_READ);
    T(syscall(MSEAL, b, PG, 0));
    for (int n = 0; n < 26; n++) if (n != 25 && n != 12 && n != 13) N("madvise of sealed", n, madvise(b, PG, n));
    S(b);
    T(CHILD(_exit(munmap(b, PG) ? errno : 0)));
    int fd = open("/dev/zero", O_RDWR);
    b = mmap(0, PG, PROT_READ, MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    T(syscall(MSEAL, b, PG, 0));
    T(madvise(b, PG, MADV_DONTNEED));
    T(mlock(b, PG));
    T(munlock(b, PG));
    T(close(fd));
}

static void advice(void) {
    char *a = pages(8), in[8];
    int fd = open("advice-file", O_RDWR|O_CREAT|O_TRUNC, 0600);
    ftruncate(fd, 4*PG);
    T(madvise(a, PG, LOCKED));
    memset(a, 7, 8*PG);
    T(mlock(a, 2*PG));
    T(madvise(a, PG, MADV_DONTNEED));
    T(madvise(a, PG, MADV_FREE));
    T(madvise(a, PG, MADV_COLD));
    T(madvise(a, PG, MADV_PAGEOUT));
    T(madvise(a, 4*PG, MADV_DONTNEED));
    T(a[3*PG]);
    T(madvise(a, 4*PG, LOCKED));
    T(a[0]);
    T(a[3*PG]);
    T(a[4*PG]);
    T(munlock(a, 2*PG));
    T(mprotect(a, PG, PROT_WRITE));
    T(madvise(a, PG, MADV_POPULATE_READ));
    T(madvise(a, PG, MADV_POPULATE_WRITE));
    T(mprotect(a, PG, PROT_EXEC));
    T(madvise(a, PG, MADV_POPULATE_READ));
    T(madvise(a, PG, MADV_POPULATE_WRITE));
    T(mprotect(a, PG, PROT_NONE));
    T(madvise(a, PG, MADV_POPULATE_READ));
    T(madvise(a, PG, MADV_DONTNEED));
    T(mprotect(a, PG, RW));
    munmap(a+2*PG, PG);
    T(madvise(a, 4*PG, MADV_POPULATE_READ));
    T(madvise(a, 4*PG, MADV_DONTNEED));
    T(madvise(a, 4*PG, MADV_WILLNEED));
    T(madvise(a+2*PG, PG, MADV_NORMAL));
    char *f = mmap(0, 4*PG, RW, MAP_SHARED, fd, 0), *r = mmap(0, 4*PG, PROT_READ, MAP_SHARED, fd, 0);
    char *p = mmap(0, 4*PG, RW, MAP_PRIVATE, fd, 0);
    strcpy(f+PG, "text");
    T(madvise(p, PG, MADV_FREE));
    T(madvise(f, PG, MADV_FREE));
    T(madvise(f, PG, MADV_WIPEONFORK));
    T(madvise(p, PG, MADV_WIPEONFORK));
    T(madvise(a, PG, MADV_WIPEONFORK));
    T(madvise(p, PG, MADV_REMOVE));
    T(madvise(a, PG, MADV_REMOVE));
    T(madvise(r, PG, MADV_REMOVE));
    T(madvise(f+PG, PG, MADV_REMOVE));
    T(r[PG]);
    p[0] = 5;
    T(madvise(p, PG, MADV_DONTNEED));
    T(p[0]);
    T(madvise(f, 5*PG, MADV_POPULATE_WRITE));
    ftruncate(fd, PG);
    T(madvise(f+PG, PG, MADV_POPULATE_READ));
    T(madvise(f+PG, PG, MADV_DONTNEED));
    for (int n = 26; n < 110; n += 12) N("madvise", n, madvise(a, PG, n));
    T(madvise(a, PG, -1));
    T(mincore(a, PG, in));
    T(close(fd));
}

static void of_others(void) {
    int up[2], fd, st;
    pipe(up);
    char *a = pages(4);
    pid_t child = fork();
    if (!child) { char c; close(up[1]); read(up[0], &c, 1); _exit(0); }
    fd = syscall(SYS_pidfd_open, child, 0);
    int own = syscall(SYS_pidfd_open, getpid(), 0);
    struct iovec v[3] = { { a, PG }, { a+PG, 2*PG }, { (void*)(1L<<46), PG } };
    struct iovec wild = { (void*)-4096L, PG }, odd = { a+1, PG };
    T(syscall(SYS_process_madvise, own, v, 2, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, own, v, 3, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, own, v+2, 1, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, own, &odd, 1, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, own, &wild, 1, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, own, v, 2, MADV_COLD, 1));
    T(syscall(SYS_process_madvise, -1, v, 2, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, up[0], v, 2, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, own, (void*)8, 2, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, own, v, 1025, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, own, v, 0, MADV_COLD, 0));
    T(syscall(SYS_process_madvise, own, 0, 0, MADV_PAGEOUT, 0));
    T(syscall(SYS_process_madvise, own, v, 2, 99, 0));
    T(syscall(SYS_process_madvise, fd, v, 2, MADV_DONTNEED, 0));
    T(syscall(SYS_process_madvise, fd, v, 2, MADV_WILLNEED, 0));
    T(syscall(SYS_process_madvise, fd, v, 2, MADV_PAGEOUT, 0));
    T(syscall(SYS_process_madvise, fd, v, 2, MADV_COLD, 0));
    T(syscall(SYS_process_mrelease, fd, 1));
    T(syscall(SYS_process_mrelease, fd, 0));
    T(syscall(SYS_process_mrelease, -1, 0));
    T(syscall(SYS_process_mrelease, up[0], 0));
    close(up[1]);
    T(waitpid(child, &st, 0) == child);
    T(syscall(SYS_process_mrelease, fd, 0));
    T(syscall(SYS_process_madvise, fd, v, 2, MADV_COLD, 0));
}

static void nodes(void) {
    unsigned long m[64], one = 1, two = 2, none = 0;
    int mode = -7;
    char *a = pages(8);
#define GET(...) syscall(SYS_get_mempolicy, __VA_ARGS__)
#define SET(...) syscall(SYS_set_mempolicy, __VA_ARGS__)
#define BIND(...) syscall(SYS_mbind, __VA_ARGS__)
    memset(m, 0xff, sizeof m);
    T(GET(&mode, m, 1024, 0, 0));
    T(mode); T(m[0]); T(m[1]); T(m[15]); T(m[16] == -1);
    T(GET(0, 0, 0, 0, 0));
    T(GET(&mode, m, 0, 0, 0));
    T(GET(&mode, m, 8*PG+65, 0, 0));
    T(GET(&mode, m, 1024, a, 0));
    T(GET(&mode, m, 1024, a, MPOL_F_ADDR));
    T(GET(&mode, m, 1024, 8, MPOL_F_ADDR));
    T(GET(&mode, m, 1024, a, MPOL_F_ADDR|MPOL_F_NODE));
    T(mode);
    T(GET(&mode, m, 1024, 0, MPOL_F_NODE));
    T(GET(&mode, m, 1024, 0, MPOL_F_MEMS_ALLOWED));
    T(m[0]);
    T(GET(&mode, m, 1024, 0, MPOL_F_MEMS_ALLOWED|MPOL_F_NODE));
    T(GET(&mode, m, 1024, 0, 8));
    T(GET((int*)8, m, 1024, 0, 0));
    T(GET(&mode, (long*)8, 1024, 0, 0));
    for (int how = -1; how < 9; how++) {
        N("set, no mask", how, SET(how, 0, 0));
        N("set, empty", how, SET(how, &none, 64));
        N("set, node 0", how, SET(how, &one, 64));
        T(GET(&mode, m, 1024, 0, 0)); T(mode); T(m[0]);
        N("set, node 1", how, SET(how, &two, 64));
        N("set, static", how, SET(how|MPOL_F_STATIC_NODES, &one, 64));
        T(GET(&mode, m, 1024, 0, 0)); T(mode); T(m[0]);
        N("set, relative", how, SET(how|MPOL_F_RELATIVE_NODES, &two, 64));
        T(GET(&mode, m, 1024, 0, 0)); T(mode); T(m[0]);
        N("set, both", how, SET(how|MPOL_F_STATIC_NODES|MPOL_F_RELATIVE_NODES, &one, 64));
    }
    T(SET(MPOL_BIND, &one, 0));
    T(SET(MPOL_BIND, &one, 1));
    T(SET(MPOL_BIND, &one, 2));
    T(SET(MPOL_BIND, (long*)8, 64));
    T(SET(MPOL_BIND, &one, 8*PG+2));
    memset(m, 0, sizeof m); m[0] = 1; m[20] = 1;
    T(SET(MPOL_BIND, m, 64*21+1));
    T(SET(MPOL_BIND, m, 64*20+1));
    T(SET(MPOL_INTERLEAVE, &one, 64));
    T(GET(&mode, 0, 0, 0, MPOL_F_NODE));
    T(mode);
    T(CHILD(int mode; GET(&mode, 0, 0, 0, 0); _exit(mode)));
    T(SET(MPOL_DEFAULT, 0, 0));

    T(BIND(a, PG, MPOL_BIND, &one, 64, 0));
    T(GET(&mode, m, 1024, a, MPOL_F_ADDR)); T(mode); T(m[0]);
    T(GET(&mode, m, 1024, a+PG, MPOL_F_ADDR)); T(mode);
    T(BIND(a+1, PG, MPOL_BIND, &one, 64, 0));
    T(BIND(a, -1L, MPOL_BIND, &one, 64, 0));
    T(BIND(a, 0, MPOL_BIND, &one, 64, 0));
    T(BIND(a, PG, MPOL_BIND, &two, 64, 0));
    T(BIND(a, PG, MPOL_BIND, 0, 0, 0));
    T(BIND(a, PG, MPOL_DEFAULT, &one, 64, 0));
    T(BIND(a, PG, 77, &one, 64, 0));
    T(BIND(a, PG, MPOL_BIND, &one, 64, 64));
    T(BIND(a, 4*PG, MPOL_PREFERRED, &one, 64, MPOL_MF_STRICT|MPOL_MF_MOVE));
    T(GET(&mode, m, 1024, a+PG, MPOL_F_ADDR)); T(mode);
    T(BIND(a, 4*PG, MPOL_PREFERRED, &none, 64, MPOL_MF_MOVE_ALL));
    T(GET(&mode, m, 1024, a+PG, MPOL_F_ADDR)); T(mode);
    munmap(a+2*PG, PG);
    T(BIND(a, 4*PG, MPOL_BIND, &one, 64, 0));
    T(BIND(a+2*PG, 2*PG, MPOL_BIND, &one, 64, 0));
    T(BIND(a+2*PG, PG, MPOL_BIND, &one, 64, 0));
    T(BIND(a+2*PG, PG, MPOL_DEFAULT, 0, 0, 0));
    T(GET(&mode, m, 1024, a+PG, MPOL_F_ADDR)); T(mode);
    T(BIND(a, 4*PG, MPOL_DEFAULT, 0, 0, 0));
    T(GET(&mode, m, 1024, a+PG, MPOL_F_ADDR)); T(mode);
    T(syscall(HOME_NODE, a, PG, 0, 0));
    T(BIND(a, PG, MPOL_BIND, &one, 64, 0));
    T(syscall(HOME_NODE, a, PG, 0, 0));
    T(syscall(HOME_NODE, a, PG, 1, 0));
    T(syscall(HOME_NODE, a, PG, 0, 1));
    T(syscall(HOME_NODE, a+1, PG, 0, 0));
    T(BIND(a, PG, MPOL_INTERLEAVE, &one, 64, 0));
    T(syscall(HOME_NODE, a, PG, 0, 0));

    char *b = pages(4);
    void *list[4] = { b, b+PG, b+2*PG, (void*)8 };
    int to[4] = { 0, 0, 0, 0 }, status[4] = { 9, 9, 9, 9 };
    b[0] = 1; RD(b+PG);
#define MOVE(...) syscall(SYS_move_pages, __VA_ARGS__)
    T(MOVE(0, 4, list, 0, status, 0));
    T(status[0]); T(status[1]); T(status[2]); T(status[3]);
    memset(status, 9, sizeof status);
    T(MOVE(0, 4, list, to, status, MPOL_MF_MOVE));
    T(status[0]); T(status[1]); T(status[2]); T(status[3]);
    T(MOVE(getpid(), 1, list, to, status, MPOL_MF_MOVE_ALL));
    T(MOVE(0, 0, 0, 0, 0, 0));
    T(MOVE(0, 1, list, to, status, 1));
    T(MOVE(0x3fffff, 1, list, to, status, 0));
    T(MOVE(0, 1, 8, to, status, 0));
    T(MOVE(0, 1, list, 8, status, 0));
    T(MOVE(0, 1, list, to, 8, 0));
    to[0] = 1;
    T(MOVE(0, 1, list, to, status, MPOL_MF_MOVE));
    to[0] = -1;
    T(MOVE(0, 1, list, to, status, MPOL_MF_MOVE));
#define MIGRATE(...) syscall(SYS_migrate_pages, __VA_ARGS__)
    T(MIGRATE(0, 64, &one, &one));
    T(MIGRATE(getpid(), 64, &one, &one));
    T(MIGRATE(0, 64, &one, &two));
    T(MIGRATE(0, 64, &one, &none));
    T(MIGRATE(0, 0, &one, &one));
    T(MIGRATE(0, 64, 8, &one));
    T(MIGRATE(0, 64, &one, 8));
    T(MIGRATE(0x3fffff, 64, &one, &one));
}

static void cached(void) {
    struct { unsigned long off, len; } range = { 0, 0 };
    unsigned long now[5];
    int fd = open("/tmp/advice-cached", O_RDWR|O_CREAT|O_TRUNC, 0600);
    char page[PG];
    memset(page, 5, PG);
    for (int n = 0; n < 4; n++) write(fd, page, PG);
    T(syscall(CACHESTAT, fd, &range, now, 0));
    T(now[0]); T(now[3]); T(now[4]);
    range.off = PG; range.len = PG+1;
    T(syscall(CACHESTAT, fd, &range, now, 0));
    T(now[0]);
    range.off = 100*PG; range.len = 5;
    T(syscall(CACHESTAT, fd, &range, now, 0));
    T(now[0]);
    range.off = -1L; range.len = 5;
    T(syscall(CACHESTAT, fd, &range, now, 0));
    T(syscall(CACHESTAT, fd, &range, now, 1));
    T(syscall(CACHESTAT, -1, &range, now, 0));
    T(syscall(CACHESTAT, fd, 8, now, 0));
    T(syscall(CACHESTAT, fd, &range, 8, 0));
    unlink("/tmp/advice-cached");
}

static void turned(void) {
    int fd = open("/tmp/advice-turned", O_RDWR|O_CREAT|O_TRUNC, 0600);
    ftruncate(fd, 8*PG);
    char *a = mmap(0, 8*PG, RW, MAP_SHARED, fd, 0), *p = pages(2);
    for (int n = 0; n < 8; n++) a[n*PG] = 'a'+n;
#define TURN(...) syscall(SYS_remap_file_pages, __VA_ARGS__)
    T(TURN(a, PG, 0, 5, 0));
    T(a[0]); T(a[PG]);
    T(TURN(a+PG, 2*PG, 0, 0, 0));
    T(a[PG]); T(a[2*PG]); T(a[3*PG]);
    a[PG] = 'z';
    T(TURN(a, 8*PG, 0, 0, 0));
    T(a[0]); T(a[7*PG]);
    T(TURN(a, PG, PROT_READ, 5, 0));
    T(TURN(a, 0, 0, 5, 0));
    T(TURN(a, 100, 0, 5, 0));
    T(TURN(a+100, PG, 0, 1, 0));
    T(a[0]);
    T(TURN(p, PG, 0, 0, 0));
    T(TURN(8*PG, PG, 0, 0, 0));
    T(TURN(a, PG, 0, -1L, 0));
    T(TURN(a, 9*PG, 0, 0, 0));
    T(TURN(a, PG, 0, 100, 0));
    RD(a);
    a = mmap(0, 4*PG, RW, MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    for (int n = 0; n < 4; n++) a[n*PG] = 'a'+n;
    T(TURN(a, 2*PG, 0, 2, 0));
    T(a[0]); T(a[PG]); T(a[2*PG]);
    T(TURN(a+2*PG, 2*PG, 0, 0, 0));
    T(a[2*PG]); T(a[0]);
    T(TURN(a, 4*PG, 0, 0, 0));
    T(a[0]); T(a[3*PG]);
    unlink("/tmp/advice-turned");
}

static void sizes(void) {
    char *a = pages(8), *b, *c;
    for (int n = 0; n < 8; n++) a[n*PG] = 'a'+n;
    mprotect(a+2*PG, PG, PROT_READ);
    /* Smaller where it is, over several regions. */
    T(mremap(a, 8*PG, PG, 0) == a);
    RD(a+PG); RD(a+7*PG);
    a = pages(8);
    munmap(a+4*PG, PG);
    T(mremap(a, 8*PG, 8*PG, 0) == a);
    T(mremap(a, 8*PG, 2*PG, MREMAP_MAYMOVE) == a);
    RD(a+2*PG); RD(a+5*PG);
    P(mremap(a, 3*PG, 4*PG, MREMAP_MAYMOVE));
    a = pages(4);
    munmap(a+2*PG, PG);
    T(mremap(a, 2*PG, 3*PG, 0) == a);
    T(mremap(a, 4*PG, 4*PG, 0) == a);
    T(mremap(a, 4*PG, 5*PG, 0) == (void*)-1);
}

int main(void) {
    catch_();
    sealed();
    advice();
    of_others();
    nodes();
    cached();
    turned();
    sizes();
    T(prctl(PR_SET_MDWE, 2, 0, 0, 0));
    T(prctl(PR_SET_MDWE, 4, 0, 0, 0));
    T(prctl(PR_SET_MDWE, 1, 1, 0, 0));
    T(prctl(PR_GET_MDWE, 1, 0, 0, 0));
    T(prctl(PR_GET_MDWE, 0, 0, 0, 0));
    char *x = mmap(0, PG, PROT_READ|PROT_EXEC, AN, -1, 0), *w = pages(1);
    T(CHILD(prctl(PR_SET_MDWE, 3, 0, 0, 0); _exit(prctl(PR_SET_MDWE, 1, 0, 0, 0) ? errno : 0)));
    T(CHILD(prctl(PR_SET_MDWE, 3, 0, 0, 0); _exit(CHILD(_exit(prctl(PR_GET_MDWE, 0, 0, 0, 0))))));
    T(prctl(PR_SET_MDWE, 1, 0, 0, 0));
    T(prctl(PR_SET_MDWE, 0, 0, 0, 0));
    T(prctl(PR_GET_MDWE, 0, 0, 0, 0));
    P(mmap(0, PG, RW|PROT_EXEC, AN, -1, 0));
    P(mmap(0, PG, PROT_READ|PROT_EXEC, AN, -1, 0));
    T(mprotect(w, PG, PROT_READ|PROT_EXEC));
    T(mprotect(w, PG, PROT_READ));
    T(mprotect(w, PG, PROT_READ|PROT_EXEC));
    T(mprotect(x, PG, PROT_READ|PROT_EXEC));
    T(mprotect(x, PG, RW|PROT_EXEC));
    T(mprotect(x, PG, PROT_READ));
    T(mprotect(x, PG, PROT_READ|PROT_EXEC));
    T(CHILD(_exit(prctl(PR_GET_MDWE, 0, 0, 0, 0))));
    return 0;
}

/* Missing pages that are brought from elsewhere in the same memory (UFFDIO_MOVE). */
#include "check.h"
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#define PG 4096L
#define RW (PROT_READ|PROT_WRITE)
#define PRIVATE MAP_PRIVATE
struct carry { uint64_t to, from, len, mode; int64_t done; };
#define MOVE _IOWR(0xaa, 5, struct carry)
enum { QUIET = 1, HOLES = 2 };
static int fd;
static char *to, *from;
static char found[64];
/* What became of it, and what was told. */
static char *carry(void *to, void *from, long len, long mode) {
    struct carry c = { (long)to, (long)from, len, mode, 77 };
    int done = ioctl(fd, MOVE, &c), e = errno;
    sprintf(found, "%s %ld", done ? strerrorname_np(e) : "ok", (long)c.done);
    return found;
}
/* Pages with nothing beside them. */
static char *memory(int pages, int rights, int how) {
    char *all = mmap(0, (pages + 2)*PG, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
    return mmap(all + PG, pages*PG, rights, how|MAP_FIXED|MAP_ANONYMOUS, -1, 0);
}
static int watch(char *at, int pages, int mode) {
    struct uffdio_register r = { { (long)at, pages*PG }, mode };
    int done = ioctl(fd, UFFDIO_REGISTER, &r);
    return done ? done : (int)(r.ioctls >> 5 & 1);
}
static void *answer(void *pages) {
    for (long n = 0; n < (long)pages; n++) {
        struct uffd_msg m;
        if (read(fd, &m, sizeof m) != sizeof m) return (void*)1;
        char *at = (char*)m.arg.pagefault.address;
        if (strcmp(carry(at, from + (at - to), PG, 0), "ok 4096")) return (void*)2;
    }
    return 0;
}
int main(void) {
    fd = syscall(SYS_userfaultfd, O_CLOEXEC|UFFD_USER_MODE_ONLY);
    struct uffdio_api api = { UFFD_API, 1 << 16 };
    T(ioctl(fd, UFFDIO_API, &api));
    to = memory(8, RW, PRIVATE);
    from = memory(8, RW, PRIVATE);
    T(watch(to, 8, UFFDIO_REGISTER_MODE_MISSING));
    for (int i = 0; i < 8; i++) if (i != 5) from[i*PG] = 'a' + i;
    S(carry(to, from, PG, 0)); T(to[0]); T(from[0]);
    S(carry(to, from, PG, 0));
    S(carry(to + PG, from + PG, 2*PG, 0)); T(to[PG]); T(to[2*PG]);
    S(carry(to + 3*PG, from + 3*PG, 4*PG, 0)); T(to[3*PG]); T(to[4*PG]);
    S(carry(to + 5*PG, from + 5*PG, PG, 0)); S(carry(to + 5*PG, from + 5*PG, PG, HOLES));
    S(carry(to + 5*PG, from + 5*PG, 3*PG, HOLES)); T(to[7*PG]);
    S(carry(to + 1, from, PG, 0)); S(carry(to, from + 1, PG, 0)); S(carry(to, from, PG - 1, 0)); S(carry(to, from, 0, 0));
    S(carry(to, from, PG, 4)); S(carry(to, from, -PG, 0)); S(carry((void*)-PG, from, PG, 0)); S(carry(to, (void*)-PG, PG, 0));
    S(carry(0, from, PG, 0)); S(carry(to, 0, PG, 0)); S(carry(to, to, PG, 0));
    S(carry(to + 7*PG, from, 2*PG, 0)); S(carry(to, from + 7*PG, 2*PG, 0));
    T(ioctl(fd, MOVE, 0)); T(ioctl(fd, MOVE, 8));
    S(carry(memory(4, RW, PRIVATE), from, PG, 0));
    S(carry(to + 6*PG, memory(2, PROT_READ, PRIVATE), PG, 0));
    char *shared = memory(2, RW, MAP_SHARED);
    shared[0] = 1;
    S(carry(to + 6*PG, shared, PG, 0));
    char *other = memory(4, RW, PRIVATE), *guarded = memory(4, RW, PRIVATE), *still = memory(4, PROT_READ, PRIVATE);
    T(watch(other, 4, UFFDIO_REGISTER_MODE_MISSING)); T(watch(guarded, 4, UFFDIO_REGISTER_MODE_WP)); T(watch(still, 4, UFFDIO_REGISTER_MODE_MISSING));
    from[0] = 'q';
    S(carry(still, from, PG, 0));
    S(carry(guarded, from, PG, 0)); T(guarded[0]);
    char *locked = memory(2, RW, PRIVATE);
    locked[0] = 3;
    T(mlock(locked, 2*PG)); S(carry(other, locked, PG, 0));
    volatile char zero = from[PG];
    S(carry(other, from + PG, PG, 0)); T(other[0]);
    other[0] = 9; T(other[0]);
    /* What a child has, too, does not go; nor can the child carry anything. */
    int pipes[2], status;
    T(pipe(pipes));
    from[0] = 'f';
    pid_t child = fork();
    if (!child) { char c; S(carry(other + PG, from, PG, 0)); write(pipes[1], "x", 1); pause(); }
    char c;
    read(pipes[0], &c, 1);
    S(carry(other + PG, from, PG, 0));
    from[0] = 'g';
    S(carry(other + PG, from, PG, 0)); T(other[PG]);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    /* Threads that fault. */
    munmap(to, 8*PG); munmap(from, 8*PG);
    to = memory(64, RW, PRIVATE); from = memory(64, RW, PRIVATE);
    T(watch(to, 64, UFFDIO_REGISTER_MODE_MISSING));
    for (int i = 0; i < 64; i++) from[i*PG] = i;
    pthread_t thread;
    pthread_create(&thread, 0, answer, (void*)64);
    int wrong = 0;
    for (int i = 0; i < 64; i++) wrong += to[i*PG] != i;
    for (int i = 0; i < 64; i++) to[i*PG]++;
    for (int i = 0; i < 64; i++) wrong += to[i*PG] != i + 1;
    void *end;
    pthread_join(thread, &end);
    T(end); T(wrong);
    /* The bits of pagemap for guarded pages. */
    char *w = memory(4, RW, PRIVATE);
    w[0] = w[PG] = 1;
    T(watch(w, 4, UFFDIO_REGISTER_MODE_WP));
    struct uffdio_writeprotect p = { { (long)w, PG }, 1 };
    T(ioctl(fd, UFFDIO_WRITEPROTECT, &p));
    int pages = open("/proc/self/pagemap", O_RDONLY);
    uint64_t words[2];
    T(pread(pages, words, 16, (long)w/PG*8)); T(words[0] >> 57 & 1); T(words[1] >> 57 & 1);
    p.mode = 0;
    T(ioctl(fd, UFFDIO_WRITEPROTECT, &p));
    T(pread(pages, words, 16, (long)w/PG*8)); T(words[0] >> 57 & 1); T(words[1] >> 57 & 1);
}

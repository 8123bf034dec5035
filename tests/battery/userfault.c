/* A program that brings its own pages in. */
#include "check.h"
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#define PG 4096L
#define AN (MAP_PRIVATE|MAP_ANONYMOUS)
#define RW (PROT_READ|PROT_WRITE)
#define MISSING UFFDIO_REGISTER_MODE_MISSING
static int fd;
static char *page;
static int introduce(int fd, unsigned long long features) {
    struct uffdio_api api = { UFFD_API, features };
    return ioctl(fd, UFFDIO_API, &api);
}
static int reg(int fd, void *at, long len, long mode) {
    struct uffdio_register r = { { (long)at, len }, mode, 7 };
    int done = ioctl(fd, UFFDIO_REGISTER, &r);
    if (!done && (r.ioctls & 0x1c) != 0x1c) return -77;
    return done;
}
static long copied;
static int copy(void *to, void *from, long len, long mode) {
    struct uffdio_copy c = { (long)to, (long)from, len, mode, 7 };
    int done = ioctl(fd, UFFDIO_COPY, &c), e = errno;
    copied = c.copy;
    errno = e;
    return done;
}
static int zero(void *to, long len, long mode) {
    struct uffdio_zeropage z = { { (long)to, len }, mode, 7 };
    int done = ioctl(fd, UFFDIO_ZEROPAGE, &z), e = errno;
    copied = z.zeropage;
    errno = e;
    return done;
}
static int on_range(int what, void *at, long len) {
    struct uffdio_range r = { (long)at, len };
    return ioctl(fd, what, &r);
}
/* Answers so many questions: each page is filled with the number of the question's page. */
static char *base;
static int writes, answers;
static void *answer(void *count) {
    for (long n = 0; n < (long)count; n++) {
        struct uffd_msg m;
        memset(&m, 9, sizeof m);
        if (read(fd, &m, sizeof m) != sizeof m || m.event != UFFD_EVENT_PAGEFAULT) return (void*)1;
        char *at = (char*)m.arg.pagefault.address;
        writes += m.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
        memset(page, 'a' + (at-base)/PG, PG);
        int done = copy(at, page, PG, 0);
        answers++;
        if (done && errno != EEXIST) return (void*)2;
        if (done) on_range(UFFDIO_WAKE, at, PG);
    }
    return 0;
}
static void served(char *at, const char *what, int shared) {
    pthread_t t; void *r; int st, p[2]; char buf[4] = "xyz";
    base = at; writes = answers = 0;
    pthread_create(&t, 0, answer, (void*)5);
    T(at[0]);
    T(at[1]);
    at[PG] = 'W';
    T(at[PG]); T(at[PG+1]);
    /* The kernel's own access. */
    pipe(p);
    T(write(p[1], at+2*PG, 2));
    T(read(p[0], buf, 2)); T(buf[0]);
    write(p[1], "12", 2);
    T(read(p[0], at+3*PG, 2)); T(at[3*PG]); T(at[3*PG+2]);
    T(at[4*PG]);
    pthread_join(t, &r);
    T((long)r); T(writes); T(answers);
    T(at[0]);
    close(p[0]); close(p[1]);
}
static char *hit;
static void *touch(void *at) { hit = at; return (void*)(long)*(char*)at; }
static int settled(pthread_t t) { struct pollfd p = { fd, POLLIN }; return poll(&p, 1, 10000) == 1 && p.revents == POLLIN; }
int main(void) {
    struct uffd_msg m;
    struct pollfd pf;
    pthread_t t; void *r; int st;
    catch_();
    page = mmap(0, 4*PG, RW, AN, -1, 0);
    memset(page, 'p', 4*PG);
    T(syscall(SYS_userfaultfd, 0x100));
    T((fd = syscall(SYS_userfaultfd, O_NONBLOCK|O_CLOEXEC)) >= 0);
    T(fcntl(fd, F_GETFD)); T(fcntl(fd, F_GETFL) & (O_ACCMODE|O_NONBLOCK));
    char *a = mmap(0, 16*PG, RW, AN, -1, 0);
    T(reg(fd, a, PG, MISSING));
    T(read(fd, &m, sizeof m));
    pf.fd = fd; pf.events = POLLIN; pf.revents = 0;
    T(poll(&pf, 1, 0)); T(pf.revents);
    struct uffdio_api api = { 0x55, 0 };
    T(ioctl(fd, UFFDIO_API, &api)); T(api.api);
    api.api = UFFD_API; api.features = 1UL<<40;
    T(ioctl(fd, UFFDIO_API, &api)); T(api.features);
    T(ioctl(fd, UFFDIO_API, 8));
    api.api = UFFD_API; api.features = 0;
    T(ioctl(fd, UFFDIO_API, &api)); T(api.api); T((api.ioctls & (1UL<<0x3f|3)) == (1UL<<0x3f|3)); T(!!(api.features & UFFD_FEATURE_SIGBUS)); T(!!(api.features & UFFD_FEATURE_THREAD_ID));
    T(introduce(fd, 0));
    pf.revents = 0;
    T(poll(&pf, 1, 0)); T(pf.revents);
    T(read(fd, &m, sizeof m)); T(read(fd, &m, 31)); T(write(fd, &m, sizeof m));
    T(reg(fd, a, PG, 0)); T(reg(fd, a, PG, 64)); T(reg(fd, a, 0, MISSING)); T(reg(fd, a+1, PG, MISSING)); T(reg(fd, a, PG+1, MISSING)); T(reg(fd, a, -PG, MISSING)); T(reg(fd, (void*)(16*PG), PG, MISSING)); T(reg(fd, (void*)(1L<<47), PG, MISSING));
    int file = open("userfault-file", O_RDWR|O_CREAT|O_TRUNC, 0600);
    ftruncate(file, 4*PG);
    int self = open("/proc/self/exe", O_RDONLY);
    char *f = mmap(0, PG, PROT_READ, MAP_PRIVATE, self, 0);
    T(reg(fd, f, PG, MISSING));
    T(reg(fd, a, 8*PG, MISSING)); T(reg(fd, a+4*PG, 8*PG, MISSING));
    int fd2 = syscall(SYS_userfaultfd, 0);
    introduce(fd2, 0);
    T(reg(fd2, a+7*PG, 2*PG, MISSING)); T(close(fd2));
    T(ioctl(fd, 0x1234, 0)); T(ioctl(fd, UFFDIO_REGISTER, 8)); T(ioctl(fd, UFFDIO_COPY, 8)); T(ioctl(fd, UFFDIO_WAKE, 8));

    /* Brought unasked. */
    T(copy(a, page, PG, 0)); T(copied); T(a[0]); T(copy(a, page, PG, 0)); T(copied);
    T(copy(a+PG, page, 2*PG, UFFDIO_COPY_MODE_DONTWAKE)); T(copied); T(a[2*PG]);
    T(copy(a+2*PG, page, 2*PG, 0)); T(copied);
    T(zero(a+3*PG, PG, 0)); T(copied); T(a[3*PG]); a[3*PG] = 4; T(a[3*PG]);
    T(zero(a+3*PG, PG, 0)); T(copied);
    T(copy(a+4*PG, page, 0, 0)); T(copy(a+4*PG+1, page, PG, 0)); T(copy(a+4*PG, page, PG+1, 0)); T(copy(a+4*PG, page, PG, 64)); T(copy(a+4*PG, page+1, PG, 0)); T(a[4*PG]);
    T(copy(a+5*PG, (void*)8, PG, 0)); T(copied);
    T(copy(a+14*PG, page, PG, 0)); T(copied); T(copy((void*)(16*PG), page, PG, 0)); T(copied);
    T(zero(a+5*PG, PG, 64)); T(zero(a+14*PG, PG, 0));
    T(on_range(UFFDIO_WAKE, a, PG)); T(on_range(UFFDIO_WAKE, a, 0)); T(on_range(UFFDIO_WAKE, a+1, PG));
    T(on_range(UFFDIO_UNREGISTER, a+1, PG)); T(on_range(UFFDIO_UNREGISTER, a, 0));
    T(a[14*PG]);
    /* Copying what only the rights forbid to write. */
    T(mprotect(a+5*PG, PG, PROT_READ)); T(copy(a+5*PG, page, PG, 0)); T(a[5*PG]); WR(a+5*PG); T(mprotect(a+5*PG, PG, RW)); a[5*PG] = 1; T(a[5*PG]);

    /* A question, told once, answered by another. */
    pthread_create(&t, 0, touch, a+6*PG+5);
    T(settled(t));
    T(read(fd, &m, sizeof m)); T(m.event); T(m.arg.pagefault.flags); T(m.arg.pagefault.address == (long)(a+6*PG));
    T(read(fd, &m, sizeof m));
    pf.revents = 0; T(poll(&pf, 1, 0));
    T(copy(a+6*PG, page, PG, UFFDIO_COPY_MODE_DONTWAKE));
    T(on_range(UFFDIO_WAKE, a+6*PG, PG));
    pthread_join(t, &r); T((long)r);
    /* The end of the watch answers too. */
    pthread_create(&t, 0, touch, a+7*PG);
    T(settled(t));
    T(on_range(UFFDIO_UNREGISTER, a+7*PG, PG));
    pthread_join(t, &r); T((long)r);
    /* Discarded pages are asked for again. */
    T(madvise(a+6*PG, PG, MADV_DONTNEED));
    pthread_create(&t, 0, touch, a+6*PG);
    T(settled(t)); T(read(fd, &m, sizeof m));
    T(zero(a+6*PG, PG, 0));
    pthread_join(t, &r); T((long)r);
    /* Children and moved memory are not watched. */
    T(madvise(a+6*PG, PG, MADV_DONTNEED));
    T(CHILD(_exit(a[6*PG])));
    char *b = mremap(a+8*PG, PG, PG, MREMAP_MAYMOVE|MREMAP_FIXED, a+15*PG);
    T(b == a+15*PG); T(b[0]);
    T(munmap(a+8*PG, PG)); 
    /* Closing it. */
    pthread_create(&t, 0, touch, a+9*PG);
    T(settled(t));
    T(close(fd));
    pthread_join(t, &r); T((long)r);
    T(a[6*PG]); T(a[10*PG]);

    fd = syscall(SYS_userfaultfd, 0);
    introduce(fd, 0);
    a = mmap(0, 8*PG, RW, AN, -1, 0);
    T(reg(fd, a, 5*PG, MISSING));
    served(a, "private", 0);
    a = mmap(0, 8*PG, RW, MAP_SHARED|MAP_ANONYMOUS, -1, 0);
    T(reg(fd, a, 5*PG, MISSING));
    served(a, "shared", 1);
    T(copy(a+4*PG, page, PG, 0)); T(copied);
    T(close(fd));

    fd = syscall(SYS_userfaultfd, O_NONBLOCK);
    T(introduce(fd, UFFD_FEATURE_SIGBUS));
    a = mmap(0, 4*PG, RW, AN, -1, 0);
    T(reg(fd, a, 2*PG, MISSING));
    RD(a); WR(a+PG); RD(a+2*PG);
    T(read(fd, &m, sizeof m));
    T(copy(a, page, PG, 0)); RD(a); WR(a);
    int p[2]; pipe(p);
    T(write(p[1], a+PG, 1));
    T(close(fd));
    RD(a+PG);
    fd = syscall(SYS_userfaultfd, 0);
    T(introduce(fd, UFFD_FEATURE_THREAD_ID|UFFD_FEATURE_EXACT_ADDRESS));
    a = mmap(0, 4*PG, RW, AN, -1, 0);
    T(reg(fd, a, 2*PG, MISSING));
    pthread_create(&t, 0, touch, a+5);
    T(read(fd, &m, sizeof m)); T(m.arg.pagefault.feat.ptid != getpid() && m.arg.pagefault.feat.ptid > 0); T(m.arg.pagefault.address == (long)(a+5));
    T(zero(a, PG, 0));
    pthread_join(t, &r);
    return 0;
}

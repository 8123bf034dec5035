/* A program that is told before it writes to pages that it has guarded (userfaultfd's write protection). */
#define FAMILY "guarded"
#include "check.h"
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#define PG 4096L
#define RW (PROT_READ | PROT_WRITE)

static int fd_;
static int guard(char *at, long len, long mode) {
    struct uffdio_writeprotect w = {{(long)at, len}, mode};
    return ioctl(fd_, UFFDIO_WRITEPROTECT, &w);
}
static long offered_;
static int reg(char *at, long len, long mode) {
    struct uffdio_register r = {{(long)at, len}, mode, 0};
    int done = ioctl(fd_, UFFDIO_REGISTER, &r);
    offered_ = r.ioctls;
    return done;
}
static int copy(char *to, char *from, long len, long mode) {
    struct uffdio_copy c = {(long)to, (long)from, len, mode, 0};
    return ioctl(fd_, UFFDIO_COPY, &c);
}
static int open_(long features) {
    struct uffdio_api api = {UFFD_API, features, 0};
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
        return -1;
    T(!!(api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP));
    return fd;
}

/* Answers questions until one is about the last page; what they were. */
static char *base_;
static int asked_, flags_, pages_[64];
static void *answer(void *last) {
    for (;;) {
        struct uffd_msg m;
        if (read(fd_, &m, sizeof m) != sizeof m || m.event != UFFD_EVENT_PAGEFAULT)
            return (void *)1;
        long number = ((char *)m.arg.pagefault.address - base_) / PG;
        flags_ |= m.arg.pagefault.flags;
        pages_[asked_++ % 64] = number;
        if (guard(base_ + number * PG, PG, 0))
            return (void *)2;
        if (number == (long)last)
            return 0;
    }
}

static void told(char *at, const char *what) {
    pthread_t thread;
    void *result;
    base_ = at, asked_ = flags_ = 0;
    printf(FAMILY ".%s\n", what);
    pthread_create(&thread, 0, answer, (void *)7);
    /* Reading is never told; writing once, by whoever does it. */
    T(at[1 * PG]);
    at[1 * PG] = 'x';
    at[1 * PG + 1] = 'y';
    T(at[1 * PG]);
    int p[2];
    pipe(p);
    T(write(p[1], at + 2 * PG, 2));
    T(read(p[0], at + 3 * PG, 2));
    T(at[4 * PG + 7]);
    at[6 * PG]++;
    at[7 * PG] = 'z';
    pthread_join(thread, &result);
    T((long)result);
    T(asked_);
    for (int i = 0; i < asked_; i++)
        N("page", i, pages_[i]);
    T(flags_);
    at[7 * PG] = '!';
    T(at[7 * PG]);
    close(p[0]), close(p[1]);
}

static void errors(char *a) {
    T(guard(a, PG, UFFDIO_WRITEPROTECT_MODE_WP));
    T(reg(a, 8 * PG, UFFDIO_REGISTER_MODE_MISSING));
    T(guard(a, PG, UFFDIO_WRITEPROTECT_MODE_WP));
    T(!!(offered_ & 1 << _UFFDIO_WRITEPROTECT));
    char page[PG];
    T(copy(a, page, PG, UFFDIO_COPY_MODE_WP));
    T(copy(a, page, PG, 64));
    T(reg(a, 8 * PG, UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING));
    T(!!(offered_ & 1 << _UFFDIO_WRITEPROTECT));
    T(guard(a, PG, 4));
    T(guard(a, PG, 3));
    T(guard(a + 1, PG, 1));
    T(guard(a, 0, 1));
    T(guard(a, PG - 1, 1));
    T(guard(a + 100 * PG, PG, 1));
    T(guard(a, 9 * PG, 1));
    T(ioctl(fd_, UFFDIO_WRITEPROTECT, 8));
    T(guard(a, 8 * PG, 1));
    T(guard(a, 8 * PG, 2));
    T(guard(a, 8 * PG, 0));
}

static void *put_guarded(void *unused) {
    (void)unused;
    struct uffd_msg m;
    static char page[PG];
    memset(page, 'q', PG);
    for (int i = 0; i < 2; i++) {
        if (read(fd_, &m, sizeof m) != sizeof m)
            return (void *)1;
        flags_ = flags_ << 4 | m.arg.pagefault.flags;
        char *at = (char *)m.arg.pagefault.address;
        if (i == 0 ? copy(at, page, PG, UFFDIO_COPY_MODE_WP) : guard(at, PG, 0))
            return (void *)2;
    }
    return 0;
}

int main(void) {
    char *room = mmap(0, 200 * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *a = mmap(room, 8 * PG, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    munmap(room + 8 * PG, 192 * PG);
    T((fd_ = open_(0)) >= 0);
    errors(a);
    /* Put there guarded: missing first, then the write. */
    pthread_t thread;
    void *result;
    flags_ = 0;
    pthread_create(&thread, 0, put_guarded, 0);
    a[2 * PG] = 'w';
    pthread_join(thread, &result);
    T((long)result);
    T(flags_);
    T(a[2 * PG]);
    T(a[2 * PG + 1]);
    struct uffdio_range all = {(long)a, 8 * PG};
    T(ioctl(fd_, UFFDIO_UNREGISTER, &all));

    memset(a, 'a', 8 * PG);
    T(reg(a, 8 * PG, UFFDIO_REGISTER_MODE_WP));
    T(guard(a, 8 * PG, 1));
    told(a, "private memory");
    /* A child's writes are its own. */
    T(guard(a, 8 * PG, 1));
    W(CHILD(for (int i = 0; i < 8; i++) a[i * PG] = 'c'));
    T(a[5 * PG]);
    /* Thrown away, they are as any other. */
    T(madvise(a, 8 * PG, MADV_DONTNEED));
    a[0] = 1, a[3 * PG] = 2;
    T(a[0] + a[3 * PG]);
    /* What was not there was not guarded. */
    T(madvise(a, 8 * PG, MADV_DONTNEED));
    T(guard(a, 8 * PG, 1));
    a[4 * PG] = 3;
    T(a[4 * PG]);
    T(guard(a, 8 * PG, 1));
    /* Not watched any more, not guarded any more. */
    T(ioctl(fd_, UFFDIO_UNREGISTER, &all));
    a[4 * PG] = 4;
    T(a[4 * PG]);

    int shm = memfd_create("guarded", 0);
    T(ftruncate(shm, 8 * PG));
    char *s = mmap(0, 8 * PG, RW, MAP_SHARED, shm, 0), *t = mmap(0, 8 * PG, RW, MAP_SHARED, shm, 0);
    memset(t, 'b', 5 * PG);
    T(reg(s, 8 * PG, UFFDIO_REGISTER_MODE_WP));
    T(guard(s, 8 * PG, 1));
    t[6 * PG] = 'o'; /* others write as they like */
    told(s, "shared memory");
    T(t[PG]);
    T(guard(s, 8 * PG, 1));
    close(fd_);
    s[0] = 'n';
    T(t[0]);

    /* Pages that are not there, if one asks for that. */
    T((fd_ = open_(1 << 13)) >= 0);
    T(madvise(a, 8 * PG, MADV_DONTNEED));
    T(reg(a, 8 * PG, UFFDIO_REGISTER_MODE_WP));
    T(guard(a, 8 * PG, 1));
    told(a, "nothing there yet");
    close(fd_);
    return 0;
}

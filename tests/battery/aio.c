/* Asynchronous I/O by the kernel's own calls. */
#include "check.h"
#include <linux/aio_abi.h>
#include <pthread.h>
#include <sys/eventfd.h>

static int io_setup(unsigned n, aio_context_t *c) { return syscall(SYS_io_setup, n, c); }
static int io_destroy(aio_context_t c) { return syscall(SYS_io_destroy, c); }
static int io_submit(aio_context_t c, long n, struct iocb **l) { return syscall(SYS_io_submit, c, n, l); }
static int io_cancel(aio_context_t c, struct iocb *b, struct io_event *e) { return syscall(SYS_io_cancel, c, b, e); }
static int io_getevents(aio_context_t c, long least, long most, struct io_event *e, struct timespec *t) {
    return syscall(SYS_io_getevents, c, least, most, e, t);
}
struct mask { const sigset_t *set; size_t size; };
static int io_pgetevents(aio_context_t c, long least, long most, struct io_event *e, struct timespec *t, struct mask *m) {
    return syscall(SYS_io_pgetevents, c, least, most, e, t, m);
}

static aio_context_t c;
static struct io_event e[300];
static struct timespec none = {0, 0}, little = {0, 2000000};

static struct iocb ask(int op, int fd, const void *at, size_t n, long offset) {
    struct iocb b = {.aio_data = 7, .aio_lio_opcode = op, .aio_fildes = fd, .aio_buf = (uintptr_t)at, .aio_nbytes = n, .aio_offset = offset, .aio_key = 99};
    return b;
}
/* One request: what submitting it says; and what became of it, where it was taken. */
static int submit(struct iocb b) {
    struct iocb *l[1] = {&b};
    e[0].res = 12345;
    int n = io_submit(c, 1, l);
    if (n == 1 && io_getevents(c, 1, 1, e, 0) == 1 && (e[0].data != 7 || e[0].obj != (uintptr_t)&b || e[0].res2 || b.aio_key)) return -2;
    return n;
}
static void *later(void *at) {
    usleep(20000);
    io_submit(c, 1, at);
    return 0;
}
static void *destroys(void *at) {
    usleep(20000);
    io_destroy(c);
    return 0;
}
static void plain(int s) {}

int main(void) {
    aio_context_t bad = 0, set = 5;
    int fd = open("f", O_RDWR | O_CREAT, 0644), ro = open("f", O_RDONLY), dir = open(".", O_RDONLY), p[2];
    char b[8192], *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    pipe(p);
    /* io_setup */
    T(io_setup(0, &bad));
    T(io_setup(1, &set));
    T(io_setup(1, (void *)8));
    T(io_setup(1, (void *)-8));
    T(io_setup(0x7fffffff, &bad));
    T(io_setup(-1, &bad));
    T(io_setup(4000000, &bad));
    T(bad);
    T(io_setup(4, &c));
    T(c != 0);
    T(io_setup(4, &c));
    T(*(volatile char *)c >= 0);
    /* submissions that are refused */
    struct iocb one = ask(IOCB_CMD_PWRITE, fd, "hello, world", 12, 0), two = ask(IOCB_CMD_PREAD, fd, b, 5, 7), wrong = ask(77, fd, b, 5, 7);
    struct iocb *l[300] = {&one, &two, (void *)8, &one};
    T(io_submit(0, 1, l));
    T(io_submit(c + 4096, 1, l));
    T(io_submit(12345, 1, l));
    T(io_submit(c, -1, l));
    T(io_submit(c, 0, l));
    T(io_submit(c, 0, (void *)8));
    T(io_submit(c, 1, (void *)8));
    T(io_submit(c, 1, l + 2));
    T(submit(ask(77, fd, b, 5, 0)));
    T(submit(ask(4, fd, b, 5, 0)));
    T(submit(ask(IOCB_CMD_NOOP, fd, b, 5, 0)));
    T(submit(ask(IOCB_CMD_PREAD, -1, b, 5, 0)));
    T(submit(ask(IOCB_CMD_PREAD, 999, b, 5, 0)));
    T(submit(ask(IOCB_CMD_PREAD, fd, b, 5, -1)));
    T(submit(ask(IOCB_CMD_PREAD, fd, b, -1, 0)));
    T(submit(ask(IOCB_CMD_PREAD, fd, (void *)-8, 5, 0)));
    T(submit(ask(IOCB_CMD_PREAD, dir, b, 5, 0)));
    T(submit(ask(IOCB_CMD_PWRITE, ro, b, 5, 0)));
    T(submit(ask(IOCB_CMD_PREAD, p[1], b, 5, 0)));
    T(submit(ask(IOCB_CMD_PREADV, fd, b, 1025, 0)));
    T(submit(ask(IOCB_CMD_PREADV, fd, (void *)8, 1, 0)));
    T(submit(ask(IOCB_CMD_FSYNC, fd, b, 0, 0)));
    T(submit(ask(IOCB_CMD_FSYNC, fd, 0, 1, 0)));
    T(submit(ask(IOCB_CMD_FSYNC, fd, 0, 0, 1)));
    T(submit(ask(IOCB_CMD_FDSYNC, p[0], 0, 0, 0)));
    wrong = ask(IOCB_CMD_PREAD, fd, b, 5, 0), wrong.aio_reserved2 = 1;
    T(submit(wrong));
    wrong.aio_reserved2 = 0, wrong.aio_rw_flags = 0x40000000;
    T(submit(wrong));
    wrong.aio_rw_flags = 0, wrong.aio_flags = IOCB_FLAG_RESFD, wrong.aio_resfd = -1;
    T(submit(wrong));
    wrong.aio_resfd = fd;
    T(submit(wrong));
    T(io_getevents(c, 0, 10, e, &none));
    /* what is done */
    T(io_submit(c, 4, l));
    T(io_getevents(c, 2, 10, e, 0));
    T(e[0].res);
    T(e[1].res);
    T(memcmp(b, "world", 5));
    T(e[0].obj == (uintptr_t)&one && e[1].obj == (uintptr_t)&two);
    T(submit(ask(IOCB_CMD_PREAD, fd, b, 100, 5)));
    T(e[0].res);
    T(submit(ask(IOCB_CMD_PREAD, fd, b, 100, 500)));
    T(e[0].res);
    T(submit(ask(IOCB_CMD_PREAD, fd, (void *)8, 5, 0)));
    T(e[0].res);
    T(submit(ask(IOCB_CMD_PREAD, fd, b, 0, 0)));
    T(e[0].res);
    T(submit(ask(IOCB_CMD_PWRITE, fd, page + 4090, 12, 100)));
    T(e[0].res > 0 || e[0].res == -EFAULT);
    struct iovec v[2] = {{"ab", 2}, {"cde", 3}}, w[2] = {{b, 3}, {b + 10, 30}};
    ftruncate(fd, 12);
    T(submit(ask(IOCB_CMD_PWRITEV, fd, v, 2, 12)));
    T(e[0].res);
    T(submit(ask(IOCB_CMD_PREADV, fd, w, 2, 10)));
    T(e[0].res);
    T(memcmp(b, "lda", 3) || memcmp(b + 10, "bcde", 4));
    T(submit(ask(IOCB_CMD_PREADV, fd, w, 0, 10)));
    T(e[0].res);
    T(submit(ask(IOCB_CMD_FSYNC, fd, 0, 0, 0)));
    T(e[0].res);
    T(submit(ask(IOCB_CMD_FDSYNC, fd, 0, 0, 0)));
    T(e[0].res);
    T(submit(ask(IOCB_CMD_PWRITE, p[1], "pipe", 4, 0)));
    T(e[0].res);
    T(submit(ask(IOCB_CMD_PREAD, p[0], b, 10, 3)));
    T(e[0].res);
    T(lseek(fd, 0, SEEK_CUR));
    signal(SIGPIPE, plain);
    close(p[0]);
    T(submit(ask(IOCB_CMD_PWRITE, p[1], "pipe", 4, 0)));
    T(e[0].res);
    signal(SIGXFSZ, plain);
    struct rlimit small = {100, 100}, old;
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    int submitted = submit(ask(IOCB_CMD_PWRITE, fd, b, 10, 100));
    setrlimit(RLIMIT_FSIZE, &old);
    T(submitted);
    T(e[0].res);
    /* an eventfd hears of it */
    int count = eventfd(0, EFD_NONBLOCK);
    long value = 0;
    wrong.aio_resfd = count;
    T(submit(wrong));
    T(submit(wrong));
    T(read(count, &value, 8));
    T(value);
    wrong.aio_lio_opcode = 77;
    T(submit(wrong));
    T(read(count, &value, 8));
    /* waiting */
    T(io_getevents(c, -1, 10, e, &none));
    T(io_getevents(c, 2, 1, e, &none));
    T(io_getevents(c, 0, -1, e, &none));
    T(io_getevents(0, 0, 1, e, &none));
    T(io_getevents(c, 0, 1, e, (void *)8));
    T(io_getevents(c, 1, 1, e, &little));
    T(io_getevents(c, 0, 0, e, 0));
    T(io_getevents(c, 0, 1, e, 0));
    T(io_submit(c, 2, l));
    T(io_getevents(c, 1, 1, (void *)8, 0));
    T(io_getevents(c, 1, 1, e, 0));
    T(io_getevents(c, 2, 3, e, &little));
    pthread_t t;
    pthread_create(&t, 0, later, l);
    T(io_getevents(c, 1, 3, e, 0));
    pthread_join(t, 0);
    struct sigaction act = {.sa_handler = plain};
    sigaction(SIGALRM, &act, 0);
    /* Again and again, so that one comes while it waits, however late that begins. */
    struct itimerval soon = {{0, 10000}, {0, 10000}};
    setitimer(ITIMER_REAL, &soon, 0);
    T(io_getevents(c, 1, 3, e, 0));
    sigset_t all;
    sigfillset(&all);
    struct mask m = {&all, 8}, odd = {&all, 4};
    soon = (struct itimerval){{0, 0}, {0, 1000}};
    setitimer(ITIMER_REAL, &soon, 0);
    T(io_pgetevents(c, 1, 3, e, &little, &m));
    T(io_pgetevents(c, 0, 3, e, &none, &odd));
    T(io_pgetevents(c, 0, 3, e, &none, (void *)8));
    T(io_pgetevents(c, 0, 3, e, &none, 0));
    /* cancelling what is not under way */
    T(io_cancel(c, &one, e));
    T(io_cancel(c, (void *)8, e));
    T(io_cancel(0, &one, e));
    /* full: there are at least as many places as were asked for */
    for (int i = 0; i < 300; i++) l[i] = &two;
    int n = io_submit(c, 300, l);
    T(n >= 4);
    for (int i = 0; i < 300 && io_submit(c, 1, l) == 1; i++) n++;
    T(io_submit(c, 1, l));
    T(io_getevents(c, n, n, e, &little) == n);
    /* a fork has none, and ends */
    if (!fork()) _exit(io_submit(c, 0, l) == -1 && errno == EINVAL ? 3 : 4);
    int st;
    wait(&st);
    W(st);
    pthread_create(&t, 0, destroys, 0);
    T(io_getevents(c, 1, 3, e, 0));
    pthread_join(t, 0);
    T(io_destroy(c));
    T(io_destroy(0));
    T(io_submit(c, 0, l));
    T(mincore((void *)c, 4096, (void *)b));
    return 0;
}

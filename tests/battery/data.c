/* What is in files: reading, writing, sizes, holes, copies; locks; seals. */
#include "check.h"
#include <limits.h>
#include <sys/file.h>
#include <sys/sendfile.h>

static char text[70000];
static struct stat s;

static void make(const char *name, const char *content) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    write(fd, content, strlen(content));
    close(fd);
}

static const char *content(const char *name) {
    int fd = open(name, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[n < 0 ? 0 : n] = 0;
    if (n < 0) sprintf(text, "(%s)", strerrorname_np(errno));
    close(fd);
    return text;
}

static void begin(void) {
    make("file", "content");
    mkdir("dir", 0755);
    symlink("file", "link");
    symlink("nowhere", "broken");
    symlink("loop", "loop");
    mkfifo("fifo", 0600);
}

static void data(void) {
    int fd = open("data", O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct iovec v[3] = {{"one", 3}, {"", 0}, {"two", 3}};
    T(writev(fd, v, 3));
    T(lseek(fd, 0, SEEK_CUR));
    T(pwritev(fd, v, 3, 10));
    T(preadv(fd, (struct iovec[]){{text, 20}}, 1, 0));
    T(text[6] == 0 && text[10] == 'o');
    T(writev(fd, v, -1));
    T(writev(fd, v, 1025));
    T(writev(fd, (struct iovec[]){{"x", -1}}, 1));
    T(writev(fd, (void *)8, 1));
    T(writev(fd, v, 0));
    T(pwritev2(fd, v, 1, -1, 0));
    T(lseek(fd, 0, SEEK_CUR));
    T(pwritev2(fd, v, 1, 0, RWF_APPEND));
    T(lseek(fd, 0, SEEK_CUR));
    T(fstat(fd, &s));
    T(s.st_size);
    T(pwritev2(fd, v, 1, 0, RWF_DSYNC));
    T(pwritev2(fd, v, 1, 0, RWF_SYNC | RWF_HIPRI));
    T(pwritev2(fd, v, 1, 0, 0x8000));
    T(preadv2(fd, (struct iovec[]){{text, 20}}, 1, 0, RWF_NOWAIT));
    T(preadv2(fd, (struct iovec[]){{text, 20}}, 1, -1, 0));
    T(pread(fd, text, 5, -1));
    T(pwrite(fd, text, 5, -1));
    T(lseek(fd, -1, SEEK_SET));
    T(lseek(fd, 0, 99));
    T(lseek(fd, LONG_MAX, SEEK_CUR));
    T(lseek(fd, 100, SEEK_END));
    T(write(fd, "end", 3));
    T(lseek(fd, 0, SEEK_END));
    T(ftruncate(fd, 5));
    T(ftruncate(fd, -1));
    T(truncate("data", 9));
    T(truncate("dir", 0));
    T(truncate("missing", 0));
    T(truncate("fifo", 0));
    T(truncate("data", LONG_MAX));
    T(ftruncate(open("data", O_RDONLY), 3));
    T(ftruncate(open("/dev/null", O_RDWR), 3));
    T(ftruncate(fd, 100000));
    T(lseek(fd, 0, SEEK_DATA));
    T(lseek(fd, 0, SEEK_HOLE));
    T(lseek(fd, 50000, SEEK_DATA));
    T(lseek(fd, 50000, SEEK_HOLE));
    T(lseek(fd, 100000, SEEK_HOLE));
    T(pwrite(fd, "x", 1, 65536));
    T(lseek(fd, 50000, SEEK_DATA));
    T(lseek(fd, 65536, SEEK_HOLE));
    T(lseek(fd, -5, SEEK_DATA));
    fstat(fd, &s);
    T(s.st_blocks);
    T(fallocate(fd, 0, 0, 8192));
    fstat(fd, &s);
    T(s.st_blocks);
    T(s.st_size);
    T(fallocate(fd, FALLOC_FL_KEEP_SIZE, 98304, 20000));
    fstat(fd, &s);
    T(s.st_size);
    T(s.st_blocks);
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 4096));
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 65536, 4096));
    T(pread(fd, text, 1, 65536));
    T(text[0]);
    T(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 100));
    T(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
    T(fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096));
    T(fallocate(fd, 0, 0, 0));
    T(fallocate(fd, 0, -1, 10));
    T(fallocate(fd, 0, 0, LONG_MAX));
    T(fallocate(fd, 0x1000, 0, 10));
    T(fallocate(open("data", O_RDONLY), 0, 0, 10));
    T(fallocate(open("dir", O_RDONLY), 0, 0, 10));
    T(fallocate(open("fifo", O_RDWR), 0, 0, 10));
    T(fallocate(open("/dev/null", O_RDWR), 0, 0, 10));
    T(fallocate(99, 0, 0, 10));
    T(posix_fallocate(fd, 200000, 100));
    fstat(fd, &s);
    T(s.st_size);
    int out = open("copied", O_RDWR | O_CREAT | O_TRUNC, 0600);
    make("source", "0123456789");
    int in = open("source", O_RDONLY);
    loff_t a = 2, b = 1;
    T(copy_file_range(in, &a, out, &b, 4, 0));
    T(a * 100 + b);
    T(copy_file_range(in, 0, out, 0, 100, 0));
    T(lseek(in, 0, SEEK_CUR));
    T(copy_file_range(in, 0, out, 0, 100, 0));
    T(copy_file_range(in, 0, out, 0, 100, 1));
    T(copy_file_range(out, 0, in, 0, 100, 0));
    T(copy_file_range(in, 0, open("copied", O_WRONLY | O_APPEND), 0, 100, 0));
    T(copy_file_range(open("dir", O_RDONLY), 0, out, 0, 100, 0));
    T(copy_file_range(open("fifo", O_RDWR), 0, out, 0, 100, 0));
    a = 0, b = 5;
    T(copy_file_range(out, &a, out, &b, 10, 0));
    off_t at = 3;
    ftruncate(out, 0), lseek(out, 0, SEEK_SET);
    T(sendfile(out, in, &at, 5));
    T(at);
    T(sendfile(out, in, 0, 5));
    lseek(in, 0, SEEK_SET);
    T(sendfile(out, in, 0, 500));
    S(content("copied"));
    T(sendfile(out, 99, 0, 5));
    T(sendfile(in, out, 0, 5));
    T(sendfile(out, open("dir", O_RDONLY), 0, 5));
    T(sendfile(out, open("fifo", O_RDWR), 0, 5));
    T(sendfile(open("copied", O_WRONLY | O_APPEND), in, 0, 5));
    at = -1;
    T(sendfile(out, in, &at, 5));
    T(fsync(fd));
    T(fdatasync(fd));
    T(fsync(0x7fff));
    T(sync_file_range(fd, 0, 100, SYNC_FILE_RANGE_WRITE));
    T(sync_file_range(fd, -1, 100, 0));
    T(sync_file_range(fd, 0, 100, 0x10));
    T(sync_file_range(open("fifo", O_RDWR), 0, 100, 0));
    T(syncfs(fd));
    T(syncfs(99));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    T(posix_fadvise(fd, 0, 0, 99));
    T(posix_fadvise(fd, 0, -1, 0));
    T(posix_fadvise(open("fifo", O_RDWR), 0, 0, 0));
    T(readahead(fd, 0, 100));
    T(readahead(open("fifo", O_RDWR), 0, 100));
    T(readahead(open("data", O_WRONLY), 0, 100));
    int append = open("data", O_RDWR | O_APPEND);
    ftruncate(append, 3);
    T(pwrite(append, "!", 1, 0));
    fstat(append, &s);
    T(s.st_size);
    T(open("data", O_RDWR | O_DIRECT) >= 0);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before;
    getrlimit(RLIMIT_FSIZE, &before);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){1000, before.rlim_max});
    /* What is printed may go to a file itself. */
    int some = pwrite(fd, text, 100, 950), none = pwrite(fd, text, 100, 1000), why = errno;
    int longer = ftruncate(fd, 1001), more = fallocate(fd, 0, 0, 2000);
    setrlimit(RLIMIT_FSIZE, &before);
    T(some);
    T(none);
    T(why == EFBIG);
    T(longer);
    T(more);
}

static struct flock lock(int kind, int start, int len) {
    return (struct flock){.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
}

static void locks(void) {
    make("locked", "0123456789");
    int fd = open("locked", O_RDWR), two = open("locked", O_RDWR);
    struct flock l = lock(F_WRLCK, 2, 3);
    T(fcntl(fd, F_SETLK, &l));
    l = lock(F_WRLCK, 0, 0);
    W(CHILD({
        fcntl(two, F_GETLK, &l);
        _exit(l.l_type * 64 + l.l_start * 8 + l.l_len + (l.l_pid == getppid() ? 0 : 100));
    }));
    W(CHILD({ l = lock(F_WRLCK, 3, 1); _exit(fcntl(two, F_SETLK, &l) ? errno : 0); }));
    W(CHILD({ l = lock(F_WRLCK, 5, 1); _exit(fcntl(two, F_SETLK, &l) ? errno : 0); }));
    /* Another descriptor of the same process: closing it lets go of all. */
    close(two);
    W(CHILD({ l = lock(F_WRLCK, 3, 1); _exit(fcntl(fd, F_SETLK, &l) ? errno : 0); }));
    l = lock(F_WRLCK, 0, 0);
    T(fcntl(fd, F_SETLK, &l));
    /* Not inherited, kept over exec. */
    W(CHILD({ l = lock(F_UNLCK, 0, 0); fcntl(fd, F_SETLK, &l); l = lock(F_RDLCK, 0, 1); _exit(fcntl(fd, F_SETLK, &l) ? errno : 0); }));
    l = lock(F_UNLCK, 4, 1);
    T(fcntl(fd, F_SETLK, &l));
    W(CHILD({ l = lock(F_WRLCK, 4, 1); _exit(fcntl(fd, F_SETLK, &l) ? errno : 0); }));
    l = lock(F_RDLCK, 0, 0);
    T(fcntl(open("locked", O_WRONLY), F_SETLK, &l));
    l = lock(F_WRLCK, 0, 0);
    T(fcntl(open("locked", O_RDONLY), F_SETLK, &l));
    l = lock(9, 0, 0);
    T(fcntl(fd, F_SETLK, &l));
    l = lock(F_RDLCK, -1, 0);
    T(fcntl(fd, F_SETLK, &l));
    l = (struct flock){.l_type = F_RDLCK, .l_whence = 9};
    T(fcntl(fd, F_SETLK, &l));
    T(fcntl(fd, F_SETLK, (void *)8));
    l = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_END, .l_start = -3, .l_len = -2};
    T(fcntl(fd, F_SETLK, &l));
    l = lock(F_UNLCK, 0, 0);
    T(fcntl(fd, F_SETLK, &l));
    T(lockf(fd, F_TLOCK, 5));
    T(lockf(fd, F_ULOCK, 5));
    /* Of the description. */
    two = open("locked", O_RDWR);
    l = lock(F_WRLCK, 0, 5);
    T(fcntl(fd, F_OFD_SETLK, &l));
    l = lock(F_WRLCK, 0, 5);
    T(fcntl(two, F_OFD_SETLK, &l));
    T(fcntl(two, F_SETLK, &l));
    T(fcntl(two, F_OFD_GETLK, &l));
    T(l.l_type);
    T(l.l_pid);
    l = lock(F_WRLCK, 0, 5);
    W(CHILD({ _exit(fcntl(fd, F_OFD_SETLK, &l) ? errno : 0); }));
    l.l_pid = 5;
    T(fcntl(fd, F_OFD_SETLK, &l));
    int copy = dup(fd);
    close(fd);
    l = lock(F_WRLCK, 0, 5);
    T(fcntl(two, F_OFD_SETLK, &l));
    close(copy);
    T(fcntl(two, F_OFD_SETLK, &l));
    close(two);
    /* flock. */
    fd = open("locked", O_RDONLY), two = open("locked", O_RDONLY);
    T(flock(fd, LOCK_EX));
    T(flock(two, LOCK_EX | LOCK_NB));
    T(flock(two, LOCK_SH | LOCK_NB));
    T(flock(fd, LOCK_SH));
    T(flock(two, LOCK_SH | LOCK_NB));
    T(flock(fd, LOCK_EX | LOCK_NB));
    W(CHILD({ _exit(flock(two, LOCK_UN) ? errno : 0); }));
    T(flock(fd, LOCK_EX | LOCK_NB));
    T(flock(fd, 99));
    T(flock(99, LOCK_SH));
    copy = dup(fd);
    close(fd);
    T(flock(two, LOCK_EX | LOCK_NB));
    close(copy);
    T(flock(two, LOCK_EX | LOCK_NB));
    T(fcntl(two, F_GETLEASE));
    T(fcntl(two, F_NOTIFY, 0));
}

static void seals(void) {
    int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
    T(fcntl(fd, F_GET_SEALS));
    T(write(fd, text, 5000));
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
    T(ftruncate(fd, 6000));
    T(pwrite(fd, text, 10, 4995));
    T(pwrite(fd, text, 10, 5000));
    T(fallocate(fd, 0, 0, 9000));
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
    T(ftruncate(fd, 100));
    void *at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    munmap(at, 4096);
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    T(pwrite(fd, text, 1, 0));
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    P(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    P(at = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0));
    T(mprotect(at, 4096, PROT_READ | PROT_WRITE));
    P(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    T(fcntl(fd, F_GET_SEALS));
    T(fcntl(fd, F_ADD_SEALS, 0x100));
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    fd = memfd_create("future", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    ftruncate(fd, 8192);
    at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    WR((char *)at);
    P(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    T(write(fd, text, 1));
    T(fcntl(memfd_create("plain", 0), F_GET_SEALS));
    T(fcntl(memfd_create("plain", 0), F_ADD_SEALS, F_SEAL_GROW));
    int plain = open("file", O_RDWR);
    T(fcntl(open("/dev/null", O_RDWR), F_GET_SEALS));
    fd = memfd_create("ro", MFD_ALLOW_SEALING);
    char name[40];
    sprintf(name, "/proc/self/fd/%d", fd);
    T(fcntl(open(name, O_RDONLY), F_ADD_SEALS, F_SEAL_GROW));
    T(memfd_create("flags", 0x100));
    T(memfd_create((char *)8, 0));
    memset(text, 'm', 300);
    text[250] = 0;
    T(memfd_create(text, 0));
    text[249] = 0;
    P(memfd_create(text, 0));
    T(readlink(name, text, 100));
    text[19] = 0;
    S(text);
}

int main(void) {
    begin();
    data();
    locks();
    seals();
}

/* Opening, closing, descriptors, locks, sizes, space. */
#include "check.h"
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <sys/ioctl.h>

#define CLOSE_RANGE_CLOEXEC_ (1u << 2)
static long open2(int dir, const char *path, unsigned long flags, unsigned long mode, unsigned long resolve) {
    struct open_how how = {flags, mode, resolve};
    return syscall(SYS_openat2, dir, path, &how, sizeof how);
}
static int lock(int fd, int how, short type, off_t start, off_t len) {
    struct flock l = {type, SEEK_SET, start, len, 0};
    return fcntl(fd, how, &l);
}
static int asks(int fd, int how, short type, off_t start, off_t len) {
    struct flock l = {type, SEEK_SET, start, len, 0};
    if (fcntl(fd, how, &l)) return -1;
    return l.l_type * 1000000 + l.l_start * 1000 + l.l_len;
}
static long size(const char *path) {
    struct stat s;
    return stat(path, &s) ? -1 : s.st_size;
}
static long blocks(int fd) {
    struct stat s;
    fstat(fd, &s);
    return s.st_blocks;
}

int main(void) {
    int fd, f2, dir = open(".", O_RDONLY|O_DIRECTORY);
    char b[300], name[300], path[5000];
    /* open */
    T(open("none", O_RDONLY));
    T(open("", O_RDONLY));
    T(open((void *)8, O_RDONLY));
    T((fd = open("a", O_CREAT|O_EXCL|O_RDWR, 0640)) >= 0);
    T(open("a", O_CREAT|O_EXCL|O_RDWR, 0640));
    T(open("a/b", O_RDONLY));
    T(open("a/", O_RDONLY));
    T(open("none/", O_CREAT|O_RDWR, 0600));
    T(open("none/x", O_CREAT|O_RDWR, 0600));
    T(open("a", O_DIRECTORY));
    T(open(".", O_WRONLY));
    T(open(".", O_RDWR));
    T(open(".", O_RDONLY|O_CREAT, 0600));
    T(open(".", O_RDONLY|O_TRUNC));
    T(open(".", O_CREAT|O_DIRECTORY, 0600));
    T(open("a", O_RDWR|O_DIRECT) >= 0 || errno == EINVAL);
    memset(name, 'n', sizeof name);
    name[256] = 0;
    T(open(name, O_CREAT|O_RDWR, 0600));
    name[255] = 0;
    T(open(name, O_CREAT|O_RDWR, 0600) >= 0);
    memset(path, '/', sizeof path);
    path[4999] = 0;
    T(open(path, O_RDONLY));
    path[4095] = 0;
    T(open(path, O_RDONLY) >= 0);
    symlink("a", "link");
    symlink("loop", "loop");
    symlink("nowhere", "dangling");
    T(open("link", O_RDONLY|O_NOFOLLOW));
    T(open("loop", O_RDONLY));
    T(open("dangling", O_RDONLY));
    T(open("dangling", O_CREAT|O_EXCL|O_RDWR, 0600));
    T(open("dangling", O_CREAT|O_RDWR, 0600) >= 0);
    T(size("nowhere"));
    T((f2 = open("link", O_PATH|O_NOFOLLOW)) >= 0);
    T(read(f2, b, 1));
    T(fcntl(f2, F_GETFL));
    T(readlinkat(f2, "", b, 10));
    T(fchmod(f2, 0600));
    T(fcntl(f2, F_SETFL, O_NONBLOCK));
    T(ioctl(f2, FIONREAD, b));
    T(dup(f2) >= 0);
    close(f2);
    T(openat(99, "a", O_RDONLY));
    T(openat(fd, "a", O_RDONLY));
    T(openat(dir, "a", O_RDONLY) >= 0);
    T(openat(99, "/etc/passwd", O_RDONLY) >= 0);
    T(open("/etc/passwd", O_RDONLY|04000000000) >= 0);
    T(open("x1", O_TMPFILE|O_RDONLY, 0600));
    T((f2 = open(".", O_TMPFILE|O_RDWR, 0600)) >= 0);
    struct stat s;
    fstat(f2, &s);
    T(s.st_nlink);
    T(write(f2, "tmp", 3));
    sprintf(path, "/proc/self/fd/%d", f2);
    T(linkat(AT_FDCWD, path, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW));
    T(size("linked"));
    T((f2 = open(".", O_TMPFILE|O_EXCL|O_RDWR, 0600)) >= 0);
    sprintf(path, "/proc/self/fd/%d", f2);
    T(linkat(AT_FDCWD, path, AT_FDCWD, "linked2", AT_SYMLINK_FOLLOW));
    T(creat("c", 0) >= 0);
    T(fcntl(fd, F_GETFL) & ~0100000);
    /* openat2 */
    T(open2(AT_FDCWD, "a", O_RDONLY, 0, 0) >= 0);
    T(open2(AT_FDCWD, "a", O_RDONLY, 0600, 0));
    T(open2(AT_FDCWD, "a", O_RDONLY, 0, 1 << 30));
    T(open2(AT_FDCWD, "a", 1ul << 40, 0, 0));
    T(open2(AT_FDCWD, "/etc/passwd", O_RDONLY, 0, RESOLVE_BENEATH));
    T(open2(dir, "../x", O_RDONLY, 0, RESOLVE_BENEATH));
    T(open2(AT_FDCWD, "link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
    T(open2(AT_FDCWD, "/proc/self/fd/0", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS));
    T(open2(dir, "/a", O_RDONLY, 0, RESOLVE_IN_ROOT) >= 0);
    T(open2(dir, "../../a", O_RDONLY, 0, RESOLVE_IN_ROOT) >= 0);
    T(open2(AT_FDCWD, "/proc/self", O_RDONLY, 0, RESOLVE_NO_XDEV));
    T(open2(AT_FDCWD, "x", O_CREAT|O_RDWR, 010000, 0));
    T(syscall(SYS_openat2, AT_FDCWD, "a", 8, 24));
    T(syscall(SYS_openat2, AT_FDCWD, "a", b, 8));
    /* descriptors */
    T(close(999));
    T(close(-1));
    T(dup(999));
    T(dup2(fd, 100));
    T(dup2(fd, fd) == fd);
    T(dup2(999, 999));
    T(dup2(fd, -1));
    T(dup2(fd, 1 << 30));
    T(dup3(fd, fd, 0));
    T(dup3(fd, 101, O_CLOEXEC));
    T(fcntl(101, F_GETFD));
    T(fcntl(100, F_GETFD));
    T(dup3(fd, 101, 1));
    T(fcntl(fd, F_DUPFD, 200));
    T(fcntl(fd, F_DUPFD_CLOEXEC, 200));
    T(fcntl(201, F_GETFD));
    T(fcntl(fd, F_DUPFD, -1));
    T(fcntl(fd, F_DUPFD, 1 << 30));
    T(fcntl(fd, F_SETFD, FD_CLOEXEC));
    T(fcntl(fd, F_GETFD));
    T(fcntl(fd, F_SETFD, 0));
    T(fcntl(fd, 9999, 0));
    T(fcntl(999, F_GETFD));
    T(fcntl(fd, F_SETFL, O_APPEND|O_NONBLOCK|O_CREAT|O_WRONLY));
    T(fcntl(fd, F_GETFL) & ~0100000);
    T(fcntl(fd, F_SETFL, 0));
    T(syscall(SYS_close_range, 202, 201, 0));
    T(syscall(SYS_close_range, 200, 201, 9));
    T(syscall(SYS_close_range, 200, 201, CLOSE_RANGE_CLOEXEC_));
    T(fcntl(200, F_GETFD));
    T(syscall(SYS_close_range, 100, -1, 0));
    T(fcntl(100, F_GETFD));
    T(syscall(SYS_close_range, 100, 1000, 2));
    T(fcntl(fd, F_GETOWN));
    T(fcntl(fd, F_SETOWN, getpid()));
    T(fcntl(fd, F_GETSIG));
    T(ioctl(fd, 0x12345678, 0));
    T(ioctl(fd, TCGETS, b));
    T(ioctl(fd, FIOCLEX));
    T(fcntl(fd, F_GETFD));
    T(ioctl(fd, FIONCLEX));
    T(ioctl(999, FIOCLEX));
    /* sizes */
    T(write(fd, "0123456789", 10));
    T(ftruncate(fd, 5));
    T(size("a"));
    T(ftruncate(fd, 100000));
    T(size("a"));
    T(pread(fd, b, 10, 3));
    T(b[1] == '4' && b[2] == 0);
    T(ftruncate(fd, -1));
    T(truncate("a", -1));
    T(truncate("none", 0));
    T(truncate(".", 0));
    T(truncate("a/x", 0));
    T(truncate("link", 20));
    T(size("a"));
    f2 = open("a", O_RDONLY);
    T(ftruncate(f2, 0));
    T(ftruncate(999, 0));
    T(ftruncate(dir, 0));
    T(lseek(fd, 0, SEEK_END));
    T(lseek(fd, -21, SEEK_END));
    T(lseek(fd, 1L << 62, SEEK_SET) > 0 || errno == EINVAL);
    T(lseek(fd, 5, SEEK_SET));
    T(lseek(fd, 5, SEEK_CUR));
    T(lseek(fd, 0, 9));
    T(lseek(999, 0, 0));
    /* holes */
    T(ftruncate(fd, 0));
    T(pwrite(fd, "x", 1, 100000));
    T(lseek(fd, 0, SEEK_DATA));
    T(lseek(fd, 0, SEEK_HOLE));
    T(lseek(fd, 98304, SEEK_HOLE));
    T(lseek(fd, 100001, SEEK_DATA));
    T(lseek(fd, -1, SEEK_DATA));
    T(blocks(fd));
    T(fallocate(fd, 0, 0, 8192));
    T(blocks(fd));
    T(fallocate(fd, FALLOC_FL_KEEP_SIZE, 200000, 4096));
    T(size("a"));
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE, 0, 4096));
    T(lseek(fd, 0, SEEK_DATA));
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE, 100000, 10));
    /* What was changed since it was last read shows in its times. */
    {
        struct timespec old[2] = {{100, 0}, {200, 0}};
        int read_ = open("timed", O_RDWR|O_CREAT, 0600), quiet;
        struct stat st;
        char c;
        write(read_, "timed", 5);
        T(futimens(read_, old));
        T((fstat(read_, &st), st.st_atime));
        T(pread(read_, &c, 1, 0));
        T((fstat(read_, &st), st.st_atime > 1000));
        T(st.st_mtime);
        futimens(read_, old);
        T(munmap(mmap(0, 4096, PROT_READ, MAP_SHARED, read_, 0), 4096));
        T((fstat(read_, &st), st.st_atime > 1000));
        futimens(read_, old);
        T((quiet = open("timed", O_RDONLY|O_NOATIME)) >= 0);
        T(pread(quiet, &c, 1, 0));
        T((fstat(read_, &st), st.st_atime));
        close(quiet);
        close(read_);
        unlink("timed");
        mkdir("timed", 0700);
        utimensat(AT_FDCWD, "timed", old, 0);
        read_ = open("timed", O_RDONLY|O_DIRECTORY);
        T((fstat(read_, &st), st.st_atime));
        char names[1000];
        T(syscall(SYS_getdents64, read_, names, sizeof names) > 0);
        T((fstat(read_, &st), st.st_atime > 1000));
        close(read_);
        rmdir("timed");
        symlink("nowhere", "timed");
        utimensat(AT_FDCWD, "timed", old, AT_SYMLINK_NOFOLLOW);
        T(readlink("timed", names, sizeof names));
        T((lstat("timed", &st), st.st_atime > 1000));
        unlink("timed");
    }
    /* A hole past the end touches nothing before it. */
    {
        int hole = open("hole", O_RDWR|O_CREAT, 0600);
        char last[3] = "", piece[] = "end";
        T(pwrite(hole, piece, 3, 5000));
        T(fallocate(hole, FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE, 100000, 2500));
        T(pread(hole, last, 3, 5000));
        T(memcmp(last, piece, 3));
        T(fallocate(hole, FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE, 5001, 100000));
        T(pread(hole, last, 3, 5000));
        T(last[0]);
        T(last[1] + last[2]);
        close(hole);
        unlink("hole");
    }
    T(pread(fd, b, 1, 100000));
    T(b[0]);
    T(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
    T(fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096));
    T(fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096));
    T(fallocate(fd, 0, 0, 0));
    T(fallocate(fd, 0, -1, 10));
    T(fallocate(fd, 0, 1L << 62, 1L << 62));
    T(fallocate(fd, 0x1000, 0, 10));
    T(fallocate(f2, 0, 0, 10));
    T(fallocate(dir, 0, 0, 10));
    T(fallocate(999, 0, 0, 10));
    struct rlimit l = {1000, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    W(CHILD(int g = open("limited", O_CREAT|O_RDWR, 0600); setrlimit(RLIMIT_FSIZE, &l); T(pwrite(g, b, 300, 900)); T(pwrite(g, b, 1, 1000)); T(ftruncate(g, 1001)); T(fallocate(g, 0, 0, 2000)); signal(SIGXFSZ, SIG_DFL); setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); T(pwrite(g, b, 1, 2000))));
    /* syncing, advice */
    T(fsync(fd));
    T(fdatasync(f2));
    T(fsync(999));
    T(fsync(dir));
    T(syncfs(fd));
    T(sync_file_range(fd, 0, 0, 7));
    T(sync_file_range(fd, 0, 0, 8));
    T(sync_file_range(fd, -1, 0, 1));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    T(posix_fadvise(fd, 0, 0, 99));
    T(posix_fadvise(fd, 0, -1, 0));
    T(posix_fadvise(999, 0, 0, 0));
    T(readahead(fd, 0, 100));
    T(readahead(999, 0, 100));
    /* record locks */
    int g = open("a", O_RDWR);
    T(lock(fd, F_SETLK, F_WRLCK, 0, 10));
    T(asks(g, F_GETLK, F_WRLCK, 0, 10));
    W(CHILD(T(asks(g, F_GETLK, F_WRLCK, 5, 10)); T(asks(g, F_GETLK, F_RDLCK, 10, 10)); T(lock(g, F_SETLK, F_RDLCK, 9, 1)); T(lock(g, F_SETLK, F_RDLCK, 10, 0)); T(lock(g, F_SETLK, F_WRLCK, 100, 1))));
    T(lock(fd, F_SETLK, F_UNLCK, 3, 4));
    W(CHILD(T(asks(g, F_GETLK, F_WRLCK, 0, 0)); T(asks(g, F_GETLK, F_WRLCK, 3, 0)); T(asks(g, F_GETLK, F_WRLCK, 3, 4))));
    T(lock(fd, F_SETLK, F_RDLCK, 0, 0));
    W(CHILD(T(lock(g, F_SETLK, F_RDLCK, 0, 0)); T(lock(g, F_SETLK, F_WRLCK, 0, 1))));
    close(g);
    W(CHILD(T(lock(fd, F_SETLK, F_WRLCK, 0, 0))));
    T(lock(f2, F_SETLK, F_WRLCK, 0, 0));
    T(lock(f2, F_SETLK, F_RDLCK, 0, 0));
    T(lock(fd, F_SETLK, 9, 0, 0));
    T(lock(fd, F_SETLK, F_RDLCK, -1, 1));
    T(lock(fd, F_SETLK, F_RDLCK, 10, -5));
    T(lock(fd, F_SETLK, F_RDLCK, 10, -15));
    T(lock(999, F_SETLK, F_RDLCK, 0, 0));
    T(fcntl(fd, F_SETLK, 8));
    g = open("a", O_RDWR);
    T(lock(fd, F_SETLK, F_UNLCK, 0, 0));
    T(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 10));
    T(lock(g, F_OFD_SETLK, F_WRLCK, 5, 10));
    T(asks(g, F_OFD_GETLK, F_WRLCK, 5, 10));
    T(asks(fd, F_OFD_GETLK, F_WRLCK, 5, 10));
    T(lock(fd, F_OFD_SETLK, F_UNLCK, 0, 0));
    T(lockf(fd, F_TLOCK, 5));
    T(lockf(fd, F_ULOCK, 0));
    /* whole locks */
    T(flock(fd, LOCK_EX|LOCK_NB));
    T(flock(g, LOCK_SH|LOCK_NB));
    T(flock(fd, LOCK_SH|LOCK_NB));
    T(flock(g, LOCK_SH|LOCK_NB));
    T(flock(g, LOCK_EX|LOCK_NB));
    T(flock(fd, LOCK_UN));
    T(flock(g, LOCK_EX|LOCK_NB));
    T(flock(g, 99));
    T(flock(999, LOCK_SH));
    close(g);
    T(flock(fd, LOCK_EX|LOCK_NB));
    W(CHILD(T(flock(fd, LOCK_SH|LOCK_NB)); T(flock(fd, LOCK_UN))));
    T(fcntl(fd, F_GETLEASE));
    T(fcntl(fd, F_NOTIFY, 99));
    return 0;
}

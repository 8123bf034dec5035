/* Pipes, FIFOs, and moving data between descriptors. */
#include "check.h"
#include <sys/ioctl.h>
#include <sys/sendfile.h>

static char big[1 << 20];

int main(void) {
    int p[2], q[2], st, n;
    char b[100];
    signal(SIGPIPE, SIG_IGN);
    T(pipe((void *)8));
    T(pipe2(p, 1));
    T(pipe2(p, O_CLOEXEC|O_NONBLOCK));
    T(fcntl(p[0], F_GETFD));
    T(fcntl(p[0], F_GETFL));
    T(fcntl(p[1], F_GETFL));
    T(read(p[0], b, 1));
    T(read(p[1], b, 1));
    T(write(p[0], b, 1));
    T(read(p[0], b, 0));
    T(write(p[1], b, 0));
    T(write(p[1], "hello", 5));
    T(ioctl(p[0], FIONREAD, &n));
    T(n);
    T(ioctl(p[1], FIONREAD, &n));
    T(n);
    T(read(p[0], b, 3));
    T(read(p[0], (void *)8, 3));
    T(read(p[0], b, 100));
    T(write(p[1], (void *)8, 3));
    T(lseek(p[0], 0, SEEK_CUR));
    T(pread(p[0], b, 1, 0));
    T(pwrite(p[1], b, 1, 0));
    T(fsync(p[0]));
    T(ftruncate(p[1], 0));
    T(fallocate(p[1], 0, 0, 10));
    T(fcntl(p[0], F_GETPIPE_SZ));
    T(fcntl(p[0], F_SETPIPE_SZ, 4096));
    T(fcntl(p[0], F_GETPIPE_SZ));
    T(fcntl(p[0], F_SETPIPE_SZ, 5000));
    T(fcntl(p[0], F_SETPIPE_SZ, 0));
    T(fcntl(p[0], F_SETPIPE_SZ, -1));
    T(fcntl(p[0], F_SETPIPE_SZ, 65536));
    T(fcntl(0, F_GETPIPE_SZ) >= 0 || errno == EBADF);
    T(write(p[1], big, sizeof big));
    T(write(p[1], big, 1));
    T(read(p[0], big, 4095));
    T(write(p[1], big, 1));
    T(read(p[0], big, 1));
    T(write(p[1], big, 4096));
    T(write(p[1], big, 4097));
    T(fcntl(p[0], F_SETPIPE_SZ, 4096));
    T(read(p[0], big, sizeof big));
    T(read(p[0], big, sizeof big));
    struct stat s;
    T(fstat(p[0], &s));
    T(s.st_mode);
    T(s.st_size);
    T(s.st_nlink);
    T(close(p[1]));
    T(read(p[0], b, 1));
    T(close(p[0]));
    T(read(p[0], b, 1));
    pipe(p);
    close(p[0]);
    T(write(p[1], b, 1));
    T(write(p[1], b, 0));
    close(p[1]);
    /* waiting */
    pipe(p);
    W(CHILD(close(p[1]); _exit(0)));
    st = CHILD(write(p[1], "abc", 3));
    T(read(p[0], b, 100));
    fflush(stdout);
    if (!fork()) {
        close(p[0]);
        memset(big, 'x', sizeof big);
        long w = write(p[1], big, sizeof big);
        _exit(w == sizeof big ? 0 : 1);
    }
    close(p[1]);
    long total = 0, r;
    while ((r = read(p[0], big, 10000)) > 0) total += r;
    T(total);
    wait(&st);
    W(st);
    close(p[0]);
    /* packets */
    T(pipe2(p, O_DIRECT|O_NONBLOCK));
    T(write(p[1], "one", 3));
    T(write(p[1], "two!", 4));
    T(read(p[0], b, 100));
    T(read(p[0], b, 2));
    T(read(p[0], b, 100));
    close(p[0]);
    close(p[1]);
    /* FIFOs */
    T(mkfifo("fifo", 0600));
    T(mkfifo("fifo", 0600));
    T(open("fifo", O_WRONLY|O_NONBLOCK));
    int rd, wr;
    T((rd = open("fifo", O_RDONLY|O_NONBLOCK)) >= 0);
    T(read(rd, b, 1));
    T((wr = open("fifo", O_WRONLY|O_NONBLOCK)) >= 0);
    T(read(rd, b, 1));
    T(write(wr, "fifo", 4));
    T(read(rd, b, 100));
    close(wr);
    T(read(rd, b, 1));
    close(rd);
    T((rd = open("fifo", O_RDWR|O_NONBLOCK)) >= 0);
    T(read(rd, b, 1));
    T(write(rd, "x", 1));
    T(read(rd, b, 1));
    close(rd);
    fflush(stdout);
    if (!fork()) {
        wr = open("fifo", O_WRONLY);
        write(wr, "late", 4);
        _exit(0);
    }
    T((rd = open("fifo", O_RDONLY)) >= 0);
    T(read(rd, b, 100));
    T(read(rd, b, 100));
    wait(0);
    close(rd);
    /* Who opened the other end is met, however soon it goes again. */
    int met = 0;
    for (int i = 0; i < 300; i++) {
        fflush(stdout);
        if (!fork()) {
            wr = open("fifo", i & 1 ? O_WRONLY : O_RDONLY);
            close(wr);
            _exit(0);
        }
        rd = open("fifo", i & 1 ? O_RDONLY : O_WRONLY);
        met += rd >= 0;
        close(rd);
        wait(0);
    }
    T(met);
    T(truncate("fifo", 0));
    /* splice, tee, sendfile */
    int fd = open("file", O_CREAT|O_RDWR, 0600), out = open("out", O_CREAT|O_RDWR, 0600), ap = open("append", O_CREAT|O_RDWR|O_APPEND, 0600);
    write(fd, "0123456789", 10);
    pipe2(p, O_NONBLOCK);
    pipe2(q, O_NONBLOCK);
    loff_t off = 2;
    T(splice(fd, &off, p[1], 0, 5, 0));
    T(off);
    T(splice(fd, 0, p[1], 0, 5, 0));
    T(splice(fd, 0, out, 0, 5, 0));
    T(splice(fd, 0, p[1], &off, 5, 0));
    T(splice(p[0], 0, ap, 0, 1, 0));
    T(splice(p[0], 0, p[1], 0, 5, 0));
    T(splice(p[0], 0, q[1], 0, 2, 0));
    T(tee(p[0], q[1], 2, 0));
    T(tee(p[0], p[1], 2, 0));
    T(tee(fd, q[1], 2, 0));
    T(read(q[0], b, 100));
    T(memcmp(b, "2345", 4));
    T(splice(p[0], 0, out, 0, 100, 0));
    T(splice(p[0], 0, out, 0, 100, 0));
    T(splice(p[0], 0, out, 0, 0, 0));
    T(splice(99, 0, out, 0, 1, 0));
    T(splice(p[0], 0, 99, 0, 1, 0));
    T(splice(p[1], 0, out, 0, 1, 0));
    T(splice(p[0], 0, out, 0, 1, 99));
    T(tee(p[0], q[1], 1, 0));
    struct iovec iov[2] = {{"vm", 2}, {"splice", 6}};
    T(vmsplice(p[1], iov, 2, 0));
    T(vmsplice(p[1], iov, 2000, 0));
    T(vmsplice(fd, iov, 2, 0));
    T(read(p[0], b, 100));
    T(memcmp(b, "vmsplice", 8));
    off = 1;
    T(sendfile(out, fd, &off, 4));
    T(off);
    lseek(fd, 8, SEEK_SET);
    T(sendfile(out, fd, 0, 100));
    T(sendfile(out, fd, 0, 100));
    T(sendfile(p[1], fd, &off, 3));
    T(read(p[0], b, 100));
    T(sendfile(out, p[0], 0, 3));
    T(sendfile(ap, fd, 0, 3));
    T(sendfile(99, fd, 0, 3));
    T(sendfile(out, 99, 0, 3));
    off = -1;
    T(sendfile(out, fd, &off, 3));
    T(sendfile(out, fd, (void *)8, 3));
    /* copy_file_range */
    loff_t in = 0, to = 0;
    T(copy_file_range(fd, &in, out, &to, 5, 0));
    T(in);
    T(to);
    T(copy_file_range(fd, &in, out, &to, 5, 1));
    T(copy_file_range(fd, &in, ap, &to, 5, 0));
    T(copy_file_range(fd, &in, p[1], 0, 5, 0));
    in = 0;
    to = 3;
    T(copy_file_range(fd, &in, fd, &to, 5, 0));
    in = 100;
    T(copy_file_range(fd, &in, out, &to, 5, 0));
    in = -5;
    T(copy_file_range(fd, &in, out, &to, 5, 0));
    T(copy_file_range(99, 0, out, 0, 5, 0));
    int ro = open("file", O_RDONLY), d = open(".", O_RDONLY);
    T(copy_file_range(fd, 0, ro, 0, 5, 0));
    T(copy_file_range(d, 0, out, 0, 5, 0));
    return 0;
}

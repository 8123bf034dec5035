/* Opening files: flags, O_PATH, O_TMPFILE, openat2, running programs, descriptors. */
#include "files.h"
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

static void opening(void) {
    int fd;
    T(open("missing", O_RDONLY));
    T(open("", O_RDONLY));
    T(open((char *)8, O_RDONLY));
    T(open("file/", O_RDONLY));
    T(open("file/x", O_RDONLY));
    T(open("dir", O_WRONLY));
    T(open("dir", O_RDONLY | O_CREAT, 0600));
    T(open("dir", O_RDWR | O_TRUNC));
    T(open("new/", O_WRONLY | O_CREAT, 0600));
    T(open("file", O_RDONLY | O_DIRECTORY));
    T(open("file", O_CREAT | O_EXCL | O_RDWR, 0600));
    T(open("broken", O_CREAT | O_EXCL | O_RDWR, 0600));
    T(open("link", O_RDONLY | O_NOFOLLOW));
    T(open("loop", O_RDONLY));
    T(open("link", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    T(open("file", O_RDONLY | O_CREAT | O_DIRECTORY, 0600));
    T(open("fifo", O_WRONLY | O_NONBLOCK));
    P(open("fifo", O_RDWR));
    T(open("/proc/self/fd/77", O_RDONLY));
    P(open("broken", O_CREAT | O_RDWR, 0600));
    T(access("nowhere", F_OK));
    T(openat(77, "file", O_RDONLY));
    fd = open("file", O_RDONLY);
    T(openat(fd, "file", O_RDONLY));
    P(openat(77, "/", O_RDONLY));
    char name[300];
    memset(name, 'n', 256);
    name[256] = 0;
    T(open(name, O_RDONLY));
    name[255] = 0;
    T(open(name, O_RDONLY));
    memset(text, '/', 5000);
    text[5000] = 0;
    T(open(text, O_RDONLY));
    T(write(fd, "x", 1));
    T(fcntl(fd, F_GETFL) & O_ACCMODE);
    int w = open("file", O_WRONLY | O_APPEND | O_SYNC);
    T(read(w, text, 1));
    T((fcntl(w, F_GETFL) & (O_APPEND | O_SYNC)) == (O_APPEND | O_SYNC));
    T(fcntl(w, F_SETFL, 0));
    T((fcntl(w, F_GETFL) & (O_APPEND | O_SYNC)) == O_SYNC);
    int odd = open("file", 3);
    P(odd);
    T(read(odd, text, 1));
    T(write(odd, text, 1));
    struct rlimit few = {5, 100}, before;
    getrlimit(RLIMIT_NOFILE, &before);
    T(setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, before.rlim_max}));
    T(open("file", O_RDONLY));
    T(dup(0));
    T(dup2(0, 3));
    T(fcntl(0, F_DUPFD, 5));
    setrlimit(RLIMIT_NOFILE, &before);
    T(fcntl(0, F_DUPFD, -1));
    T(fcntl(0, F_DUPFD, 1 << 30));
    T(dup3(0, 0, 0));
    T(dup3(0, 50, 5));
    T(dup2(77, 77));
    T(close(77));
    T(fcntl(77, F_GETFD));
    T(fcntl(0, 9999));
    T(creat("dir", 0600));
    T(creat("created", 0666));
    T(stat("created", &s));
    T(s.st_mode);
    T(umask(077));
    T(open("masked", O_CREAT | O_WRONLY, 0777) >= 0);
    T(stat("masked", &s));
    T(s.st_mode);
    T(umask(022));
}

static void path_only(void) {
    int fd = open("file", O_PATH), link = open("link", O_PATH | O_NOFOLLOW), dir = open("dir", O_PATH);
    P(fd);
    T(read(fd, text, 1));
    T(write(fd, text, 1));
    T(pread(fd, text, 1, 0));
    T(lseek(fd, 0, SEEK_SET));
    T(fchmod(fd, 0600));
    T(fchown(fd, 0, 0));
    T(ftruncate(fd, 0));
    T(fsync(fd));
    T(fstat(fd, &s));
    T(s.st_size > 0);
    T(fcntl(fd, F_GETFL) == (O_PATH));
    T(fcntl(fd, F_SETFL, O_APPEND));
    T(fcntl(fd, F_GETFD));
    T(fcntl(fd, F_SETFD, FD_CLOEXEC));
    T(fcntl(fd, F_SETLK, &(struct flock){F_RDLCK}));
    T(flock(fd, LOCK_SH));
    T(ioctl(fd, FIONREAD, text));
    P(mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0));
    T(fgetxattr(fd, "user.x", text, 10));
    T(fstat(link, &s));
    T(S_ISLNK(s.st_mode));
    T(readlinkat(link, "", text, 100));
    T(readlinkat(fd, "", text, 100));
    T(fstatat(link, "", &s, AT_EMPTY_PATH));
    T(S_ISLNK(s.st_mode));
    T(fchdir(dir));
    T(fchdir(fd));
    chdir("..");
    T(openat(dir, "x", O_RDONLY));
    T(openat(dir, "../file", O_RDONLY) >= 0);
    if (getuid() == 0) { /* for others it depends on Linux's version */
        T(linkat(fd, "", AT_FDCWD, "linked", AT_EMPTY_PATH));
        T(linkat(link, "", AT_FDCWD, "linked2", AT_EMPTY_PATH));
        T(lstat("linked2", &s));
        T(S_ISLNK(s.st_mode));
    }
    char name[40];
    sprintf(name, "/proc/self/fd/%d", fd);
    int again = open(name, O_RDWR);
    P(again);
    T(read(again, text, 1));
    sprintf(name, "/proc/self/fd/%d", link);
    T(open(name, O_RDONLY));
    T(dup(fd) > 0);
    T(fstatfs(fd, (struct statfs *)text));
    T(getdents64(dir, text, 1000));
    T(open("file", O_PATH | O_CREAT, 0600) >= 0);
    T(open("missing", O_PATH | O_CREAT, 0600));
    T(open("file", O_PATH | O_DIRECTORY));
    struct pollfd p = {fd, POLLIN};
    T(poll(&p, 1, 0));
    T(p.revents);
    T(faccessat(fd, "", R_OK, AT_EMPTY_PATH));
    T(fchownat(fd, "", -1, -1, AT_EMPTY_PATH));
    unlink("linked"), unlink("linked2");
}

static void temporary(void) {
    char name[40];
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    P(fd);
    T(fstat(fd, &s));
    T(s.st_nlink);
    T(s.st_mode);
    T(write(fd, "temp", 4));
    sprintf(name, "/proc/self/fd/%d", fd);
    T(linkat(AT_FDCWD, name, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    S(content("named"));
    fstat(fd, &s);
    T(s.st_nlink);
    T(unlink("named"));
    T(linkat(AT_FDCWD, name, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    int excl = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
    sprintf(name, "/proc/self/fd/%d", excl);
    T(linkat(AT_FDCWD, name, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    T(open(".", O_TMPFILE | O_RDONLY, 0600));
    T(open("file", O_TMPFILE | O_RDWR, 0600));
    T(open("missing", O_TMPFILE | O_RDWR, 0600));
    T(open(".", (O_TMPFILE & ~O_DIRECTORY) | O_RDWR, 0600));
    T(open(".", O_TMPFILE | O_RDWR | O_CREAT, 0600));
    T((fcntl(fd, F_GETFL) & O_TMPFILE) == O_TMPFILE);
}

static int how(int dir, const char *path, long flags, long mode, long resolve) {
    struct open_how h = {flags, mode, resolve};
    return syscall(SYS_openat2, dir, path, &h, sizeof h);
}

static void resolving(void) {
    struct { struct open_how h; long more; } long_how = {{O_RDONLY}, 0};
    symlink("/etc/passwd", "absolute");
    symlink("../dir", "dir/up");
    symlink("../file", "dir/out");
    make("dir/in", "inside");
    symlink("in", "dir/inner");
    symlink("/in", "dir/rooted");
    int dir = open("dir", O_PATH);
    P(how(AT_FDCWD, "file", O_RDONLY, 0, 0));
    T(how(AT_FDCWD, "file", O_RDONLY, 0600, 0));
    T(how(AT_FDCWD, "file", 1L << 40, 0, 0));
    T(how(AT_FDCWD, "n", O_CREAT | O_RDWR, 0100000, 0));
    T(how(AT_FDCWD, "file", O_RDONLY, 0, 0x100));
    T(how(AT_FDCWD, "file", O_RDONLY, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT));
    T(syscall(SYS_openat2, AT_FDCWD, "file", &long_how, 8));
    P(syscall(SYS_openat2, AT_FDCWD, "file", &long_how, sizeof long_how));
    long_how.more = 1;
    T(syscall(SYS_openat2, AT_FDCWD, "file", &long_how, sizeof long_how));
    T(syscall(SYS_openat2, AT_FDCWD, "file", &long_how, 5000));
    P(how(dir, "in", O_RDONLY, 0, RESOLVE_BENEATH));
    P(how(dir, "inner", O_RDONLY, 0, RESOLVE_BENEATH));
    T(how(dir, "../file", O_RDONLY, 0, RESOLVE_BENEATH));
    T(how(dir, "out", O_RDONLY, 0, RESOLVE_BENEATH));
    T(how(dir, "rooted", O_RDONLY, 0, RESOLVE_BENEATH));
    T(how(dir, "/etc/passwd", O_RDONLY, 0, RESOLVE_BENEATH));
    P(how(dir, "rooted", O_RDONLY, 0, RESOLVE_IN_ROOT));
    P(how(dir, "/in", O_RDONLY, 0, RESOLVE_IN_ROOT));
    P(how(dir, "../../in", O_RDONLY, 0, RESOLVE_IN_ROOT));
    T(how(dir, "out", O_RDONLY, 0, RESOLVE_IN_ROOT));
    T(how(AT_FDCWD, "link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
    T(how(AT_FDCWD, "dir/up/in", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
    P(how(AT_FDCWD, "link", O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS));
    T(how(AT_FDCWD, "/proc/self/exe", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS));
    P(how(AT_FDCWD, "/proc/self/exe", O_RDONLY, 0, 0));
    T(how(AT_FDCWD, "/proc/self/stat", O_RDONLY, 0, RESOLVE_NO_XDEV));
    P(how(AT_FDCWD, "dir/in", O_RDONLY, 0, RESOLVE_NO_XDEV));
    T(how(dir, "../../../../../../proc/stat", O_RDONLY, 0, RESOLVE_NO_XDEV));
    P(how(dir, "made", O_RDWR | O_CREAT, 0600, RESOLVE_BENEATH));
    T(how(dir, "../made", O_RDWR | O_CREAT, 0600, RESOLVE_BENEATH));
    T(how(dir, "..", O_PATH, 0, RESOLVE_BENEATH));
    P(how(dir, "./../dir/in", O_RDONLY, 0, 0));
    T(how(dir, "../dir/in", O_RDONLY, 0, RESOLVE_BENEATH));
}

static void programs(void) {
    /* A program that runs cannot be written, one that is written cannot run. */
    system("cp /bin/sleep prog && chmod 755 prog");
    int gate[2];
    pipe(gate);
    pid_t child = fork();
    if (!child) {
        execl("./prog", "prog", "100", 0);
        _exit(1);
    }
    char path[40];
    sprintf(path, "/proc/%d/exe", child);
    for (;;) {
        ssize_t n = readlink(path, text, sizeof text - 1);
        text[n < 0 ? 0 : n] = 0;
        if (strstr(text, "/prog")) break;
        usleep(1000);
    }
    T(open("prog", O_WRONLY));
    T(open("prog", O_RDWR | O_TRUNC));
    T(truncate("prog", 0));
    T(open("prog", O_RDONLY) >= 0);
    T(unlink("prog"));
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    system("cp /bin/true prog && chmod 755 prog");
    int fd = open("prog", O_WRONLY);
    T(execl("./prog", "prog", (char *)0));
    close(fd);
    W(CHILD(execl("./prog", "prog", (char *)0)));
    T(open("prog", O_WRONLY) >= 0);
    chmod("prog", 0644);
    T(execl("./prog", "prog", (char *)0));
    T(execl("./dir", "dir", (char *)0));
    T(execl("./missing", "dir", (char *)0));
}

static void ranges(void) {
    for (int i = 100; i < 110; i++) dup2(0, i);
    T(close_range(102, 104, 0));
    T(fcntl(101, F_GETFD));
    T(fcntl(103, F_GETFD));
    T(close_range(105, 106, CLOSE_RANGE_CLOEXEC));
    T(fcntl(105, F_GETFD));
    T(fcntl(107, F_GETFD));
    T(close_range(109, 105, 0));
    T(close_range(105, 105, 99));
    T(close_range(107, ~0U, CLOSE_RANGE_UNSHARE));
    T(fcntl(109, F_GETFD));
    struct { unsigned bytes; int type; char handle[128]; } h = {128};
    int id;
    T(name_to_handle_at(AT_FDCWD, "missing", (void *)&h, &id, 0));
    T(chroot("missing"));
    T(chroot("file"));
    W(CHILD({
        if (chroot("dir") || chdir("/")) _exit(1);
        int up = open("../..", O_PATH);
        struct stat a;
        struct stat b;
        fstat(up, &a);
        stat("/", &b);
        _exit(a.st_ino == b.st_ino && access("/in", F_OK) == 0 ? 5 : 6);
    }));
}

int main(void) {
    begin();
    opening();
    path_only();
    temporary();
    resolving();
    programs();
    ranges();
}

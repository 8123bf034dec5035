/* Names: making, removing, renaming, linking, walking, listing; and what is told about files. */
#include "check.h"
#include <dirent.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif
static void make(const char *path, const char *text) {
    int fd = open(path, O_CREAT|O_TRUNC|O_WRONLY, 0644);
    write(fd, text, strlen(text));
    close(fd);
}
static long ino(const char *path) {
    struct stat s;
    return lstat(path, &s) ? -1 : s.st_ino;
}
static long links(const char *path) {
    struct stat s;
    return lstat(path, &s) ? -1 : s.st_nlink;
}
static long mode(const char *path) {
    struct stat s;
    return lstat(path, &s) ? -1 : s.st_mode;
}
static long size(const char *path) {
    struct stat s;
    return lstat(path, &s) ? -1 : s.st_size;
}
static long entries(const char *path) {
    DIR *d = opendir(path);
    long n = 0;
    if (!d) return -1;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* Whoever is listed is gone before the next look: nobody may be passed over for that. */
static void each(const char *path, void (*f)(int), int from) {
    char few[48];
    long n;
    int dir = open(path, O_RDONLY|O_DIRECTORY);
    while ((n = syscall(SYS_getdents64, dir, few, sizeof few)) > 0)
        for (long o = 0; o < n; o += *(unsigned short *)(few+o+16)) {
            int number = atoi(few+o+19);
            if (number >= from) f(number);
        }
    close(dir);
}
static void shut(int fd) { close(fd); }
static void closing(void) {
    int left = 0;
    for (int fd = 100; fd < 130; fd++) dup2(1, fd);
    each("/proc/self/fd", shut, 100);
    for (int fd = 100; fd < 130; fd++) left += fcntl(fd, F_GETFD) != -1;
    T(left);
}
static pid_t children[20];
static int ended;
static void end(int pid) {
    for (int i = 0; i < 20; i++)
        if (children[i] == pid) {
            kill(pid, SIGKILL);
            ended += waitpid(pid, 0, 0) == pid;
        }
}
static void ending(void) {
    fflush(stdout);
    for (int i = 0; i < 20; i++)
        if (!(children[i] = fork())) for (;;) pause();
    each("/proc", end, 1);
    T(ended);
}
int main(void) {
    char b[5000], here[4096], *value;
    struct stat s, s2;
    int fd, dir = open(".", O_RDONLY);
    /* directories */
    T(mkdir("d", 0777));
    T(mode("d"));
    T(mkdir("d", 0777));
    T(mkdir("d/", 0777));
    T(mkdir("none/x", 0777));
    T(mkdir("", 0777));
    T(mkdir("/", 0777));
    T(mkdir(".", 0777));
    T(mkdir("d/s/", 0700));
    T(mkdir((void *)8, 0));
    T(mkdirat(dir, "d/t", 01777));
    T(mode("d/t"));
    T(mkdirat(99, "x", 0));
    T(links("d"));
    T(entries("d"));
    make("f", "text");
    T(mkdir("f", 0777));
    T(mkdir("f/x", 0777));
    T(rmdir("d"));
    T(rmdir("f"));
    T(rmdir("none"));
    T(rmdir("."));
    T(rmdir("d/."));
    T(rmdir("d/s/.."));
    T(rmdir("/"));
    T(rmdir("d/t/"));
    T(unlinkat(dir, "d/s", 0));
    T(unlinkat(dir, "d/s", AT_REMOVEDIR));
    T(unlinkat(dir, "f", AT_REMOVEDIR));
    T(unlinkat(dir, "f", 1));
    T(unlink("d"));
    T(unlink("none"));
    T(unlink("f/"));
    T(unlink(""));
    T(links("d"));
    /* links */
    T(link("f", "hard"));
    T(links("f"));
    T(ino("f") == ino("hard"));
    T(link("f", "hard"));
    T(link("d", "dhard"));
    T(link("none", "x"));
    T(link("f", "none/x"));
    T(link("f", "/proc/x"));
    T(symlink("f", "soft"));
    T(symlink("f", "soft"));
    T(symlink("", "empty"));
    T(size("soft"));
    T(mode("soft"));
    T(link("soft", "softhard"));
    T(mode("softhard"));
    T(linkat(dir, "soft", dir, "softfollow", AT_SYMLINK_FOLLOW));
    T(mode("softfollow"));
    T(linkat(dir, "soft", dir, "x", 1));
    fd = open("f", O_RDONLY);
    if (getuid() == 0) { /* for others it depends on Linux's version */
        T(linkat(fd, "", dir, "byfd", AT_EMPTY_PATH));
        T(links("byfd"));
    }
    close(fd);
    T(readlink("soft", b, 100));
    T(readlink("soft", b, 0));
    T(readlink("f", b, 100));
    T(readlink("none", b, 100));
    T(readlink("soft", (void *)8, 100));
    T(readlink("soft/", b, 100));
    memset(b, 'x', 4999);
    b[4999] = 0;
    T(symlink(b, "toolong"));
    b[4095] = 0;
    T(symlink(b, "long"));
    T(size("long"));
    symlink("d", "sd");
    T(rmdir("sd"));
    T(rmdir("sd/"));
    T(mkdir("sd/in", 0700));
    T(entries("d"));
    T(unlink("sd/"));
    for (int i = 0; i < 45; i++) {
        char from[20], to[20];
        sprintf(from, "chain%d", i);
        sprintf(to, "chain%d", i + 1);
        symlink(i == 44 ? "f" : to, from);
    }
    T(access("chain0", F_OK));
    T(access("chain5", F_OK));
    T(access("chain4", F_OK));
    /* renaming */
    make("r1", "one");
    make("r2", "two!");
    T(rename("r1", "r2"));
    T(size("r2"));
    T(access("r1", F_OK));
    T(rename("r2", "r2"));
    T(rename("f", "hard"));
    T(access("f", F_OK));
    T(rename("none", "x"));
    T(rename("r2", "d"));
    T(rename("d", "r2"));
    T(rename("d", "d/x"));
    T(rename("d/in", "d"));
    mkdir("e", 0700);
    mkdir("e/sub", 0700);
    T(rename("d", "e"));
    T(rename("e/sub", "d2"));
    T(rename("e", "d2"));
    T(links("."));
    T(rename(".", "x"));
    T(rename("d", ".."));
    T(rename("d/", "d3/"));
    T(rename("d3", "d"));
    T(rename("r2/", "r3"));
    T(rename("r2", "r3/"));
    T(rename("r2", "/proc/x"));
    T(rename("", "x"));
    T(renameat2(dir, "r2", dir, "f", RENAME_NOREPLACE));
    T(renameat2(dir, "r2", dir, "r5", RENAME_NOREPLACE));
    T(renameat2(dir, "r5", dir, "f", RENAME_EXCHANGE));
    T(size("r5"));
    T(renameat2(dir, "r5", dir, "d", RENAME_EXCHANGE));
    T(mode("r5"));
    T(renameat2(dir, "d", dir, "r5", RENAME_EXCHANGE));
    T(renameat2(dir, "r5", dir, "none", RENAME_EXCHANGE));
    T(renameat2(dir, "r5", dir, "f", RENAME_EXCHANGE|RENAME_NOREPLACE));
    T(renameat2(dir, "r5", dir, "f", 64));
    T(renameat2(dir, "r5", dir, "w", 4));
    /* nodes */
    T(mknod("fifo", S_IFIFO|0644, 0));
    T(mknod("sock", S_IFSOCK|0644, 0));
    T(mknod("reg", 0644, 0));
    T(mode("reg"));
    T(mknod("dirnode", S_IFDIR|0644, 0));
    T(mknod("odd", 0150000, 0));
    T(mknod("null", S_IFCHR|0666, makedev(1, 3)));
    T(mode("fifo"));
    T(mode("sock"));
    T(open("sock", O_RDONLY));
    /* where one is */
    getcwd(here, sizeof here);
    T(strcmp(here, place_));
    T(chdir("d"));
    T(strcmp(getcwd(b, sizeof b) + strlen(here), "/d"));
    T(rmdir("../d"));
    T(rmdir("in"));
    T(rmdir("../d"));
    T(syscall(SYS_getcwd, b, 5000));
    T(open("x", O_CREAT|O_RDWR, 0600));
    T(mkdir("x", 0600));
    T(chdir("..") == 0);
    T(chdir(here));
    T(syscall(SYS_getcwd, b, 3));
    T(syscall(SYS_getcwd, 8, 300));
    T(syscall(SYS_getcwd, b, 0));
    T(chdir("none"));
    T(chdir("f"));
    T(chdir(""));
    T(fchdir(dir));
    T(fchdir(99));
    T(fchdir(0) && (errno == ENOTDIR || errno == EBADF));
    T(access("f/..", F_OK));
    T(access("e/..", F_OK));
    T(access("f", 9));
    T(access("f", X_OK));
    T(access("e", X_OK));
    T(faccessat(dir, "soft", F_OK, AT_SYMLINK_NOFOLLOW));
    T(syscall(SYS_faccessat2, dir, "f", R_OK, 0x8000));
    T(syscall(SYS_faccessat2, dir, "", R_OK, AT_EMPTY_PATH));
    /* listing */
    mkdir("many", 0700);
    for (int i = 0; i < 300; i++) {
        char n[40];
        sprintf(n, "many/file-number-%d", i);
        make(n, "");
    }
    T(entries("many"));
    fd = open("many", O_RDONLY);
    T(syscall(SYS_getdents64, fd, b, 5));
    T(syscall(SYS_getdents64, fd, 8, 5000));
    T(syscall(SYS_getdents64, 99, b, 5000));
    int f2 = open("f", O_RDONLY);
    T(syscall(SYS_getdents64, f2, b, 5000));
    long n, total = 0;
    while ((n = syscall(SYS_getdents64, fd, b, 200)) > 0)
        for (long at = 0; at < n; at += *(unsigned short *)(b + at + 16)) total++;
    T(total);
    T(syscall(SYS_getdents64, fd, b, 5000));
    T(lseek(fd, 0, SEEK_SET));
    total = 0;
    while ((n = syscall(SYS_getdents, fd, b, 5000)) > 0)
        for (long at = 0; at < n; at += *(unsigned short *)(b + at + 16)) total++;
    T(total);
    DIR *d = opendir("many");
    total = 0;
    struct dirent *de;
    while ((de = readdir(d))) {
        char n[300];
        if (de->d_name[0] == '.') continue;
        sprintf(n, "many/%s", de->d_name);
        total += unlink(n) == 0;
    }
    closedir(d);
    T(total);
    T(rmdir("many"));
    T(syscall(SYS_getdents64, fd, b, 5000));
    T(read(fd, b, 1));
    d = opendir(".");
    int kinds[16] = {0};
    while ((de = readdir(d))) kinds[de->d_type]++;
    closedir(d);
    T(kinds[DT_DIR]);
    T(kinds[DT_REG]);
    T(kinds[DT_LNK]);
    T(kinds[DT_FIFO]);
    T(kinds[DT_SOCK]);
    T(kinds[DT_CHR]);
    /* stat */
    T(stat("none", &s));
    T(stat("f/x", &s));
    T(stat("", &s));
    T(stat("f", (void *)8));
    T(fstat(99, &s));
    T(fstatat(dir, "", &s, AT_EMPTY_PATH));
    T(S_ISDIR(s.st_mode));
    T(fstatat(dir, "", &s, 0));
    T(fstatat(dir, "soft", &s, AT_SYMLINK_NOFOLLOW));
    T(S_ISLNK(s.st_mode));
    T(fstatat(dir, "soft", &s, 1));
    T(lstat("soft/", &s));
    T(stat("/dev/null", &s));
    T(s.st_rdev);
    T(s.st_mode);
    T(stat("/dev/zero", &s));
    T(s.st_rdev);
    struct statx x;
    T(statx(dir, "f", 0, STATX_BASIC_STATS, &x));
    T(x.stx_mask & STATX_BASIC_STATS);
    T(x.stx_size);
    T(x.stx_nlink);
    T(x.stx_mode);
    T(statx(dir, "f", 0, 1u << 31, &x));
    T(statx(dir, "f", 0x10, 0, &x));
    T(statx(dir, "f", AT_STATX_FORCE_SYNC|AT_STATX_DONT_SYNC, 0, &x));
    T(statx(dir, "", AT_EMPTY_PATH, STATX_TYPE, &x));
    T(statx(99, "f", 0, 0, &x));
    T(statx(dir, "f", 0, 0, (void *)8));
    struct statfs fs;
    T(statfs(".", &fs));
    T(fs.f_type);
    T(fs.f_bsize);
    T(fs.f_namelen);
    T(statfs("none", &fs));
    T(fstatfs(99, &fs));
    T(statfs("/proc", &fs));
    T(fs.f_type);
    /* modes, owners, times */
    T(chmod("f", 07777));
    T(mode("f"));
    T(chmod("f", 0170644));
    T(mode("f"));
    T(chmod("none", 0));
    T(chmod("soft", 0600));
    T(fchmodat(dir, "f", 0640, 0));
    T(fchmodat(dir, "f", 0640, 1));
    T(syscall(SYS_fchmodat, dir, "none", 0640));
    T(fchmod(99, 0));
    T(lchown("soft", -1, -1));
    T(fchownat(dir, "f", -1, -1, 1));
    T(fchown(99, -1, -1));
    T(chown("none", -1, -1));
    struct timespec t[2] = {{100, 500}, {200, 999999999}};
    T(utimensat(dir, "f", t, 0));
    stat("f", &s);
    T(s.st_atim.tv_sec);
    T(s.st_atim.tv_nsec);
    T(s.st_mtim.tv_sec);
    T(s.st_mtim.tv_nsec);
    t[0].tv_nsec = UTIME_OMIT;
    t[1].tv_nsec = UTIME_NOW;
    T(utimensat(dir, "f", t, 0));
    stat("f", &s);
    T(s.st_atim.tv_sec);
    T(s.st_mtim.tv_sec > 1000000);
    t[0].tv_nsec = 1000000000;
    T(utimensat(dir, "f", t, 0));
    t[0].tv_nsec = 0;
    T(utimensat(dir, "f", t, 1));
    T(utimensat(dir, "none", t, 0));
    T(utimensat(dir, "soft", t, AT_SYMLINK_NOFOLLOW));
    T(syscall(SYS_utimensat, dir, 0, t, 0) && errno);
    struct timeval tv[2] = {{1, 0}, {-5, 0}};
    T(utimes("f", tv));
    stat("f", &s);
    T(s.st_mtim.tv_sec);
    tv[1].tv_usec = 1000000;
    T(utimes("f", tv));
    stat("f", &s);
    usleep(20000);
    chmod("f", 0600);
    stat("f", &s2);
    T(s2.st_ctim.tv_sec > s.st_ctim.tv_sec || s2.st_ctim.tv_nsec > s.st_ctim.tv_nsec);
    T(s2.st_mtim.tv_sec == s.st_mtim.tv_sec);
    stat(".", &s);
    usleep(20000);
    make("newer", "");
    stat(".", &s2);
    T(s2.st_mtim.tv_sec > s.st_mtim.tv_sec || s2.st_mtim.tv_nsec > s.st_mtim.tv_nsec);
    fd = open("newer", O_RDWR);
    stat("newer", &s);
    usleep(20000);
    write(fd, "x", 1);
    fstat(fd, &s2);
    T(s2.st_mtim.tv_sec > s.st_mtim.tv_sec || s2.st_mtim.tv_nsec > s.st_mtim.tv_nsec);
    T(unlink("newer"));
    T(fstat(fd, &s));
    T(s.st_nlink);
    T(write(fd, "y", 1));
    sprintf(b, "/proc/self/fd/%d", fd);
    T(access(b, R_OK));
    char link[5000];
    n = readlink(b, link, 4999);
    link[n > 0 ? n : 0] = 0;
    T(n > 10 && !strcmp(link + n - 10, " (deleted)"));
    /* extended attributes */
    T(getxattr("f", "user.x", b, 100));
    T(getxattr("f", "x", b, 100));
    T(getxattr("none", "user.x", b, 100));
    T(removexattr("f", "user.x"));
    T(listxattr("f", b, 0));
    T(setxattr("f", "user.", "v", 1, 0));
    T(setxattr("f", "bogus.x", "v", 1, 0));
    T(setxattr("f", "user.a", "value", 5, 0));
    T(setxattr("f", "user.a", "value", 5, XATTR_CREATE));
    T(setxattr("f", "user.b", "value", 5, XATTR_REPLACE));
    T(setxattr("f", "user.b", "value", 5, 9));
    T(getxattr("f", "user.a", b, 100));
    T(getxattr("f", "user.a", b, 2));
    T(getxattr("f", "user.a", b, 0));
    T(listxattr("f", b, 100));
    T(listxattr("f", b, 3));
    T(lsetxattr("soft", "user.a", "v", 1, 0));
    T(removexattr("f", "user.a"));
    T(removexattr("f", "user.a"));
    T(listxattr("f", b, 100));
    T(fgetxattr(99, "user.a", b, 1));
    closing();
    ending();
    return 0;
}

/* Names and attributes: links, renames, directories, times, modes, extended attributes. */
#include "check.h"
#include <dirent.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define FCHMODAT2 452

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

static void names(void) {
    make("a", "A");
    make("b", "B");
    mkdir("d1", 0755), mkdir("d2", 0755), mkdir("d1/sub", 0755);
    T(link("a", "b"));
    T(link("d1", "x"));
    T(link("missing", "x"));
    T(link("a", "a/x"));
    T(link("broken2", "x"));
    symlink("gone", "broken2");
    T(link("broken2", "x"));
    T(lstat("x", &s));
    T(S_ISLNK(s.st_mode));
    T(linkat(AT_FDCWD, "broken2", AT_FDCWD, "y", AT_SYMLINK_FOLLOW));
    T(linkat(AT_FDCWD, "a", AT_FDCWD, "y", 0x8));
    T(linkat(AT_FDCWD, "a", AT_FDCWD, "y/", 0));
    T(symlink("", "y"));
    T(symlink("t", "a"));
    T(symlink("t", ""));
    T(readlink("a", text, 10));
    T(readlink("link", text, 2));
    T(readlink("link", text, 0));
    T(readlink("link", text, -1));
    T(unlink("d1"));
    T(unlink("missing"));
    T(unlink("a/"));
    T(unlink("d1/"));
    T(unlink("."));
    T(unlink("broken2"));
    T(unlinkat(AT_FDCWD, "a", AT_REMOVEDIR));
    T(unlinkat(AT_FDCWD, "a", 1));
    T(rmdir("d1"));
    T(rmdir("a"));
    T(rmdir("."));
    T(rmdir("d2/."));
    T(rmdir("d2/.."));
    T(rmdir("/"));
    T(rmdir("missing"));
    T(mkdir("d1", 0700));
    T(mkdir("a", 0700));
    T(mkdir("missing/x", 0700));
    T(mkdir("d3/", 01777));
    T(stat("d3", &s));
    T(s.st_mode);
    T(rmdir("d3/"));
    T(mkdir("/", 0700));
    T(mkdir(".", 0700));
    T(rename("a", "b"));
    S(content("b"));
    T(rename("a", "b"));
    T(rename("b", "d1"));
    T(rename("d1", "b"));
    T(rename("d2", "d1"));
    T(rename("d1", "d1/sub/x"));
    T(rename("d1/sub", "d1"));
    T(rename("d1/sub", "d2"));
    T(rename("b", "c/"));
    T(rename("b/", "c"));
    T(rename(".", "x"));
    T(rename("d2", "."));
    T(rename("d2", "d2/.."));
    T(rename("b", ""));
    T(rename("b", "b"));
    link("b", "b2");
    T(rename("b", "b2"));
    T(access("b", F_OK));
    make("c", "C");
    T(renameat2(AT_FDCWD, "b", AT_FDCWD, "c", RENAME_NOREPLACE));
    T(renameat2(AT_FDCWD, "b", AT_FDCWD, "e", RENAME_NOREPLACE));
    T(renameat2(AT_FDCWD, "c", AT_FDCWD, "d1", RENAME_EXCHANGE));
    T(stat("c", &s));
    T(S_ISDIR(s.st_mode));
    S(content("d1"));
    T(renameat2(AT_FDCWD, "c", AT_FDCWD, "none", RENAME_EXCHANGE));
    T(renameat2(AT_FDCWD, "c", AT_FDCWD, "d2", RENAME_EXCHANGE | RENAME_NOREPLACE));
    T(renameat2(AT_FDCWD, "c", AT_FDCWD, "d2", 8));
    T(renameat2(AT_FDCWD, "e", AT_FDCWD, "w", RENAME_WHITEOUT));
    T(lstat("e", &s));
    T(S_ISCHR(s.st_mode) && s.st_rdev == 0);
    T(mknod("node", S_IFIFO | 0644, 0));
    T(mknod("node", S_IFIFO | 0644, 0));
    T(mknod("plain", 0644, 0));
    T(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
    T(open("null", O_RDWR) >= 0);
    T(mknod("sock", S_IFSOCK | 0644, 0));
    T(open("sock", O_RDWR));
    T(mknod("x1", S_IFDIR | 0644, 0));
    T(mknod("x1", S_IFLNK | 0644, 0));
    T(mknod("x1", 0170000, 0));
    T(chdir("plain"));
    T(chdir("missing"));
    T(fchdir(99));
    mkdir("going", 0755);
    T(chdir("going"));
    rmdir("../going");
    T(getcwd(text, 100) == 0);
    T(errno);
    T(open("x", O_CREAT | O_RDWR, 0600));
    T(mkdir("x", 0600));
    T(open(".", O_RDONLY) >= 0);
    T(stat("..", &s));
    T(rename("../c", "x"));
    T(chdir(".."));
    T(getcwd(text, 3) == 0);
    T(errno);
}

static void entries(void) {
    struct linux_dirent64 { ino64_t ino; off64_t off; unsigned short len; unsigned char type; char name[]; } *e;
    mkdir("many", 0755);
    char name[40];
    for (int i = 0; i < 300; i++) {
        sprintf(name, "many/file%d", i);
        close(creat(name, 0600));
    }
    int fd = open("many", O_RDONLY), seen = 0, dots = 0;
    char buf[600];
    long n;
    /* Each one is seen once, though they vanish as we go. */
    while ((n = syscall(SYS_getdents64, fd, buf, sizeof buf)) > 0)
        for (long at = 0; at < n; at += e->len) {
            e = (void *)(buf + at);
            if (e->name[0] == '.') { dots++; continue; }
            seen++;
            sprintf(name, "many/%s", e->name);
            unlink(name);
        }
    T(n);
    T(seen);
    T(dots);
    T(lseek(fd, 0, SEEK_SET));
    T(syscall(SYS_getdents64, fd, buf, 20));
    T(syscall(SYS_getdents64, fd, buf, sizeof buf));
    T(syscall(SYS_getdents64, fd, buf, sizeof buf));
    T(syscall(SYS_getdents64, 99, buf, sizeof buf));
    T(syscall(SYS_getdents64, open("file", O_RDONLY), buf, sizeof buf));
    T(syscall(SYS_getdents64, fd, 8, sizeof buf));
    lseek(fd, 0, SEEK_SET);
    T(syscall(SYS_getdents64, fd, 8, sizeof buf));
    close(creat("many/one", 0600)), mkdir("many/two", 0700), symlink("x", "many/three"), mkfifo("many/four", 0600);
    DIR *d = opendir("many");
    struct dirent *p;
    int types = 0;
    while ((p = readdir(d)))
        types += p->d_type;
    T(types);
    rewinddir(d);
    readdir(d), readdir(d), readdir(d);
    long pos = telldir(d);
    p = readdir(d);
    char fourth[64];
    strcpy(fourth, p->d_name);
    seekdir(d, pos);
    T(strcmp(readdir(d)->d_name, fourth));
    T(rmdir("many"));
    fd = open("empty", O_RDONLY | O_DIRECTORY);
    mkdir("empty", 0700);
    fd = open("empty", O_RDONLY | O_DIRECTORY);
    rmdir("empty");
    T(syscall(SYS_getdents64, fd, buf, sizeof buf));
    T(fstat(fd, &s));
    T(s.st_nlink);
}

static void attributes(void) {
    struct statx x;
    struct timespec t[2] = {{100, 5}, {200, 7}};
    make("attr", "x");
    T(utimensat(AT_FDCWD, "attr", t, 0));
    T(stat("attr", &s));
    T(s.st_atim.tv_sec * 1000 + s.st_atim.tv_nsec);
    T(s.st_mtim.tv_sec * 1000 + s.st_mtim.tv_nsec);
    t[0].tv_nsec = UTIME_OMIT, t[1].tv_sec = 300;
    T(utimensat(AT_FDCWD, "attr", t, 0));
    stat("attr", &s);
    T(s.st_atim.tv_sec);
    T(s.st_mtim.tv_sec);
    t[1].tv_nsec = UTIME_OMIT;
    T(utimensat(AT_FDCWD, "attr", t, 0));
    T(utimensat(AT_FDCWD, "missing", t, 0));
    t[1].tv_nsec = 1000000000;
    T(utimensat(AT_FDCWD, "attr", t, 0));
    T(utimensat(AT_FDCWD, "attr", t, 0x10));
    T(utimensat(AT_FDCWD, 0, 0, 0));
    T(utimensat(AT_FDCWD, "attr", (void *)8, 0));
    t[0] = t[1] = (struct timespec){-5, 0};
    T(utimensat(AT_FDCWD, "attr", t, 0));
    stat("attr", &s);
    T(s.st_mtim.tv_sec);
    T(utimensat(AT_FDCWD, "broken", 0, AT_SYMLINK_NOFOLLOW));
    T(utimensat(99, "", 0, AT_EMPTY_PATH));
    T(futimens(open("attr", O_RDONLY), 0));
    T(chmod("attr", 07777));
    stat("attr", &s);
    T(s.st_mode);
    T(chown("attr", 5, 6));
    stat("attr", &s);
    T(s.st_mode);
    T(s.st_uid * 100 + s.st_gid);
    T(chown("attr", -1, 7));
    stat("attr", &s);
    T(s.st_uid * 100 + s.st_gid);
    T(lchown("broken", 1, 1));
    T(lstat("broken", &s));
    T(s.st_uid);
    T(fchmodat(AT_FDCWD, "attr", 0600, 0));
    T(syscall(FCHMODAT2, AT_FDCWD, "broken", 0600, AT_SYMLINK_NOFOLLOW));
    T(syscall(FCHMODAT2, AT_FDCWD, "attr", 0600, 0x40));
    T(statx(AT_FDCWD, "attr", 0, STATX_BASIC_STATS | STATX_BTIME, &x));
    T(x.stx_mask & (STATX_BASIC_STATS | STATX_BTIME));
    T(x.stx_mode);
    T(x.stx_size);
    T(x.stx_nlink);
    T(x.stx_uid * 100 + x.stx_gid);
    T(statx(AT_FDCWD, "attr", 0, 0x80000000, &x));
    T(statx(AT_FDCWD, "attr", 0x6000, 0, &x));
    T(statx(AT_FDCWD, "attr", 0x8, 0, &x));
    T(statx(AT_FDCWD, "", AT_EMPTY_PATH, STATX_TYPE, &x));
    T(S_ISDIR(x.stx_mode));
    T(statx(AT_FDCWD, "", 0, STATX_TYPE, &x));
    T(statx(AT_FDCWD, "attr", 0, STATX_TYPE, (void *)8));
    T(stat("attr", (void *)8));
    T(access("attr", 8));
    T(access("attr", R_OK | W_OK));
    T(access("attr", X_OK));
    T(chmod("attr", 0100));
    T(access("attr", X_OK));
    T(faccessat(AT_FDCWD, "broken", F_OK, AT_SYMLINK_NOFOLLOW));
    T(faccessat(AT_FDCWD, "attr", F_OK, 0x8));
    struct statfs f;
    T(statfs(".", &f));
    T(f.f_type);
    T(f.f_bsize);
    T(f.f_namelen);
    T(statfs("missing", &f));
    T(fstatfs(99, &f));
    T(statfs(".", (void *)8));

    T(setxattr("attr", "user.one", "value", 5, 0));
    T(getxattr("attr", "user.one", text, 100));
    T(getxattr("attr", "user.one", text, 2));
    T(getxattr("attr", "user.one", 0, 0));
    T(getxattr("attr", "user.two", text, 100));
    T(setxattr("attr", "user.one", "v2", 2, XATTR_CREATE));
    T(setxattr("attr", "user.two", "v2", 2, XATTR_REPLACE));
    T(setxattr("attr", "user.two", "", 0, 0));
    T(setxattr("attr", "user.one", "new", 3, XATTR_REPLACE));
    T(getxattr("attr", "user.one", text, 100));
    T(listxattr("attr", text, 100));
    T(listxattr("attr", text, 3));
    T(listxattr("attr", 0, 0));
    T(removexattr("attr", "user.two"));
    T(removexattr("attr", "user.two"));
    T(setxattr("attr", "user.one", "v", 1, 8));
    T(setxattr("attr", "user.", "v", 1, 0));
    T(setxattr("attr", "", "v", 1, 0));
    T(setxattr("attr", "none.x", "v", 1, 0));
    T(setxattr("attr", "x", "v", 1, 0));
    T(setxattr("attr", "trusted.t", "v", 1, 0));
    T(setxattr("attr", "security.s", "v", 1, 0));
    T(getxattr("attr", "security.s", text, 10));
    T(setxattr("attr", "user.big", text, 65537, 0));
    memset(text, 'x', 300);
    memcpy(text, "user.", 5);
    text[256] = 0;
    T(setxattr("attr", text, "v", 1, 0));
    text[255] = 0;
    T(setxattr("attr", text, "v", 1, 0));
    T(setxattr("missing", "user.x", "v", 1, 0));
    T(setxattr("link", "user.x", "v", 1, 0));
    T(getxattr("file", "user.x", text, 1));
    T(lsetxattr("link", "user.x", "v", 1, 0));
    T(lgetxattr("link", "user.x", text, 1));
    T(lsetxattr("link", "trusted.x", "v", 1, 0));
    T(setxattr("fifo", "user.x", "v", 1, 0));
    T(getxattr("fifo", "user.x", text, 1));
    int fd = open("attr", O_RDONLY);
    T(fsetxattr(fd, "user.f", "v", 1, 0));
    T(fgetxattr(fd, "user.f", text, 10));
    T(flistxattr(fd, text, 1000) > 0);
    T(fremovexattr(fd, "user.f"));
    T(fgetxattr(99, "user.f", text, 10));
    T(getxattr("attr", (char *)8, text, 10));
    T(setxattr("attr", "user.x", (char *)8, 10, 0));
    T(getxattr("attr", "user.one", (char *)8, 10));
    T(setxattr("dir", "user.x", "v", 1, 0));
    T(getxattr("attr", "system.posix_acl_access", text, 100));
}

int main(void) {
    begin();
    names();
    entries();
    attributes();
}

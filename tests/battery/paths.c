/* Every call that takes a path, with every kind of path, by root and by somebody: which of several things that are wrong is told, and
 * what is done where nothing is. A line is a call, with a word for each path; each is tried in a directory of its own. */
#include "check.h"
#include <ftw.h>
#include <grp.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <utime.h>

static char long_name[300], long_path[5000];
static const char *const names[][2] = {
    {"file", "file"}, {"dir", "dir"}, {"dir/", "dir/"}, {"dir/.", "dir/."}, {"dir/..", "dir/.."}, {"in", "dir/in"}, {"/in", "dir//in"},
    {".", "."}, {"..", ".."}, {"", ""}, {"none", "none"}, {"none/", "none/"}, {"none/x", "none/x"}, {"file/", "file/"},
    {"file/x", "file/x"}, {"file/..", "file/../file"}, {"long", long_name}, {"longer", long_path}, {"loop", "loop"},
    {"loop/x", "loop/x"}, {"dangling", "dangling"}, {"dangling/", "dangling/"}, {"link", "link"}, {"linkdir", "linkdir"},
    {"linkdir/", "linkdir/"}, {"linkdir/in", "linkdir/in"}, {"fifo", "fifo"}, {"socket", "socket"}, {"shut", "shut"},
    {"shut/in", "shut/in"}, {"kept", "kept"}, {"kept/in", "kept/in"}, {"readonly", "readonly"}, {"sticky/in", "sticky/in"},
    {"sticky/dir", "sticky/dir"}, {"full", "full"}, {"runs", "runs"}, {"hard", "hard"}, {"wild", (char *)8},
};
#define NAMES (int)(sizeof names / sizeof *names)

static void put(const char *name, int mode) {
    int fd = open(name, O_CREAT|O_WRONLY, 0600);
    write(fd, "abc", 3);
    close(fd);
    chmod(name, mode);
}

static void folder(const char *name, int mode) {
    mkdir(name, 0700);
    chmod(name, mode);
}

static void furnish(void) {
    struct sockaddr_un at = { .sun_family = AF_UNIX, .sun_path = "socket" };
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    put("file", 0666);
    folder("dir", 0777);
    put("dir/in", 0666);
    symlink("loop", "loop");
    symlink("none", "dangling");
    symlink("file", "link");
    symlink("dir", "linkdir");
    mkfifo("fifo", 0600);
    chmod("fifo", 0666);
    bind(s, (void *)&at, sizeof at);
    close(s);
    chmod("socket", 0666);
    folder("shut", 0700);
    put("shut/in", 0666);
    chmod("shut", 0);
    folder("kept", 0755);
    put("kept/in", 0644);
    put("readonly", 0444);
    folder("sticky", 01777);
    put("sticky/in", 0666);
    folder("sticky/dir", 0777);
    folder("full", 0777);
    folder("full/a", 0777);
    put("runs", 0755);
    link("file", "hard");
}

static int somebody;
static char own[16];

static int rid(const char *path, const struct stat *st, int kind, struct FTW *walk) {
    (void)st, (void)kind, (void)walk;
    return remove(path) && 0;
}

/* In a new directory: its own user, if it is not root's turn. */
static void begin(int n) {
    sprintf(own, "%d", n);
    folder(own, 0777);
    fflush(stdout);
}

static void enter(void) {
    if (chdir(own)) _exit(99);
    furnish();
    if (somebody && !getuid() && (setgroups(0, 0) || setgid(1001) || setuid(1001))) _exit(98);
}

static void end(void) {
    char shut[32];
    sprintf(shut, "%s/shut", own);
    chmod(shut, 0700);
    nftw(own, rid, 16, FTW_DEPTH|FTW_PHYS);
}

static void tell(const char *name, long value, int error) {
    struct stat st;
    if (value == -1 && error) printf(" %s=%s", name, strerrorname_np(error));
    else printf(" %s=%ld", name, value);
    /* What has become of it. */
    printf(",%o", lstat("file", &st) ? 0 : (int)(st.st_mode >> 12 << 4 | (st.st_nlink & 15)));
}

#define EACH(call) do { \
        static int number_; \
        printf(FAMILY ".%s %s:", somebody ? "somebody" : "root", #call); \
        for (int k = 0; k < NAMES; k++) { \
            begin(number_++); \
            pid_t child_ = fork(); \
            if (!child_) { \
                enter(); \
                const char *p = names[k][1]; \
                errno = 0; \
                long value_ = (long)(call); \
                tell(names[k][0], value_, errno); \
                fflush(stdout); \
                _exit(0); \
            } \
            int status_; \
            waitpid(child_, &status_, 0); \
            if (status_) printf(" %s died %x", names[k][0], status_); \
            end(); \
        } \
        printf("\n"); \
        fflush(stdout); \
    } while (0)

static long opened(const char *path, int flags) { return open(path, flags|O_NONBLOCK, 0600) < 0 ? -1 : 0; }

static long limited(const char *path, unsigned long resolve) {
    unsigned long how[3] = { O_NONBLOCK, 0, resolve };
    return syscall(437, AT_FDCWD, path, how, sizeof how) < 0 ? -1 : 0;
}

static long meet(const char *path, int (*call)(int, const struct sockaddr *, socklen_t)) {
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    if (path == names[NAMES - 1][1]) return 0;
    memcpy(at.sun_path, path, strnlen(path, sizeof at.sun_path));
    return call(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&at, sizeof at);
}

static void looking(void) {
    struct stat st;
    char buffer[200];
    EACH(stat(p, &st));
    EACH(fstatat(99, p, &st, 0));
    EACH(access(p, W_OK));
    EACH(access(p, 8));
    EACH(readlink(p, buffer, 100) < 0 ? -1 : 0);
    EACH(chdir(p));
    EACH(opened(p, O_RDWR));
    EACH(opened(p, O_CREAT|O_RDONLY));
    EACH(opened(p, O_CREAT|O_EXCL|O_RDWR));
    EACH(opened(p, O_TRUNC|O_RDONLY));
    EACH(opened(p, O_DIRECTORY));
    EACH(opened(p, O_CREAT|O_DIRECTORY));
    EACH(opened(p, O_NOFOLLOW));
    EACH(opened(p, O_PATH|O_NOFOLLOW));
    EACH(opened(p, O_NOATIME));
    EACH(opened(p, O_TMPFILE|O_RDWR));
    EACH(opened(p, O_ACCMODE));
    EACH(limited(p, 4));
    EACH(limited(p, 8));
    EACH(limited(p, 16));
    EACH(getxattr(p, "user.a", buffer, 10));
    EACH(inotify_add_watch(inotify_init(), p, IN_OPEN|IN_DONT_FOLLOW));
    EACH(meet(p, connect));
}

static void changing(void) {
    EACH(chmod(p, 0640));
    EACH(chown(p, 1001, 1001));
    EACH(lchown(p, -1, -1));
    EACH(utime(p, 0));
    EACH(truncate(p, 3));
    EACH(truncate(p, -1));
    EACH(setxattr(p, "trusted.a", "b", 1, 0));
    EACH(meet(p, bind));
    EACH(mkdir(p, 0755));
    EACH(mkfifo(p, 0600));
    EACH(mknod(p, S_IFCHR|0600, 0x103));
    EACH(mknod(p, S_IFCHR|0600, 0));
    EACH(mknod(p, 0170000, 0));
    EACH(symlink("file", p));
    EACH(symlink(p, "new"));
    EACH(link("file", p));
    EACH(link(p, "new"));
    EACH(linkat(AT_FDCWD, p, AT_FDCWD, "new", AT_SYMLINK_FOLLOW));
    EACH(k == 9 ? 0 : linkat(AT_FDCWD, p, AT_FDCWD, "new", AT_EMPTY_PATH));
    EACH(rmdir(p));
    EACH(unlink(p));
    EACH(rename(p, "new"));
    EACH(rename("file", p));
    EACH(rename("dir", p));
    EACH(rename(p, p));
    EACH(rename(p, "dir/in/x"));
    EACH(rename(p, "dir/new"));
    EACH(renameat2(AT_FDCWD, "file", AT_FDCWD, p, 1));
    EACH(renameat2(AT_FDCWD, "file", AT_FDCWD, p, 2));
    EACH(renameat2(AT_FDCWD, "file", AT_FDCWD, p, 3));
    EACH(chroot(p));
}

int main(void) {
    memset(long_name, 'n', 256);
    memset(long_path, '/', 4999);
    for (int i = 0; i < 4998; i += 2) long_path[i] = 'a';
    umask(0);
    chmod(".", 0777);
    for (somebody = 0; somebody < 2; somebody++) {
        looking();
        changing();
    }
    return 0;
}

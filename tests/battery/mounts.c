/* Mounting: file systems in memory, directories shown twice, what a mount forbids, and how it goes away again. On the host in a
 * mount namespace of its own. Who is not root is refused. */
#include "check.h"
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

static int make(const char *path, int mode) {
    int fd = open(path, O_CREAT | O_RDWR, mode);
    if (fd < 0)
        return -1;
    fchmod(fd, mode);
    long n = write(fd, "#!/bin/true\n", 12);
    close(fd);
    return n == 12 ? 0 : -2;
}
static long flags_of(const char *path) {
    struct statfs s;
    return statfs(path, &s) ? -1 : (s.f_flags & (ST_RDONLY | ST_NOSUID | 4 | 8 | 1024 | 2048 | 4096 | 8192));
}
static long pages_of(const char *path) {
    struct statfs s;
    return statfs(path, &s) ? -1 : s.f_blocks;
}
static long mode_of(const char *path) {
    struct stat s;
    return stat(path, &s) ? -1 : s.st_mode & 07777;
}
static long runs(const char *path) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        execl(path, path, (char *)0);
        _exit(errno == EACCES ? 77 : 78);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
/* The line about this place, without what differs. */
static void line_of(const char *place) {
    char line[500], at[200], options[200], kind[50], source[100], full[200];
    FILE *f = fopen("/proc/self/mounts", "r");
    snprintf(full, sizeof full, "%s/%s", place_, place);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%99s %199s %49s %199s", source, at, kind, options) == 4 && !strcmp(at, full)) {
            char *extra = strstr(options, ",inode64");
            if (extra)
                memmove(extra, extra + 8, strlen(extra + 8) + 1);
            printf(FAMILY ".line of %s: %s %s %s\n", place, source, kind, options);
        }
    fclose(f);
    fflush(stdout);
}

static void refusals(void) {
    mkdir("m", 0755);
    make("file", 0644);
    T(mount("none", "nowhere", "tmpfs", 0, 0));
    T(mount("none", "file", "tmpfs", 0, 0));
    T(mount("none", "file/x", "tmpfs", 0, 0));
    T(mount("none", "m", "nosuchfs", 0, 0));
    T(mount("none", "m", 0, 0, 0));
    T(mount("none", "m", "tmpfs", 0, "nonsense=1"));
    T(mount("none", "m", "tmpfs", 0, "size=lots"));
    T(mount("none", "m", "tmpfs", 0, "mode=9"));
    T(mount("none", "m", "tmpfs", MS_REMOUNT, 0));
    T(mount("none", "m", 0, MS_PRIVATE, 0));
    T(mount(0, "m", 0, MS_BIND, 0));
    T(mount("", "m", 0, MS_BIND, 0));
    T(mount("nowhere", "m", 0, MS_BIND, 0));
    T(mount("file", "m", 0, MS_BIND, 0));
    T(mount("m", "file", 0, MS_BIND, 0));
    T(mount("m", "m", 0, MS_MOVE, 0));
    T(mount((char *)1, "m", "tmpfs", 0, 0));
    T(mount("none", (char *)1, "tmpfs", 0, 0));
    T(mount("none", "m", (char *)1, 0, 0));
    T(mount("none", "m", "tmpfs", 0, (void *)1));
    T(umount("m"));
    T(umount("nowhere"));
    T(umount((char *)1));
    T(umount2("m", 0x100));
    T(umount2("m", MNT_EXPIRE | MNT_FORCE));
}

static void in_memory(void) {
    T(mount("mine", "m", "tmpfs", 0, "size=64k,mode=0751,uid=7,gid=8"));
    struct stat s;
    T(mode_of("m"));
    T(stat("m", &s) ?: s.st_uid * 100 + s.st_gid);
    T(pages_of("m"));
    line_of("m");
    T(flags_of("m"));
    T(umount("m"));
    T(mode_of("m"));
    T(mount("mine", "m", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, "size=1m"));
    line_of("m");
    T(flags_of("m"));
    T(make("m/run", 0755));
    T(runs("m/run"));
    int fd = open("m/run", O_RDWR);
    T((long)mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
    char *p = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    T(mprotect(p, 4096, PROT_READ | PROT_EXEC));
    munmap(p, 4096);
    T(mount(0, "m", 0, MS_REMOUNT | MS_RDONLY, 0));
    close(fd);
    T(umount("m"));
    T(mount("mine", "m", "tmpfs", 0, "size=1m"));
    T(make("m/run", 0755));
    T(runs("m/run"));
    T(mknod("m/null", S_IFCHR | 0666, makedev(1, 3)));
    T((fd = open("m/null", O_WRONLY)) < 0 ? -1 : 0);
    T(write(fd, "x", 1));
    close(fd);
    T(symlink("run", "m/link"));
    T(mount(0, "m", 0, MS_REMOUNT | MS_NODEV | 256, "size=2m"));
    T(pages_of("m"));
    T(open("m/null", O_WRONLY));
    T(open("m/link", O_RDONLY));
    T(lstat("m/link", &s));
    T(stat("m/link", &s));
    T(mount(0, "m", 0, MS_REMOUNT, "size=1m,nonsense"));
    fd = open("m/big", O_CREAT | O_RDWR, 0600);
    static char block[1 << 16];
    long all = 0, n;
    while ((n = write(fd, block, sizeof block)) > 0)
        all += n;
    T(n);
    T(all > (1 << 20) && all < (2 << 20));
    T(mount(0, "m", 0, MS_REMOUNT, "size=64k"));
    close(fd);
    T(umount("m"));
    T(mount("few", "m", "tmpfs", 0, "nr_inodes=3"));
    T(make("m/1", 0600));
    T(make("m/2", 0600));
    T(make("m/3", 0600));
    T(umount("m"));
}

static void read_only(void) {
    T(mount("none", "m", "tmpfs", 0, 0));
    T(make("m/f", 0644));
    T(mkdir("m/d", 0755));
    T(mount("none", "m", "tmpfs", MS_REMOUNT | MS_RDONLY, 0));
    T(flags_of("m"));
    T(open("m/f", O_RDWR));
    T(open("m/new", O_CREAT | O_RDWR, 0600));
    T(mkdir("m/d2", 0755));
    T(rmdir("m/d"));
    T(unlink("m/f"));
    T(chmod("m/f", 0600));
    T(chown("m/f", 1, 1));
    T(truncate("m/f", 0));
    T(utimes("m/f", 0));
    T(rename("m/f", "m/g"));
    T(link("m/f", "m/g"));
    T(symlink("f", "m/g"));
    T(mknod("m/fifo", S_IFIFO | 0600, 0));
    T(access("m/f", W_OK));
    T(access("m/f", R_OK));
    T(syscall(SYS_setxattr, "m/f", "user.x", "y", 1, 0));
    T(mount(0, "m", 0, MS_REMOUNT, 0));
    T(chmod("m/f", 0600));
    int fd = open("m/f", O_RDWR);
    T(mount(0, "m", 0, MS_REMOUNT | MS_RDONLY, 0));
    T(umount("m"));
    close(fd);
    T(mount(0, "m", 0, MS_REMOUNT | MS_RDONLY, 0));
    T(umount("m"));
    T(access("m/f", F_OK));
    T(mount("none", "m", "tmpfs", MS_RDONLY, 0));
    T(mkdir("m/d", 0755));
    T(umount("m"));
}

static void twice(void) {
    mkdir("a", 0755), mkdir("a/below", 0755), mkdir("b", 0755);
    make("a/one", 0600), make("other", 0600);
    T(mount("a", "b", 0, MS_BIND, 0));
    T(access("b/one", F_OK));
    T(make("b/two", 0600));
    T(access("a/two", F_OK));
    T(rename("b/two", "a/three"));
    T(link("b/two", "a/three"));
    T(mount(0, "b", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
    T(make("b/four", 0600));
    T(make("a/four", 0600));
    T(mount("none", "a/below", "tmpfs", 0, 0));
    T(make("a/below/hidden", 0600));
    T(access("b/below/hidden", F_OK));
    T(rmdir("a/below"));
    T(rmdir("b/below"));
    T(rename("a/below", "a/else"));
    T(umount("b"));
    T(mount("a", "b", 0, MS_BIND | MS_REC, 0));
    T(access("b/below/hidden", F_OK));
    T(umount("b"));
    T(umount2("b", MNT_DETACH));
    T(access("b/below", F_OK));
    T(umount("a/below"));
    T(mount("a/one", "other", 0, MS_BIND, 0));
    struct stat x, y;
    T(stat("a/one", &x) ?: stat("other", &y) ?: x.st_ino == y.st_ino);
    T(unlink("other"));
    T(umount("other"));
    T(unlink("other"));
    T(mount("a", "a", 0, MS_BIND, 0));
    T(mount(0, "a", 0, MS_PRIVATE, 0));
    T(mount(0, "a", 0, MS_PRIVATE | MS_SLAVE, 0));
    T(mount(0, "a", 0, MS_UNBINDABLE, 0));
    T(mount("a", "b", 0, MS_BIND, 0));
    T(umount("a"));
}

static void moves(void) {
    mkdir("p", 0755), mkdir("q", 0755);
    T(mount("none", "p", "tmpfs", 0, 0));
    T(mount(0, "p", 0, MS_PRIVATE, 0));
    T(make("p/f", 0600));
    T(mkdir("p/in", 0755));
    T(mount("p", "p/in", 0, MS_MOVE, 0));
    T(mount("p/in", "q", 0, MS_MOVE, 0));
    T(mount("p", "q", 0, MS_MOVE, 0));
    T(access("q/f", F_OK));
    T(access("p/f", F_OK));
    T(chdir("q/in"));
    char cwd[300];
    T(strcmp(getcwd(cwd, sizeof cwd) + strlen(place_), "/q/in"));
    T(umount("../../q"));
    T(umount2("../../q", MNT_EXPIRE));
    T(umount2("../../q", MNT_DETACH));
    T(open("../f", O_RDONLY) < 0);
    T(chdir(place_));
    T(access("q/f", F_OK));
    T(mount("none", "q", "tmpfs", 0, 0));
    T(umount2("q", MNT_EXPIRE));
    T(access("q", F_OK));
    T(umount2("q", MNT_EXPIRE));
    T(umount2("q", MNT_EXPIRE));
    T(umount2("q", MNT_EXPIRE));
    T(mount("none", "q", "tmpfs", 0, 0));
    T(make("q/first", 0600));
    T(mount("none", "q", "tmpfs", 0, 0));
    T(access("q/first", F_OK));
    T(umount("q"));
    T(access("q/first", F_OK));
    symlink("q", "way");
    T(umount2("way", UMOUNT_NOFOLLOW));
    T(umount("way"));
    mkdir("proc", 0755);
    T(mount("proc", "proc", "proc", 0, 0));
    T(access("proc/self/stat", F_OK));
    T(umount("proc"));
    T(access("proc/self", F_OK));
}

int main(void) {
    if (getuid() == 0) {
        unshare(CLONE_NEWNS);
        mount(0, "/", 0, MS_PRIVATE | MS_REC, 0);
    }
    refusals();
    if (getuid() == 0) {
        in_memory();
        read_only();
        twice();
        moves();
    }
    W(CHILD(if (!getuid()) setuid(1000); chmod(".", 0777); T(mount("none", "m", "tmpfs", 0, 0)); T(umount("m")); T(mount("none", "nowhere", "tmpfs", 0, 0))));
}

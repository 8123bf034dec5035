/* Users and groups, what they may do to files and to processes, capabilities. Run by root it becomes others; run by another, it says what is refused. */
#include "check.h"
#include <grp.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static void who(void) {
    uid_t r, e, s;
    gid_t rg, eg, sg;
    getresuid(&r, &e, &s);
    getresgid(&rg, &eg, &sg);
    T(r);
    T(e);
    T(s);
    T(rg);
    T(eg);
    T(sg);
}
static void show(const char *path) {
    struct stat st;
    N("mode of", 0, stat(path, &st) ? -errno : st.st_mode);
    T(st.st_uid);
    T(st.st_gid);
}
static void become(uid_t uid, gid_t gid) {
    gid_t more[] = {500, 600};
    setgroups(2, more);
    setresgid(gid, gid, gid);
    setresuid(uid, uid, uid);
}
static void make(const char *path, mode_t mode, uid_t uid, gid_t gid) {
    int fd = open(path, O_CREAT|O_WRONLY, 0600);
    write(fd, "x", 1);
    fchown(fd, uid, gid);
    fchmod(fd, mode);
    close(fd);
}
static void caps(void) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    T(syscall(SYS_capget, &h, d));
    T(d[0].effective != 0);
    T(d[0].permitted != 0);
    T(d[0].inheritable);
}

/* Of a few capabilities: which are on, may be, are passed on, can be had, and go along. */
static void some(void) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    static const int list[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_KILL, CAP_SETUID, CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE};
    syscall(SYS_capget, &h, d);
    for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
        int c = list[i], w = c / 32;
        unsigned bit = 1u << c % 32;
        N("effective", c, (d[w].effective & bit) != 0);
        N("permitted", c, (d[w].permitted & bit) != 0);
        N("inheritable", c, (d[w].inheritable & bit) != 0);
        N("bounding", c, prctl(PR_CAPBSET_READ, c));
        N("ambient", c, prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, c, 0, 0));
    }
}
/* Take these out of effective and permitted, and put them into inheritable. */
static int alter(unsigned long off, unsigned long gone, unsigned long passed) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2];
    syscall(SYS_capget, &h, d);
    for (int i = 0; i < 2; i++) {
        d[i].effective &= ~((off | gone) >> 32 * i);
        d[i].permitted &= ~(gone >> 32 * i);
        d[i].inheritable = passed >> 32 * i;
    }
    return syscall(SYS_capset, &h, d);
}
#define BIT(cap) (1UL << (cap))
static void capabilities(const char *self) {
    W(CHILD(some()));
    /* off, on again, gone for good */
    W(CHILD(T(alter(BIT(CAP_CHOWN), 0, 0)); some(); T(chown("roots", 1, 1)); T(alter(0, BIT(CAP_CHOWN), 0)); some();
        struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0}; struct __user_cap_data_struct d[2]; syscall(SYS_capget, &h, d);
        d[0].permitted |= 1; T(syscall(SYS_capset, &h, d)); d[0].permitted &= ~1; d[0].effective |= 1; T(syscall(SYS_capset, &h, d));
        h.pid = 1; T(syscall(SYS_capset, &h, d)); h.pid = -1; T(syscall(SYS_capget, &h, d)); h.version = 7; T(syscall(SYS_capget, &h, d)); T(h.version == _LINUX_CAPABILITY_VERSION_3)));
    W(CHILD(T(alter(0, BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH), 0)); T(open("mine", O_RDONLY)); T(open("other", O_RDONLY)); T(access("mine", R_OK)); T(open("roots", O_RDWR))));
    W(CHILD(T(alter(0, BIT(CAP_DAC_OVERRIDE), 0)); P(open("mine", O_RDONLY)); T(open("mine", O_RDWR)); T(access("mine", W_OK))));
    W(CHILD(T(alter(0, BIT(CAP_FOWNER) | BIT(CAP_FSETID), 0)); T(chmod("mine", 0640)); T(utimensat(AT_FDCWD, "mine", (struct timespec[2]){{1, 1}, {1, 1}}, 0)); T(chmod("roots", 02755)); P(open("mine", O_RDONLY|O_NOATIME))));
    W(CHILD(T(alter(0, BIT(CAP_KILL), 0)); int said[2]; pipe(said); pid_t other = fork(); if (!other) { setuid(7); alarm(1); write(said[1], "7", 1); pause(); _exit(0); } char c; read(said[0], &c, 1); T(kill(other, SIGTERM)); T(kill(getpid(), 0)); wait4(-1, 0, WNOHANG, 0)));
    W(CHILD(T(alter(0, BIT(CAP_SETUID), 0)); T(setuid(5)); T(setresuid(0, 0, 0)); T(setresuid(5, -1, -1)); T(setgid(5)); T(setfsuid(5)); T(setfsuid(-1))));
    W(CHILD(T(alter(0, BIT(CAP_SETGID), 0)); T(setgid(5)); T(setgroups(0, 0)); T(setuid(5))));
    W(CHILD(T(alter(0, BIT(CAP_SYS_CHROOT), 0)); T(chroot("."))));
    W(CHILD(T(alter(0, BIT(CAP_SYS_NICE), 0)); T(setpriority(PRIO_PROCESS, 0, -5)); T(setpriority(PRIO_PROCESS, 0, 5)); T(setpriority(PRIO_PROCESS, 0, 0))));
    W(CHILD(T(alter(0, BIT(CAP_SYS_ADMIN), 0)); T(sethostname("x", 1))));
    W(CHILD(T(alter(0, BIT(CAP_MKNOD), 0)); T(mknod("node", S_IFCHR|0600, 0x103)); T(mknod("fifo-2", S_IFIFO|0600, 0))));
    /* passing on */
    W(CHILD(T(alter(0, BIT(CAP_SETPCAP), BIT(CAP_KILL))); T(alter(0, BIT(CAP_CHOWN), BIT(CAP_KILL))); T(alter(0, 0, BIT(CAP_CHOWN) | BIT(CAP_KILL))); some(); T(prctl(PR_CAPBSET_DROP, CAP_KILL)); T(prctl(PR_SET_SECUREBITS, 1))));
    W(CHILD(T(prctl(PR_CAPBSET_DROP, CAP_KILL)); T(prctl(PR_CAPBSET_DROP, 41)); T(prctl(PR_CAPBSET_READ, 41)); T(prctl(PR_CAPBSET_READ, -1)); T(alter(0, 0, BIT(CAP_KILL))); some(); fflush(0); execl(self, "identity", "caps", (char *)0)));
    W(CHILD(T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)); T(alter(0, 0, BIT(CAP_KILL) | BIT(CAP_CHOWN))); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
        T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 41, 0, 0)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 1, 0)); T(prctl(PR_CAP_AMBIENT, 9, 0, 0, 0)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_CHOWN, 0, 0)); some();
        T(prctl(PR_SET_KEEPCAPS, 1)); T(setresuid(5, 5, 5)); some(); T(prctl(PR_GET_KEEPCAPS)); fflush(0); execl(self, "identity", "caps", (char *)0)));
    W(CHILD(T(alter(0, 0, BIT(CAP_KILL))); T(prctl(PR_SET_SECUREBITS, 4)); T(prctl(PR_GET_SECUREBITS)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)); T(setresuid(5, 5, 5)); some(); fflush(0); execl(self, "identity", "caps", (char *)0)));
    W(CHILD(T(alter(0, 0, BIT(CAP_KILL))); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0)); T(alter(0, 0, 0)); some(); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0))));
    /* secure bits */
    W(CHILD(T(prctl(PR_SET_SECUREBITS, 0x10000)); T(prctl(PR_SET_SECUREBITS, 0x3)); T(prctl(PR_SET_SECUREBITS, 0)); T(prctl(PR_SET_SECUREBITS, 0x7)); T(prctl(PR_GET_SECUREBITS)); some(); fflush(0); execl(self, "identity", "caps", (char *)0)));
    W(CHILD(T(prctl(PR_SET_SECUREBITS, 0x20)); T(prctl(PR_SET_KEEPCAPS, 1)); T(prctl(PR_SET_KEEPCAPS, 2)); T(prctl(PR_GET_KEEPCAPS))));
    W(CHILD(T(prctl(PR_SET_SECUREBITS, 0x40)); T(alter(0, 0, BIT(CAP_KILL))); T(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0))));
    /* changes of who one is */
    W(CHILD(T(prctl(PR_SET_KEEPCAPS, 1)); T(setresuid(5, 5, 5)); some(); fflush(0); execl(self, "identity", "caps", (char *)0)));
    W(CHILD(T(setresuid(5, 5, 0)); some(); T(seteuid(0)); some(); T(seteuid(5)); fflush(0); execl(self, "identity", "caps", (char *)0)));
    W(CHILD(T(setresuid(0, 5, 5)); some(); fflush(0); execl(self, "identity", "caps", (char *)0)));
    W(CHILD(T(setfsuid(5)); some(); T(setfsuid(0)); some()));
}

int main(int argc, char **argv) {
    int fd, st;
    gid_t g[70000];
    if (argc > 1) {
        some();
        T(prctl(PR_GET_SECUREBITS));
        return 0;
    }
    /* a session of our own: which processes share one with us would depend on who started the test */
    pid_t own = fork();
    if (own) {
        waitpid(own, &st, 0);
        return WIFEXITED(st) ? WEXITSTATUS(st) : 1;
    }
    setsid();
    T(getuid() == geteuid());
    T(getuid() == 0);
    T(getgid() == getegid());
    T(setuid(-1));
    T(setgid(-1));
    T(setreuid(-1, -1));
    T(setresuid(-1, -1, -1));
    T(getgroups(-1, 0));
    T(getgroups(0, 0) >= 0);
    T(getgroups(100, (void *)8) >= 0 || errno == EFAULT);
    T(syscall(SYS_setgroups, 70000, g) == 0);
    T(syscall(SYS_setgroups, 2, 8) == 0);
    T(syscall(SYS_getresuid, 8, g, g));
    T(syscall(SYS_getresgid, g, g, 8));
    T(setfsuid(-1) == geteuid());
    T(setfsgid(-1) == getegid());
    T(umask(022));
    T(umask(07777));
    T(umask(022));
    caps();
    if (getuid() != 0) {
        /* another user: what is refused */
        T(setuid(0));
        T(seteuid(0));
        T(setgid(0));
        T(setgroups(0, 0));
        T(setreuid(0, -1));
        T(setresuid(-1, -1, 0));
        T(setuid(getuid()));
        T(setresuid(getuid(), getuid(), getuid()));
        T(kill(1, 0));
        T(kill(1, SIGCONT));
        T(chroot("."));
        T(mkdir("dir", 0777));
        T(open("/etc/shadow", O_RDONLY));
        T(access("/etc/shadow", R_OK));
        T(access("/root", R_OK));
        T(chdir("/root"));
        T(open("file", O_CREAT|O_RDWR, 0640));
        show("file");
        T(chown("file", 0, -1));
        T(chown("file", -1, 0));
        T(chown("file", getuid(), getgid()));
        T(chmod("file", 06777));
        show("file");
        T(chmod("file", 0));
        T(open("file", O_RDONLY));
        T(access("file", F_OK));
        T(access("file", R_OK));
        T(mknod("node", S_IFCHR|0600, 0x103));
        T(mknod("fifo", S_IFIFO|0600, 0));
        T(mknod("plain", S_IFREG|0600, 0));
        T(setpriority(PRIO_PROCESS, 0, -5));
        T(setpriority(PRIO_PROCESS, 0, 5));
        T(setpriority(PRIO_PROCESS, 0, 4));
        struct rlimit l = {10, 10};
        T(setrlimit(RLIMIT_NPROC, &l));
        l.rlim_max = 20;
        T(setrlimit(RLIMIT_NPROC, &l));
        T(sethostname("x", 1));
        T(setdomainname("x", 1));
        T(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
        T(syscall(SYS_settimeofday, &(struct timeval){1, 1}, 0));
        T(clock_settime(CLOCK_REALTIME, &(struct timespec){1, 1}));
        T(syscall(SYS_swapoff, "/nowhere"));
        T(syscall(SYS_mlockall, 9));
        T(sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){1}));
        T(link("/etc/passwd", "link"));
        T(unlink("/dev/shm/nowhere"));
        T(unlink("/etc/passwd") && (errno == EACCES || errno == EROFS));
        T(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
        T(syscall(SYS_capset, &(struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 0}, &(struct __user_cap_data_struct[2]){{1, 1, 0}}));
        T(syscall(SYS_capset, &(struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 0}, &(struct __user_cap_data_struct[2]){{0, 0, 0}}));
        T(syscall(SYS_chroot, "/"));
        T(syscall(SYS_vhangup));
        T(syscall(SYS_iopl, 3));
        T(syscall(SYS_acct, 0));
        return 0;
    }
    /* changing who one is */
    W(CHILD(T(setgroups(0, 0)); T(getgroups(0, 0)); T(setresgid(1000, 1000, 1000)); T(setresuid(1000, 1001, 1002)); who();
        T(setuid(0)); T(setuid(1002)); who(); T(setreuid(-1, 1000)); who(); T(seteuid(1001)); T(seteuid(1002)); who(); T(setfsuid(1002)); T(setfsuid(-1)); T(setfsuid(7)); T(setfsuid(-1)); T(setgroups(0, 0)); caps()));
    W(CHILD(T(setuid(5)); who(); T(setuid(0)); caps()));
    W(CHILD(T(seteuid(5)); who(); caps(); T(seteuid(0)); caps(); who()));
    W(CHILD(T(setreuid(5, 6)); who(); T(setreuid(6, 5)); who(); T(setreuid(0, -1))));
    W(CHILD(T(setreuid(5, -1)); who(); T(setreuid(-1, 5)); who(); T(seteuid(0))));
    W(CHILD(T(setresuid(5, -1, -1)); who(); T(setuid(6)); who()));
    W(CHILD(T(setgid(5)); who(); T(setregid(6, 7)); who(); T(setegid(8)); who(); T(setresgid(1, 2, 3)); who()));
    W(CHILD(T(setresuid(5, 5, 0)); T(seteuid(0)); who()));
    W(CHILD(gid_t l[] = {9, 5, 7, 5}; T(setgroups(4, l)); T(getgroups(2, g)); T(getgroups(4, g)); T(g[0]); T(g[1]); T(g[2]); T(g[3])));
    W(CHILD(become(1000, 1000); T(getgroups(10, g)); execl("/bin/sh", "sh", "-c", "id -u; id -g; id -G", (char *)0)));
    W(CHILD(prctl(PR_SET_KEEPCAPS, 1); setresuid(5, 5, 5); caps(); T(prctl(PR_GET_KEEPCAPS))));
    /* files of several owners */
    chmod(".", 0777);
    make("mine", 0600, 1000, 1000);
    make("group", 0060, 1, 500);
    make("other", 0006, 1, 1);
    make("nobody", 0000, 1000, 1);
    make("roots", 0644, 0, 0);
    make("owner-not", 0066, 1000, 1000);
    make("run", 0111, 1, 1);
    make("setuid", 06755, 1000, 1000);
    mkdir("sticky", 0);
    chmod("sticky", 01777);
    make("sticky/roots", 0666, 0, 0);
    make("sticky/mine", 0666, 1000, 1000);
    mkdir("closed", 0700);
    make("closed/file", 0666, 0, 0);
    mkdir("search", 0);
    chmod("search", 0711);
    make("search/file", 0666, 0, 0);
    mkdir("setgid", 0);
    chown("setgid", 0, 777);
    chmod("setgid", 02777);
    T(open("nobody", O_RDWR) >= 0);
    T(access("nobody", R_OK|W_OK));
    T(access("nobody", X_OK));
    T(access("run", X_OK));
    W(CHILD(become(1000, 1000);
        T(open("mine", O_RDWR) >= 0); T(open("group", O_RDWR) >= 0); T(open("group", O_RDONLY) >= 0); T(open("other", O_RDWR) >= 0); T(open("nobody", O_RDONLY) >= 0);
        T(open("roots", O_RDONLY) >= 0); T(open("roots", O_WRONLY) >= 0); T(open("roots", O_RDONLY|O_TRUNC) >= 0); T(open("owner-not", O_RDONLY) >= 0);
        T(access("run", X_OK)); T(access("run", R_OK)); T(access("mine", X_OK)); T(faccessat(AT_FDCWD, "roots", W_OK, AT_EACCESS));
        T(open("closed/file", O_RDONLY) >= 0); T(open("closed", O_RDONLY) >= 0); T(open("search/file", O_RDWR) >= 0); T(open("search", O_RDONLY) >= 0); T(open("search/new", O_CREAT|O_RDWR, 0600) >= 0);
        T(chdir("closed")); T(chdir("search")); T(chdir("..")); T(mkdir("search/d", 0700)); T(rmdir("search")); T(unlink("search/file"));
        T(unlink("sticky/roots")); T(rename("sticky/roots", "sticky/r2")); T(rename("sticky/mine", "sticky/m2")); T(unlink("sticky/m2"));
        T(chmod("roots", 0777)); T(chmod("nobody", 0700)); T(chown("nobody", 1000, 500)); T(chown("nobody", 1000, 999)); T(chown("nobody", 1001, -1)); T(chown("roots", 1000, -1)); T(lchown("nobody", -1, -1));
        T(chmod("nobody", 02755)); struct stat s; stat("nobody", &s); T(s.st_mode); T(chmod("mine", 02755)); stat("mine", &s); T(s.st_mode); T(chown("mine", -1, 600)); stat("mine", &s); T(s.st_mode); T(chmod("mine", 02755)); stat("mine", &s); T(s.st_mode); T(chmod("mine", 02600)); 
        T(utimes("roots", 0)); T(utimes("other", 0)); T(utimensat(0, "other", 0, 0)); struct timespec t[2] = {{1, 0}, {2, 0}}; T(utimensat(AT_FDCWD, "other", t, 0)); T(utimensat(AT_FDCWD, "mine", t, 0)); T(utimensat(AT_FDCWD, "closed/file", t, 0));
        T(truncate("roots", 0)); T(link("roots", "hard")); T(symlink("closed", "soft")); T(readlink("closed/x", (char *)g, 9)); T(mknod("dev", S_IFBLK|0600, 1)); T(chroot("."));
        T(open("mine", O_RDONLY|O_NOATIME) >= 0); T(open("roots", O_RDONLY|O_NOATIME) >= 0); fd = open("new", O_CREAT|O_RDWR, 0666); fstat(fd, &s); T(s.st_uid); T(s.st_gid); T(s.st_mode);
        fd = open("setgid/new", O_CREAT|O_RDWR, 02766); fstat(fd, &s); T(s.st_gid); T(s.st_mode); T(mkdir("setgid/d", 0700)); stat("setgid/d", &s); T(s.st_gid); T(s.st_mode);
        T(kill(getppid(), 0)); T(kill(1, SIGCONT)); T(setpriority(PRIO_PROCESS, getppid(), 1)); T(sched_setscheduler(getppid(), SCHED_BATCH, &(struct sched_param){0})); T(syscall(SYS_get_robust_list, getppid(), g, g)); T(prlimit(getppid(), RLIMIT_CPU, 0, (void *)g)); T(getpriority(PRIO_PROCESS, getppid()) >= -20); T(getsid(getppid()) > 0)));
    /* bits that go when the file changes */
    W(CHILD(become(1000, 1000); fd = open("setuid", O_WRONLY); write(fd, "y", 1); struct stat s; fstat(fd, &s); T(s.st_mode); chmod("setuid", 06755); ftruncate(fd, 0); fstat(fd, &s); T(s.st_mode)));
    chmod("setuid", 06755);
    T(chown("setuid", 0, 0));
    show("setuid");
    make("suid", 06755, 0, 0);
    fd = open("suid", O_WRONLY);
    T(write(fd, "z", 1));
    show("suid");
    /* set-user-ID programs */
    char command[100];
    snprintf(command, sizeof command, "cp /bin/busybox id; chown 33:44 id; chmod 6755 id");
    W(system(command));
    W(CHILD(become(1000, 1000); execl("./id", "id", "-u", (char *)0); _exit(errno)));
    W(CHILD(become(1000, 1000); execl("./id", "id", "-g", (char *)0); _exit(errno)));
    W(CHILD(become(1000, 1000); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); execl("./id", "id", "-u", (char *)0); _exit(errno)));
    W(CHILD(become(1000, 1000); execl("./mine", "id", (char *)0); _exit(errno)));
    /* processes */
    W(CHILD(struct rlimit l = {0, 0}; setrlimit(RLIMIT_NPROC, &l); become(2345, 2345); T(fork())));
    W(CHILD(struct rlimit l = {0, 0}; setrlimit(RLIMIT_NPROC, &l); pid_t p = fork(); if (!p) _exit(0); T(p > 0); T(waitpid(p, &st, 0) == p)));
    W(CHILD(become(1000, 1000); pid_t p = fork(); if (!p) { pause(); } T(kill(p, SIGTERM)); T(waitpid(p, &st, 0) == p); W(st)));
    fflush(stdout);
    pid_t p = fork();
    if (!p) for (;;) pause();
    W(CHILD(setresuid(0, 1000, 1000); T(kill(p, 0)); T(kill(p, SIGCONT))));
    W(CHILD(setresuid(1000, 1000, 0); T(kill(p, 0))));
    W(CHILD(setresuid(1000, 0, 1000); T(kill(p, 0))));
    kill(p, 9);
    waitpid(p, &st, 0);
    char self[200] = {0};
    readlink("/proc/self/exe", self, 199);
    capabilities(self);
    return 0;
}

/* What kinds of file systems there are and what room is in them, by calls of old; and swap areas that cannot be had. */
#include "check.h"
#include <sys/swap.h>
#include <sys/vfs.h>
#define USTAT SYS_ustat
#define SYSFS SYS_sysfs

static int kind(const char *name) {
    char found[64] = "";
    int n = syscall(SYSFS, 1, name);
    if (n < 0 || syscall(SYSFS, 2, n, found)) return -1;
    return strcmp(name, found);
}

static void kinds(void) {
    char one[64];
    T(syscall(SYSFS, 3) > 3);
    T(kind("proc"));
    T(kind("tmpfs"));
    T(kind("sysfs"));
    T(syscall(SYSFS, 1, "nothing"));
    T(syscall(SYSFS, 1, 1));
    T(syscall(SYSFS, 2, 1000, one));
    T(syscall(SYSFS, 2, -1, one));
    T(syscall(SYSFS, 2, 0, 1));
    T(syscall(SYSFS, 0));
    T(syscall(SYSFS, 4));
}

static void room(void) {
    struct { int blocks; unsigned long files; char names[12]; } u;
    struct stat at;
    struct statfs all;
    stat(".", &at);
    statfs(".", &all);
    memset(&u, 1, sizeof u);
    T(syscall(USTAT, (unsigned)at.st_dev, &u));
    T(u.files <= (unsigned long)all.f_files);
    T(u.names[0]);
    T(u.names[6]);
    T(syscall(USTAT, (unsigned)at.st_dev, 1));
    T(syscall(USTAT, 0, &u));
    T(syscall(USTAT, -1, &u));
}

static void swap(void) {
    T(swapon("nothing", 0));
    T(swapoff("nothing"));
    T(swapon((void *)1, 0));
    T(swapoff((void *)1));
    T(swapon("", 0));
    int fd = open("file", O_CREAT|O_RDWR, 0600);
    ftruncate(fd, 40960);
    close(fd);
    T(swapon("file", 0));
    T(swapon("file", 1<<20));
    T(swapoff("file"));
    T(swapon("file/x", 0));
    T(swapoff("file/x"));
    T(swapon(".", 0));
    T(swapoff("."));
    mkfifo("fifo", 0600);
    T(swapoff("/dev/null"));
    W(CHILD(setuid(65534); _exit(swapon("nothing", 0) ? errno : 0)));
    W(CHILD(setuid(65534); _exit(swapoff("nothing") ? errno : 0)));
    W(CHILD(setuid(65534); _exit(swapon("nothing", 1<<20) ? errno : 0)));
}

int main(void) {
    kinds();
    room();
    swap();
    return 0;
}

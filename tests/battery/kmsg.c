/* The kernel's log. What is in it is everybody's own, and so are most answers of who may read it: checked is what a record of one's own becomes, and
 * what is refused whatever there is. */
#include "check.h"
#include <poll.h>
#include <sys/klog.h>

static char line[8192];
/* The record with this text, as far as it does not differ from run to run. */
static int find(int fd, const char *text) {
    for (;;) {
        ssize_t n = read(fd, line, sizeof line - 1);
        if (n < 0 && errno == EPIPE) continue;
        if (n < 0) return -1;
        line[n] = 0;
        char *at = strchr(line, ';');
        if (at && !strncmp(at + 1, text, strlen(text))) {
            printf(FAMILY ".record: %d %c%s", atoi(line), at[-1], at);
            fflush(stdout);
            return 0;
        }
    }
}
/* Write it until it is there: Linux drops what comes too fast. */
static int said(int out, int fd, const char *what, const char *text) {
    for (int tries = 0; tries < 60; tries++) {
        if (write(out, what, strlen(what)) != (ssize_t)strlen(what)) return -1;
        if (!find(fd, text)) return 0;
        usleep(500000);
    }
    return -1;
}

int main(void) {
    if (getuid() != 0) {
        T(syscall(SYS_syslog, 3, line, -1) == -1 && (errno == EPERM || errno == EINVAL));
        T(syscall(SYS_syslog, 2, line, 10));
        T(syscall(SYS_syslog, 5, 0, 0));
        T(syscall(SYS_syslog, 9, 0, 0));
        T(syscall(SYS_syslog, 99, 0, 0));
        T(open("/dev/kmsg", O_WRONLY));
        return 0;
    }
    T(syscall(SYS_syslog, 0, 0, 0));
    T(syscall(SYS_syslog, 1, 0, 0));
    T(syscall(SYS_syslog, -1, 0, 0));
    T(syscall(SYS_syslog, 11, 0, 0));
    for (int what = 2; what < 5; what++) {
        N("no place", what, syscall(SYS_syslog, what, 0, 10));
        N("a negative length", what, syscall(SYS_syslog, what, line, -1));
        N("nothing", what, syscall(SYS_syslog, what, line, 0));
        N("a wild place", what, syscall(SYS_syslog, what, -4096, 10));
    }
    T(syscall(SYS_syslog, 8, 0, 0));
    T(syscall(SYS_syslog, 8, 0, 9));
    T(syscall(SYS_syslog, 8, 0, -1));
    T(syscall(SYS_syslog, 9, 0, 0) >= 0);
    T(syscall(SYS_syslog, 10, 0, 0) >= 4096);
    int fd, out;
    P(fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK));
    P(out = open("/dev/kmsg", O_WRONLY));
    T(lseek(fd, 0, SEEK_END));
    T(lseek(fd, 0, SEEK_CUR));
    T(lseek(fd, 1, SEEK_SET));
    T(lseek(fd, 0, 9));
    T(read(out, line, 10));
    T(write(fd, line, 10));
    T(said(out, fd, "battery: one\n", "battery: one"));
    T(said(out, fd, "<3>battery: grave\n", "battery: grave"));
    T(said(out, fd, "<12>battery: of its own\n", "battery: of its own"));
    T(said(out, fd, "<30>battery: a daemon\n", "battery: a daemon"));
    T(said(out, fd, "<x>battery: no number\n", "<x>battery: no number"));
    T(lseek(fd, 0, SEEK_SET));
    T(find(fd, "battery: one"));
    T(read(fd, line, 5));
    memset(line, 'x', 5000);
    T(write(out, line, 5000));
    struct pollfd p = {fd, POLLIN};
    T(lseek(fd, 0, SEEK_SET));
    T(poll(&p, 1, 0));
    T(p.revents);
    struct stat st;
    T(fstat(fd, &st));
    T(st.st_mode);
    T(st.st_rdev);
    T(mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED);
    /* As text. */
    static char text[1 << 20];
    int n = klogctl(3, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    T(n > 0);
    char *at = strstr(text, "battery: of its own");
    while (at && at > text && at[-1] != '\n') at--;
    T(at && at[0] == '<' && at[1] == '1' && at[2] == '2' && at[3] == '>');
    close(fd), close(out);
    W(CHILD(setresuid(77, 77, 77); _exit(klogctl(2, text, 10) ? errno : 0)));
    W(CHILD(setresuid(77, 77, 77); _exit(klogctl(5, 0, 0) ? errno : 0)));
    W(CHILD(setresuid(77, 77, 77); _exit(klogctl(99, 0, 0) ? errno : 0)));
    W(CHILD(setresuid(77, 77, 77); _exit(open("/dev/kmsg", O_WRONLY) < 0 ? errno : 0)));
    return 0;
}

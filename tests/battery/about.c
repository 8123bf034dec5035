/* What /proc says of the process that asks. */
#include "check.h"
#include <ctype.h>
#include <dirent.h>
static char text[1 << 16], own[32];
/* A file of /proc/self, the process's own number in it being @. */
static char *file(const char *path) {
    int fd = open(path, O_RDONLY), len = 0, n;
    if (fd < 0) return strerrorname_np(errno);
    while ((n = read(fd, text + len, sizeof text - 1 - len)) > 0) len += n;
    close(fd);
    text[len] = 0;
    char number[40];
    sprintf(number, ".%s\n", own);
    for (char *at; (at = strstr(text, number));) { *at = '@'; memmove(at + 1, at + strlen(number) - 1, strlen(at + strlen(number) - 1) + 1); }
    for (char *at = text; *at; at++) if (*at == '\n') *at = ';';
    return text;
}
static char *last_line(const char *path) {
    file(path);
    char *end = text + strlen(text);
    if (end > text) *--end = 0;
    char *at = strrchr(text, ';');
    return at ? at + 1 : text;
}
int main(void) {
    sprintf(own, "%d", getpid());
    S(file("/proc/self/timers"));
    timer_t t[5];
    struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_ptr = (void*)0x1234 };
    T(timer_create(CLOCK_MONOTONIC, &e, &t[0]));
    e.sigev_notify = SIGEV_NONE;
    T(timer_create(CLOCK_REALTIME, &e, &t[1]));
    e.sigev_notify = 4;
    e._sigev_un._tid = getpid();
    e.sigev_value.sival_ptr = (void*)-1;
    T(timer_create(CLOCK_PROCESS_CPUTIME_ID, &e, &t[2]));
    T(timer_create(CLOCK_THREAD_CPUTIME_ID, 0, &t[3]));
    T(timer_create(CLOCK_BOOTTIME, 0, &t[4]));
    S(file("/proc/self/timers"));
    T(timer_delete(t[1]));
    S(file("/proc/self/timers"));
    char path[64];
    sprintf(path, "/proc/self/task/%s/timers", own);
    S(file(path));
    int status;
    if (!fork()) { sprintf(own, "%d", getpid()); S(file("/proc/self/timers")); _exit(0); }
    wait(&status);
    /* The page that is nobody's ends what is told of memory. */
    S(last_line("/proc/self/maps"));
    S(last_line("/proc/self/smaps"));
    T(strstr(last_line("/proc/self/numa_maps"), "vsyscall") != 0);
    T(strstr(file("/proc/self/smaps_rollup"), "vsyscall") != 0);
    int fd = open("/proc/self/maps", O_RDONLY);
    T(lseek(fd, 0, SEEK_SET));
    int len = 0, n, lines = 0;
    while ((n = read(fd, text, 7)) > 0) { len += n; for (int i = 0; i < n; i++) lines += text[i] == '\n'; }
    T(n); T(read(fd, text, 7));
    T(lseek(fd, 0, SEEK_SET)); T(read(fd, text, 1));
    T(pread(fd, text, sizeof text, 0) == len); T(pread(fd, text, 100, len));
}

/* Some of every kind of file, and what is in one. */
#include "check.h"

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

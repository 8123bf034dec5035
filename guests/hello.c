// A static program as a compiler makes it from the first page of the book.
#include <stdio.h>
#include <sys/reboot.h>
#include <unistd.h>

int main(void) {
    puts("hello");
    // The first program of another kernel cannot just end: switch off.
    if (getpid() == 1) {
        fflush(stdout);
        reboot(RB_AUTOBOOT);
    }
    return 0;
}

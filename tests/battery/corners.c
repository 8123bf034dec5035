/* What Linux's own tests of itself found: things that few programs ask for, of many kinds. */
#include "check.h"

#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/mman.h>

#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY 1027
#endif
#ifndef F_CREATED_QUERY
#define F_CREATED_QUERY 1028
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 32
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8
#endif

static void descriptors(void) {
    int fd = open("made", O_CREAT | O_RDWR, 0600), again = open("made", O_CREAT | O_RDWR, 0600), copy = dup(fd);
    T(fcntl(fd, F_CREATED_QUERY, 0));
    T(fcntl(copy, F_CREATED_QUERY, 0));
    T(fcntl(again, F_CREATED_QUERY, 0));
    int unnamed = open(".", O_TMPFILE | O_RDWR, 0600);
    T(fcntl(unnamed, F_CREATED_QUERY, 0));
    T(fcntl(fd, F_DUPFD_QUERY, copy));
    T(fcntl(fd, F_DUPFD_QUERY, again));
    T(fcntl(fd, F_DUPFD_QUERY, fd));
    T(fcntl(fd, F_DUPFD_QUERY, 999));
    T(fcntl(999, F_DUPFD_QUERY, fd));
    T(fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
    T(fcntl(fd, F_GETFL) & (O_ASYNC | O_NONBLOCK));
    close(unnamed), close(again), close(copy), close(fd);
}

static void told(int fd, const char *key) {
    char path[64], line[200];
    sprintf(path, "/proc/self/fdinfo/%d", fd);
    FILE *f = fopen(path, "r");
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            printf(FAMILY ".fdinfo %s", line);
    fclose(f);
}

static void fdinfo(void) {
    int fd = eventfd(3, EFD_SEMAPHORE);
    told(fd, "eventfd-count");
    told(fd, "eventfd-semaphore");
    close(fd);
    told(fd = eventfd(0x1234567, 0), "eventfd-count");
    told(fd, "eventfd-semaphore");
    close(fd);
    fflush(stdout);
}

static void barriers(void) {
    T(syscall(SYS_membarrier, 0, 0) & 1 << 9);
    T(syscall(SYS_membarrier, 0, 0) & (1 << 5 | 1 << 6));
    T(syscall(SYS_membarrier, 1 << 9, 0));
    T(syscall(SYS_membarrier, 1 << 5, 0));
    T(syscall(SYS_membarrier, 1 << 6, 0));
    T(syscall(SYS_membarrier, 1 << 9, 0));
    T(syscall(SYS_membarrier, 1 << 5, 0));
    T(syscall(SYS_membarrier, 1 << 2, 0));
    T(syscall(SYS_membarrier, 1 << 4, 0));
    T(syscall(SYS_membarrier, 1 << 9, 0));
    W(CHILD(_exit(syscall(SYS_membarrier, 1 << 9, 0) != 0)));
}

static void message_copies(void) {
    struct { long type; char text[16]; } m = {7, "seven"};
    int id = msgget(IPC_PRIVATE, 0600);
    T(msgrcv(id, &m, 16, 0, MSG_COPY | IPC_NOWAIT));
    m.type = 7, strcpy(m.text, "seven");
    T(msgsnd(id, &m, 6, 0));
    m.type = 8, strcpy(m.text, "eight");
    T(msgsnd(id, &m, 6, 0));
    T(msgrcv(id, &m, 16, 0, MSG_COPY));
    T(msgrcv(id, &m, 16, 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT));
    T(msgrcv(id, &m, 16, 1, MSG_COPY | IPC_NOWAIT));
    T(m.type);
    S(m.text);
    T(msgrcv(id, &m, 2, 0, MSG_COPY | IPC_NOWAIT));
    T(msgrcv(id, &m, 2, 0, MSG_COPY | IPC_NOWAIT | MSG_NOERROR));
    T(msgrcv(id, &m, 16, 0, MSG_COPY | IPC_NOWAIT));
    T(m.type);
    S(m.text);
    T(msgrcv(id, &m, 16, 2, MSG_COPY | IPC_NOWAIT));
    T(msgrcv(id, &m, 16, -1, MSG_COPY | IPC_NOWAIT));
    T(msgrcv(id, &m, 16, 0, IPC_NOWAIT));
    T(m.type);
    T(msgrcv(id, &m, 16, 0, IPC_NOWAIT));
    T(msgrcv(id, &m, 16, 0, IPC_NOWAIT));
    msgctl(id, IPC_RMID, 0);
}

static void seals(void) {
    int fd = memfd_create("run", MFD_ALLOW_SEALING);
    struct stat st;
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_EXEC));
    T(fcntl(fd, F_GET_SEALS));
    T(fchmod(fd, 0666));
    T(fchmod(fd, 0555));
    T(fchmod(fd, 0711));
    T(fstat(fd, &st) ?: st.st_mode & 0777);
    T(write(fd, "x", 1));
    T(ftruncate(fd, 10));
    close(fd);
    fd = memfd_create("data", MFD_NOEXEC_SEAL);
    T(fcntl(fd, F_GET_SEALS));
    T(fstat(fd, &st) ?: st.st_mode & 0777);
    T(fchmod(fd, 0777));
    T(fchmod(fd, 0600));
    T(write(fd, "x", 1));
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    T(fcntl(fd, F_GET_SEALS));
    close(fd);
}

int main(void) {
    descriptors();
    fdinfo();
    barriers();
    message_copies();
    seals();
}

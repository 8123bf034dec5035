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

/* Of several things that are wrong, which is told. */
static void orders(void) {
    const int nobody = 0x3fffffff;
    char *edge = mmap(0, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
    struct sched_param none = {0};
    siginfo_t info = {0};
    stack_t stack = {0};
    munmap(edge + 4096, 4096);
    T(kill(nobody, 65));
    T(kill(-nobody, 65));
    T(kill(getpid(), 65));
    T(syscall(SYS_tkill, nobody, 65));
    T(syscall(SYS_tkill, -1, 65));
    T(syscall(SYS_tgkill, nobody, nobody, 65));
    T(syscall(SYS_rt_sigqueueinfo, nobody, 65, &info));
    T(syscall(SYS_rt_tgsigqueueinfo, nobody, -1, 1, &info));
    T(syscall(SYS_rt_tgsigqueueinfo, nobody, nobody, 1, &info));
    T(sigaltstack(&stack, 0));
    T(syscall(SYS_sched_setscheduler, -1, 0, 8));
    T(syscall(SYS_sched_setscheduler, 0, 6, &none));
    T(syscall(SYS_sched_setparam, -1, 8));
    T(syscall(SYS_sched_setattr, -1, 8, 0));
    T(syscall(SYS_sched_setaffinity, nobody, 0, -1L));
    T(setpgid(-1, 5));
    T(setpgid(-1, 0));
    T(setpgid(-1, -1));
    T(syscall(SYS_timer_create, 100, 8, 0));
    T(syscall(SYS_timer_create, 100, 0, 0));
    T(syscall(SYS_clock_adjtime, 100, 8));
    T(syscall(SYS_getrandom, edge + 4090, 100, 0));
    T(syscall(SYS_getrandom, edge + 4096, 100, 0));
    int fd = open("few", O_CREAT|O_RDWR, 0600), self = syscall(SYS_pidfd_open, getpid(), 0);
    T(syscall(SYS_readahead, fd, 0, -1L));
    T(syscall(SYS_readahead, fd, 0, 10));
    T(syscall(SYS_sendfile, -1, -1, 8, 1));
    T(syscall(SYS_sendfile, -1, -1, 0, 1));
    T(syscall(SYS_pidfd_send_signal, self, 0, 0, 1));
    T(syscall(SYS_pidfd_send_signal, self, 0, 0, 2));
    T(syscall(SYS_pidfd_send_signal, self, 0, 0, 3));
    T(syscall(SYS_pidfd_send_signal, self, 0, 0, 8));
    /* A child that leads its group, and who is in it. */
    W(CHILD(setpgid(0, 0); int leader = syscall(SYS_pidfd_open, getpid(), 0), status; signal(SIGTERM, SIG_IGN);
        pid_t member = fork();
        if (!member) { signal(SIGTERM, SIG_DFL); for (;;) pause(); }
        do syscall(SYS_pidfd_send_signal, leader, SIGTERM, 0, 4); while (waitpid(member, &status, WNOHANG) == 0);
        T(WTERMSIG(status))));
    close(fd);
    close(self);
}

int main(void) {
    descriptors();
    fdinfo();
    barriers();
    message_copies();
    seals();
    orders();
}

/* System V: shared memory, semaphores, messages. */
#include "check.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

union arg {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
    struct seminfo *__buf;
};
struct text {
    long type;
    char words[100];
};
static int op(int id, int num, int by, int flags) {
    struct sembuf b = {num, by, flags};
    return semop(id, &b, 1);
}
static int set(int id, int num, int value) {
    return semctl(id, num, SETVAL, (union arg){.val = value});
}

/* Until the process sleeps in the call that it was made for. */
static void asleep(pid_t p) {
    char name[32], line[256];
    snprintf(name, sizeof name, "/proc/%d/stat", p);
    for (char state = 0; state != 'S'; usleep(1000)) {
        int fd = open(name, O_RDONLY);
        long n = read(fd, line, sizeof line - 1);
        close(fd);
        line[n > 0 ? n : 0] = 0;
        char *at = strrchr(line, ')');
        state = at && at[1] ? at[2] : 0;
    }
}

int main(void) {
    int id, st;
    struct shmid_ds ds;
    /* shared memory */
    T(shmget(IPC_PRIVATE, 0, IPC_CREAT|0600));
    T(shmget(0x5eed1, 4096, 0));
    T((id = shmget(0x5eed1, 5000, IPC_CREAT|IPC_EXCL|0600)) >= 0);
    T(shmget(0x5eed1, 4096, IPC_CREAT|IPC_EXCL|0600));
    T(shmget(0x5eed1, 4096, 0) == id);
    T(shmget(0x5eed1, 0, 0) == id);
    T(shmget(0x5eed1, 10000, 0));
    T(shmctl(id, IPC_STAT, &ds));
    T(ds.shm_segsz);
    T(ds.shm_nattch);
    T(ds.shm_perm.mode);
    T(ds.shm_cpid == getpid());
    T(ds.shm_perm.uid == getuid());
    char *a = shmat(id, 0, 0), *b;
    T(a != (void *)-1);
    T(a[0]);
    a[4999] = 7;
    a[8191] = 9;
    b = shmat(id, 0, SHM_RDONLY);
    T(b != a);
    T(b[4999]);
    T(shmctl(id, IPC_STAT, &ds));
    T(ds.shm_nattch);
    T(ds.shm_lpid == getpid());
    T(shmat(id, (void *)((long)a + 1), 0) == (void *)-1 ? errno : 0);
    T(shmat(id, a, 0) == (void *)-1 ? errno : 0);
    T(shmat(999999, 0, 0) == (void *)-1 ? errno : 0);
    catch_();
    WR(b);
    W(CHILD(shmctl(id, IPC_STAT, &ds); T(ds.shm_nattch); a[0] = 42));
    T(a[0]);
    shmctl(id, IPC_STAT, &ds);
    T(ds.shm_nattch);
    T(shmdt(b));
    T(shmdt(b));
    T(shmdt(a + 4096));
    T(shmctl(id, IPC_RMID, 0));
    shmctl(id, IPC_STAT, &ds);
    T(ds.shm_perm.mode & 01000);
    T(shmget(0x5eed1, 4096, 0));
    T(a[0]);
    T(shmdt(a));
    T(shmctl(id, IPC_STAT, &ds));
    T(shmctl(id, IPC_RMID, 0));
    T(shmctl(-1, IPC_STAT, &ds));
    id = shmget(IPC_PRIVATE, 4096, 0600);
    T(shmctl(id, IPC_STAT, (void *)8));
    T(shmctl(id, 99, &ds));
    ds.shm_perm.mode = 0640;
    ds.shm_perm.uid = getuid();
    ds.shm_perm.gid = getgid();
    T(shmctl(id, IPC_SET, &ds));
    T(shmctl(id, IPC_STAT, &ds));
    T(ds.shm_perm.mode);
    a = shmat(id, 0, 0);
    a[1] = 5;
    b = shmat(id, a, SHM_REMAP);
    T(a == b);
    T(a[1]);
    T(shmdt(a));
    T(shmctl(id, IPC_RMID, 0));
    struct shminfo si;
    T(shmctl(0, IPC_INFO, (void *)&si) >= 0);
    T(si.shmmni);
    /* semaphores */
    struct semid_ds sd;
    union arg arg = {.buf = &sd};
    unsigned short values[3] = {1, 2, 3}, got[3];
    T(semget(IPC_PRIVATE, 0, 0600));
    T(semget(IPC_PRIVATE, -1, 0600));
    T(semget(IPC_PRIVATE, 1 << 20, 0600));
    T(semget(0x5eed2, 1, 0));
    T((id = semget(0x5eed2, 3, IPC_CREAT|IPC_EXCL|0600)) >= 0);
    T(semget(0x5eed2, 3, IPC_CREAT|IPC_EXCL|0600));
    T(semget(0x5eed2, 2, 0) == id);
    T(semget(0x5eed2, 4, 0));
    T(semctl(id, 0, IPC_STAT, arg));
    T(sd.sem_nsems);
    T(semctl(id, 0, SETALL, (union arg){.array = values}));
    T(semctl(id, 0, GETALL, (union arg){.array = got}));
    T(got[2]);
    T(semctl(id, 1, GETVAL));
    T(set(id, 1, 5));
    T(semctl(id, 1, GETVAL));
    T(set(id, 1, -1));
    T(set(id, 1, 40000));
    T(set(id, 3, 1));
    T(semctl(id, 3, GETVAL));
    T(semctl(id, 1, GETPID) == getpid());
    T(semctl(id, 0, 99));
    struct seminfo info;
    arg.__buf = &info;
    T(semctl(0, 0, IPC_INFO, arg) >= 0);
    T(info.semmni);
    T(info.semmsl);
    T(info.semopm);
    T(info.semvmx);
    T(op(id, 0, -1, 0));
    T(op(id, 0, -1, IPC_NOWAIT));
    T(op(id, 0, 0, IPC_NOWAIT));
    T(op(id, 1, 0, IPC_NOWAIT));
    T(op(id, 1, 32767, 0));
    T(op(id, 9, 1, 0));
    T(op(999999, 0, 1, 0));
    T(semop(id, 0, 0));
    T(semop(id, (void *)8, 1));
    T(semop(id, (void *)8, 100000));
    struct sembuf two[2] = {{0, 1, 0}, {1, -6, IPC_NOWAIT}};
    T(semop(id, two, 2));
    T(semctl(id, 0, GETVAL));
    two[1].sem_op = -5;
    T(semop(id, two, 2));
    T(semctl(id, 0, GETVAL));
    T(semctl(id, 1, GETVAL));
    struct timespec ts = {0, 10000000};
    T(syscall(SYS_semtimedop, id, &(struct sembuf){1, -1, 0}, 1, &ts));
    ts.tv_nsec = -1;
    T(syscall(SYS_semtimedop, id, &(struct sembuf){1, -1, 0}, 1, &ts));
    W(CHILD(T(op(id, 2, -2, SEM_UNDO)); T(semctl(id, 2, GETVAL))));
    T(semctl(id, 2, GETVAL));
    fflush(stdout);
    pid_t p = fork();
    if (!p) _exit(op(id, 1, -1, 0) ? errno : 0);
    while (semctl(id, 1, GETNCNT) != 1) usleep(1000);
    T(op(id, 1, 1, 0));
    waitpid(p, &st, 0);
    W(st);
    p = fork();
    if (!p) _exit(op(id, 2, 0, 0) ? errno : 0);
    while (semctl(id, 2, GETZCNT) != 1) usleep(1000);
    T(set(id, 2, 0));
    waitpid(p, &st, 0);
    W(st);
    p = fork();
    if (!p) _exit(op(id, 1, -1, 0) ? errno : 0);
    while (semctl(id, 1, GETNCNT) != 1) usleep(1000);
    T(semctl(id, 0, IPC_RMID));
    waitpid(p, &st, 0);
    N("waiting at the removal", EIDRM, WEXITSTATUS(st));
    T(semctl(id, 0, IPC_RMID));
    T(op(id, 0, 1, 0));
    /* messages */
    struct msqid_ds md;
    struct text t = {1, "hello"}, in;
    T(msgget(0x5eed3, 0));
    T((id = msgget(0x5eed3, IPC_CREAT|IPC_EXCL|0600)) >= 0);
    T(msgget(0x5eed3, IPC_CREAT|IPC_EXCL|0600));
    T(msgget(0x5eed3, 0) == id);
    T(msgrcv(id, &in, 100, 0, IPC_NOWAIT));
    T(msgsnd(id, &t, 6, 0));
    t.type = 0;
    T(msgsnd(id, &t, 6, 0));
    t.type = -1;
    T(msgsnd(id, &t, 6, 0));
    t.type = 1;
    T(msgsnd(id, &t, -1, 0));
    T(msgsnd(id, &t, 100000, 0));
    T(msgsnd(id, (void *)8, 6, 0));
    T(msgsnd(999999, &t, 6, 0));
    t.type = 3;
    strcpy(t.words, "three");
    T(msgsnd(id, &t, 6, 0));
    t.type = 2;
    strcpy(t.words, "second");
    T(msgsnd(id, &t, 7, 0));
    T(msgctl(id, IPC_STAT, &md));
    T(md.msg_qnum);
    T(md.msg_cbytes);
    T(md.msg_qbytes);
    T(md.msg_lspid == getpid());
    T(msgrcv(id, &in, 3, 0, 0));
    T(msgrcv(id, &in, 3, 0, MSG_NOERROR));
    T(in.type);
    T(msgrcv(id, &in, 100, 9, IPC_NOWAIT));
    T(msgrcv(id, &in, 100, -2, IPC_NOWAIT));
    T(in.type);
    S(in.words);
    T(msgrcv(id, &in, 100, 2, MSG_EXCEPT|IPC_NOWAIT));
    T(in.type);
    T(msgrcv(id, &in, 100, 0, IPC_NOWAIT));
    T(msgrcv(id, &in, -1, 0, IPC_NOWAIT));
    fflush(stdout);
    p = fork();
    if (!p) {
        long n = msgrcv(id, &in, 100, 5, 0);
        _exit(n == 4 && in.type == 5 ? 0 : 1);
    }
    t.type = 4;
    T(msgsnd(id, &t, 3, 0));
    t.type = 5;
    T(msgsnd(id, &t, 4, 0));
    waitpid(p, &st, 0);
    W(st);
    t.type = 1;
    long sent = 0;
    while (msgsnd(id, &t, 100, IPC_NOWAIT) == 0) sent++;
    T(errno == EAGAIN);
    T(sent);
    p = fork();
    if (!p) _exit(msgsnd(id, &t, 100, 0) ? errno : 0);
    asleep(p);
    T(msgctl(id, IPC_RMID, 0));
    waitpid(p, &st, 0);
    N("waiting at the removal", EIDRM, WEXITSTATUS(st));
    T(msgctl(id, IPC_STAT, &md));
    T(msgrcv(id, &in, 100, 0, 0));
    return 0;
}

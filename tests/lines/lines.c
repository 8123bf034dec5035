// A plugin for QEMU: which cache lines does the kernel write from more than one CPU?
//
//   gcc -O2 -shared -fPIC -o lines.so tests/lines/lines.c
//   hafez run --cpus 2 --qemu-arg=-plugin --qemu-arg=./lines.so,out=lines.txt -- PROGRAM
//
// Each store by kernel code notes, for the line it goes to, who wrote there last. Where that was another CPU the line has moved,
// and the move is counted for the pair of instructions: the one that wrote before, and the one that writes now. The programs' own
// stores are not looked at.
//
// A program can say which part of its work is to be looked at: the instruction `nopl 0x48610000+N(%rax)` begins part N. What
// was written before a part does not count in it, so a line that is only new to a CPU does not either. Part 0 is what is outside.
//
// Written out: for each part `part N MOVES`, then the moves, most first: part, moves, address of a line, and the two
// instructions (addr2line -e KERNEL -i -f ADDRESS tells the source).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// From QEMU's plugin interface, version 1: what is used of it.
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t plugin_id;
typedef uint32_t plugin_meminfo;
enum { MEMORY_WRITE = 2, NO_REGISTERS = 0 };
int qemu_plugin_version = 1;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t at);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*call)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, void (*call)(unsigned, void *), int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
                                      void (*call)(unsigned, plugin_meminfo, uint64_t, void *), int flags, int rw, void *data);
_Bool qemu_plugin_mem_is_store(plugin_meminfo info);
struct qemu_plugin_hwaddr;
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(plugin_meminfo info, uint64_t address);
_Bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *where);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*call)(plugin_id, void *), void *data);

enum { LINES = 1 << 20, PAIRS = 1 << 14, PARTS = 16 };
static const uint64_t KERNEL_HALF = 0xffff800000000000, KERNEL_CODE = 0xffffffff80000000;

// Several CPUs write here at once; a count lost now and then does not matter.
static struct { uint64_t line, by, at, part; } lines[LINES];
static struct { uint64_t before, now, line, part, moves; } pairs[PAIRS];
static _Atomic uint64_t moves[PARTS], part;
static char *out = "lines.txt";

static void moved(uint64_t line, uint64_t before, uint64_t now, uint64_t in) {
    uint64_t at = ((before * 31 + now) * 31 + in) * 0x9e3779b97f4a7c15 >> 50;
    moves[in]++;
    for (int tries = 0; tries < 64; tries++, at = (at + 1) % PAIRS) {
        if (!pairs[at].moves) pairs[at].before = before, pairs[at].now = now, pairs[at].part = in;
        if (pairs[at].before != before || pairs[at].now != now || pairs[at].part != in) continue;
        pairs[at].line = line;
        pairs[at].moves++;
        return;
    }
}

static void stored(unsigned unused, plugin_meminfo info, uint64_t address, void *from) {
    // Each CPU is a thread of QEMU's.
    static _Atomic uint64_t cpus;
    static __thread uint64_t cpu;
    (void)unused;
    if (!cpu) cpu = ++cpus;
    if (address < KERNEL_HALF || !qemu_plugin_mem_is_store(info)) return;
    uint64_t line = address >> 6, at = line * 0x9e3779b97f4a7c15 >> 44, in = part;
    if (lines[at].line == line && lines[at].by != cpu && lines[at].part == in) {
        // A register of a device is no memory: each CPU has its own interrupt controller at the same address.
        const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, address);
        if (where && qemu_plugin_hwaddr_is_io(where)) return;
        moved(line << 6, lines[at].at, (uint64_t)from, in);
    }
    lines[at].line = line;
    lines[at].by = cpu;
    lines[at].at = (uint64_t)from;
    lines[at].part = in;
}

static void marked(unsigned unused, void *number) {
    (void)unused;
    part = (uint64_t)number;
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
    static const uint8_t nopl[3] = {0x0f, 0x1f, 0x80};
    (void)id;
    for (size_t n = 0; n < qemu_plugin_tb_n_insns(tb); n++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, n);
        uint64_t from = qemu_plugin_insn_vaddr(insn);
        if (from >= KERNEL_CODE) qemu_plugin_register_vcpu_mem_cb(insn, stored, NO_REGISTERS, MEMORY_WRITE, (void *)from);
        if (from >= KERNEL_CODE || qemu_plugin_insn_size(insn) != 7) continue;
        const uint8_t *bytes = qemu_plugin_insn_data(insn);
        uint32_t mark;
        memcpy(&mark, bytes + sizeof nopl, sizeof mark);
        if (!memcmp(bytes, nopl, sizeof nopl) && mark - 0x48610000 < PARTS)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS, (void *)(uintptr_t)(mark - 0x48610000));
    }
}

static int most(const void *a, const void *b) {
    const uint64_t x = ((const uint64_t *)a)[4], y = ((const uint64_t *)b)[4];
    return x < y ? 1 : x > y ? -1 : 0;
}

static void ended(plugin_id id, void *data) {
    (void)id, (void)data;
    FILE *file = fopen(out, "w");
    if (!file) return;
    for (int n = 0; n < PARTS; n++) fprintf(file, "part %d %llu\n", n, (unsigned long long)moves[n]);
    qsort(pairs, PAIRS, sizeof *pairs, most);
    for (int n = 0; n < PAIRS && pairs[n].moves; n++)
        fprintf(file, "%llu %8llu line %llx: %llx after %llx\n", (unsigned long long)pairs[n].part,
                (unsigned long long)pairs[n].moves, (unsigned long long)pairs[n].line, (unsigned long long)pairs[n].now,
                (unsigned long long)pairs[n].before);
    fclose(file);
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info;
    for (int n = 0; n < argc; n++)
        if (!strncmp(argv[n], "out=", 4)) out = strdup(argv[n] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, 0);
    return 0;
}

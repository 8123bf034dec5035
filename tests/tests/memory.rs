//! Programs in less memory than they need: everything still right, and little kept by the kernel.
//!
//! The ignored ones take minutes under emulation; `cargo xtask test --all` runs them.

use hafez_tests::{Hafez, Scratch, guest, text};
use std::path::Path;

fn word(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Checks every word of MIB of memory, ROUNDS times over.
fn overcommit(memory: &str, mib: &str, rounds: &str, seconds: u64) {
    let program = guest("overcommit");
    let outcome =
        Hafez::with(&["-m", memory, "--swap", "512M"]).seconds(seconds).same(&[word(&program), mib, rounds]);
    assert!(outcome.good().text().contains(" wrong 0 "));
}

#[test]
fn every_word_is_right_at_four_times_the_memory() {
    overcommit("16M", "64", "1", 200);
}

#[test]
#[ignore = "long"]
fn every_word_is_right_at_four_times_the_memory_over_a_million_visits() {
    overcommit("64M", "256", "20", 1800);
}

#[test]
#[ignore = "long"]
fn every_word_is_right_at_eight_times_the_memory_over_a_million_visits() {
    overcommit("32M", "256", "20", 3600);
}

#[test]
fn the_least_memory_is_enough() {
    for program in [word(&guest("hello")), "/bin/echo"] {
        Hafez::memory("4M").run(&[program]).good();
    }
}

/// Whatever grows with RAM must fit at the start, when there is next to no heap yet. (QEMU takes of the host what is touched.)
#[test]
fn much_memory_starts_too() {
    for memory in ["6G", "12G"] {
        Hafez::with(&["-m", memory, "--swap", "0"]).run(&[word(&guest("hello"))]).good();
    }
}

#[test]
fn without_swap_58_of_64_mebibytes_are_the_programs() {
    let hold = guest("hold");
    let run = Hafez::with(&["-m", "64M", "--swap", "0"]);
    assert_eq!(run.run(&[word(&hold), "58"]).good().text(), "58 MiB held\n");
}

/// Objects all over the heap, read in random order.
const OBJECTS: &str = "
import random, sys
n = int(sys.argv[1])
random.seed(1)
objects = [[i, str(i) * 3, (i, float(i))] for i in range(n)]
digest = 0
for _ in range(n // 2):
    o = objects[random.randrange(n)]
    assert o[1] == str(o[0]) * 3 and o[2] == (o[0], float(o[0]))
    digest = (digest * 31 + o[0]) % 1000000007
print(n, digest, sum(len(o[1]) for o in objects))
";

#[test]
fn python_objects_at_twice_the_memory() {
    Hafez::memory("32M").seconds(300).same(&["python3", "-c", OBJECTS, "180000"]);
}

#[test]
#[ignore = "long"]
fn python_with_300_mebibytes_of_objects_in_64() {
    Hafez::memory("64M")
        .option("--swap")
        .option("1G")
        .seconds(3600)
        .same(&["python3", "-c", OBJECTS, "1000000"]);
}

fn sort(memory: &str, buffer: &str, bytes: u64, seconds: u64) {
    let scratch = Scratch::new();
    text::collect(&scratch.file("text"), bytes).expect("text");
    let here = Hafez::memory(memory).option("--swap").option("512M").dir(scratch.path()).seconds(seconds);
    here.same(&["sort", "-S", buffer, "text"]);
}

#[test]
fn sort_at_twice_the_memory() {
    sort("24M", "64M", 12 << 20, 300);
}

#[test]
#[ignore = "long"]
fn sort_of_64_mebibytes_in_64() {
    sort("64M", "256M", 64 << 20, 3600);
}

/// A database in memory: a table, indexes, a join, sums.
fn database(rows: u32) -> String {
    format!(
        "create table item(id integer primary key, name text, price integer, kind integer); \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows}) \
         insert into item select i, printf('item %d of the store, number %d', i * 7919 % {rows}, i), i * 7919 % 10007, i % 101 from n; \
         create index by_name on item(name); create index by_price on item(price, kind); \
         create table kind(id integer primary key, label text); \
         insert into kind select distinct kind, 'kind ' || kind from item; \
         select k.label, count(*), sum(i.price) from item i join kind k on k.id = i.kind group by k.id order by 3 desc limit 10; \
         select count(*) from item a join item b on b.id = a.price where a.kind = 7; \
         select name from item where name > 'item 5' order by name limit 5; \
         select sum(price) from item where price between 100 and 200; pragma integrity_check;"
    )
}

#[test]
fn sqlite_at_twice_the_memory() {
    Hafez::memory("20M").seconds(300).same(&["sqlite3", ":memory:", &database(150_000)]);
}

#[test]
#[ignore = "long"]
fn sqlite_with_128_megabytes_in_64() {
    Hafez::memory("64M").seconds(3600).same(&["sqlite3", ":memory:", &database(900_000)]);
}

#[test]
#[ignore = "long"]
fn xz_with_94_mebibytes_in_64() {
    let scratch = Scratch::new();
    text::collect(&scratch.file("text"), 32 << 20).expect("text");
    Hafez::memory("64M").dir(scratch.path()).seconds(3600).same(&["xz", "-6", "-T1", "-c", "text"]);
}

/// A real C file of a few thousand lines: SQLite's header and everything the C library has, through all of the optimizer.
const SOURCE: &str = "
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <unistd.h>
#include <sys/types.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <pthread.h>
#include <regex.h>
#define F(n) double f##n(const double *a, int k) { double s = 0; for (int i = 0; i < k; i++) { \
    s += a[i] * (n) + sqrt(a[(i * n) % k]); if (s > 1e9) s = fmod(s, n + 1.5); } \
    char t[64]; snprintf(t, sizeof t, \"%g\", s); return s + strlen(t); }
#define T(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7) F(n##8) F(n##9)
T(1) T(2) T(3) T(4) T(5) T(6) T(7) T(8) T(9)
int main(void) { double a[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}; printf(\"%g\\n\", f10(a, 9) + f55(a, 9) + f99(a, 9)); return 0; }
";

#[test]
#[ignore = "long"]
fn gcc_optimizes_in_32() {
    let scratch = Scratch::new();
    scratch.put("big.c", SOURCE);
    let here = Hafez::memory("32M").dir(scratch.path()).seconds(1800);
    here.same(&["gcc", "-O2", "-S", "-o", "-", "big.c"]);
}

#[test]
#[ignore = "long"]
fn a_tree_of_files_through_a_pipeline() {
    Hafez::memory("64M").seconds(1800).same(&[
        "bash",
        "-c",
        "find /usr/share /usr/lib -type f | sed 's/.*\\.//' | sort | uniq -c | sort -rn | head -50",
    ]);
    Hafez::memory("32M").seconds(1800).same(&["bash", "-c", "tar -C /usr -cf - include | sha256sum"]);
}

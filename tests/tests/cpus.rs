//! Several CPUs: the ordinary programs, and threads that fight over their memory.
//!
//! The ignored ones take minutes under emulation; `cargo xtask test --all` runs them.

use hafez_tests::{Hafez, Scratch, guest};
use std::path::Path;

fn word(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn on(cpus: &str) -> Hafez {
    Hafez::with(&["-m", "64M", "--cpus", cpus])
}

#[test]
fn a_program_sees_as_many_as_there_are() {
    for cpus in ["1", "2", "4", "16"] {
        let script = "nproc; grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online; \
                      grep -c '^cpu[0-9]' /proc/stat; sed -n 's/^Cpus_allowed_list:.//p' /proc/self/status";
        let last = cpus.parse::<u32>().expect("a number") - 1;
        let all = if last == 0 { "0".into() } else { format!("0-{last}") };
        let outcome = on(cpus).run(&["/bin/sh", "-c", script]).good();
        assert_eq!(outcome.text(), format!("{cpus}\n{cpus}\n{all}\n{cpus}\n{all}\n"));
    }
}

/// Each thread stays where it is told, also when it is told while it runs elsewhere.
const PINNED: &str = "
import os, threading
cpus = sorted(os.sched_getaffinity(0))
def stay(cpu):
    os.sched_setaffinity(0, {cpu})
    for _ in range(200):
        with open('/proc/thread-self/stat') as f:
            assert int(f.read().rsplit(')', 1)[1].split()[36]) == cpu
        os.sched_yield()
threads = [threading.Thread(target=stay, args=(cpu,)) for cpu in cpus * 3]
for t in threads: t.start()
for t in threads: t.join()
print(len(cpus), 'stayed')
";

#[test]
fn threads_stay_on_the_processors_they_chose() {
    assert_eq!(on("4").run(&["python3", "-c", PINNED]).good().text(), "4 stayed\n");
}

/// Two on one processor, a nice level of 5 apart, and two alike on another.
const NICE: &str = "
import os, time
def busy(nice, cpu):
    read, write = os.pipe()
    if os.fork() == 0:
        os.sched_setaffinity(0, {cpu})
        os.nice(nice)
        end = time.monotonic() + 4
        while time.monotonic() < end: pass
        os.write(write, b'%.3f' % time.process_time())
        os._exit(0)
    return read
ends = [busy(*who) for who in [(0, 0), (5, 0), (0, 1), (0, 1)]]
a, b, c, d = [float(os.read(end, 100)) for end in ends]
assert 2.2 < a / b < 4.2, (a, b)
assert 0.75 < c / d < 1.33, (c, d)
print('fair')
";

#[test]
fn each_gets_its_share() {
    assert_eq!(on("2").run(&["python3", "-c", NICE]).good().text(), "fair\n");
}

#[test]
fn pipelines_of_many_programs() {
    let script = "for i in 1 2 3 4 5 6 7 8; do seq 1 20000 | sort -R --random-source=/bin/sh | sort -n | md5sum & done; wait";
    for cpus in ["2", "4"] {
        let outcome = on(cpus).seconds(240).same(&["/bin/bash", "-c", script]).good();
        assert_eq!(outcome.text().lines().count(), 8);
    }
}

#[test]
fn processes_that_come_and_go() {
    let script =
        "i=0; while [ $i -lt 60 ]; do (/bin/true & /bin/true & wait) & i=$((i+1)); done; wait; echo done";
    assert_eq!(on("4").seconds(240).run(&["/bin/sh", "-c", script]).good().text(), "done\n");
}

#[test]
fn python_with_processes() {
    let script = "
import multiprocessing as m
def f(n): return sum(i * i for i in range(n))
if __name__ == '__main__':
    with m.Pool(4) as p: print(p.map(f, range(0, 20000, 500)))
";
    let scratch = Scratch::new();
    let file = scratch.put("pool.py", script);
    on("4").seconds(240).same(&["python3", word(&file)]).good();
}

/// Threads that fault, map, unmap, protect and fork at random, with memory at about twice the RAM, and the audit at their
/// barriers.
fn fight(cpus: &str, memory: &str, mib: &str, seconds: &str) {
    let program = guest("cpus");
    let patience = seconds.parse::<u64>().expect("a number") * 4 + 120;
    let run = Hafez::with(&["-m", memory, "--cpus", cpus]).seconds(patience).variable("HAFEZ_LOG", "audit");
    let outcome = run.run(&[word(&program), seconds, mib]).good();
    assert!(outcome.text().contains(" wrong 0\n"), "{outcome:?}");
}

#[test]
fn threads_on_two_processors_lose_nothing() {
    fight("2", "32M", "44", "20");
}

#[test]
fn threads_on_four_processors_lose_nothing() {
    fight("4", "32M", "44", "20");
}

#[test]
#[ignore = "long"]
fn threads_whose_memory_lies_in_many_leaves_lose_nothing() {
    fight("3", "48M", "90", "60");
}

#[test]
#[ignore = "long"]
fn threads_on_eight_processors_lose_nothing() {
    fight("8", "24M", "44", "60");
}

#[test]
#[ignore = "long"]
fn threads_on_four_processors_lose_nothing_in_ten_minutes() {
    fight("4", "32M", "56", "600");
}

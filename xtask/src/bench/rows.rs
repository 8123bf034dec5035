//! The rows of the table: what is measured, how much of it is zeroing or copying pages, what is aimed at, and what Linux took when it
//! was measured last.

/// What a row's figure counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Instructions,
    Bytes,
}

pub struct Row {
    /// As the program that measures it names it.
    pub name: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    /// Pages that are zeroed or copied in one operation, by any kernel.
    pub pages: u64,
    pub goal: Option<u64>,
    /// Linux 6.12, tuned and Debian's, where it cannot be measured here.
    pub tuned: Option<u64>,
    pub debian: Option<u64>,
}

const fn row(name: &'static str, title: &'static str) -> Row {
    Row { name, title, unit: Unit::Instructions, pages: 0, goal: None, tuned: None, debian: None }
}

impl Row {
    const fn goal(self, goal: u64) -> Self {
        Self { goal: Some(goal), ..self }
    }
    const fn pages(self, pages: u64) -> Self {
        Self { pages, ..self }
    }
    const fn linux(self, tuned: u64, debian: u64) -> Self {
        Self { tuned: Some(tuned), debian: Some(debian), ..self }
    }
    const fn debian(self, debian: u64) -> Self {
        Self { debian: Some(debian), ..self }
    }
    const fn tuned(self, tuned: u64) -> Self {
        Self { tuned: Some(tuned), ..self }
    }
    const fn bytes(self) -> Self {
        Self { unit: Unit::Bytes, ..self }
    }
}

const MIB: u64 = 1 << 20;

pub const ROWS: &[Row] = &[
    row("null", "null system call").goal(100).linux(197, 339),
    row("write-fault", "anonymous write fault, 4 KiB").pages(1).goal(800).linux(2_093, 3_128),
    row("read-fault", "anonymous read fault (zero page)").goal(350).linux(948, 1_451),
    row("cow-copy", "copy-on-write fault: copy").pages(1).goal(1_300).linux(3_405, 5_135),
    row("cow-own", "copy-on-write fault: sole owner").goal(350).linux(1_008, 1_511),
    row("file-page", "file page touched, with fault-around, a page").goal(120).linux(356, 541),
    row("mmap-munmap", "mmap and munmap, untouched").goal(1_500).linux(6_823, 8_721),
    row("mmap-touch-munmap", "mmap, a page touched, munmap").pages(1).goal(2_800).linux(11_387, 15_445),
    row("protect-pair", "mprotect read-only and back, 1 page").goal(1_200).linux(4_304, 5_857),
    row("unmap-page", "munmap, a touched page").goal(120).linux(673, 1_049),
    row("huge", "2 MiB of anonymous memory touched, huge page asked for")
        .pages(512)
        .goal(275_000)
        .linux(311_000, 562_000),
    row("huge-rested", "the same after a rest of 2 ms").goal(10_000),
    row("fork-return", "fork returns, small process").goal(20_000).linux(50_700, 88_000),
    row("fork-return-big", "fork returns, 128 MiB touched").goal(30_000).linux(4_150_000, 5_590_000),
    row("fork-wait", "fork, exit, wait, small process").goal(45_000).tuned(131_000),
    row("fork-wait-big", "fork, exit, wait, 128 MiB touched").goal(100_000).linux(11_420_000, 13_500_000),
    row("vfork-exec", "vfork, exec, wait: tiny static program").goal(50_000).linux(140_000, 225_000),
    row("pipe-round", "pipe, there and back: two switches").goal(2_500).linux(6_750, 11_170),
    row("yield-round", "sched_yield: A, B, A").goal(800).linux(3_415, 5_585),
    row("signal-install", "signal: install a handler").goal(200).linux(505, 1_240),
    row("signal-deliver", "signal: send, deliver, return").goal(900).linux(1_950, 5_790),
    row("swapout", "swap: a page out, its write fault included (busy)").pages(1).debian(15_600),
    row("swapin", "swap: a page in, in order (busy)"),
    row("swapin-random", "swap: a page in, at random (busy)").debian(40_000),
    row("boot", "reset to the first user instruction").goal(5_000_000).linux(272_000_000, 1_370_000_000),
    row("gone", "RAM gone at the first user instruction, of 256 MiB")
        .bytes()
        .goal(6 * MIB)
        .linux(29 * MIB, 64 * MIB),
    row("smallest", "smallest RAM in which a static hello runs")
        .bytes()
        .goal(6 * MIB)
        .linux(32 * MIB, 68 * MIB),
];

//! When memory has run out: who was killed, and what would have saved it.
//!
//! The memory core chooses the process and calls [`kill`] from wherever it found no frame, perhaps with locks of this room
//! held below it. So [`kill`] takes one lock of its own, leaves a note and wakes the *keeper*, a thread that does the
//! killing and the explaining.

use super::control;
use super::exit;
use super::image::Image;
use super::process::Process;
use super::table;
use super::wait::Status;
use crate::kmsg;
use crate::mem::memory;
use crate::sched::{self, NoMemory, WaitQueue};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use hafez_mm::lock::Mutex;
use hafez_mm::{AccountId, OomReport, PAGE_SIZE, PageRange};
use linux_raw_sys::general as abi;

/// More at one time than there can be threads short of memory before the keeper runs; what does not fit is decided anew.
const NOTES: usize = 16;

static NOTED: Mutex<ArrayVec<(AccountId, OomReport), NOTES>> = Mutex::new(ArrayVec::new_const());
static KEEPER: WaitQueue = WaitQueue::new();

/// The memory core's call: this account's process is to be killed. Does not block.
pub fn kill(account: AccountId, why: &OomReport) {
    let mut noted = NOTED.lock();
    if !noted.iter().any(|(a, _)| *a == account) {
        let _ = noted.try_push((account, why.clone()));
    }
    drop(noted);
    KEEPER.wake_all();
}

/// On whose behalf this thread asks for memory.
pub fn asking() -> AccountId {
    super::current_task().and_then(|task| task.image()).map_or(AccountId::KERNEL, |image| image.account())
}

/// Tell what the kernel holds for each process, in pages: the stacks of its threads, its regions, what its descriptors lead
/// to, what waits for it. An estimate: it is to show who made the kernel's memory go. Pages of files that it has locked count too, as they
/// stay for it alone, whoever made them.
pub fn holdings(tell: &mut dyn FnMut(AccountId, u64)) {
    /// What a task takes of the heap, and a process.
    const TASK: usize = 3072;
    const REGION: usize = 112;
    const SIGNAL: usize = 64;
    for process in table::each_process() {
        let Some(task) = process.any_task() else { continue };
        let Some(image) = task.image() else { continue };
        let tasks = process.task_count();
        let mut regions = 0;
        image.space().for_each_region(&mut |_| regions += 1);
        let zombies = table::zombies_of(process.pid);
        let signals = process.pending.len() + process.tasks().map(|t| t.pending.len()).sum::<usize>();
        let bytes = tasks * (crate::arch::STACK_BYTES + TASK)
            + regions * REGION
            + zombies * TASK
            + signals * SIGNAL
            + process.timers.holds()
            + task.files().holds();
        tell(image.account(), (bytes / PAGE_SIZE) as u64 + locked(&image));
    }
}

/// Pages in RAM of the files that a process has locked.
fn locked(image: &Image) -> u64 {
    /// So many mappings are looked at.
    const MOST: usize = 32;
    let mut ranges = ArrayVec::<PageRange, MOST>::new();
    image.space().for_each_region(&mut |region| {
        if region.wired && region.shared && region.object.is_some() {
            let _ = ranges.try_push(region.range);
        }
    });
    ranges.iter().map(|range| memory().region_stat(image.space(), *range).resident).sum()
}

/// Start the keeper.
pub fn start_keeper() -> Result<(), NoMemory> {
    sched::spawn("keeper", Box::new(keep), None).map(drop)
}

fn keep() {
    loop {
        KEEPER.wait(|| !NOTED.lock().is_empty());
        let Some((account, why)) = NOTED.lock().pop_at(0) else { continue };
        let holds = |p: &Arc<Process>| {
            p.any_task().and_then(|t| t.image()).is_some_and(|image| image.account() == account)
        };
        let mut told = None;
        // Processes may share their memory: it comes back when all of them have gone.
        for victim in table::each_process().filter(holds) {
            // One that writes its core file ends without the rest of it.
            if !victim.is_ending() || victim.is_dumping() {
                exit::end_process(&victim, Status::Signalled { signo: abi::SIGKILL, core: false });
                told.get_or_insert_with(|| explain(explanation(&victim, &why)));
            } else {
                told.get_or_insert(());
            }
        }
        if told.is_none() {
            memory().nobody_to_go(account);
        }
    }
}

/// Say it to the user, and in the log.
fn explain(text: String) {
    kmsg::say(kmsg::ERROR, format_args!("{text}"));
    control::explain(text);
}

/// In words: who, what it held, what was left, what would have saved it.
fn explanation(victim: &Process, why: &OomReport) -> String {
    let name = victim.any_task().map(|t| t.name()).unwrap_or_default();
    let name = String::from_utf8_lossy(&name);
    let name = name.trim_end_matches('\0');
    let swap = match (why.totals.swap_total, why.totals.swap_free) {
        (0, _) => String::from("there is no swap"),
        (all, 0) => format!("the swap of {} was full", size(all)),
        (all, free) => format!("of {} swap {} were free", size(all), size(free)),
    };
    let totals = &why.totals;
    let used = totals.swap_total - totals.swap_free.min(totals.swap_total);
    let advice = if totals.swap_total == 0 {
        format!(
            "With swap (--swap {}), or more RAM (-m {}), it could go on.",
            rounded(totals.total * 4),
            rounded(totals.total * 2)
        )
    } else if used < totals.swap_total / 2 {
        format!(
            "What is in RAM cannot go to swap (it is locked, or the kernel's own): with more RAM (-m {}) it could go on.",
            rounded(totals.total * 2)
        )
    } else {
        format!(
            "With more swap (--swap {}), or more RAM (-m {}), it could go on.",
            rounded(totals.swap_total * 2),
            rounded(totals.total + used)
        )
    };
    let of_files = victim.any_task().and_then(|task| task.image()).map_or(0, |image| locked(&image));
    let also = match of_files {
        0 => String::new(),
        pages => format!("; of files it had locked {}", size(pages)),
    };
    format!(
        "out of memory: killed {name} (process {}), which held {} in RAM, {} in swap and {} of the kernel's{}.\n\
         Of {} RAM {} were free, {} held files; {swap}.\n{advice}",
        victim.pid,
        size(why.victim.resident),
        size(why.victim.swapped),
        size(why.things.saturating_sub(of_files)),
        also,
        size(why.totals.total),
        size(why.totals.free),
        size(why.totals.file),
    )
}

/// Pages, in words.
fn size(pages: u64) -> String {
    let kib = pages * (PAGE_SIZE as u64 / 1024);
    if kib < 1024 { format!("{kib} KiB") } else { format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024) }
}

/// Pages, as a size that one would give on the command line: the next power of two of MiB.
fn rounded(pages: u64) -> String {
    let mib = (pages * (PAGE_SIZE as u64 / 1024)).div_ceil(1024).max(1).next_power_of_two();
    if mib >= 1024 { format!("{}G", mib / 1024) } else { format!("{mib}M") }
}

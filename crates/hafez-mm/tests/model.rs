//! The lock for readers and writers in a model that tries the orders in which CPUs may do their steps, and what each may see of the others'.
//!
//! A guarded word is a cell that the model watches: who uses it while another writes it is reported, as is one who waits for ever.
//! With the bugs of [`Mutant`] that are the lock's, the model has to report something.
#![cfg(feature = "model")]

use hafez_mm::lock::{BigReaderLock, Readers, rank, set_idler};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// A lock whose writers forget what was noted, and two words that are always alike for those who may look.
type Lock = BigReaderLock<[UnsafeCell<u64>; 2], { rank::SHAPE }>;

fn lock() -> Arc<Lock> {
    let readers = std::sync::Arc::new(Readers::new(|| 0));
    readers.add_cpu(1);
    Arc::new(BigReaderLock::new(&readers, [UnsafeCell::new(0), UnsafeCell::new(0)]))
}

/// What both words say, if the lock is open.
fn read(lock: &Lock, cpu: usize) -> Option<u64> {
    let guard = lock.read(cpu)?;
    // SAFETY: the model checks it: that nobody writes is what is tried here.
    let [one, other] = [0, 1].map(|n: usize| guard[n].with(|word| unsafe { *word }));
    assert_eq!(one, other, "half of what was written is seen");
    Some(one)
}

/// Add one to both words; false if the lock is closed.
fn write(lock: &Lock) -> bool {
    let Some(guard) = lock.write() else { return false };
    add(&guard);
    true
}

fn add(words: &[UnsafeCell<u64>; 2]) {
    // SAFETY: the model checks it: that nobody else uses them is what is tried here.
    words.iter().for_each(|word| word.with_mut(|word| unsafe { *word += 1 }));
}

/// Try all orders in which a thread is taken off its CPU so many times at most.
fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    set_idler(thread::yield_now);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(f);
}

/// One reads, for the first time and again, while another writes, and reads on a CPU of his own.
fn readers_and_a_writer() {
    let lock = lock();
    let reader = thread::spawn({
        let lock = lock.clone();
        move || {
            let first = read(&lock, 1).expect("nobody closes it");
            assert!(read(&lock, 1).expect("nobody closes it") >= first, "what was seen is gone");
        }
    });
    assert!(write(&lock));
    assert_eq!(read(&lock, 0), Some(1));
    reader.join().unwrap();
}

/// Both write, and read what came of it.
fn writers() {
    let lock = lock();
    let other = thread::spawn({
        let lock = lock.clone();
        move || {
            assert!(write(&lock));
            assert!(matches!(read(&lock, 1), Some(1 | 2)));
        }
    });
    assert!(write(&lock));
    assert!(matches!(read(&lock, 0), Some(1 | 2)));
    other.join().unwrap();
    assert_eq!(read(&lock, 0), Some(2));
}

/// Who closes it takes what it guarded elsewhere: nobody uses it there any more.
fn closing() {
    let lock = lock();
    let other = thread::spawn({
        let lock = lock.clone();
        move || {
            let open = read(&lock, 1).is_some();
            let wrote = write(&lock);
            assert!(open || !wrote, "it was closed, and is open");
            assert!(wrote || read(&lock, 1).is_none(), "it was closed, and is open");
            wrote
        }
    });
    let guard = lock.write().expect("nobody else closes it");
    // SAFETY: the guard is the only one.
    let before = guard[0].with(|word| unsafe { *word });
    guard.close();
    // Without a guard: the model reports whoever else uses it from now on.
    add(lock.inside());
    let wrote = other.join().unwrap();
    assert_eq!(before, wrote as u64, "who came later wrote to what had gone");
    assert_eq!(read(&lock, 0), None);
}

/// What a CPU notes of what it found is not believed once somebody has written.
fn notes() {
    const KEY: u64 = 7;
    let lock = lock();
    let reader = thread::spawn({
        let lock = lock.clone();
        move || {
            for _ in 0..2 {
                let guard = lock.keep(1);
                // SAFETY: the model checks it.
                let is = lock.inside()[0].with(|word| unsafe { *word });
                if let Some(noted) = guard.recall(KEY) {
                    assert_eq!(noted, is, "a note outlives what it tells of");
                }
                guard.remember(KEY, is);
            }
        }
    });
    add(&lock.write_alone());
    reader.join().unwrap();
}

#[test]
fn a_reader_sees_all_that_was_written_or_nothing() {
    model(4, readers_and_a_writer);
}

#[test]
fn writers_follow_each_other() {
    model(4, writers);
}

#[test]
fn what_is_closed_stays_closed() {
    model(4, closing);
}

#[test]
fn notes_end_when_somebody_writes() {
    model(4, notes);
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::*;
    use hafez_mm::mutant::{self, Mutant};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn caught(bug: Mutant, preemptions: usize, f: fn()) {
        mutant::set(Some(bug));
        let result = catch_unwind(AssertUnwindSafe(|| model(preemptions, f)));
        mutant::set(None);
        assert!(result.is_err(), "{bug:?} lives: the model found nothing");
    }

    #[test]
    fn writer_does_not_wait() {
        caught(Mutant::WriterDoesNotWait, 3, readers_and_a_writer);
    }

    #[test]
    fn note_outlives_change() {
        caught(Mutant::NoteOutlivesChange, 3, notes);
    }
}

//! `userfaultfd(2)`: a program is told of its own faults, and brings the pages itself.
//!
//! A descriptor watches regions of the memory that it was made in ([`hafez_mm::Watcher`]). A fault that finds no page there becomes
//! a *question*: it is put on the descriptor's list, where a read finds it, and its thread sleeps until the question is
//! taken off again. That is done by who has put a page there (`UFFDIO_COPY`, `UFFDIO_ZEROPAGE`) or says that it is worth looking
//! again (`UFFDIO_WAKE`), for all questions about that range at once; by the end of the watch; or by a signal.
//!
//! A write to a page that the program has guarded (`UFFDIO_WRITEPROTECT`) is a question as well, answered by letting the page go.
//!
//! What else becomes of the memory (fork, `mremap`, `munmap`) is not told, as a program would have to ask for by a feature; nor that a page
//! of a file is mapped (minor faults). Those are refused.
#![forbid(unsafe_code)]

use super::Image;
use super::task::current_task;
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::fs::anon;
use crate::fs::file::{File, FileOps, How};
use crate::fs::iobuf::{Sink, Source};
use crate::fs::poll::{Events, Signal, Watchers};
use crate::mem::{TryPush, memory, zeroed};
use crate::sched::{WaitQueue, WaitResult};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering::*};
use hafez_mm::lock::Mutex;
use hafez_mm::{
    About, FaultError, Guarded, MmError, PAGE_SIZE, PageRange, PlaceError, RegionFlags, USER_END, USER_START,
    VirtAddr, Vpn, Watched, Watcher,
};
use linux_raw_sys::general as abi;

const PAGE: u64 = PAGE_SIZE as u64;

/// Features that a program may ask for.
const FEATURES: u64 = (abi::UFFD_FEATURE_PAGEFAULT_FLAG_WP
    | abi::UFFD_FEATURE_WP_HUGETLBFS_SHMEM
    | WP_UNPOPULATED
    | abi::UFFD_FEATURE_SIGBUS
    | abi::UFFD_FEATURE_THREAD_ID
    | abi::UFFD_FEATURE_MISSING_SHMEM
    | abi::UFFD_FEATURE_EXACT_ADDRESS
    | WP_ASYNC
    | MOVE_PAGES) as u64;
/// Guarding a page that is not there guards it once it is.
const WP_UNPOPULATED: u32 = 1 << 13;
/// Writes to guarded pages are not told, but go through, and can be found later (`PAGEMAP_SCAN`).
const WP_ASYNC: u32 = 1 << 15;
/// A missing page may be brought from elsewhere in the same memory, not copied.
const MOVE_PAGES: u32 = 1 << 16;
/// In the word of features: the program has introduced itself.
const INTRODUCED: u64 = 1 << 63;

/// A request's number: what it does with its argument, how many bytes that has, and which it is.
const fn request(way: u32, bytes: u32, number: u32) -> u32 {
    way << 30 | bytes << 16 | abi::UFFDIO << 8 | number
}
const READS: u32 = 2;
const BOTH: u32 = 3;
const API: u32 = request(BOTH, 24, abi::_UFFDIO_API);
const REGISTER: u32 = request(BOTH, 32, abi::_UFFDIO_REGISTER);
const UNREGISTER: u32 = request(READS, 16, abi::_UFFDIO_UNREGISTER);
const WAKE: u32 = request(READS, 16, abi::_UFFDIO_WAKE);
const COPY: u32 = request(BOTH, 40, abi::_UFFDIO_COPY);
const ZEROPAGE: u32 = request(BOTH, 32, abi::_UFFDIO_ZEROPAGE);
const MOVE: u32 = request(BOTH, 40, MOVE_NUMBER);
const MOVE_NUMBER: u32 = 5;
const WRITEPROTECT: u32 = request(BOTH, 24, abi::_UFFDIO_WRITEPROTECT);

/// Requests that every descriptor takes, and those that are for a range which it watches, as bits.
const GENERAL: u64 = 1 << abi::_UFFDIO_API | 1 << abi::_UFFDIO_REGISTER | 1 << abi::_UFFDIO_UNREGISTER;
const FOR_RANGE: u64 =
    1 << abi::_UFFDIO_WAKE | 1 << abi::_UFFDIO_COPY | 1 << abi::_UFFDIO_ZEROPAGE | 1 << MOVE_NUMBER;
const FOR_GUARDED: u64 = 1 << abi::_UFFDIO_WRITEPROTECT;

/// Bytes of a message.
const MESSAGE: usize = 32;

/// A thread waits for a page.
struct Question {
    number: u64,
    at: VirtAddr,
    write: bool,
    about: About,
    tid: u32,
    told: bool,
}

#[derive(Default)]
struct Questions {
    list: Vec<Question>,
    next: u64,
    /// Nobody will answer any more.
    closed: bool,
}

/// One descriptor's list of questions, which its regions know.
struct Desk {
    features: AtomicU64,
    questions: Mutex<Questions>,
    /// There is something to read.
    asked: Arc<Signal>,
    /// Some have been answered.
    answered: WaitQueue,
    guarded: Guarded,
}

impl Desk {
    fn has(&self, feature: u32) -> bool {
        self.features.load(Relaxed) & u64::from(feature) != 0
    }

    fn is_open(&self, number: u64) -> bool {
        let questions = self.questions.lock();
        !questions.closed && questions.list.iter().any(|question| question.number == number)
    }

    fn withdraw(&self, number: u64) {
        self.questions.lock().list.retain(|question| question.number != number);
    }

    /// Who waits for one of these pages shall look again.
    fn wake(&self, range: PageRange) {
        self.questions.lock().list.retain(|question| !range.contains(question.at.page()));
        self.answered.wake_all();
    }

    fn take(&self) -> Option<[u8; MESSAGE]> {
        let mut questions = self.questions.lock();
        let question = questions.list.iter_mut().find(|question| !question.told)?;
        question.told = true;
        let mut message = [0; MESSAGE];
        message[0] = abi::UFFD_EVENT_PAGEFAULT as u8;
        let write = if question.write { abi::UFFD_PAGEFAULT_FLAG_WRITE } else { 0 };
        let guarded = if question.about == About::Guarded { abi::UFFD_PAGEFAULT_FLAG_WP } else { 0 };
        message[8] = (write | guarded) as u8;
        let exact = self.has(abi::UFFD_FEATURE_EXACT_ADDRESS);
        let at = if exact { question.at.0 } else { question.at.page().addr().0 };
        message[16..24].copy_from_slice(&at.to_ne_bytes());
        if self.has(abi::UFFD_FEATURE_THREAD_ID) {
            message[24..28].copy_from_slice(&question.tid.to_ne_bytes());
        }
        Some(message)
    }
}

impl Watcher for Desk {
    fn guarded(&self) -> &Guarded {
        &self.guarded
    }

    fn only_notes(&self) -> bool {
        self.has(WP_ASYNC)
    }

    fn wanted(
        &self,
        at: VirtAddr,
        write: bool,
        about: About,
        still_so: &dyn Fn() -> bool,
    ) -> core::result::Result<(), FaultError> {
        if self.has(abi::UFFD_FEATURE_SIGBUS) {
            return Err(FaultError::Unanswered);
        }
        let tid = current_task().map_or(0, |task| task.tid() as u32);
        let number = {
            let mut questions = self.questions.lock();
            if questions.closed {
                return Ok(());
            }
            let number = questions.next;
            questions.next += 1;
            let question = Question { number, at, write, about, tid, told: false };
            questions.list.try_push(question).map_err(|_| FaultError::OutOfMemory)?;
            number
        };
        if !still_so() {
            self.withdraw(number);
            return Ok(());
        }
        self.asked.notify();
        match self.answered.wait_until(|| !self.is_open(number), None, true) {
            WaitResult::Interrupted => {
                self.withdraw(number);
                Err(FaultError::Interrupted)
            }
            _ => Ok(()),
        }
    }
}

/// An open descriptor.
struct UserFault {
    /// The memory that it was made in.
    image: Weak<Image>,
    desk: Arc<Desk>,
    watched: Watched,
}

/// Make a descriptor for the faults of this memory. `flags`: status flags.
pub fn open(image: &Arc<Image>, flags: u32) -> Result<Arc<File>> {
    let desk = Arc::new(Desk {
        features: AtomicU64::new(0),
        questions: Mutex::default(),
        asked: Signal::new(),
        answered: WaitQueue::new(),
        guarded: Guarded::default(),
    });
    let watched = Watched(desk.clone());
    let ops = UserFault { image: Arc::downgrade(image), desk, watched };
    anon::open(Arc::new(ops), "userfaultfd", abi::O_RDONLY | flags)
}

/// The words of a request's argument.
fn words<const N: usize>(at: u64) -> Result<[u64; N]> {
    let mut bytes = [[0; 8]; N];
    user::copy_from(bytes.as_flattened_mut(), at)?;
    Ok(bytes.map(u64::from_ne_bytes))
}

fn put<const N: usize>(at: u64, words: [u64; N]) -> Result<()> {
    Ok(user::copy_to(at, words.map(u64::to_ne_bytes).as_flattened())?)
}

/// Whole pages of a program.
fn range(start: u64, len: u64) -> Result<PageRange> {
    let whole = start.is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len > 0;
    let range = PageRange::sized(VirtAddr(start).page(), len / PAGE).filter(|range| range.end <= USER_END);
    range.filter(|_| whole).ok_or(Errno::EINVAL)
}

impl UserFault {
    fn image(&self) -> Result<Arc<Image>> {
        self.image.upgrade().ok_or(Errno::ESRCH)
    }

    fn introduce(&self, at: u64) -> Result<()> {
        let [api, mut features, _] = words(at)?;
        if features & u64::from(WP_ASYNC) != 0 {
            features |= u64::from(WP_UNPOPULATED);
        }
        let set = || self.desk.features.compare_exchange(0, features | INTRODUCED, Relaxed, Relaxed).is_ok();
        if api != u64::from(abi::UFFD_API) || features & !FEATURES != 0 {
            put(at, [0; 3])?;
            return Err(Errno::EINVAL);
        }
        put(at, [api, FEATURES, GENERAL])?;
        if set() {
            return Ok(());
        }
        put(at, [0; 3])?;
        Err(Errno::EINVAL)
    }

    fn register(&self, at: u64) -> Result<()> {
        let [start, len, mode] = words(at)?;
        const MISSING: u64 = abi::UFFDIO_REGISTER_MODE_MISSING as u64;
        const WRITES: u64 = abi::UFFDIO_REGISTER_MODE_WP as u64;
        if mode == 0 || mode & !(MISSING | WRITES) != 0 {
            return Err(Errno::EINVAL);
        }
        let mut how = RegionFlags::empty();
        how.set(RegionFlags::WATCHED, mode & MISSING != 0);
        how.set(RegionFlags::GUARDED, mode & WRITES != 0);
        self.watch(range(start, len)?, how)?;
        put(at + 24, [FOR_RANGE | if mode & WRITES != 0 { FOR_GUARDED } else { 0 }])
    }

    /// Guard pages, or let them go.
    fn guard(&self, at: u64) -> Result<()> {
        let [start, len, mode] = words(at)?;
        let range = range(start, len)?;
        const ON: u64 = 1;
        const QUIET: u64 = 2;
        if mode & !(ON | QUIET) != 0 || mode == ON | QUIET {
            return Err(Errno::EINVAL);
        }
        let image = self.image()?;
        let part = range.intersect(&PageRange::new(USER_START, USER_END));
        let absent = self.desk.has(WP_UNPOPULATED);
        memory().guard(image.space(), part, mode & ON != 0, absent).map_err(|why| match why {
            MmError::NotMapped => Errno::ENOENT,
            why => why.into(),
        })?;
        if mode == 0 {
            self.desk.wake(range);
        }
        Ok(())
    }

    fn watch(&self, range: PageRange, how: RegionFlags) -> Result<()> {
        let part = range.intersect(&PageRange::new(USER_START, USER_END));
        let image = self.image().map_err(|_| Errno::ENOMEM)?;
        match memory().watch(image.space(), part, &self.watched, how) {
            Ok(()) => Ok(()),
            Err(MmError::NoMemory) => Err(Errno::ENOMEM),
            Err(error) => Err(error.into()),
        }
    }

    /// Put pages there, of a program's bytes or of zeroes, guarded or not. How many bytes, which is told at `result_at`; EAGAIN for
    /// fewer than were wanted.
    fn place(
        &self,
        to: PageRange,
        from: Option<u64>,
        guard: bool,
        quiet: bool,
        result_at: u64,
    ) -> Result<()> {
        let image = self.image()?;
        let mut bytes = match from {
            Some(_) => zeroed(PAGE_SIZE)?,
            None => Vec::new(),
        };
        let mut done = 0;
        let mut result = Ok(());
        for page in to.iter() {
            let placed = match from {
                Some(from) => user::copy_from(&mut bytes, from.wrapping_add(done * PAGE))
                    .map_err(Errno::from)
                    .and_then(|()| place_one(&image, page, Some(&bytes), guard)),
                None => place_one(&image, page, None, guard),
            };
            if placed.is_err() {
                result = placed;
                break;
            }
            done += 1;
        }
        self.conclude(to, done, result, quiet, result_at)
    }

    /// Tell how many pages came to their place, and wake who waits for them.
    fn conclude(
        &self,
        to: PageRange,
        done: u64,
        result: Result<()>,
        quiet: bool,
        result_at: u64,
    ) -> Result<()> {
        let told = match result {
            Err(error) if done == 0 => (error.code() as i64).wrapping_neg() as u64,
            _ => done * PAGE,
        };
        put(result_at, [told])?;
        if done == 0 {
            return result;
        }
        if !quiet {
            self.desk.wake(PageRange::new(to.start, to.start.add(done)));
        }
        if done == to.len() { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// Bring pages from elsewhere, where they are not any more then.
    fn carry(&self, at: u64) -> Result<()> {
        let [to, from, len, mode] = words(at)?;
        let (to, from) = (range(to, len)?, range(from, len)?);
        const QUIET: u64 = 1;
        /// Where there is no page there will be none.
        const HOLES: u64 = 2;
        if mode & !(QUIET | HOLES) != 0 {
            return Err(Errno::EINVAL);
        }
        let image = self.image()?;
        // Its own memory only, not that of who gave it the descriptor.
        if !current_task().and_then(|task| task.image()).is_some_and(|own| Arc::ptr_eq(&own, &image)) {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        let mut result = Ok(());
        while done < to.len() && result.is_ok() {
            let rest = |range: PageRange| PageRange::new(range.start.add(done), range.end);
            result = match memory().carry_page(image.space(), rest(from), rest(to), &self.watched) {
                Err(PlaceError::Nothing) if mode & HOLES != 0 => Ok(()),
                carried => carried.map_err(refused),
            };
            done += result.is_ok() as u64;
        }
        self.conclude(to, done, result, mode & QUIET != 0, at + 32)
    }

    fn copy(&self, at: u64) -> Result<()> {
        let [to, from, len, mode] = words(at)?;
        if !user::in_user_half(from, len as usize) {
            return Err(Errno::EINVAL);
        }
        let to = range(to, len)?;
        const QUIET: u64 = abi::UFFDIO_COPY_MODE_DONTWAKE as u64;
        const GUARDED: u64 = abi::UFFDIO_COPY_MODE_WP as u64;
        if mode & !(QUIET | GUARDED) != 0 {
            return Err(Errno::EINVAL);
        }
        self.place(to, Some(from), mode & GUARDED != 0, mode & QUIET != 0, at + 32)
    }

    fn zero(&self, at: u64) -> Result<()> {
        let [to, len, mode] = words(at)?;
        let to = range(to, len)?;
        const QUIET: u64 = abi::UFFDIO_ZEROPAGE_MODE_DONTWAKE as u64;
        if mode & !QUIET != 0 {
            return Err(Errno::EINVAL);
        }
        self.place(to, None, false, mode & QUIET != 0, at + 24)
    }
}

fn refused(why: PlaceError) -> Errno {
    match why {
        PlaceError::Exists => Errno::EEXIST,
        PlaceError::NotWatched | PlaceError::Nothing => Errno::ENOENT,
        PlaceError::NotGuarded | PlaceError::NotAlike => Errno::EINVAL,
        PlaceError::Shared => Errno::EBUSY,
        PlaceError::PastEnd => Errno::EFAULT,
        PlaceError::NoMemory => Errno::ENOMEM,
    }
}

fn place_one(image: &Image, page: Vpn, bytes: Option<&[u8]>, guard: bool) -> Result<()> {
    memory().place_page(image.space(), page, bytes, guard).map_err(refused)
}

impl FileOps for UserFault {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ioctl(&self, request: u32, argument: u64) -> Result<usize> {
        if request != API && self.desk.features.load(Relaxed) == 0 {
            return Err(Errno::EINVAL);
        }
        match request {
            API => self.introduce(argument)?,
            REGISTER => self.register(argument)?,
            UNREGISTER | WAKE => {
                let [start, len] = words(argument)?;
                let range = range(start, len)?;
                if request == UNREGISTER {
                    self.watch(range, RegionFlags::empty())?;
                }
                self.desk.wake(range);
            }
            COPY => self.copy(argument)?,
            ZEROPAGE => self.zero(argument)?,
            WRITEPROTECT => self.guard(argument)?,
            MOVE => self.carry(argument)?,
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }

    fn read(&self, _: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        if self.desk.features.load(Relaxed) == 0 || to.remaining() < MESSAGE {
            return Err(Errno::EINVAL);
        }
        let mut message = self.desk.take();
        if message.is_none() {
            if how.nonblock {
                return Err(Errno::EAGAIN);
            }
            self.desk.asked.wait(|| {
                message = self.desk.take();
                message.is_some()
            })?;
        }
        while let Some(told) = message {
            if to.put(&told) < MESSAGE || to.remaining() < MESSAGE {
                break;
            }
            message = self.desk.take();
        }
        Ok(())
    }

    fn write(&self, _: u64, _: &mut Source<'_>, _: How) -> Result<()> {
        Err(Errno::EINVAL)
    }

    fn poll(&self) -> Events {
        if self.desk.features.load(Relaxed) == 0 {
            return Events::ERR;
        }
        let unread = self.desk.questions.lock().list.iter().any(|question| !question.told);
        if unread { Events::READABLE } else { Events::empty() }
    }

    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.desk.asked);
    }
}

impl Drop for UserFault {
    /// Nobody can answer any more: the memory is as any other, and who waits looks again.
    fn drop(&mut self) {
        if let Some(image) = self.image.upgrade() {
            memory().unwatch(image.space(), &self.watched);
        }
        let mut questions = self.desk.questions.lock();
        questions.closed = true;
        questions.list.clear();
        drop(questions);
        self.desk.answered.wake_all();
    }
}

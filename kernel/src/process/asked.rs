//! Another process decides about a thread's system calls (`seccomp_unotify(2)`).
//!
//! ```text
//!   the thread's filter says so: Listener::ask        ── a question ──▶   ioctl RECV, on the filter's descriptor
//!   sleeps                                                                 looks, does what it likes in its place
//!   gives its call that value, that error, or does it ◀── an answer ──    ioctl SEND
//!   opens a descriptor of its own for a file          ◀── a file ─────    ioctl ADDFD, before the answer or as it
//! ```
//!
//! A question lives on the list of its [`Listener`] from when it is asked until who asked has taken the answer, or gives up for a signal; who
//! answers one that is gone is told so (ENOENT). The descriptor's end answers all with ENOSYS; the end of the last thread with the filter is
//! seen at the descriptor (POLLHUP).
#![forbid(unsafe_code)]

use super::run::Caller;
use super::seccomp::DATA;
use super::task::current_task;
use crate::arch::user;
use crate::errno::{Errno, Result};
use crate::fs::anon;
use crate::fs::file::{File, FileOps};
use crate::fs::poll::{Events, Signal, Watchers};
use crate::mem::TryPush;
use crate::sched::{self, WaitQueue, WaitResult};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use hafez_mm::lock::Mutex;
use linux_raw_sys::general as abi;

/// Bytes of a question and of an answer, as programs see them (`struct seccomp_notif`, `struct seccomp_notif_resp`), and of a file's
/// (`struct seccomp_notif_addfd`).
pub const QUESTION: usize = 16 + DATA;
pub const ANSWER: usize = 24;
const ADDED: usize = 24;

/// Requests of the descriptor. The one that adds a file may come with more bytes, whichever way they are said to go.
const RECEIVE: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const IS_VALID: u32 = 0x4008_2102;
/// The same as it was once numbered.
const IS_VALID_TOO: u32 = 0x8008_2102;
const ADD: u32 = 0x4018_2103;
const SET_FLAGS: u32 = 0x4008_2104;
const WAY_AND_SIZE: u32 = 0xffff << 16;
const LONGEST: usize = 4096;

/// In an answer: the call is to be done.
const CONTINUE: u32 = 1;
/// Of a file that is added: at this number; it is the answer as well.
const AT_NUMBER: u32 = 1;
const AS_ANSWER: u32 = 2;
/// How the threads of the two are to be scheduled: a hint, which is of no use here.
const SAME_PROCESSOR: u64 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asked,
    Received,
    Answered,
}

/// What becomes of the call.
#[derive(Clone, Copy)]
struct Answer {
    value: u64,
    /// Negative, as `rax` has it; 0 for none.
    error: i32,
    goes_on: bool,
}

/// A file that who asked is to open.
struct Added {
    file: Arc<File>,
    close_on_exec: bool,
    at: Option<u32>,
    is_answer: bool,
    result: Mutex<Option<Result<u32>>>,
}

struct Question {
    id: u64,
    tid: u32,
    data: [u8; DATA],
    stage: Stage,
    answer: Answer,
    added: Vec<Arc<Added>>,
}

struct State {
    questions: Vec<Question>,
    next: u64,
    /// Nobody will answer.
    closed: bool,
    /// Nobody will ask.
    unused: bool,
}

impl State {
    fn find(&mut self, id: u64) -> Result<&mut Question> {
        self.questions.iter_mut().find(|question| question.id == id).ok_or(Errno::ENOENT)
    }

    fn remove(&mut self, id: u64) -> Option<Question> {
        let at = self.questions.iter().position(|question| question.id == id)?;
        Some(self.questions.remove(at))
    }
}

/// What a filter and its descriptor share.
pub struct Listener {
    state: Mutex<State>,
    /// Something can be done at the descriptor that could not before.
    signal: Arc<Signal>,
    /// Those who asked look here, and those who added files.
    replies: WaitQueue,
    /// Once received, only the end of who asked takes a question back.
    patient: bool,
}

/// The open descriptor.
struct Desk(Arc<Listener>);

/// What who asked finds to do.
enum Next {
    Open(Arc<Added>),
    End(Question),
}

impl Listener {
    pub fn new(patient: bool) -> Arc<Listener> {
        let mut start = [0; 8];
        crate::random::fill(&mut start);
        let next = u64::from_ne_bytes(start);
        let state = State { questions: Vec::new(), next, closed: false, unused: false };
        Arc::new(Listener {
            state: Mutex::new(state),
            signal: Signal::new(),
            replies: WaitQueue::new(),
            patient,
        })
    }

    pub fn open(self: &Arc<Listener>) -> Result<Arc<File>> {
        anon::open(Arc::new(Desk(self.clone())), "seccomp notify", abi::O_RDWR)
    }

    /// The filter is gone.
    pub fn is_unused(&self) {
        self.state.lock().unused = true;
        self.signal.notify();
    }

    /// Ask about the call that the caller is at, and wait. The value for `rax`, or `None` to do the call.
    pub fn ask(&self, caller: &mut Caller, data: &[u8; DATA]) -> Result<Option<u64>> {
        let id = self.put(caller.task.tid() as u32, data)?;
        self.signal.notify();
        loop {
            match self.await_next(caller, id)? {
                Next::Open(added) => self.place(caller, id, &added),
                Next::End(question) => {
                    let Answer { value, error, goes_on } = question.answer;
                    let value = if error != 0 { i64::from(error) as u64 } else { value };
                    return Ok((!goes_on).then_some(value));
                }
            }
        }
    }

    fn put(&self, tid: u32, data: &[u8; DATA]) -> Result<u64> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Errno::ENOSYS);
        }
        let id = state.next;
        let answer = Answer { value: 0, error: 0, goes_on: false };
        let question = Question { id, tid, data: *data, stage: Stage::Asked, answer, added: Vec::new() };
        state.questions.try_push(question)?;
        state.next = id.wrapping_add(1);
        Ok(id)
    }

    /// Wait for a file or the answer. A signal takes the question back, and the call is made again.
    fn await_next(&self, caller: &Caller, id: u64) -> Result<Next> {
        let mut next = None;
        let mut ready = || {
            let mut state = self.state.lock();
            next = match state.find(id) {
                Ok(question) if !question.added.is_empty() => Some(Next::Open(question.added.remove(0))),
                Ok(question) if question.stage == Stage::Answered => state.remove(id).map(Next::End),
                _ => None,
            };
            next.is_some()
        };
        while self.replies.wait_until(&mut ready, None, true) == WaitResult::Interrupted {
            sched::clear_interrupt();
            let received = |question: &mut Question| question.stage == Stage::Received;
            let stays = self.patient && self.state.lock().find(id).is_ok_and(received);
            if caller.task.is_ending() || !stays {
                let gone = self.state.lock().remove(id);
                for added in gone.iter().flat_map(|question| &question.added) {
                    *added.result.lock() = Some(Err(Errno::ESRCH));
                }
                self.replies.wake_all();
                caller.look_at_signals();
                return Err(Errno::RESTART);
            }
        }
        next.ok_or(Errno::RESTART)
    }

    /// Open a descriptor for a file that was added.
    fn place(&self, caller: &Caller, id: u64, added: &Added) {
        let files = caller.task.files();
        let limit = caller.task.process.limits.soft(abi::RLIMIT_NOFILE);
        let file = added.file.clone();
        let result = match added.at {
            None => files.insert(file, added.close_on_exec, 0, limit),
            Some(at) => files.insert_at(at, file, added.close_on_exec, limit).map(|()| at),
        };
        if added.is_answer
            && let Ok(question) = self.state.lock().find(id)
        {
            match result {
                Ok(fd) => question.answer.value = u64::from(fd),
                Err(_) => question.stage = Stage::Received,
            }
        }
        *added.result.lock() = Some(result);
        self.replies.wake_all();
    }

    /// The next question, into the program's memory.
    fn receive(&self, at: u64) -> Result<()> {
        let mut bytes = [0; QUESTION];
        user::copy_from(&mut bytes, at)?;
        if bytes != [0; QUESTION] {
            return Err(Errno::EINVAL);
        }
        self.signal.wait(|| {
            let state = self.state.lock();
            state.unused || state.questions.iter().any(|question| question.stage == Stage::Asked)
        })?;
        let id = {
            let mut state = self.state.lock();
            let question = state
                .questions
                .iter_mut()
                .find(|question| question.stage == Stage::Asked)
                .ok_or(Errno::ENOENT)?;
            bytes[..8].copy_from_slice(&question.id.to_ne_bytes());
            bytes[8..12].copy_from_slice(&question.tid.to_ne_bytes());
            bytes[16..].copy_from_slice(&question.data);
            question.stage = Stage::Received;
            question.id
        };
        let copied = user::copy_to(at, &bytes);
        if copied.is_err()
            && let Ok(question) = self.state.lock().find(id)
        {
            // It has not been seen: whoever asks next shall have it.
            question.stage = Stage::Asked;
        }
        self.signal.notify();
        Ok(copied?)
    }

    fn send(&self, at: u64) -> Result<()> {
        let mut bytes = [0; ANSWER];
        user::copy_from(&mut bytes, at)?;
        let [id, value, last] = [0, 8, 16].map(|i| word(&bytes, i));
        let (error, flags) = (last as u32 as i32, (last >> 32) as u32);
        if flags & !CONTINUE != 0 || flags & CONTINUE != 0 && (error != 0 || value != 0) {
            return Err(Errno::EINVAL);
        }
        let answer = Answer { value, error, goes_on: flags & CONTINUE != 0 };
        self.of_received(id, |question| {
            question.answer = answer;
            question.stage = Stage::Answered;
            Ok(())
        })?;
        self.replies.wake_all();
        Ok(())
    }

    /// Do something with a question that has been received: EINPROGRESS if it has not, or has been answered.
    fn of_received<T>(&self, id: u64, f: impl FnOnce(&mut Question) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        let question = state.find(id)?;
        if question.stage == Stage::Received { f(question) } else { Err(Errno::EINPROGRESS) }
    }

    /// Have who asked open a file of ours; the number that it has there.
    fn add(&self, at: u64, bytes: usize) -> Result<usize> {
        let mut given = [0; ADDED];
        if !(ADDED..LONGEST).contains(&bytes) {
            return Err(Errno::EINVAL);
        }
        user::copy_from(&mut given, at)?;
        for more in ADDED..bytes {
            let mut byte = [0];
            user::copy_from(&mut byte, at.wrapping_add(more as u64))?;
            if byte != [0] {
                return Err(Errno::E2BIG);
            }
        }
        let [id, what, to] = [0, 8, 16].map(|i| word(&given, i));
        let (flags, source) = (what as u32, (what >> 32) as u32);
        let (number, how) = (to as u32, (to >> 32) as u32);
        let at = (flags & AT_NUMBER != 0).then_some(number);
        if how & !abi::O_CLOEXEC != 0 || flags & !(AT_NUMBER | AS_ANSWER) != 0 || at.is_none() && number != 0
        {
            return Err(Errno::EINVAL);
        }
        let file = current_task().ok_or(Errno::EBADF)?.file(source)?;
        let is_answer = flags & AS_ANSWER != 0;
        let close_on_exec = how & abi::O_CLOEXEC != 0;
        let added = Arc::new(Added { file, close_on_exec, at, is_answer, result: Mutex::default() });
        self.of_received(id, |question| {
            if is_answer && !question.added.is_empty() {
                return Err(Errno::EBUSY);
            }
            question.added.try_push(added.clone())?;
            if is_answer {
                question.stage = Stage::Answered;
            }
            Ok(())
        })?;
        self.replies.wake_all();
        let done = || added.result.lock().is_some();
        if self.replies.wait_until(done, None, true) == WaitResult::Interrupted {
            let mut state = self.state.lock();
            if let Ok(question) = state.find(id) {
                let before = question.added.len();
                question.added.retain(|one| !Arc::ptr_eq(one, &added));
                if before != question.added.len() {
                    if is_answer {
                        question.stage = Stage::Received;
                    }
                    return Err(Errno::RESTART);
                }
            }
            drop(state);
            // Too late to take it back: it is being placed.
            self.replies.wait(done);
        }
        let result = added.result.lock().take();
        result.unwrap_or(Err(Errno::ESRCH)).map(|fd| fd as usize)
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for question in state.questions.iter_mut().filter(|question| question.stage != Stage::Answered) {
            question.answer = Answer { value: 0, error: Errno::ENOSYS.to_rax() as i32, goes_on: false };
            question.stage = Stage::Answered;
        }
        drop(state);
        self.replies.wake_all();
    }
}

fn word(bytes: &[u8; ANSWER], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_ne_bytes(*word))
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl FileOps for Desk {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ioctl(&self, request: u32, argument: u64) -> Result<usize> {
        let listener = &self.0;
        match request {
            RECEIVE => listener.receive(argument).map(|()| 0),
            SEND => listener.send(argument).map(|()| 0),
            IS_VALID | IS_VALID_TOO => {
                let id = user::read_u64(argument)?;
                let is_valid = listener.of_received(id, |_| Ok(()));
                is_valid.map(|()| 0).map_err(|_| Errno::ENOENT)
            }
            SET_FLAGS if argument & !SAME_PROCESSOR == 0 => Ok(0),
            _ if request & !WAY_AND_SIZE == ADD & !WAY_AND_SIZE => {
                listener.add(argument, (request >> 16 & 0x3fff) as usize)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn poll(&self) -> Events {
        let state = self.0.state.lock();
        let mut events = Events::empty();
        for question in &state.questions {
            match question.stage {
                Stage::Asked => events |= Events::READABLE,
                Stage::Received => events |= Events::WRITABLE,
                Stage::Answered => {}
            }
        }
        events | if state.unused { Events::HUP } else { Events::empty() }
    }

    fn watch(&self, watchers: &mut Watchers) {
        watchers.add(&self.0.signal);
    }
}

//! Files: names, what they name, and what an open one can do.
//!
//! ```text
//!   system calls ── path walk ──► Location (mount, dentry) ──► dyn Inode ── open ──► dyn FileOps
//!                                  dentry cache, mounts         p9, tmpfs, dev,       in a File: offset,
//!                                                               synth (/proc, /sys)   flags, shared by dup
//! ```
//!
//! A file system implements [`Inode`]; whatever can be read or written once it is open implements [`FileOps`]. Regular
//! files have neither code of their own for reading: their bytes are the pages of a memory object (`Inode::object`), which
//! is the page cache, and [`cache`] copies between those pages and the program. So a file that is read and one that is
//! mapped are the same frames.
//!
//! Locks: data is under `spin` locks that are never held over anything that can sleep (another file system's call, a
//! user copy, an object's page). What must be one step over a sleep (a shared offset, an append) is under a
//! [`SleepLock`]. Wakers drop their spin lock first, because a waiter's condition takes it under the queue's.
#![forbid(unsafe_code)]

pub mod cred;
pub mod inode;

pub use cred::Cred;
pub use inode::{DirEntry, Inode, InodeId, Kind, NewNode, SetAttr, Stat, StatFs, Time};

//! Paging: entries, the cursor that alone writes them, and the gather that alone takes them back.

pub mod clear;
pub mod cursor;
pub mod entry;
pub mod gather;
pub mod huge;
pub mod look;
pub mod share;
pub mod slot;
mod views;

pub use clear::Visitor;
pub use cursor::{Cursor, KernelHalf, Tables};
pub use entry::Entry;
pub use gather::{Flush, FlushPages, Flushed, Gather, Shootdown, Sweep, Unflushed};
pub use slot::Slot;
pub use views::Leaving;

//! Paging: entries, the cursor that alone writes them, and the gather that alone takes them back.

pub mod cursor;
pub mod entry;
pub mod gather;
pub mod huge;
pub mod share;

pub use cursor::{Cursor, KernelHalf, Slot, Tables, Visitor};
pub use entry::Entry;
pub use gather::{Flush, FlushPages, Flushed, Gather, Shootdown, Sweep, Target};

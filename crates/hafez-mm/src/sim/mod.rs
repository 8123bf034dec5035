//! The software machine: RAM, processors, a disk and programs, to run the core on a host, thousands of times a second.
//!
//! ```text
//!   programs    random calls, loads and stores; an oracle that knows what every load must see     world, ops, oracle
//!      |
//!   tasks       threads on one thread; a seed names the interleaving                              tasks
//!      |
//!   the core    as in the kernel
//!      |
//!   machine     RAM, processors with stale translations, faulty disks and files                   machine, mmu, disk, file
//! ```
//!
//! Three things make errors visible that a kernel would only suffer from later:
//!
//! - a processor keeps using a translation until it is told otherwise, and stores through it in the last moment
//!   before a flush: who copies, writes out or frees a page before the flush, loses that store or spoils another page;
//! - a disk answers when and in the order that it likes, and its reads fill frames with nonsense until then;
//! - at quiet points the audit looks at everything, and the translations are held against the tables.
//!
//! A run is named by its seed. A test that fails prints it.

pub mod calls;
pub mod disk;
pub mod file;
pub mod files;
pub mod machine;
pub mod mmu;
pub mod ops;
pub mod oracle;
pub mod random;
pub mod tasks;
pub mod wide;
pub mod world;

pub use disk::{Disk, Faults};
pub use file::SimFile;
pub use machine::{Build, Hooks, Machine};
pub use random::Random;
pub use world::{Setup, World};

//! The control port: messages between the `hafez` command and the kernel.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

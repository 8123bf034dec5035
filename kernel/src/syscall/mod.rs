//! The system calls.

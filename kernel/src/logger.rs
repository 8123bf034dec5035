//! Log lines go to the early console, which needs nothing and never blocks: so any room may log anywhere.

#![forbid(unsafe_code)]

use crate::arch::console::Out;
use crate::kmsg;
use core::fmt::Write;
use log::{Level, LevelFilter, Log, Metadata, Record};

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let gravity = match record.level() {
            Level::Error => kmsg::ERROR,
            Level::Warn => kmsg::WARNING,
            _ => kmsg::REMARK,
        };
        kmsg::say(gravity, *record.args());
        let _ = writeln!(Out, "{}: {}", record.level().as_str(), record.args());
    }
    fn flush(&self) {}
}

/// Log from `level` up (`hafez.log=`; warnings and errors where it says nothing).
pub fn init(level: Option<&str>) {
    let level = level.and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::Warn);
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(level);
    }
}

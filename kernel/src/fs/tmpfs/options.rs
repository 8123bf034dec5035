//! What `mount(2)` says of a file system in memory: `tmpfs(5)`.

use super::{Node, TmpFs, most_nodes};
use crate::errno::{Errno, Result};
use crate::fs::inode::{Inode, SetAttr};
use crate::mem::memory;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use hafez_mm::PAGE_SIZE;

/// The options that were given.
#[derive(Default)]
struct Options {
    /// In pages; 0: no limit.
    pages: Option<u64>,
    files: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

fn parse(data: &[u8]) -> Result<Options> {
    let mut options = Options::default();
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let id = || value.parse::<u32>().ok().filter(|id| *id != u32::MAX).ok_or(Errno::EINVAL);
        match key {
            "size" => options.pages = Some(size(value)?.div_ceil(PAGE_SIZE as u64)),
            "nr_blocks" => options.pages = Some(number(value)?),
            "nr_inodes" => options.files = Some(number(value)?),
            "mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)?;
                options.mode = Some(mode & 0o7777);
            }
            "uid" => options.uid = Some(id()?),
            "gid" => options.gid = Some(id()?),
            // Numbers of files are of 64 bits here; pages are small, and on the one node.
            "inode64" if value.is_empty() => {}
            "huge" if value == "never" => {}
            "mpol" if value == "default" => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(options)
}

/// A number, with a letter for its unit.
fn number(text: &str) -> Result<u64> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'k') => (&text[..text.len() - 1], 10),
        Some(b'm') => (&text[..text.len() - 1], 20),
        Some(b'g') => (&text[..text.len() - 1], 30),
        Some(b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |digits| (digits, 16));
    let value = u64::from_str_radix(digits, radix).map_err(|_| Errno::EINVAL)?;
    value.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

/// The same in bytes; a percentage is of the RAM.
fn size(text: &str) -> Result<u64> {
    let ram = memory().stats().total * PAGE_SIZE as u64;
    match text.strip_suffix('%') {
        Some(part) => Ok(ram / 100 * number(part)?.min(1 << 20)),
        None => number(text),
    }
}

/// The root directory of a new one. Unasked it holds half of the RAM.
pub fn fresh(data: &[u8]) -> Result<Arc<dyn Inode>> {
    let options = parse(data)?;
    let pages = options.pages.unwrap_or(memory().stats().total / 2);
    let limit = (pages != 0).then(|| pages.saturating_mul(PAGE_SIZE as u64));
    let root = TmpFs::mount(options.mode.unwrap_or(0o1777), limit)?;
    if let Ok(node) = Node::of(&root) {
        node.fs.set_most(options.files);
    }
    if let Ok(node) = Node::of(&root) {
        node.fs.given.call_once(|| given(&options));
    }
    let owner = SetAttr { uid: options.uid, gid: options.gid, ..SetAttr::default() };
    root.setattr(&owner)?;
    Ok(root)
}

/// The same one with other limits; EINVAL if it holds more already. Who owns its root, and how, stays.
pub fn reconfigure(root: &Arc<dyn Inode>, data: &[u8]) -> Result<()> {
    let options = parse(data)?;
    let fs = &Node::of(root)?.fs;
    if let Some(pages) = options.pages {
        if pages != 0 && fs.used.load(Relaxed) > pages {
            return Err(Errno::EINVAL);
        }
        fs.limit.store(if pages == 0 { u64::MAX } else { pages }, Relaxed);
    }
    if options.files.is_some_and(|files| files != 0 && files < fs.nodes.load(Relaxed)) {
        return Err(Errno::EINVAL);
    }
    if options.files.is_some() {
        fs.set_most(options.files);
    }
    Ok(())
}

/// What was said of the root, as `/proc/mounts` repeats it.
fn given(options: &Options) -> String {
    let mut text = String::new();
    if let Some(mode) = options.mode.filter(|mode| *mode != 0o1777) {
        text.push_str(&format!(",mode={mode:03o}"));
    }
    if let Some(uid) = options.uid.filter(|uid| *uid != 0) {
        text.push_str(&format!(",uid={uid}"));
    }
    if let Some(gid) = options.gid.filter(|gid| *gid != 0) {
        text.push_str(&format!(",gid={gid}"));
    }
    text
}

/// What `/proc/mounts` says of it, where that is not what it is unasked.
pub fn told(root: &Arc<dyn Inode>) -> String {
    let mut text = String::new();
    let Ok(node) = Node::of(root) else { return text };
    let pages = node.fs.limit().unwrap_or(0);
    if pages != memory().stats().total / 2 {
        text.push_str(&format!(",size={}k", pages.saturating_mul(PAGE_SIZE as u64 / 1024)));
    }
    let most = node.fs.most.load(Relaxed);
    if most != most_nodes() {
        text.push_str(&format!(",nr_inodes={most}"));
    }
    text.push_str(node.fs.given.get().map_or("", String::as_str));
    text
}

impl TmpFs {
    /// `None` and 0: as many files as there may be.
    fn set_most(&self, files: Option<u64>) {
        let most = files.filter(|files| *files != 0).unwrap_or(u64::MAX).min(most_nodes());
        self.most.store(most, Relaxed);
    }
}

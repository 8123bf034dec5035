//! An open regular file of an overlay: each access goes to the body if there is one by then, else to the file below.

use super::Node;
use crate::errno::Result;
use crate::fs::{
    file::{FileOps, How, Mapping},
    inode::*,
    iobuf::{Sink, Source},
};
use alloc::sync::Arc;
use core::any::Any;
use hafez_mm::lock::Once;

struct Open {
    node: Arc<Node>,
    how: OpenMode,
    /// Of the file below, while there was no body yet.
    below: Option<Arc<dyn FileOps>>,
    body: Once<Arc<dyn FileOps>>,
}

/// Open for writing is the beginning of a change.
pub fn open(node: Arc<Node>, how: OpenMode) -> Result<Arc<dyn FileOps>> {
    if how.write || how.truncate {
        node.copy_up(!how.truncate)?;
    }
    let below = match node.body.get() {
        None => Some(node.now().clone().open(how)?),
        Some(_) => None,
    };
    let open = Open { node, how, below, body: Once::new() };
    open.current()?;
    Ok(Arc::new(open))
}

impl Open {
    fn current(&self) -> Result<&Arc<dyn FileOps>> {
        match (self.node.body.get(), &self.below) {
            (None, Some(below)) => Ok(below),
            _ => self.body.try_call_once(|| self.node.now().clone().open(self.how)),
        }
    }
}

impl FileOps for Open {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, at: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        self.current()?.read(at, to, how)
    }
    fn write(&self, at: u64, from: &mut Source<'_>, how: How) -> Result<()> {
        self.current()?.write(at, from, how)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn mapping(&self, shared: bool) -> Result<Mapping> {
        // One that is too large to be copied for a mapping that will hardly see a change is mapped as it is.
        if shared && (self.how.write || self.node.fits()) {
            self.node.copy_up(true)?;
        }
        self.current()?.mapping(shared)
    }
    fn sync(&self, data_only: bool) -> Result<()> {
        self.current()?.sync(data_only)
    }
    fn closed(&self) {
        if let Ok(ops) = self.current() {
            ops.closed();
        }
    }
    fn size(&self) -> Result<u64> {
        self.current()?.size()
    }
    fn seek_data(&self, at: u64, hole: bool) -> Result<u64> {
        self.current()?.seek_data(at, hole)
    }
}

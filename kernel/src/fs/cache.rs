//! Reading and writing regular files: copies between a program and the pages of the file's object, which is the page
//! cache (`DESIGN`: "file and mapping are the same frames").
//!
//! ```text
//!   read(fd, buf, n):   for each page:  object_page(index) ──► pinned frame ──copy──► user page
//!   write(fd, buf, n):  make the file long enough, then the same the other way; the page is dirty from then on
//! ```
//!
//! A pin keeps the frame in RAM while the copy may fault and sleep; it is not a lock, so that a program may read
//! a file into a mapping of the same page. A write grows the file by no more than the page it is about to fill, and
//! takes back what a fault in the middle left unwritten: the size never counts bytes that nobody wrote.
//! Write-back is the memory core's; `fsync` waits for it.

use super::{
    file::{FileOps, How, Mapping},
    inode::Inode,
    iobuf::{Sink, Source},
};
use crate::{
    errno::{Errno, Result},
    mem::memory,
};
use alloc::sync::Arc;
use core::any::Any;
use hafez_mm::{Object, PAGE_SIZE};

/// The longest file: what an offset can name.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// An open regular file.
pub struct CachedFile {
    inode: Arc<dyn Inode>,
    object: Arc<Object>,
}

impl CachedFile {
    /// Open what is ready to be read and written.
    pub fn open(inode: Arc<dyn Inode>) -> Result<Arc<dyn FileOps>> {
        let object = inode.object()?;
        Ok(Arc::new(CachedFile { inode, object }))
    }

    /// The write's part in one page: `offset..offset + len` of page `index`.
    fn write_page(&self, index: u64, offset: usize, len: usize, from: &mut Source<'_>) -> Result<()> {
        let begin = index * PAGE_SIZE as u64 + offset as u64;
        self.inode.fill_page(index)?;
        let old = self.object.size();
        if begin + len as u64 > old {
            self.inode.grow(begin + len as u64)?;
        }
        let page = memory().object_page(&self.object, index, true);
        let n = match &page {
            Ok(pin) => from.take_frame(pin.frame(), offset, len),
            Err(_) => 0,
        };
        if n < len && begin + len as u64 > old {
            // Where not even that works, the file has zeroes at its end that nobody wrote.
            let _ = memory().object_resize(&self.object, old.max(begin + n as u64));
        }
        page?;
        Ok(())
    }
}

impl FileOps for CachedFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, at: u64, to: &mut Sink<'_>, how: How) -> Result<()> {
        let mut at = at;
        while to.remaining() > 0 {
            let left = self.object.size().saturating_sub(at);
            let offset = at as usize % PAGE_SIZE;
            let len = left.min((PAGE_SIZE - offset).min(to.remaining()) as u64) as usize;
            if len == 0 {
                break;
            }
            let page = match memory().object_page(&self.object, at / PAGE_SIZE as u64, false) {
                Ok(page) => page,
                // Truncated since we looked at the size.
                Err(hafez_mm::FaultError::PastEnd) => break,
                Err(e) => return Err(e.into()),
            };
            at += to.put_frame(page.frame(), offset, len) as u64;
        }
        if !how.unnoticed {
            self.inode.accessed();
        }
        Ok(())
    }

    fn write(&self, at: u64, from: &mut Source<'_>, how: How) -> Result<()> {
        if from.remaining() == 0 {
            return Ok(());
        }
        self.inode.check_unsealed()?;
        let mut at = at;
        let result = loop {
            let offset = at as usize % PAGE_SIZE;
            let len = (PAGE_SIZE - offset).min(from.remaining());
            if len == 0 {
                break Ok(());
            }
            let room = how.size_limit.min(MAX_SIZE).saturating_sub(at);
            let len = room.min(len as u64) as usize;
            if len == 0 {
                break Err(Errno::EFBIG);
            }
            let before = from.done();
            if let Err(e) = self.write_page(at / PAGE_SIZE as u64, offset, len, from) {
                break Err(e);
            }
            at += (from.done() - before) as u64;
        };
        if from.done() > 0 {
            self.inode.written();
        }
        result
    }

    fn seekable(&self) -> bool {
        true
    }
    fn mapping(&self, _: bool) -> Result<Mapping> {
        Ok(Mapping::Object(self.object.clone()))
    }
    fn sync(&self, data_only: bool) -> Result<()> {
        self.inode.sync(data_only)
    }
    fn size(&self) -> Result<u64> {
        Ok(self.object.size())
    }
    fn seek_data(&self, at: u64, hole: bool) -> Result<u64> {
        let size = self.object.size();
        if at >= size {
            return Err(Errno::ENXIO);
        }
        Ok(self.inode.next_data(at, hole).filter(|to| *to < size).unwrap_or(size)).and_then(|to| {
            // Past the last data there is only the hole at the end.
            if !hole && to == size { Err(Errno::ENXIO) } else { Ok(to) }
        })
    }
    fn closed(&self) {
        if let Err(error) = self.inode.close_written() {
            log::error!("file {:?}: what was written is lost: {error}", self.inode.id());
        }
    }
}

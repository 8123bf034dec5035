//! Placeholder until the file room joins.
use crate::errno::Result;
use alloc::sync::Arc;

pub struct FileTable;
impl FileTable {
    pub fn new() -> FileTable {
        FileTable
    }
    pub fn fork_copy(&self) -> Result<Arc<FileTable>> {
        Ok(Arc::new(FileTable))
    }
}
pub struct FsContext;
impl FsContext {
    pub fn fork_copy(&self) -> Arc<FsContext> {
        Arc::new(FsContext)
    }
}
#[derive(Clone, Default)]
pub struct Cred {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Arc<alloc::vec::Vec<u32>>,
}
impl Cred {
    pub fn is_root(&self) -> bool {
        self.fsuid == 0
    }
}

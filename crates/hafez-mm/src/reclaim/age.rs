//! Ageing: a walk over the page tables that learns which pages were used.
//!
//! The processor sets a bit in an entry when it uses it. The walk takes these bits back, and moves each page that had
//! one to the youngest generation: a linear pass over dense memory, where asking page by page through the reverse map
//! would be a walk for each. A page that several spaces map is young if any of them used it.

use super::Reclaim;
use crate::Platform;
use crate::addr::{PageRange, USER_END, Vpn};
use crate::paging::{Entry, Sweep};
use crate::space::Spaces;
use crate::space::map::Clearing;

impl Reclaim {
    /// Walk all spaces; used pages join `generation`, and nodes of page tables that nothing is used in are free.
    #[inline(never)]
    pub(super) fn walk<P: Platform>(&self, spaces: &Spaces<P>, generation: u8) {
        let mut number = 0;
        while let Some((next, space)) = spaces.spaces.next(number) {
            number = next;
            let mut sweep = Sweep::new(spaces);
            let all = PageRange::new(Vpn(0), USER_END);
            let mut cursor = spaces.cursor(&space, all);
            cursor.each(all, &mut |page, slot| {
                if slot.take_accessed()
                    && let Entry::Present { frame, .. } = slot.get()
                    && frame != spaces.frames.zero
                {
                    sweep.page(&space.tables, page);
                    self.note_ahead(spaces, frame, true);
                    spaces.frames.lists.promote(spaces.frames.table(), frame, generation);
                }
            });
            let mut gather = spaces.gather(&space, all);
            cursor.tidy(&mut Clearing { spaces, gather: &mut gather });
            gather.flush();
        }
    }
}

//! Physical Region Pages (NVMe Base 2.0, "Physical Region Page Entry and List").

use doorbell_device::inprocess::DmaView;
use nvme_spec::Status;
use nvme_spec::command::DataPointer;

use super::{Extents, ListBuffer};

/// Bytes of a PRP entry.
const ENTRY: u64 = 8;

/// Finds the pieces of `len` bytes of data. The work is bounded by `len`: each list page but the first brings at least
/// one page of data.
#[inline]
pub(crate) fn walk(
    dma: &DmaView<'_>,
    page: u32,
    dptr: DataPointer,
    len: u64,
    lists: &mut ListBuffer,
    extents: &mut Extents,
) -> Result<(), Status> {
    extents.clear();
    if len == 0 {
        return Ok(());
    }
    let first = dptr.prp1();
    // The lowest two bits of an entry are reserved as 0: data starts at a dword.
    if !first.is_multiple_of(4) {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    let offset = first & u64::from(page).saturating_sub(1);
    let in_first = len.min(u64::from(page).saturating_sub(offset));
    extents.push(first, in_first as u32);
    let rest = len.saturating_sub(in_first);
    if rest == 0 {
        return Ok(());
    }
    let second = dptr.prp2();
    if rest <= u64::from(page) {
        return push_page(extents, second, page, rest);
    }
    walk_list(dma, page, second, rest, lists, extents)
}

/// An entry that is not the first one: a page from its start.
#[inline]
fn push_page(extents: &mut Extents, entry: u64, page: u32, len: u64) -> Result<(), Status> {
    if !entry.is_multiple_of(u64::from(page)) {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    extents.push(entry, len as u32);
    Ok(())
}

fn walk_list(
    dma: &DmaView<'_>,
    page: u32,
    list: u64,
    mut rest: u64,
    lists: &mut ListBuffer,
    extents: &mut Extents,
) -> Result<(), Status> {
    let page_bytes = u64::from(page);
    let mut list = list;
    // The first list page may be entered anywhere that is a multiple of an entry; those it leads to start at 0.
    if !list.is_multiple_of(ENTRY) {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    loop {
        let slots = page_bytes.saturating_sub(list & page_bytes.saturating_sub(1)) / ENTRY;
        let needed = rest.div_ceil(page_bytes);
        // The last slot of a list page leads on to the next one, if the data does not end with this page.
        let chained = needed > slots;
        let entries = needed.min(slots);
        let bytes = lists.load(dma, list, (entries.saturating_mul(ENTRY)) as usize)?;
        let (entries, _) = bytes.as_chunks::<{ ENTRY as usize }>();
        let (next, data) = match entries.split_last() {
            Some((last, data)) if chained => (Some(u64::from_le_bytes(*last)), data),
            _ => (None, entries),
        };
        for entry in data {
            let part = rest.min(page_bytes);
            push_page(extents, u64::from_le_bytes(*entry), page, part)?;
            rest = rest.saturating_sub(part);
        }
        let Some(next) = next else { return Ok(()) };
        if !next.is_multiple_of(page_bytes) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        list = next;
    }
}

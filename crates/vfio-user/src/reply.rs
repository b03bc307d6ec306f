//! What a server answers, where it is more than one structure: regions with their capabilities.

use zerocopy::{FromBytes, IntoBytes};

use crate::Malformed;
use crate::wire::{CAP_SPARSE_MMAP, CapabilityHeader, Command, REGION_CAPS, RegionInfo, SparseArea, SparseHeader};

/// Areas of a region that are looked at.
const MAX_AREAS: usize = 256;
/// Capabilities that are looked at.
const MAX_CAPABILITIES: usize = 16;

/// Writes a region's description, for a client that has room for `argsz` bytes; the descriptor must come along only if
/// the second of what is returned says so.
///
/// A client that has too little room learns how much is needed, and asks again.
pub fn region_info(info: RegionInfo, areas: &[SparseArea], argsz: u32) -> (Vec<u8>, bool) {
    if areas.is_empty() {
        let info =
            RegionInfo { argsz: size_u32::<RegionInfo>(), cap_offset: 0, flags: info.flags & !REGION_CAPS, ..info };
        return (info.as_bytes().to_vec(), true);
    }
    let capability = CapabilityHeader { id: CAP_SPARSE_MMAP, version: 1, next: 0 };
    let count = u32::try_from(areas.len()).unwrap_or(u32::MAX);
    let mut list = capability.as_bytes().to_vec();
    list.extend(SparseHeader { areas: count, reserved: 0 }.as_bytes());
    list.extend(areas.as_bytes());
    let whole = size_u32::<RegionInfo>().saturating_add(u32::try_from(list.len()).unwrap_or(u32::MAX));
    let fits = argsz >= whole;
    // QEMU takes a description with capabilities and without an offset for a broken one, whether they fit or not.
    let cap_offset = size_u32::<RegionInfo>();
    let info = RegionInfo { argsz: whole, flags: info.flags | REGION_CAPS, cap_offset, ..info };
    let mut bytes = info.as_bytes().to_vec();
    if fits {
        bytes.extend(list);
    }
    (bytes, fits)
}

#[expect(clippy::cast_possible_truncation, reason = "the structures of the wire are small")]
const fn size_u32<T>() -> u32 {
    size_of::<T>() as u32
}

/// Reads a region's description: what it is, and the areas of it that can be mapped, if there is such a list. If
/// [`argsz`](RegionInfo::argsz) is more than there are bytes, there was no room for a list, and it has to be asked for again.
///
/// The areas lie in the region, each of whole pages, none empty.
pub fn parse_region_info(payload: &[u8]) -> Result<(RegionInfo, Option<Vec<SparseArea>>), Malformed> {
    let bad = |reason: String| Malformed::new(Command::DeviceGetRegionInfo, reason);
    let (info, _) = RegionInfo::read_from_prefix(payload)
        .map_err(|_| bad(format!("{} bytes of payload hold no region", payload.len())))?;
    let mut areas = None;
    // A server to which too little room was given names the place of what it left out.
    let complete = info.argsz as usize <= payload.len();
    let mut next = if info.flags & REGION_CAPS != 0 && complete { info.cap_offset } else { 0 };
    let mut last = 0;
    for _ in 0..MAX_CAPABILITIES {
        if next == 0 {
            return Ok((info, areas));
        }
        if next <= last || (next as usize) < size_of::<RegionInfo>() {
            return Err(bad(format!("a capability at offset {next:#x}, after one at {last:#x}")));
        }
        let found = payload.get(next as usize..).and_then(|bytes| CapabilityHeader::read_from_prefix(bytes).ok());
        let (header, rest) =
            found.ok_or_else(|| bad(format!("a capability at offset {next:#x} of {} bytes", payload.len())))?;
        if header.id == CAP_SPARSE_MMAP {
            areas.get_or_insert_default().extend(sparse_areas(&info, rest).map_err(bad)?);
        }
        last = next;
        next = header.next;
    }
    Err(bad(format!("more than {MAX_CAPABILITIES} capabilities")))
}

fn sparse_areas(info: &RegionInfo, bytes: &[u8]) -> Result<Vec<SparseArea>, String> {
    let (header, rest) = SparseHeader::read_from_prefix(bytes).map_err(|_| "a cut list of areas".to_owned())?;
    let count = header.areas as usize;
    if count > MAX_AREAS {
        return Err(format!("{count} areas; {MAX_AREAS} are looked at most"));
    }
    let (whole, _) = rest.as_chunks::<{ size_of::<SparseArea>() }>();
    let whole = whole.get(..count).ok_or_else(|| format!("{count} areas in {} bytes", rest.len()))?;
    let mut areas: Vec<SparseArea> = whole.iter().map(|bytes| zerocopy::transmute!(*bytes)).collect();
    // libvfio-user describes areas that are not there as empty ones.
    areas.retain(|area| area.size > 0);
    for SparseArea { offset, size } in &areas {
        let inside = offset.checked_add(*size).is_some_and(|end| end <= info.size);
        if !inside || !offset.is_multiple_of(4096) || !size.is_multiple_of(4096) {
            return Err(format!("an area of {size:#x} bytes at {offset:#x} of a region of {:#x}", info.size));
        }
    }
    Ok(areas)
}

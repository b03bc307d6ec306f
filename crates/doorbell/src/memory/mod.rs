//! The memory that commands move: guest pages, buffers handed out by the driver, and ordinary slices; and how a
//! command names it to the device (PRP lists, SGLs).

mod buffer;
mod buffers;
mod guest;
mod paged_range;
mod payload;
#[cfg_attr(
    not(test),
    expect(
        clippy::arithmetic_side_effects,
        reason = "counts within a list's own words; addresses are of what is mapped"
    )
)]
mod pointers;

pub use buffer::DmaBuffer;
pub(crate) use buffers::Buffers;
pub use guest::{GuestMemory, GuestMemoryBuilder, MemoryError};
pub(crate) use guest::{Life, Registration};
pub use paged_range::{PAGE_SIZE, PagedRange};
pub(crate) use payload::{Payload, run_pointers};
pub(crate) use pointers::{Chain, Layout, Pointers, chain_pages};

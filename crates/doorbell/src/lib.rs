//! A userspace NVMe driver.
//!
//! [`NvmeDriver`] brings a controller up, over whatever [`doorbell_device::Device`] carries it; [`Namespace`] is the
//! front end: async read, write, flush, deallocate, compare, copy and reservations, from any CPU, over guest memory
//! that the device reaches directly.
//!
//! The caller submits: a command is built and its doorbell rung in the first poll of its future, with no task, channel
//! or allocation in between. Whoever has time completes: an interrupt task, a polling thread, or the waiting future.
//! Nothing that the device says is believed.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod driver;
mod error;
mod exclusive;
mod manager;
mod memory;
mod namespace;
#[cfg_attr(
    not(test),
    expect(
        clippy::arithmetic_side_effects,
        reason = "places in a ring and counters; what the device says is compared, never reckoned with"
    )
)]
mod queue;
mod registrations;
mod runtime;
mod saved;
mod sync;

pub use driver::{
    AdminView, CoalescingView, CompletionMode, ControllerEvent, ControllerState, ControllerView, CpuView,
    DriverOptions, DriverView, EventListener, HostId, InheritedCommand, InheritedResult, NotYet, NvmeDriver,
    PendingCommand, Prepared, Recovery, RestoreError, Restored, Retries, Saved, ShadowDoorbells, ShutdownMode,
};
pub use error::{
    DeviceFailed, DeviceMisbehaved, DriverError, ErrorClass, MemoryError, NamespaceError, NvmeError, RequestError,
};
pub use exclusive::{Completed, ExclusiveQueue};
pub use manager::{ManagerError, NvmeManager};
pub use memory::{DmaBuffer, GuestMemory, GuestMemoryBuilder, PAGE_SIZE, PagedRange};
pub use namespace::{
    Batch, BufferTransfer, LargeTransferError, LbaRange, Namespace, NamespaceId, NamespaceOptions, NamespaceView,
    Protection, ReservationCapabilities, ReservationReport, SplitPlan, Transfer,
};
pub use queue::{CommandState, Counters, QueueState};
pub use runtime::{BoxFuture, InterruptWatch, Runtime, ThreadRuntime};
pub use saved::{STATE_VERSION, StateError};

//! Guest memory that a driver's device can reach.
//!
//! A registration owns the mappings. Slots name it by a key, so no count is shared between CPUs per I/O. Unregistering
//! marks it dead, waits for the slots that name it, then lets the mappings go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use doorbell_device::{Access, DeviceError, DmaMemory, HostMemory, MapRequest};

use crate::driver::Core;
use crate::error::RequestError;
use crate::memory::{GuestMemory, Life, Registration};
use crate::saved;

#[derive(Default)]
pub(crate) struct Registrations {
    table: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    last_key: u64,
    by_key: HashMap<u64, Arc<Registration>>,
}

impl Registrations {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As they cross over to another process; `index` says which memory is which there. `None` while one is being
    /// unregistered.
    pub(crate) fn save(&self, mut index: impl FnMut(&DmaMemory) -> u32) -> Option<Vec<saved::Registration>> {
        let known = self.lock();
        let save = |registration: &Arc<Registration>| {
            let mappings = registration.mappings.lock().unwrap_or_else(PoisonError::into_inner);
            let regions = registration.regions.iter().zip(&*mappings).map(|((gpa, access), mapping)| saved::Region {
                gpa: *gpa,
                memory: index(mapping),
                writable: access.allows(Access::Write),
                readable: access.allows(Access::Read),
            });
            let regions = regions.collect();
            (!registration.life.has_ended()).then_some(saved::Registration { key: registration.life.key, regions })
        };
        known.by_key.values().map(save).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    /// Takes all mappings down: the device could not be stopped, and must not reach the memory any more.
    pub(crate) fn unmap_all(&self) {
        for registration in self.lock().by_key.values() {
            registration.life.end();
            drop(take_mappings(registration));
        }
    }
}

fn take_mappings(registration: &Registration) -> Vec<DmaMemory> {
    std::mem::take(&mut *registration.mappings.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Core {
    /// Makes guest memory reachable for the device.
    pub(crate) fn register(self: &Arc<Self>, memory: &GuestMemory) -> Result<GuestMemory, RequestError> {
        self.check_running()?;
        if self.is_held_still() {
            return Err(RequestError::WouldWait);
        }
        // Guest addresses keep their place within the controller's pages, so that pages stay pages; 2 MiB keeps huge
        // pages too.
        let align = (self.page_size as u64).max(2 << 20);
        let request = |(gpa, host, access): (u64, &HostMemory, _)| {
            let host = host.clone();
            MapRequest { host, access, align, offset: gpa.checked_rem(align).unwrap_or_default() }
        };
        let mappings = self.device.map_all(memory.regions().map(request).collect()).map_err(|error| match error {
            DeviceError::MappingLimit(reason) => DeviceError::MappingLimit(format!(
                "{reason}; memory that is not registered goes through bounce buffers"
            )),
            error => error,
        })?;
        let key = {
            let mut known = self.registrations.lock();
            known.last_key = known.last_key.wrapping_add(1);
            known.last_key
        };
        Ok(self.tie(memory, key, mappings))
    }

    /// Goes on with a registration of the process before.
    pub(crate) fn inherit_registration(
        self: &Arc<Self>,
        memory: &GuestMemory,
        key: u64,
        mappings: Vec<DmaMemory>,
    ) -> GuestMemory {
        {
            let mut known = self.registrations.lock();
            known.last_key = known.last_key.max(key);
        }
        self.tie(memory, key, mappings)
    }

    fn tie(self: &Arc<Self>, memory: &GuestMemory, key: u64, mappings: Vec<DmaMemory>) -> GuestMemory {
        let iovas: Vec<u64> = mappings.iter().map(DmaMemory::iova).collect();
        let core: Weak<Core> = Arc::downgrade(self);
        let registration = Arc::new(Registration {
            driver: self.id,
            life: Life::new(key),
            mappings: Mutex::new(mappings),
            regions: memory.regions().map(|(gpa, _, access)| (gpa, access)).collect(),
            on_drop: Box::new(move |key| {
                // Nobody can use it any more, but the device may still: it goes when the last command is done.
                if let Some(core) = core.upgrade() {
                    let background = core.clone();
                    core.options
                        .runtime
                        .spawn("unregister memory", Box::pin(async move { background.unregister(key).await }));
                }
            }),
        });
        self.registrations.lock().by_key.insert(key, registration.clone());
        memory.registered(registration, &iovas)
    }

    /// Marks a registration dead, waits until no command names it, and lets its mappings go.
    pub(crate) async fn unregister(&self, key: u64) {
        self.wait_not_held().await;
        let Some(registration) = self.registrations.lock().by_key.get(&key).cloned() else { return };
        registration.life.end();
        for queue in self.issuers.queues() {
            // Passes through the queue's lock, after which no command that was being built is unseen.
            queue.retire(|slots, slot| slots.registration(slot) == key).await;
        }
        self.registrations.lock().by_key.remove(&key);
        drop(take_mappings(&registration));
    }
}

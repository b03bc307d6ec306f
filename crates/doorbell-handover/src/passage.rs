//! A driven controller on its way from one process to another, however its state and descriptors get there.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use doorbell::{DriverOptions, NvmeDriver, Prepared, Restored, Saved};
use doorbell_device::vfio::VfioDevice;
use doorbell_device::{Arriving, Device, DeviceError, Leaving, Parts};
use doorbell_vfio_user::VfioUserDevice;
use prost::Message;

use crate::message::Body;
use crate::{GiveError, HandoverError, TakeError};

/// A driver that is held still, with its device.
///
/// [`let_go`](Self::let_go) leaves the controller to whoever [arrives](Arrival) with what is here. Dropped instead, this
/// process goes on with it. [`Handover`](crate::Handover) does all of it, and decides which; this is for programs that hand
/// over more than one driver, and have a way of their own to agree on that.
#[derive(Debug)]
#[must_use = "dropped, it lets the driver go on"]
pub struct Departure {
    // Dropped before the driver goes on, which uses it.
    leaving: Leaving,
    saved: Saved,
}

impl Departure {
    /// Whether a driver's controller can be had by another process, before anything is held still.
    ///
    /// # Errors
    /// [`GiveError::Device`]: the device cannot, or memory that is mapped for it.
    pub fn check(driver: &NvmeDriver) -> Result<(), GiveError> {
        driver.device().check_leave().map_err(GiveError::Device)
    }

    /// Holds the device of a [saved](NvmeDriver::save) driver still, too.
    ///
    /// # Errors
    /// [`GiveError::Device`]. Then the driver goes on.
    pub fn new(driver: &NvmeDriver, saved: Saved) -> Result<Self, GiveError> {
        let leaving = driver.device().leave(saved.memory()).map_err(GiveError::Device)?;
        Ok(Self { leaving, saved })
    }

    /// What the driver knows.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Descriptors that have to be where the state is.
    #[must_use]
    pub fn descriptors(&self) -> &[OwnedFd] {
        &self.leaving.parts().descriptors
    }

    /// What the other process has to know.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        self.body(Vec::new()).encode_to_vec()
    }

    pub(crate) fn body(&self, luggage: Vec<u8>) -> Body {
        let Parts { kind, state, .. } = self.leaving.parts();
        Body { kind: kind.clone(), device: state.clone(), driver: self.saved.state().to_vec(), luggage }
    }

    /// The controller is another process's. All that was pending here ends with
    /// [`RequestError::HandedOver`](doorbell::RequestError::HandedOver).
    pub fn let_go(self) {
        self.leaving.let_go();
        self.saved.hand_over();
    }
}

/// A controller of another process, of which everything is there, and nothing has been used.
///
/// [`begin`](Self::begin) makes it this process's. Dropped instead, it is still the other's.
#[must_use = "dropped, it stays the other process's"]
pub struct Arrival {
    arriving: Arriving,
    prepared: Prepared,
}

impl Arrival {
    /// Of the state and the descriptors of a [`Departure`]. `options` says how the device is to be driven; see
    /// [`DriverOptions::restore`].
    ///
    /// # Errors
    /// [`TakeError`]: they do not go together, or cannot be gone on with here.
    pub fn new(
        state: &[u8],
        descriptors: Vec<OwnedFd>,
        options: impl FnOnce(Arc<dyn Device>) -> DriverOptions,
    ) -> Result<Self, TakeError> {
        let body = Body::decode(state).map_err(|error| HandoverError::Misbehaved(error.to_string()))?;
        Self::of(body, descriptors, options)
    }

    pub(crate) fn of(
        body: Body,
        descriptors: Vec<OwnedFd>,
        options: impl FnOnce(Arc<dyn Device>) -> DriverOptions,
    ) -> Result<Self, TakeError> {
        let arriving = adopt(Parts { kind: body.kind, state: body.device, descriptors }).map_err(TakeError::Device)?;
        let prepared = options(arriving.device().clone()).prepare_restore(&body.driver, arriving.memory().to_vec());
        Ok(Self { arriving, prepared: prepared.map_err(TakeError::State)? })
    }

    /// The controller is this process's from now on: the other one has let go of it, or is about to, and uses it no more.
    ///
    /// # Errors
    /// [`TakeError::Begin`] and [`TakeError::NotWorking`]: it cannot be used.
    pub fn begin(self) -> Result<Restored, TakeError> {
        self.arriving.begin().map_err(TakeError::Begin)?;
        self.prepared.take_over().map_err(TakeError::NotWorking)
    }
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrival").field("arriving", &self.arriving).finish_non_exhaustive()
    }
}

/// Goes on with a device, of whatever back end it is.
fn adopt(parts: Parts) -> Result<Arriving, DeviceError> {
    match &*parts.kind {
        "pci" => VfioDevice::adopt(parts),
        "vfio-user" => VfioUserDevice::adopt(parts),
        other => Err(DeviceError::NotAdoptable(format!("there is no back end {other:?} here"))),
    }
}

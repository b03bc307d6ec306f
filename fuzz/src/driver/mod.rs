//! The driver, and a device of which the bytes are all that it does.
//!
//! Both draw from one stream of bytes, in virtual time, on one thread: [`Liar`](liar::Liar) what registers read as, what
//! becomes of each command and what else is written where; [`Odd`](odd::Odd) what fails on the way there; [`host`] what a
//! program does meanwhile. Whatever it is: nothing panics, everything has an end, no memory that a command names is given back
//! before the device is done with it, and in the end all of it is.

mod answers;
mod host;
mod input;
mod liar;
mod odd;

use std::sync::Arc;
use std::time::Duration;

use doorbell_device::Interrupt;
use doorbell_device::inprocess::{InProcess, Run};
use doorbell_device::wrap::DmaLedger;
use doorbell_sim::World;

use input::Input;
use liar::Liar;
use odd::Odd;

/// What takes part.
struct Play<'a> {
    input: Input,
    world: &'a World,
    device: Arc<InProcess<Liar>>,
    loss: Option<Interrupt>,
    caller_polls: bool,
}

/// A driver with an arbitrary device, from its bring-up to its end.
pub fn driver(data: &[u8]) {
    let input = Input::new(data);
    let world = World::new();
    let vectors = 1 + input.below(4) as u16;
    let liar = Liar::new(input.clone(), vectors);
    let Ok(device) = InProcess::new("liar:", liar, vectors.into(), Run::Stepped) else { return };
    world.add(&device);
    let loss = if input.below(2) == 1 { Interrupt::new().ok() } else { None };
    let may_return = input.below(2) == 1;
    let odd = Odd { device: device.clone(), input: input.clone(), loss: loss.clone(), may_return };
    let ledger = DmaLedger::new(Arc::new(odd));

    let mut play = Play { input, world: &world, device, loss, caller_polls: false };
    let options = host::options(&mut play, world.options(ledger.clone()));
    world.run(async {
        if let Ok(driver) = options.open().await {
            host::play(&play, driver).await;
        }
        world.sleep(Duration::from_secs(3600)).await;
    });

    assert_eq!(world.runtime().task_count(), 0, "tasks are left behind");
    assert_eq!(ledger.live_ranges(), [], "they are left behind");
}

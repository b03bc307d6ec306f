//! What one process hands to the next, as a process that is not to be trusted would write it.
//!
//! The driver's state, whole or with a few bytes changed while the driver works; the emulated subsystem's and its
//! controllers'. Whatever it is: nothing panics, everything has an end, and a state that is refused leaves the driver that
//! wrote it as it was.

use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use doorbell::{NvmeDriver, RestoreError, Restored};
use doorbell_device::inprocess::{DmaSpace, Host, InProcess, Run};
use doorbell_device::{DmaMemory, HostMemory};
use doorbell_emulator::{
    CommandMatch, Controller, ControllerConfig, Fault, FaultPlan, NamespaceConfig, Subsystem, emulated,
};
use doorbell_sim::World;
use futures_lite::future::poll_once;
use nvme_spec::NvmOpcode;

/// Memory that a state may speak of: pieces, and bytes of each.
const PIECES: usize = 32;
const LARGEST: u64 = 1 << 20;

/// The first byte tells whose state the others are.
pub fn state(data: &[u8]) {
    let [kind, bytes @ ..] = data else { return };
    match kind % 3 {
        0 => foreign(bytes),
        1 => edited(bytes),
        _ => server(bytes),
    }
}

/// A driver's state, all of it: with whatever memory it speaks of, and a controller that it does not know.
fn foreign(body: &[u8]) {
    let world = World::new();
    let device = device(&world);
    let state = with_header(body);
    let mut memory = Vec::new();
    loop {
        match world.options(device.clone()).prepare_restore(&state, memory.clone()) {
            // It says so one by one.
            Err(RestoreError::Memory { index, iova, len })
                if index == memory.len() && index < PIECES && (1..=LARGEST).contains(&len) =>
            {
                let Ok(host) = HostMemory::allocate(len as usize) else { return };
                memory.push(DmaMemory::new(host, iova, || Ok(())));
            }
            Err(_) => return,
            Ok(prepared) => {
                assert!(prepared.take_over().is_err(), "the controller was never enabled");
                return;
            }
        }
    }
}

#[derive(Arbitrary)]
enum Edit {
    Set(u16, u8),
    Flip(u16, u8),
    Insert(u16, u8),
    Remove(u16, u8),
    Copy(u16, u16, u8),
    End(u16),
}

/// A state that was right, but for what the bytes change in it, while commands are in flight.
fn edited(bytes: &[u8]) {
    let world = World::new();
    let device = device(&world);
    world.run(async {
        let options = || world.options(device.clone()).exclusive_queues(1);
        let driver = options().open().await.expect("a controller without a fault");
        let namespace = driver.namespace(1).await.expect("namespace 1");
        for cpu in 0..2 {
            namespace.write_slice(cpu, 0, false, &[7; 8192]).await.expect("written");
        }
        device.with_controller(|controller| {
            let slow = FaultPlan::on(CommandMatch::io(NvmOpcode::WRITE.0), Fault::delay(Duration::from_secs(1)));
            controller.set_faults(slow);
        });
        let mut writes = Box::pin(async {
            let (first, second) = ([8; 512], [9; 8192]);
            let more = namespace.write_slice(1, 100, false, &second);
            futures_lite::future::zip(namespace.write_slice(0, 8, false, &first), more).await
        });
        assert!(poll_once(&mut writes).await.is_none(), "they take a second");
        let mut own = driver.exclusive_queue().await.expect("a queue");
        let buffer = driver.allocate_buffer(4096).expect("a buffer");
        own.write_buffer(&namespace, 5, 200, 1, false, buffer).map_err(|(_, error)| error).expect("sent");
        let saved = driver.save().expect("nothing but writes is under way");
        let state = with_header(&edit(saved.state().get(20..).unwrap_or_default(), bytes));
        match options().restore(&state, saved.memory().to_vec()).await {
            Err(_) => {
                drop(saved);
                let (first, second) = writes.await;
                first.expect("the old driver goes on");
                second.expect("the old driver goes on");
                world.sleep(Duration::from_secs(1)).await;
                assert!(own.poll().all(|completed| completed.result.is_ok()), "the old driver goes on");
                drop(own);
                driver.shutdown().await;
            }
            Ok(restored) => {
                saved.hand_over();
                drop(writes);
                assert!(own.poll().all(|completed| completed.result.is_err()), "it is another's");
                drop((own, namespace, driver));
                go_on(restored).await;
            }
        }
        world.sleep(Duration::from_secs(3600)).await;
    });
    assert_eq!(world.runtime().task_count(), 0, "tasks are left behind");
}

/// What a program does that has taken over. What it is told may be wrong, as the state was.
async fn go_on(Restored { driver, commands, exclusive_queues, .. }: Restored) {
    for command in commands {
        let _ = (command.command(), command.blocks());
        let _ = command.await;
    }
    if let Ok(namespace) = driver.namespace(1).await {
        for mut queue in exclusive_queues {
            let _ = queue.flush(&namespace, 6);
            queue.poll().for_each(drop);
        }
    }
    use_it(&driver).await;
    driver.shutdown().await;
}

async fn use_it(driver: &NvmeDriver) {
    let Ok(namespace) = driver.namespace(1).await else { return };
    let mut data = [0; 8192];
    for cpu in 0..2 {
        let _ = namespace.read_slice(cpu, 0, &mut data).await;
        let _ = namespace.write_slice(cpu, 100, false, &data).await;
        let _ = namespace.flush(cpu).await;
    }
}

fn edit(state: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut state = state.to_vec();
    let mut source = Unstructured::new(edits);
    while let Ok(edit) = source.arbitrary::<Edit>() {
        let len = state.len().max(1);
        let place = |at: u16| usize::from(at) % len;
        let run = |at: u16, count: u8| place(at)..(place(at) + usize::from(count)).min(len);
        match edit {
            Edit::Set(at, value) => state.iter_mut().skip(place(at)).take(1).for_each(|byte| *byte = value),
            Edit::Flip(at, bits) => state.iter_mut().skip(place(at)).take(1).for_each(|byte| *byte ^= bits),
            Edit::Insert(at, value) => state.insert(place(at).min(state.len()), value),
            Edit::Remove(at, count) if !state.is_empty() => drop(state.drain(run(at, count))),
            Edit::Copy(from, to, count) if !state.is_empty() => {
                let part = state.get(run(from, count)).unwrap_or_default().to_vec();
                state.splice(place(to)..place(to), part);
            }
            Edit::End(at) => state.truncate(place(at)),
            Edit::Remove(..) | Edit::Copy(..) => {}
        }
        if source.is_empty() || state.len() > 1 << 16 {
            break;
        }
    }
    state
}

/// A subsystem's state, as long as the first two bytes say, and a controller's; then a host that drives it.
fn server(bytes: &[u8]) {
    let [low, high, rest @ ..] = bytes else { return };
    let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (subsystem, controller) = rest.split_at(len);
    let files = (0..2).filter_map(|_| file()).collect();
    let Ok(subsystem) = Subsystem::restore(subsystem, files, |_, _, _| None) else { return };
    let Ok(mut controller) = Controller::restore(&subsystem, controller) else { return };
    let (space, doorbells) = (DmaSpace::new(), HostMemory::allocate(1 << 16).expect("memory"));
    let (dma, interrupt) = (space.view(), |_| {});
    controller.resume(&Host { dma: &dma, doorbells: &doorbells, interrupt: &interrupt }, Duration::ZERO);
    let world = World::new();
    let Ok(device) = InProcess::new("restored:", controller, 4, Run::Stepped) else { return };
    world.add(&device);
    world.settle();
    world.run(async {
        if let Ok(driver) = world.options(device.clone()).open().await {
            use_it(&driver).await;
            driver.shutdown().await;
        }
    });
}

/// A file of a namespace in memory, or of anything else.
fn file() -> Option<OwnedFd> {
    let mut file = HostMemory::allocate(1 << 20).ok()?.file()?.0.try_clone().ok()?;
    file.rewind().ok()?;
    file.write_all(&[0x5a; 512]).ok()?;
    Some(file.into())
}

fn device(world: &World) -> Arc<InProcess<Controller>> {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).expect("room for one");
    let device = emulated(&subsystem, ControllerConfig::default(), Run::Stepped).expect("a controller");
    world.add(&device);
    device
}

/// What stands before a driver's state, so that the checksum is right whatever it says.
fn with_header(body: &[u8]) -> Vec<u8> {
    let mut state = b"doorbell".to_vec();
    state.extend(1u32.to_le_bytes());
    state.extend(1u32.to_le_bytes());
    state.extend(crc32fast::hash(body).to_le_bytes());
    state.extend(body);
    state
}

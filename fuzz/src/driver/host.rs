//! What a program does with the driver.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use doorbell::{
    CompletionMode, DriverOptions, GuestMemory, HostId, LbaRange, Namespace, NvmeDriver, PagedRange, Recovery, Retries,
    Runtime, ShutdownMode,
};
use nvme_spec::AdminOpcode;
use nvme_spec::feature::FeatureId;
use nvme_spec::identify::cns::Cns;
use nvme_spec::log::LogId;
use nvme_spec::reservation::{AcquireAction, RegisterAction, ReleaseAction, ReservationType};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::Play;
use super::input::Input;

/// Pages of each guest; the first and the last [`MARGIN`] are nobody's.
const PAGES: u64 = 24;
const MARGIN: u64 = 4;
const MARK: u8 = 0xa5;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The driver's options, as drawn.
pub(super) fn options(play: &mut Play<'_>, options: DriverOptions) -> DriverOptions {
    let input = play.input.clone();
    let modes = [CompletionMode::Interrupt, CompletionMode::Adaptive, CompletionMode::CallerPolls];
    let mode = modes[input.below(3) as usize];
    play.caller_polls = mode == CompletionMode::CallerPolls;
    let options = options
        .cpus(1 + input.below(3) as u32)
        .depth(1 + input.below(8) as u32)
        .completion(mode)
        .max_transfer([64 << 10, 512, 4096, 2 << 20][input.below(4) as usize])
        .bounce_pool([64 << 10, 0, 8192][input.below(3) as usize])
        .always_bounce(input.below(4) == 3)
        .sgl(input.below(2) == 0);
    let options = match input.below(3) {
        0 => options,
        1 => options.recovery(Recovery::none()),
        _ => options.recovery(Recovery::default().resets(2, Duration::from_secs(60)).replay_shared_writes(true)),
    };
    match input.below(4) {
        0 => options,
        1 => options.host_id(HostId::Short([1; 8])),
        2 => options.host_id(HostId::Extended([1; 16])),
        _ => options.retries(Retries::none()),
    }
}

/// Uses a driver until the input is used up, and ends it.
pub(super) async fn play(play: &Play<'_>, driver: NvmeDriver) {
    let input = &play.input;
    let driver = Arc::new(driver);
    let unregistered = Arc::new(guest());
    let registered = driver.register_memory(&guest()).map_or_else(|_| unregistered.clone(), Arc::new);
    let mut namespaces: Vec<Arc<Namespace>> = Vec::new();
    let (mut running, mut endless): (Vec<Task>, Vec<Task>) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        if input.is_used_up() {
            break;
        }
        let namespace = namespaces.get(input.below(3) as usize).or(namespaces.first()).cloned();
        let memory = if input.below(2) == 0 { registered.clone() } else { unregistered.clone() };
        let Some(namespace) = namespace else {
            let nsid = 1 + input.below(3) as u32;
            open(play, &driver, &mut running, nsid, &mut namespaces).await;
            continue;
        };
        let mut task = match input.below(5) {
            0 | 1 => io(play, &driver, namespace, memory),
            2 => command(play, namespace),
            3 => admin(play, driver.clone()),
            _ => match input.below(10) {
                0 => {
                    let nsid = 1 + input.below(3) as u32;
                    open(play, &driver, &mut running, nsid, &mut namespaces).await;
                    continue;
                }
                1 => {
                    namespaces.pop();
                    continue;
                }
                2 => {
                    let time = [1, 100, 1000, 70_000][input.below(4) as usize];
                    let sleep = play.world.runtime().sleep_until(play.world.now() + Duration::from_millis(time));
                    end_of(play, &driver, &mut running, sleep).await;
                    continue;
                }
                3 => {
                    play.device.with_controller(|liar| liar.mischief = true);
                    continue;
                }
                4 => {
                    if let Some(loss) = &play.loss {
                        loss.raise();
                        play.world.notice_interrupts();
                    }
                    continue;
                }
                5 => {
                    let count = namespace.block_count();
                    endless.push(Box::pin(async move { drop(namespace.wait_resize(count).await) }));
                    continue;
                }
                6 => {
                    let mut events = driver.events();
                    endless.push(Box::pin(async move { while events.next().await.is_some() {} }));
                    continue;
                }
                7 => {
                    let (driver, registered) = (driver.clone(), registered.clone());
                    Box::pin(async move { driver.unregister_memory(&registered).await })
                }
                8 => {
                    let _ = driver.inspect().to_string();
                    driver.poll();
                    continue;
                }
                _ => {
                    running.pop();
                    continue;
                }
            },
        };
        match input.below(4) {
            0 | 1 => end_of(play, &driver, &mut running, task).await,
            2 => {
                if !is_done(&mut task).await {
                    running.push(task);
                }
            }
            _ => drop(is_done(&mut task).await),
        }
    }
    for mut task in endless.drain(..) {
        is_done(&mut task).await;
    }
    if input.below(4) == 3 {
        running.clear();
    }
    // Everything has an end, whatever the device does.
    while let Some(task) = running.pop() {
        end_of(play, &driver, &mut running, task).await;
    }
    if input.below(2) == 1 {
        namespaces.clear();
    }
    match input.below(4) {
        3 => {
            drop(driver);
            play.world.sleep(Duration::from_secs(3600)).await;
        }
        _ => driver.end(ShutdownMode::Reset).await,
    }
    check_margins(&unregistered);
}

async fn is_done(task: &mut Task) -> bool {
    poll_fn(|context| Poll::Ready(task.as_mut().poll(context).is_ready())).await
}

/// Waits for a task, and polls the others meanwhile: one that is done and not polled keeps what it has. Where the caller is to
/// look for completions, it does, now and then.
async fn end_of(play: &Play<'_>, driver: &NvmeDriver, others: &mut Vec<Task>, mut task: Task) {
    let mut both = poll_fn(|context| {
        others.retain_mut(|other| other.as_mut().poll(context).is_pending());
        task.as_mut().poll(context).map(|()| true)
    });
    if !play.caller_polls {
        both.await;
        return;
    }
    let pause = async || {
        play.world.sleep(Duration::from_millis(500)).await;
        false
    };
    while !futures_lite::future::or(&mut both, pause()).await {
        driver.poll();
    }
}

async fn open(
    play: &Play<'_>,
    driver: &Arc<NvmeDriver>,
    others: &mut Vec<Task>,
    nsid: u32,
    namespaces: &mut Vec<Arc<Namespace>>,
) {
    let (opened, owner) = (Arc::new(Mutex::new(None)), driver.clone());
    let to = opened.clone();
    let task = async move { *to.lock().unwrap_or_else(PoisonError::into_inner) = owner.namespace(nsid).await.ok() };
    end_of(play, driver, others, Box::pin(task)).await;
    namespaces.extend(opened.lock().unwrap_or_else(PoisonError::into_inner).take().map(Arc::new));
    play.world.sleep(Duration::from_millis(1)).await;
}

fn guest() -> GuestMemory {
    let bytes = (PAGES * 4096) as usize;
    let guest = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).expect("guest memory");
    let guest = GuestMemory::new(&guest).expect("guest memory");
    guest.write_at(0, &vec![MARK; bytes]).expect("guest memory");
    guest
}

/// No read was into these pages. A device may write to what it reaches: then only the memory that it does not is looked at.
fn check_margins(memory: &GuestMemory) {
    let mut page = [0; 4096];
    for number in (0..MARGIN).chain(PAGES - MARGIN..PAGES) {
        memory.read_at(number * 4096, &mut page).expect("guest memory");
        assert!(page.iter().all(|byte| *byte == MARK), "page {number} was written to, and no command named it");
    }
}

fn lba(input: &Input) -> u64 {
    match input.below(8) {
        7 => input.any(),
        6 => 0xffff,
        at => at * 13,
    }
}

fn io(play: &Play<'_>, driver: &NvmeDriver, namespace: Arc<Namespace>, memory: Arc<GuestMemory>) -> Task {
    let input = &play.input;
    let (cpu, lba, blocks) = (input.below(4) as u32, lba(input), input.below(48) as u32);
    let kind = input.below(9);
    let first = MARGIN + input.below(8);
    let mut gpns: Vec<u64> = (first..PAGES - MARGIN).collect();
    if input.below(4) == 3 {
        gpns.reverse();
    }
    let offset = if input.below(2) == 1 { input.below(4096) as usize } else { 0 };
    let block_size = namespace.transfer_block_size() as usize;
    let len = (blocks as usize * block_size).min(gpns.len() * 4096 - offset);
    let limit = (input.below(4) == 3).then(|| Duration::from_millis(input.below(5000)));
    if kind < 4 {
        return Box::pin(async move {
            let Some(range) = PagedRange::new(offset, len, &gpns) else { return };
            let transfer = match kind {
                0 | 1 => namespace.read(cpu, lba, blocks, &memory, range),
                2 => namespace.write(cpu, lba, blocks, false, &memory, range),
                _ => namespace.compare(cpu, lba, blocks, &memory, range),
            };
            let transfer = if limit.is_some() { transfer.timeout(limit) } else { transfer };
            drop(transfer.await);
        });
    }
    let buffer = (kind > 6).then(|| driver.allocate_buffer(len).ok()).flatten();
    let mut slice = vec![0; len / block_size.max(1) * block_size];
    Box::pin(async move {
        match (kind, buffer) {
            (4 | 5, _) => drop(namespace.read_slice(cpu, lba, &mut slice).await),
            (6, _) => drop(namespace.write_slice(cpu, lba, true, &slice).await),
            (7, Some(buffer)) => drop(namespace.read_buffer(cpu, lba, blocks, buffer).await),
            (_, Some(buffer)) => drop(namespace.write_buffer(cpu, lba, blocks, false, buffer).await),
            _ => {}
        }
    })
}

fn command(play: &Play<'_>, namespace: Arc<Namespace>) -> Task {
    let input = play.input.clone();
    let (cpu, at) = (input.below(4) as u32, lba(&input));
    let block_count = input.below(2048);
    let ranges: Vec<LbaRange> =
        (0..1 + input.below(6)).map(|_| LbaRange { lba: lba(&input), block_count: input.below(512) }).collect();
    let kind = input.below(11);
    let rtype = ReservationType(input.below(8) as u8);
    let keys: [u64; 2] = input.any();
    let bytes = vec![0; namespace.transfer_block_size() as usize];
    Box::pin(async move {
        match kind {
            0 => drop(namespace.flush(cpu).await),
            1 => drop(namespace.write_zeroes(cpu, at, block_count, true, false).await),
            2 => drop(namespace.write_uncorrectable(cpu, at, block_count).await),
            3 => drop(namespace.verify(cpu, at, block_count).await),
            4 => drop(namespace.compare_and_write(cpu, at, &bytes, &bytes, false).await),
            5 => drop(namespace.copy(cpu, at, &ranges).await),
            6 => drop(namespace.deallocate(cpu, &ranges).await),
            7 => drop(namespace.reservation_report_extended(cpu).await),
            8 => {
                let action = RegisterAction(rtype.0 % 3);
                drop(namespace.reservation_register(cpu, action, Some(keys[0]), keys[1], Some(true)).await);
            }
            9 => drop(namespace.reservation_acquire(cpu, AcquireAction::PREEMPT, keys[0], keys[1], rtype).await),
            _ => drop(namespace.reservation_release(cpu, ReleaseAction::CLEAR, keys[0], rtype).await),
        }
    })
}

fn admin(play: &Play<'_>, driver: Arc<NvmeDriver>) -> Task {
    let input = play.input.clone();
    let (kind, nsid, value) = (input.below(10), input.below(4) as u32, input.below(256) as u8);
    let mut data = vec![0; input.below(3) as usize * 5000 + 512];
    Box::pin(async move {
        match kind {
            0 => drop(driver.namespaces().await),
            1 => drop(driver.namespace_id(nsid).await),
            2 => drop(driver.identify_raw(Cns(value), nsid, 0).await),
            3 => drop(driver.get_features(FeatureId(value), 0, nsid, 0, &mut data[..512]).await),
            4 => drop(driver.set_features(FeatureId(value), false, nsid, 0, &data[..512]).await),
            5 => drop(driver.log_page(LogId(value), nsid, false, u64::from(value) * 4, &mut data).await),
            6 => drop(driver.abort(nsid as u16, value.into()).await),
            7 => drop(driver.reset_controller().await),
            8 => driver.rescan().await,
            _ => drop(driver.admin_in(AdminOpcode(value).command(), &mut data[..512]).await),
        }
    })
}

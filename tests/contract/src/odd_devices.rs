//! Devices that are odd but legal: each does a random workload, every byte of which is looked at.

use doorbell::{CompletionMode, DriverOptions, GuestMemory, PagedRange};
use doorbell_emulator::{ControllerConfig, Descriptors, InterruptMode, NamespaceConfig, SglSupport};

use crate::bench::{Bench, guest, pattern};
use crate::hands::{contents, fill, gpns, join_all};

/// Reads and writes blocks of a small namespace, and compares with what it should hold.
fn verified(name: &str, config: ControllerConfig, change: impl FnOnce(DriverOptions) -> DriverOptions) {
    const BLOCKS: usize = 2048;
    let bench = Bench::with(NamespaceConfig::ram(BLOCKS as u64 * 512));
    let options = change(bench.world.options(bench.device(config)).cpus(3).depth(6));
    let driver = bench.run(options.open()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let namespace = bench.run(driver.namespace(1)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let unreached = guest(512);
    let reached = driver.register_memory(&guest(512)).expect("registered");
    let mut model = vec![0; BLOCKS * 512];
    let mut random = pattern(name.len() as u64, 1 << 16).into_iter().map(usize::from);
    let mut random = move || random.next().expect("enough of it");
    let max = (namespace.max_transfer_block_count() as usize).min(128);
    for round in 0..40u64 {
        // Eight at a time, in parts of the namespace of their own.
        let writes = round % 2 == 0;
        let plan: Vec<(usize, usize, Vec<u64>, usize, bool, u32)> = (0..8)
            .map(|i| {
                let blocks = (random() % max) + 1;
                let lba = i * 256 + random() % (256 - blocks);
                let mut pages = gpns(i as u64 * 40, 40);
                if random() % 2 == 0 {
                    pages.reverse();
                }
                (lba, blocks, pages, (random() % 32) * 128, random() % 2 == 0, random() as u32 % 3)
            })
            .collect();
        let memory = |direct: bool| -> &GuestMemory { if direct { &reached } else { &unreached } };
        for (i, (lba, blocks, pages, offset, direct, _)) in plan.iter().enumerate().filter(|_| writes) {
            let data = pattern(round * 8 + i as u64, blocks * 512);
            fill(memory(*direct), pages, *offset, &data);
            model[lba * 512..(lba + blocks) * 512].copy_from_slice(&data);
        }
        let transfers = plan.iter().map(|(lba, blocks, pages, offset, direct, cpu)| {
            let range = PagedRange::new(*offset, blocks * 512, pages).expect("a range");
            let (lba, blocks, memory) = (*lba as u64, *blocks as u32, memory(*direct));
            match writes {
                true => namespace.write(*cpu, lba, blocks, false, memory, range),
                false => namespace.read(*cpu, lba, blocks, memory, range),
            }
        });
        for result in bench.run(join_all(transfers)) {
            result.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for (lba, blocks, pages, offset, direct, _) in plan.iter().filter(|_| !writes) {
            let read = contents(memory(*direct), pages, *offset, blocks * 512);
            assert!(read == model[lba * 512..(lba + blocks) * 512], "{name}, round {round}");
        }
    }
    bench.run(namespace.flush(0)).expect("flushed");
    bench.run(driver.shutdown());
}

fn plain() -> ControllerConfig {
    ControllerConfig::default()
}

#[test]
fn q5_queues_of_two_entries() {
    verified("MQES 1", ControllerConfig { mqes: 1, ..plain() }, |options| options);
}

#[test]
fn d5_transfers_of_one_page() {
    // MDTS 0 is no limit, so the least is two of the controller's pages, and one by the driver's option.
    verified("MDTS 1", ControllerConfig { mdts: 1, ..plain() }, |options| options);
    verified("one page", ControllerConfig { sgl: SglSupport::None, ..plain() }, |options| options.max_transfer(4096));
    verified("one block", plain(), |options| options.max_transfer(512));
}

#[test]
fn d5_a_smallest_page_of_64_kib() {
    verified("64 KiB pages", ControllerConfig { mpsmin: 4, ..plain() }, |options| options);
    let config = ControllerConfig { mpsmin: 4, sgl: SglSupport::None, ..plain() };
    verified("64 KiB pages, PRPs", config, |options| options);
}

#[test]
fn q4_no_interrupts_at_all() {
    verified("no MSI-X", ControllerConfig { vectors: 0, ..plain() }, |options| options);
    verified("no MSI-X, polled", ControllerConfig { vectors: 0, ..plain() }, |options| {
        options.completion(CompletionMode::Polling)
    });
}

#[test]
fn q4_one_pin_for_all() {
    let config = ControllerConfig { interrupts: InterruptMode::Pin, vectors: 1, ..plain() };
    verified("a pin", config, |options| options);
}

#[test]
fn q1_one_io_queue() {
    verified("one I/O queue", ControllerConfig { queue_pairs: 1, ..plain() }, |options| options);
}

#[test]
fn q1_fewer_vectors_than_cpus() {
    verified("two vectors", ControllerConfig { vectors: 2, ..plain() }, |options| options);
    verified("one vector", ControllerConfig { vectors: 1, ..plain() }, |options| options);
}

#[test]
fn q1_a_doorbell_stride_of_64() {
    verified("stride 64", ControllerConfig { dstrd: 4, ..plain() }, |options| options);
    verified("stride 1024", ControllerConfig { dstrd: 8, ..plain() }, |options| options);
}

#[test]
fn n8_an_nvme_1_0_controller() {
    verified("NVMe 1.0", ControllerConfig::nvme_1_0(), |options| options);
}

#[test]
fn q5_everything_odd_at_once() {
    let least = ControllerConfig {
        mqes: 1,
        mdts: 1,
        dstrd: 4,
        queue_pairs: 1,
        vectors: 1,
        aerl: 0,
        interrupts: InterruptMode::Pin,
        identify_nvm_controller: false,
        descriptors: Descriptors::Refused,
        sgl: SglSupport::None,
        ..plain()
    };
    verified("the least", least.clone(), |options| options.bounce_pool(4096));
    verified("the least, unable to interrupt", ControllerConfig { vectors: 0, ..least.clone() }, |options| options);
    let config = ControllerConfig { mpsmin: 4, sgl: SglSupport::Dwords, descriptors: Descriptors::Empty, ..least };
    verified("the least, large pages", config, |options| options.always_bounce(true));
}

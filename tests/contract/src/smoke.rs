use doorbell::PagedRange;

use crate::bench::{Bench, guest, pattern};

#[test]
fn what_is_written_is_read_by_every_way() {
    let bench = Bench::new();
    let (driver, namespace) = bench.up();
    let unregistered = guest(64);
    let registered = driver.register_memory(&unregistered).expect("registered");
    let gpns = [9, 3, 4, 20];
    for (seed, memory) in [(1, &registered), (2, &unregistered)] {
        let data = pattern(seed, 4 * 4096 - 512);
        let range = PagedRange::new(512, data.len(), &gpns).expect("a range");
        let blocks = data.len() as u32 / 512;
        memory.write_at(9 * 4096 + 512, &data[..3584]).expect("written");
        memory.write_at(3 * 4096, &data[3584..3584 + 8192]).expect("written");
        memory.write_at(20 * 4096, &data[3584 + 8192..]).expect("written");
        bench.run(namespace.write(0, 100, blocks, false, memory, range)).expect("written");
        bench.run(namespace.flush(0)).expect("flushed");

        let mut slice = vec![0; data.len()];
        bench.run(namespace.read_slice(1, 100, &mut slice)).expect("read");
        assert_eq!(slice, data);

        memory.write_at(0, &vec![0; 64 * 4096]).expect("cleared");
        bench.run(namespace.read(1, 100, blocks, memory, range)).expect("read");
        let mut back = vec![0; 3584];
        memory.read_at(9 * 4096 + 512, &mut back).expect("read");
        assert_eq!(back, data[..3584]);

        let buffer = driver.allocate_buffer(data.len()).expect("a buffer");
        let (buffer, result) = bench.run(namespace.read_buffer(0, 100, blocks, buffer));
        result.expect("read");
        assert_eq!(buffer.to_vec(), data);
    }
    bench.run(driver.shutdown());
}

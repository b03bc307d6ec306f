//! D9: buffers of the driver's, and ordinary slices.

use doorbell_emulator::{ControllerConfig, NamespaceConfig};

use crate::bench::{Bench, pattern};
use crate::hands::{Watched, poll};

#[test]
fn d9_a_buffer_goes_in_by_value_and_comes_back_with_the_result() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let data = pattern(1, 6000);
    let mut buffer = w.driver.allocate_buffer(6000).expect("a buffer");
    assert_eq!((buffer.len(), buffer.to_vec()), (6000, vec![0; 6000]), "as long as asked for, and zero");
    buffer.write_at(0, &data).expect("it fits");
    assert!(buffer.write_at(1, &data).is_err(), "not past the end");
    // The buffer may be longer than the blocks.
    let (buffer, result) = bench.run(w.namespace.write_buffer(0, 8, 11, true, buffer));
    result.expect("written");
    assert_eq!(buffer.to_vec(), data, "it comes back as it was");
    let other = w.driver.allocate_buffer(6000).expect("a buffer");
    let (other, result) = bench.run(w.namespace.read_buffer(0, 8, 11, other));
    result.expect("read");
    assert_eq!(other.to_vec()[..5632], data[..5632]);
    assert_eq!(other.to_vec()[5632..], [0; 368]);
    assert_eq!(w.bounced(), 0, "the device reaches it");
}

#[test]
fn d9_a_buffer_comes_back_with_an_error_too() {
    let bench = Bench::with(NamespaceConfig { read_only: true, ..NamespaceConfig::ram(1 << 20) });
    let w = Watched::new(&bench, ControllerConfig::default());
    let buffer = w.driver.allocate_buffer(512).expect("a buffer");
    let (buffer, result) = bench.run(w.namespace.write_buffer(0, 0, 1, false, buffer));
    assert!(result.is_err());
    let (buffer, result) = bench.run(w.namespace.read_buffer(0, u64::MAX, 1, buffer));
    assert!(result.is_err());
    let (buffer, result) = bench.run(w.namespace.read_buffer(0, 0, 1, buffer));
    result.expect("read");
    assert_eq!(buffer.len(), 512);
}

#[test]
fn d9_a_buffer_of_another_driver_works_through_the_pool() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let other = bench.driver(ControllerConfig::default());
    let data = pattern(2, 8192);
    let mut buffer = other.allocate_buffer(8192).expect("a buffer");
    buffer.write_at(0, &data).expect("it fits");
    let (mut buffer, result) = bench.run(w.namespace.write_buffer(0, 0, 16, false, buffer));
    result.expect("written");
    buffer.write_at(0, &[0; 8192]).expect("cleared");
    let (buffer, result) = bench.run(w.namespace.read_buffer(0, 0, 16, buffer));
    result.expect("read");
    assert_eq!(buffer.to_vec(), data);
    assert_eq!(w.bounced(), 2);
}

#[test]
fn d9_slices_of_whole_blocks_are_read_written_and_compared() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let data = pattern(3, 9 * 512);
    bench.run(w.namespace.write_slice(0, 77, false, &data)).expect("written");
    let mut back = vec![0; data.len()];
    bench.run(w.namespace.read_slice(0, 77, &mut back)).expect("read");
    assert_eq!(back, data);
    bench.run(w.namespace.compare_slice(0, 77, &data)).expect("equal");
    back[4000] ^= 1;
    let error = bench.run(w.namespace.compare_slice(0, 77, &back)).expect_err("they differ");
    assert_eq!(error.class(), doorbell::ErrorClass::Miscompare);
}

/// The device is done, the completion is found, the future is woken: still the slice is as it was, until its poll.
#[test]
fn d9_a_slice_is_written_in_the_futures_own_poll_only() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    bench.run(w.namespace.write_slice(0, 0, false, &[9; 1024])).expect("written");
    for polls in 0..2 {
        let mut slice = [7; 1024];
        let mut read = w.namespace.read_slice(0, 0, &mut slice);
        assert!(poll(&mut read).is_pending());
        bench.world.settle();
        w.driver.poll();
        if polls == 1 {
            assert!(poll(&mut read).is_ready());
        }
        drop(read);
        assert_eq!(slice, if polls == 1 { [9; 1024] } else { [7; 1024] });
    }
}

/// What is written is what the slice held when the command was sent, whatever becomes of the slice after.
#[test]
fn d9_a_slice_is_free_as_soon_as_its_future_is_gone() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let mut slice = pattern(5, 2048);
    let before = slice.clone();
    let mut write = w.namespace.write_slice(0, 0, false, &slice);
    assert!(poll(&mut write).is_pending());
    drop(write);
    slice.fill(0xff);
    bench.world.settle();
    let mut back = vec![0; 2048];
    bench.run(w.namespace.read_slice(0, 0, &mut back)).expect("read");
    assert!(back == before);
}

//! N: getting a namespace.

use doorbell::NamespaceError;

use crate::bench::Bench;

#[test]
fn n1_nsid_0_and_the_broadcast_nsid_are_refused_unsent() {
    let bench = Bench::new();
    let (driver, _namespace) = bench.up();
    let before = driver.inspect().admin.queue.counters.submitted;
    for nsid in [0, 0xffff_ffff] {
        let result = bench.run(driver.namespace(nsid));
        assert!(matches!(result, Err(NamespaceError::InvalidNsid { nsid: n }) if n == nsid), "{result:?}");
    }
    assert_eq!(driver.inspect().admin.queue.counters.submitted, before);
}

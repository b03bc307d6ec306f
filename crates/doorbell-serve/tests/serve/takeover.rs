//! Servers that take one another's place, in one process.

use std::os::unix::net::UnixStream;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use doorbell_serve::{Baggage, Behind, Belongings, Endpoint, TakeoverError, hand_over, take_over};
use vfio_user::wire::region;
use vfio_user::{Call, Caller, Capabilities, Connection, Limits};

use crate::harness::PATIENCE;

/// Another server takes the place of this one, with what is behind it.
pub(crate) fn replace(
    subsystem: &Subsystem,
    endpoint: &Arc<Endpoint>,
    behind: impl Behind,
) -> Result<(Subsystem, Arc<Endpoint>), TakeoverError> {
    let (give, take) = UnixStream::pair().unwrap();
    let nothing = || Ok(Baggage::default());
    let (given, taken) = std::thread::scope(|threads| {
        let old =
            threads.spawn(|| hand_over(give, subsystem, slice::from_ref(endpoint), Belongings::default(), nothing));
        let taken = take_over(take, |_| Ok(behind));
        (old.join().unwrap(), taken)
    });
    given?;
    let mut taken = taken?.0;
    Ok((taken.subsystem, Arc::new(taken.endpoints.remove(0))))
}

#[test]
fn a_message_is_answered_by_one_of_the_two() {
    const AQA: u64 = 0x24;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::null(1 << 20)).unwrap();
    let endpoint = Arc::new(Endpoint::start(&path, &subsystem, ControllerConfig::default()).unwrap());
    let connection = Connection::new(UnixStream::connect(&path).unwrap(), Limits::default());
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let writes = threads.spawn(|| {
            let mut caller = Caller::new(connection, Capabilities::default(), Some(PATIENCE)).unwrap();
            let mut count = 0u32;
            while !done.load(Ordering::Relaxed) {
                count += 1;
                let value = (count & 0xfff).to_le_bytes();
                caller.region_write(region::BAR0, AQA, &value).unwrap();
                let mut register = [0; 4];
                caller.region_read(region::BAR0, AQA, &mut register).unwrap();
                assert_eq!(register, value, "what was written is what whoever serves knows");
            }
            count
        });
        let mut servers: Result<_, TakeoverError> = Ok((subsystem, endpoint));
        for _ in 0..100 {
            servers = servers.and_then(|(subsystem, endpoint)| replace(&subsystem, &endpoint, ()));
        }
        // Whatever came of it, the client is to end.
        done.store(true, Ordering::Relaxed);
        let written = writes.join().unwrap();
        servers.unwrap();
        assert!(written > 0);
    });
}

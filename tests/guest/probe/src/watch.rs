//! I/O on all namespaces, and what happens to them meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use async_executor::LocalExecutor;
use async_io::{Timer, block_on};
use doorbell::{ControllerEvent, DriverOptions, Namespace, NvmeDriver, RequestError};
use doorbell_device::Device;
use futures_lite::future::or;
use serde_json::{Value, json};

/// How many blocks from its start on are used of a namespace.
const BLOCKS: u64 = 256;
/// How often the request to stop is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Runs until SIGTERM, or until the device is gone. Namespaces may come and go.
pub(crate) fn run(device: Arc<dyn Device>) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = stop.clone();
    ctrlc::set_handler(move || handler.store(true, Ordering::SeqCst))?;
    let executor = Rc::new(LocalExecutor::new());
    block_on(executor.run(async {
        let driver = Rc::new(DriverOptions::new(device).cpus(1).depth(32).open().await?);
        let mut events = driver.events();
        let (used, ending) = (RefCell::default(), Cell::new(false));
        let all = Rc::new(All { driver: driver.clone(), executor: Rc::downgrade(&executor), used, ending });
        for nsid in driver.namespaces().await? {
            all.clone().begin(nsid).await;
        }
        tell(&json!({ "ready": true }));
        let watch = async {
            while let Some(event) = events.next().await {
                match event {
                    ControllerEvent::NamespaceAdded(nsid) => {
                        tell(&json!({ "event": "added", "nsid": nsid }));
                        all.clone().begin(nsid).await;
                    }
                    ControllerEvent::NamespaceRemoved(nsid) => tell(&json!({ "event": "removed", "nsid": nsid })),
                    ControllerEvent::NamespaceChanged(nsid) => tell(&json!({ "event": "changed", "nsid": nsid })),
                    ControllerEvent::Gone => {
                        tell(&json!({ "event": "gone" }));
                        // Whoever waits for an I/O gets to know.
                        Timer::after(Duration::from_millis(500)).await;
                    }
                    other => tell(&json!({ "event": "other", "text": format!("{other:?}") })),
                }
            }
        };
        let stopped = async {
            while !stop.load(Ordering::SeqCst) {
                Timer::after(LOOK).await;
            }
        };
        or(watch, stopped).await;
        all.ending.set(true);
        tell(&json!({ "end": format!("{:?}", driver.state()), "ios": all.counts() }));
        driver.end(doorbell::ShutdownMode::default()).await;
        Ok(())
    }))
}

/// The namespaces in use.
struct All {
    driver: Rc<NvmeDriver>,
    executor: std::rc::Weak<LocalExecutor<'static>>,
    /// I/Os done, by NSID.
    used: RefCell<BTreeMap<u32, Rc<Cell<u64>>>>,
    /// What fails from now on fails because we shut the driver down.
    ending: Cell<bool>,
}

impl All {
    /// Begins to use a namespace.
    async fn begin(self: Rc<Self>, nsid: u32) {
        match self.driver.namespace(nsid).await {
            Ok(namespace) => {
                let count = self.used.borrow_mut().entry(nsid).or_default().clone();
                let all = self.clone();
                let user = async move {
                    let error = use_it(&namespace, &count).await;
                    if all.ending.get() {
                        return;
                    }
                    tell(&json!({ "failed": nsid, "error": described(&error), "ios": count.get() }));
                    after(&namespace).await;
                };
                if let Some(executor) = self.executor.upgrade() {
                    executor.spawn(user).detach();
                }
            }
            Err(error) => tell(&json!({ "unusable": nsid, "text": error.to_string() })),
        }
    }

    fn counts(&self) -> Value {
        self.used.borrow().iter().map(|(nsid, count)| (nsid.to_string(), json!(count.get()))).collect()
    }
}

/// Writes and reads blocks until that fails, or gives other data than was written.
async fn use_it(namespace: &Namespace, count: &Cell<u64>) -> RequestError {
    let size = namespace.block_size() as usize;
    let blocks = BLOCKS.min(namespace.block_count()).max(1);
    let mut read = vec![0; size];
    loop {
        let number = count.get() + 1;
        let lba = number % blocks;
        let data: Vec<u8> = (number ^ u64::from(namespace.nsid()) << 48).to_le_bytes().repeat(size / 8);
        if let Err(error) = namespace.write_slice(0, lba, false, &data).await {
            return error;
        }
        if let Err(error) = namespace.read_slice(0, lba, &mut read).await {
            return error;
        }
        if read != data {
            tell(&json!({ "miscompare": namespace.nsid(), "lba": lba }));
        }
        count.set(number);
    }
}

/// What becomes of commands behind the first that failed. A handle of a namespace that was removed stays removed (C3).
async fn after(namespace: &Namespace) {
    // The rescan that finds out is under way.
    let waited = or(
        async {
            namespace.wait_removed().await;
            true
        },
        async {
            Timer::after(Duration::from_secs(5)).await;
            false
        },
    )
    .await;
    let next = namespace.flush(0).await;
    let next = next.err().map(|error| described(&error));
    tell(&json!({ "handle": namespace.nsid(), "told": waited, "removed": namespace.is_removed(), "next": next }));
}

fn described(error: &RequestError) -> Value {
    json!({ "class": format!("{:?}", error.class()), "text": error.to_string() })
}

fn tell(line: &Value) {
    println!("{line}");
}

//! Bringing a controller up (NVMe Base 2.0, Controller Initialization).

use std::sync::Arc;
use std::time::Duration;

use nvme_spec::feature::{AsyncEventConfiguration, FeatureId, HostBehavior, InterruptCoalescing, NumberOfQueues};
use nvme_spec::identify::{IdentifyController, IdentifyControllerNvm, cns::Cns, cns::csi};
use nvme_spec::registers::{Cap, Version};
use zerocopy::{FromBytes, IntoBytes};

use super::admin::Admin;
use super::core::{self, Core, Made};
use super::failure::Failure;
use super::issuers::Issuers;
use super::loss;
use super::options::{CompletionMode, DriverOptions, HostId, ShadowDoorbells};
use super::queues::{self, Shape};
use super::registers::Registers;
use super::service::{self, Served, Stop, Watched};
use super::shadow::Shadows;
use crate::error::{DriverError, RequestError};
use crate::memory::Layout;

/// Admin commands in flight. CAP.MQES is about I/O queues only: every controller has room for so many.
const ADMIN_DEPTH: u16 = 31;
/// What the largest admin command moves: log pages are read in parts of this size.
const ADMIN_TRANSFER: usize = 64 << 10;

/// Brings the controller up. What was done so far is undone on failure.
pub(crate) async fn bring_up(mut options: DriverOptions) -> Result<Arc<Core>, DriverError> {
    let registers = Registers::new(options.device.clone(), options.runtime.clone())?;
    let page_size = check_capabilities(registers.cap)?;
    registers.disable().await?;

    let failure = Arc::new(Failure::default());
    let stop = Arc::new(Stop::default());
    let shape = Shape {
        id: 0,
        depth: ADMIN_DEPTH,
        page_size,
        dstrd: registers.cap.dstrd(),
        pool: ADMIN_TRANSFER * 2,
        max_transfer: ADMIN_TRANSFER,
        sgl: false,
        // Admin commands are rare: a look more costs nothing, and saves a wait where nothing interrupts.
        eager: true,
        // The admin queue has none.
        shadows: None,
        exclusive: false,
    };
    let build = DriverError::device("setting up the admin queue");
    let queue = queues::build(&*options.device, &shape, failure.clone()).map_err(build)?;
    let shadows = shadows(&options, page_size)?;
    let watch = match options.device.interrupt_count() {
        0 => None,
        _ => {
            let watched = options.device.interrupt(0).and_then(|vector| Watched::new(&*options.runtime, vector));
            Some(watched.map_err(DriverError::device("setting up interrupts"))?)
        }
    };
    let served = Arc::new(Served::new(queue.clone()));
    let task = service::serve(served.clone(), watch, options.runtime.clone(), stop.clone());
    options.runtime.spawn("admin completions", Box::pin(task));
    let layout = Layout::prps(page_size);
    let admin = Admin {
        queue,
        runtime: options.runtime.clone(),
        failure: failure.clone(),
        layout,
        limit: options.admin_timeout,
    };

    // The memory of the admin queue and of the shadows must outlive the device's use of it, whatever fails from here on.
    let up = async {
        let found = enable_and_identify(&options, &registers, &admin, page_size).await?;
        if let Some(shadows) = &shadows
            && found.identify.oacs.doorbell_buffer_config()
        {
            shadows.announce(&admin).await.map_err(DriverError::command("Doorbell Buffer Config"))?;
        }
        Ok(found)
    };
    // A device that breaks the protocol now answers nothing any more: nobody waits for it.
    let broken = async {
        let lost = failure.wait().await;
        Err(DriverError::command("bringing the controller up")(lost.into()))
    };
    // Nor for one that is taken away.
    let taken = async {
        failure.failed(loss::wait(&*options.device, &*options.runtime).await);
        std::future::pending().await
    };
    match futures_lite::future::or(futures_lite::future::or(taken, broken), up).await {
        Ok(found) => {
            let shadows = shadows.filter(|_| found.identify.oacs.doorbell_buffer_config());
            let layout = self::layout(&found.identify, layout, options.sgl);
            let completion = found.completion;
            // What was refused is not asked for again.
            options.interrupt_coalescing = found.coalescing;
            let core = Core::new(Made {
                id: core::next_id(),
                registers,
                page_size,
                layout,
                admin,
                failure,
                identify: found.identify,
                nvm: found.nvm,
                completion,
                shadows,
                issuers: Issuers::new(options.cpus, found.queue_limit, found.queues),
                stop: stop.clone(),
                served_by_admin_vector: served,
                buffers: Arc::default(),
                options,
            });
            if completion == CompletionMode::Polling
                && let Err(source) = core.start_polling()
            {
                core.take_down(false).await;
                return Err(DriverError::device("setting up polling")(source));
            }
            Ok(core)
        }
        Err(error) => {
            if registers.disable().await.is_err()
                && let Err(error) = options.device.reset()
            {
                // What is not mapped any more it cannot touch.
                tracing::error!(%error, "the controller could not be stopped, its memory is unmapped");
            }
            if options.device.check_present().is_err()
                && let Err(error) = options.device.release()
            {
                // Somebody waits for it.
                tracing::error!(%error, "the device could not be let go");
            }
            stop.stop();
            admin.queue.give_up(crate::error::Lost::Shutdown);
            Err(error)
        }
    }
}

/// How commands name memory: with SGLs where the controller takes them and the caller does not mind.
pub(crate) fn layout(identify: &IdentifyController, prps: Layout, sgl: bool) -> Layout {
    match identify.sgls.supported() {
        1 => Layout { sgl, sgl_align_mask: 0, ..prps },
        2 => Layout { sgl, sgl_align_mask: 3, ..prps },
        _ => prps,
    }
}

/// What the driver needs of CAP; the page size to use.
fn check_capabilities(cap: Cap) -> Result<usize, DriverError> {
    if cap.css() & (Cap::CSS_NVM | Cap::CSS_IOCS) == 0 {
        return Err(DriverError::Unsupported(format!("it has no NVM command set (CAP.CSS {:#x})", cap.css())));
    }
    if cap.mqes() == 0 {
        return Err(DriverError::Unsupported("CAP.MQES is 0, which allows no queue at all".into()));
    }
    if cap.mpsmin() > cap.mpsmax() {
        let (min, max) = (cap.mpsmin(), cap.mpsmax());
        return Err(DriverError::Unsupported(format!("CAP.MPSMIN {min} is larger than CAP.MPSMAX {max}")));
    }
    // The host's pages are the smallest there are.
    let page_size = cap.min_page_size().max(4096);
    if page_size > 4 << 20 {
        return Err(DriverError::Unsupported(format!("its smallest page has {page_size:#x} bytes")));
    }
    Ok(page_size)
}

/// What a controller that was set up says of itself.
pub(crate) struct Found {
    pub(crate) identify: Box<IdentifyController>,
    nvm: Box<IdentifyControllerNvm>,
    /// How many queues there may be of CPUs, and in all.
    pub(crate) queue_limit: u16,
    pub(crate) queues: u16,
    completion: CompletionMode,
    /// What interrupts were told to wait for.
    coalescing: Option<InterruptCoalescing>,
}

/// From a controller that is disabled to one that takes I/O queues.
pub(crate) async fn enable_and_identify(
    options: &DriverOptions,
    registers: &Registers,
    admin: &Admin,
    page_size: usize,
) -> Result<Found, DriverError> {
    let (sq, cq) = admin.queue.ring_iovas();
    registers.enable(admin.queue.depth().saturating_add(1), sq, cq, page_size).await?;
    admin.queue.resume(|_, _| true);

    let bytes = admin.identify(Cns::CONTROLLER, 0, 0).await.map_err(DriverError::command("Identify Controller"))?;
    let identify = Box::new(IdentifyController::read_from_bytes(&bytes[..]).unwrap_or_default());
    let (sqes, cqes) = (identify.sqes, identify.cqes);
    if sqes.required() > 6 || sqes.maximum() < 6 || cqes.required() > 4 || cqes.maximum() < 4 {
        let sizes = format!("its queue entries are not of 64 and 16 bytes (SQES {sqes:?}, CQES {cqes:?})");
        return Err(DriverError::Unsupported(sizes));
    }

    let nvm = identify_nvm(admin, registers.version).await?;

    set_host_behavior(admin, &identify).await?;
    if let Some(id) = options.host_id {
        set_host_id(admin, id).await.map_err(DriverError::command("setting the host identifier"))?;
    }
    let completion = match (options.completion, options.device.interrupt_count()) {
        (CompletionMode::Interrupt | CompletionMode::Adaptive, 0) => CompletionMode::Polling,
        (mode, _) => mode,
    };
    let coalescing = match completion {
        CompletionMode::Interrupt | CompletionMode::Adaptive => options.interrupt_coalescing,
        CompletionMode::Polling | CompletionMode::CallerPolls => None,
    };
    let coalescing = match coalescing {
        Some(asked) => set_coalescing(admin, asked).await?,
        None => None,
    };
    let (queue_limit, queues) = set_number_of_queues(options, admin, completion).await?;
    configure_events(admin, &identify).await?;
    Ok(Found { identify, nvm: Box::new(nvm), queue_limit, queues, completion, coalescing })
}

/// CNS 06h of the NVM command set. Controllers before NVMe 2.0 and simple ones refuse it: then there are no such limits.
async fn identify_nvm(admin: &Admin, version: Version) -> Result<IdentifyControllerNvm, DriverError> {
    // CNS became a byte in 1.2; with fewer bits, 06h is another question, and the answer no limits.
    if version < Version::V1_2 {
        return Ok(IdentifyControllerNvm::default());
    }
    match admin.identify(Cns::CONTROLLER_CSI, 0, csi::NVM).await {
        Ok(bytes) => Ok(IdentifyControllerNvm::read_from_bytes(&bytes[..]).unwrap_or_default()),
        Err(RequestError::Nvme(error)) => {
            tracing::debug!(%error, "no NVM command set limits");
            Ok(IdentifyControllerNvm::default())
        }
        Err(source) => Err(DriverError::command("Identify Controller, NVM command set")(source)),
    }
}

/// Host Behavior Support, where it matters: more than 16 LBA formats, and retries that the device wants delayed.
async fn set_host_behavior(admin: &Admin, identify: &IdentifyController) -> Result<(), DriverError> {
    let delays = identify.crdt1 != 0 || identify.crdt2 != 0 || identify.crdt3 != 0;
    let formats = identify.ctratt.extended_lba_formats();
    if !delays && !formats {
        return Ok(());
    }
    let behavior = HostBehavior { acre: delays.into(), lbafee: formats.into(), ..HostBehavior::default() };
    let set = admin.set_features(FeatureId::HOST_BEHAVIOR_SUPPORT, false, 0, 0, behavior.as_bytes());
    match set.await {
        Ok(_) => Ok(()),
        Err(RequestError::Nvme(error)) => {
            tracing::warn!(%error, "the controller refused Host Behavior Support");
            Ok(())
        }
        Err(source) => Err(DriverError::command("setting Host Behavior Support")(source)),
    }
}

/// Interrupt Coalescing; `None` where the controller refuses it.
async fn set_coalescing(admin: &Admin, asked: InterruptCoalescing) -> Result<Option<InterruptCoalescing>, DriverError> {
    match admin.set_features(FeatureId::INTERRUPT_COALESCING, false, 0, asked.into(), &[]).await {
        Ok(_) => Ok(Some(asked)),
        Err(RequestError::Nvme(error)) => {
            tracing::warn!(%error, "the controller refused Interrupt Coalescing");
            Ok(None)
        }
        Err(source) => Err(DriverError::command("setting Interrupt Coalescing")(source)),
    }
}

/// Memory for shadow doorbells, where they are wanted.
fn shadows(options: &DriverOptions, page_size: usize) -> Result<Option<Arc<Shadows>>, DriverError> {
    let wanted = match options.shadow_doorbells {
        ShadowDoorbells::Never => false,
        ShadowDoorbells::WhereFaster => options.device.doorbells_are_slow(),
        ShadowDoorbells::WhereOffered => true,
    };
    let shadows = wanted.then(|| Shadows::new(&*options.device, page_size)).transpose();
    shadows.map_err(DriverError::device("setting up shadow doorbells"))
}

/// Sets the host identifier. Only possible while the host has no registration.
pub(crate) async fn set_host_id(admin: &Admin, id: HostId) -> Result<(), RequestError> {
    let (exhid, bytes): (u32, &[u8]) = match &id {
        HostId::Short(bytes) => (0, bytes),
        HostId::Extended(bytes) => (1, bytes),
    };
    admin.set_features(FeatureId::HOST_IDENTIFIER, false, 0, exhid, bytes).await?;
    Ok(())
}

/// Asks for as many I/O queues as there are CPUs, and exclusive ones besides. How many there may be of CPUs, by the controller
/// and by its interrupts; and in all.
async fn set_number_of_queues(
    options: &DriverOptions,
    admin: &Admin,
    completion: CompletionMode,
) -> Result<(u16, u16), DriverError> {
    let wanted = u16::try_from(options.cpus.saturating_add(options.exclusive_queues).saturating_sub(1))
        .unwrap_or(u16::MAX - 1)
        .min(u16::MAX - 1);
    let cdw11 = NumberOfQueues::new().with_nsq(wanted).with_ncq(wanted);
    let set = admin.set_features(FeatureId::NUMBER_OF_QUEUES, false, 0, cdw11.into(), &[]);
    let granted = NumberOfQueues::from(set.await.map_err(DriverError::command("setting the number of queues"))?);
    let by_device = granted.nsq().min(granted.ncq()).min(wanted).saturating_add(1);
    let by_interrupts = match completion {
        CompletionMode::Interrupt | CompletionMode::Adaptive => {
            options.device.interrupt_count().saturating_sub(1).max(1)
        }
        CompletionMode::Polling | CompletionMode::CallerPolls => u32::MAX,
    };
    Ok((by_device.min(u16::try_from(by_interrupts).unwrap_or(u16::MAX)), by_device))
}

/// Turns on the events that the controller has.
pub(crate) async fn configure_events(admin: &Admin, identify: &IdentifyController) -> Result<(), DriverError> {
    // The bits of OAES are those of the feature; health warnings need not be offered.
    let all_warnings = 0x1f;
    let config = AsyncEventConfiguration::from(u32::from(identify.oaes) | all_warnings);
    match admin.set_features(FeatureId::ASYNC_EVENT_CONFIGURATION, false, 0, config.into(), &[]).await {
        Ok(_) => Ok(()),
        Err(RequestError::Nvme(error)) => {
            tracing::warn!(%error, "the controller refused the event configuration, its own stays");
            Ok(())
        }
        Err(source) => Err(DriverError::command("configuring events")(source)),
    }
}

impl Core {
    /// The largest transfer in bytes: MDTS in units of CAP.MPSMIN, and no more than the option says.
    pub(crate) fn max_transfer_bytes(&self) -> usize {
        let by_option = self.options.max_transfer;
        match self.device_max_transfer() {
            Some(bytes) => by_option.min(usize::try_from(bytes).unwrap_or(usize::MAX)),
            None => by_option,
        }
    }

    /// The largest transfer that the device allows; `None` where it sets no limit.
    pub(crate) fn device_max_transfer(&self) -> Option<u64> {
        self.identify.max_transfer_bytes(self.registers.cap.min_page_size())
    }

    /// How long the controller may take to shut down (RTD3E, in microseconds).
    pub(crate) fn shutdown_wait(&self) -> Duration {
        Duration::from_micros(self.identify.rtd3e.into()).max(Duration::from_secs(5))
    }
}

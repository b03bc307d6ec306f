//! What may come of an operation, and what follows from it.

use std::sync::Arc;

use doorbell::{DriverError, ErrorClass, NamespaceError, RequestError, ReservationReport};
use nvme_spec::Status;

use crate::model::{Tick, stamp_of};
use crate::operation::{Done, Operation, What};
use crate::quiet::disk_of;
use crate::run::{Check, Run, failure};

impl Run {
    /// An operation has ended.
    pub(crate) fn ended(&mut self, operation: Operation, done: Done) -> Check {
        match done {
            Done::Io(result, data) => self.io_ended(operation, result, data),
            Done::Claimed(result) => match operation.what {
                What::Claimed(sent, crossed) => self.claimed(operation.host, sent, crossed, *result),
                _ => Ok(()),
            },
            Done::Opened(result) => self.opened(operation.host, result),
            Done::Attached(result) => self.attached(&operation, result),
            Done::Reserved(result) => self.reservation_ended(operation, result),
            Done::Ended => {
                self.tally.outcome(&format!("{}: done", operation.what.name()));
                Ok(())
            }
        }
    }

    fn opened(&mut self, index: usize, result: Result<doorbell::NvmeDriver, DriverError>) -> Check {
        let host = &mut self.hosts[index];
        match result {
            Ok(driver) => {
                self.tally.outcome("open: done");
                let memory = driver.register_memory(&host.memory);
                host.registered = memory.ok();
                host.driver = Some(Arc::new(driver));
                Ok(())
            }
            Err(error) => {
                self.tally.outcome("open: failed");
                let blame = &host.blame;
                // What was planted strikes whoever drives the device next.
                if blame.disturbed || blame.mapping || blame.admin_fails {
                    return Ok(());
                }
                failure("error", format!("host {index}: the driver does not come up: {error}"))
            }
        }
    }

    fn attached(&mut self, operation: &Operation, result: Result<doorbell::Namespace, NamespaceError>) -> Check {
        let host = &mut self.hosts[operation.host];
        let What::Attach { namespace } = operation.what else { return Ok(()) };
        match result {
            Ok(handle) => {
                self.tally.outcome("attach: done");
                let Some(disk) = disk_of(&handle.id()).filter(|disk| *disk < self.disks.len()) else {
                    return failure(
                        "identity",
                        format!("namespace {namespace} is of no known identity: {:?}", handle.id()),
                    );
                };
                // One that was removed before another driver took over.
                if !handle.is_removed() {
                    host.namespaces[namespace] = Some((Arc::new(handle), disk));
                }
                Ok(())
            }
            Err(error) => {
                self.tally.outcome("attach: failed");
                let permitted = match &error {
                    NamespaceError::NotFound { .. } => host.blame.removed,
                    // Operations under way keep the handle that was dropped.
                    NamespaceError::DuplicateRequest { .. } => true,
                    NamespaceError::Request(error) => host.permits(error),
                    _ => false,
                };
                if permitted {
                    Ok(())
                } else {
                    failure(
                        "error",
                        format!(
                            "no handle for namespace {namespace}: {error}, for which there is no reason: {:?}",
                            host.blame
                        ),
                    )
                }
            }
        }
    }

    fn io_ended(&mut self, operation: Operation, result: Result<(), RequestError>, data: Vec<u8>) -> Check {
        if matches!(result, Err(RequestError::HandedOver)) {
            return self.crossed_over(operation);
        }
        let now = self.tick();
        let Operation { id, host, disk, what, start, pages, .. } = operation;
        let name = what.name();
        let data = match &result {
            Ok(()) => match what {
                What::Read { blocks, .. } if !pages.is_empty() => self.guest_data(host, blocks, &pages)?,
                _ => data,
            },
            Err(_) => data,
        };
        self.hosts[host].free_pages.extend(pages);
        self.copied.retain(|(copy, ..)| *copy != id);
        let kept_out = match (&result, what.group()) {
            (Ok(()), Some(group)) => self.was_allowed(host, disk, group, start).map(|()| false)?,
            (Err(error), Some(group)) => self.is_kept_out(host, disk, group, start, error),
            (_, None) => false,
        };
        // A reservation is no sign that a controller is not well.
        self.failed += u64::from(result.is_err() && !kept_out);
        self.told_of(name, result.as_ref().err());

        let model = &mut self.disks[disk].model;
        let acknowledged = result.is_ok();
        match &what {
            What::Read { lba, blocks } if acknowledged => {
                self.was_read(host, disk, *lba, *blocks, start, &data)?;
            }
            What::Write { lba, stamps, fua } => {
                for lba in *lba..*lba + stamps.len() as u64 {
                    model.write_ends(id, lba, acknowledged, *fua, now);
                }
            }
            What::Copy { to, blocks } => {
                for lba in *to..*to + *blocks {
                    model.write_ends(id, lba, acknowledged, false, now);
                }
            }
            What::Compare { lba, stamps } => {
                for (lba, stamp) in (*lba..).zip(stamps) {
                    if acknowledged && !model.may_be(lba, *stamp, start) {
                        return failure(
                            "compare",
                            format!(
                                "disk {disk}: block {lba} is said to hold {stamp:#x}; the model knows{}",
                                model.told(lba)
                            ),
                        );
                    }
                }
                let differs = || (*lba..).zip(stamps).any(|(lba, stamp)| model.may_differ(lba, *stamp, start));
                if is_miscompare(&result) && !differs() {
                    return failure(
                        "compare",
                        format!("disk {disk}: blocks {lba}+{} are said not to hold what they do", stamps.len()),
                    );
                }
            }
            What::CompareAndWrite { lba, compared, written } => {
                if is_miscompare(&result) {
                    for lba in *lba..*lba + written.len() as u64 {
                        model.write_did_nothing(id, lba);
                    }
                    if !(*lba..).zip(compared).any(|(lba, stamp)| model.may_differ(lba, *stamp, start)) {
                        return failure(
                            "compare",
                            format!("disk {disk}: blocks {lba}+{} are said not to hold what they do", compared.len()),
                        );
                    }
                }
                for (lba, stamp) in (*lba..).zip(compared) {
                    if acknowledged && !model.may_be(lba, *stamp, start) {
                        return failure(
                            "compare",
                            format!(
                                "disk {disk}: block {lba} is said to have held {stamp:#x}; the model knows{}",
                                model.told(lba)
                            ),
                        );
                    }
                    model.write_ends(id, lba, acknowledged, false, now);
                }
            }
            What::Flush if acknowledged => model.flushed(start),
            _ => {}
        }
        match result {
            Err(error) if !kept_out && !self.permits(host, &what, &error) => failure(
                "error",
                format!(
                    "host {host}: a {name} failed with `{error}`, for which there is no reason: {:?}",
                    self.hosts[host].blame
                ),
            ),
            _ => Ok(()),
        }
    }

    /// Counts what came of an operation.
    fn told_of(&mut self, name: &str, error: Option<&RequestError>) {
        let outcome = error.map_or("done".to_owned(), shown);
        self.tally.outcome(&format!("{name}: {outcome}"));
        self.note(crate::rng::mix(outcome.len() as u64));
    }

    fn reservation_ended(
        &mut self,
        operation: Operation,
        result: Result<Option<ReservationReport>, RequestError>,
    ) -> Check {
        if matches!(result, Err(RequestError::HandedOver)) {
            return self.crossed_over(operation);
        }
        let Operation { id, host, disk, ref what, .. } = operation;
        let What::Reserve(demand) = *what else { return Ok(()) };
        self.told_of(what.name(), result.as_ref().err());
        let possible = self.reserved(id, disk, demand, &result)?;
        match result {
            Err(error) if !possible => {
                self.failed += 1;
                if self.hosts[host].permits(&error) {
                    return Ok(());
                }
                let (blame, agreements) = (&self.hosts[host].blame, &self.disks[disk].agreements);
                let text = format!(
                    "host {host}: {demand:?} failed with `{error}`, for which there is no reason: {blame:?}, {agreements:#?}"
                );
                failure("reservation", text)
            }
            _ => Ok(()),
        }
    }

    /// A read has returned this.
    pub(crate) fn was_read(
        &mut self,
        host: usize,
        disk: usize,
        lba: u64,
        blocks: u64,
        start: Tick,
        data: &[u8],
    ) -> Check {
        let now = self.tick();
        let model = &mut self.disks[disk].model;
        for (lba, block) in (lba..lba + blocks).zip(data.chunks_exact(self.setup.block_size as usize)) {
            let Some(stamp) = stamp_of(block) else {
                let text = format!(
                    "host {host}, disk {disk}: a read gave a block {lba} that nobody wrote: {:x?}",
                    &block[..64]
                );
                return failure("torn", text);
            };
            if !model.may_be(lba, stamp, start) {
                let text = format!(
                    "host {host}, disk {disk}: a read of block {lba} gave {stamp:#x}, from {start} to {now}; the model knows{}",
                    model.told(lba)
                );
                return failure("stale", text);
            }
            model.was_read(lba, stamp, start);
        }
        Ok(())
    }

    pub(crate) fn guest_data(&self, host: usize, blocks: u64, pages: &[u64]) -> Check<Vec<u8>> {
        let mut data = vec![0; blocks as usize * self.setup.block_size as usize];
        for (page, data) in pages.iter().zip(data.chunks_mut(doorbell::PAGE_SIZE)) {
            let read = self.hosts[host].memory.read_at(page * doorbell::PAGE_SIZE as u64, data);
            read.or_else(|error| failure("setup", error.to_string()))?;
        }
        Ok(data)
    }

    /// Whether an error is one that what happened can bring about.
    fn permits(&mut self, host: usize, what: &What, error: &RequestError) -> bool {
        let of_kind = match what {
            What::Compare { .. } => error.class() == ErrorClass::Miscompare,
            What::CompareAndWrite { .. } => {
                let missing = [Status::ABORTED_MISSING_FUSED, Status::ABORTED_FAILED_FUSED];
                error.class() == ErrorClass::Miscompare
                    || error.status().is_some_and(|status| missing.contains(&status))
                    || matches!(error, RequestError::TooLarge { .. } | RequestError::Unsupported(_))
            }
            _ => false,
        };
        of_kind || self.hosts[host].permits(error)
    }
}

fn is_miscompare(result: &Result<(), RequestError>) -> bool {
    result.as_ref().is_err_and(|error| error.class() == ErrorClass::Miscompare)
}

/// An error's kind.
fn shown(error: &RequestError) -> String {
    match error {
        RequestError::Nvme(error) => error.status.to_string(),
        RequestError::Failed(_) => "given up, the device failed".to_owned(),
        RequestError::Misbehaved(_) => "given up, the device broke the protocol".to_owned(),
        RequestError::Memory(_) => "unusable memory".to_owned(),
        RequestError::NoQueue(_) => "no queue".to_owned(),
        RequestError::OutOfRange { .. } => "outside the namespace".to_owned(),
        RequestError::TooLarge { .. } => "too large".to_owned(),
        error => error.to_string(),
    }
}

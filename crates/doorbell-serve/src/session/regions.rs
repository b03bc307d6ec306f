//! Regions of the PCI device, as the client asks for them: registers, MSI-X table, configuration space.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use doorbell_device::inprocess::SoftController;
use doorbell_emulator::Controller;
use rustix::io::Errno;
use vfio_user::{Write, reply, wire};
use zerocopy::IntoBytes;

use super::{Answer, DOORBELLS, MAX_READ, Session};
use crate::pci::{Effect, MSIX_BAR};

impl Session {
    pub(super) fn region_info(&self, info: wire::RegionInfo) -> Answer<'_> {
        let wire::RegionInfo { argsz, index, .. } = info;
        if (argsz as usize) < size_of::<wire::RegionInfo>() {
            return Err(Errno::INVAL);
        }
        let access = wire::REGION_READ | wire::REGION_WRITE;
        let (flags, size) = match index {
            wire::region::BAR0 => (access | wire::REGION_MMAP, self.bar0),
            MSIX_BAR if self.msix.size() > 0 => (access, self.msix.size()),
            wire::region::CONFIG => (access, self.config.size()),
            index if index < wire::region::COUNT => (0, 0),
            _ => return Err(Errno::INVAL),
        };
        let info = wire::RegionInfo { flags, index, size, ..wire::RegionInfo::default() };
        if index != wire::region::BAR0 {
            return Ok((reply::region_info(info, &[], argsz).0, None));
        }
        let areas = [wire::SparseArea { offset: DOORBELLS, size: self.doorbells.len() as u64 }];
        let (bytes, fits) = reply::region_info(info, &areas, argsz);
        let file = self.bar_file.file().filter(|_| fits).map(|(file, _)| file.as_fd());
        Ok((bytes, file))
    }

    pub(super) fn region_read(
        &mut self,
        controller: &mut Controller,
        access: wire::RegionAccess,
    ) -> Result<Vec<u8>, Errno> {
        let wire::RegionAccess { offset, region, count } = access;
        if count > MAX_READ {
            return Err(Errno::INVAL);
        }
        let mut bytes = access.as_bytes().to_vec();
        let (at, len) = (usize::try_from(offset).map_err(|_| Errno::INVAL)?, count as usize);
        match region {
            wire::region::BAR0 => {
                let end = offset.checked_add(count.into()).filter(|&end| end <= self.bar0).ok_or(Errno::INVAL)?;
                // Registers are dwords, whatever part of them is asked for.
                let mut dwords = Vec::new();
                let first = at & !3;
                for at in (first..end as usize).step_by(4) {
                    let value = if (at as u64) < DOORBELLS { controller.read_register(at, 4) as u32 } else { 0 };
                    dwords.extend(value.to_le_bytes());
                }
                let skipped = at.saturating_sub(first);
                bytes.extend(dwords.get(skipped..skipped.saturating_add(len)).unwrap_or_default());
            }
            MSIX_BAR => bytes.extend(self.msix.read(at, len).ok_or(Errno::INVAL)?),
            wire::region::CONFIG => bytes.extend(self.config.read(at, len).ok_or(Errno::INVAL)?),
            _ => return Err(Errno::INVAL),
        }
        Ok(bytes)
    }

    pub(super) fn region_write(&mut self, controller: &mut Controller, write: Write<'_>) -> Result<(), Errno> {
        let Write { region, offset, data } = write;
        let at = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
        match region {
            wire::region::BAR0 => self.write_registers(controller, offset, data),
            MSIX_BAR => self.msix.write(at, data).ok_or(Errno::INVAL),
            wire::region::CONFIG => {
                if self.config.write(at, data).ok_or(Errno::INVAL)? == Effect::Reset {
                    self.reset(controller);
                }
                Ok(())
            }
            _ => Err(Errno::INVAL),
        }
    }

    fn write_registers(&mut self, controller: &mut Controller, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let end = offset.checked_add(data.len() as u64);
        let (dwords, rest) = data.as_chunks::<4>();
        if end.is_none_or(|end| end > self.bar0) || !offset.is_multiple_of(4) || !rest.is_empty() {
            return Err(Errno::INVAL);
        }
        for (at, dword) in (offset..).step_by(4).zip(dwords) {
            let value = u32::from_le_bytes(*dword);
            match at.checked_sub(DOORBELLS) {
                Some(at) => {
                    if let Some(doorbell) = self.doorbells.dwords().get((at / 4) as usize) {
                        doorbell.store(value, Ordering::Release);
                    }
                }
                None => self.with_host(|host| controller.write_register(host, at as usize, 4, value.into())),
            }
        }
        Ok(())
    }
}

//! What a bench comes down to on the namespace that there is.

use anyhow::{Result, bail};
use doorbell::{Namespace, PAGE_SIZE};

use super::args::Bench;
use crate::output;

/// Sizes and numbers, checked against the namespace.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) io_bytes: usize,
    pub(super) blocks_per_unit: u32,
    pub(super) units_per_job: u64,
}

impl Plan {
    pub(super) fn new(bench: &Bench, namespace: &Namespace) -> Result<Self> {
        let block = u64::from(namespace.block_size());
        if namespace.transfer_block_size() != namespace.block_size() {
            bail!("namespace {} has metadata behind each block, which bench does not know about", namespace.nsid());
        }
        if namespace.is_read_only() && (bench.verify || bench.rw.writes()) {
            bail!(
                "namespace {} is write protected; only --rw read and randread, without --verify, are possible",
                namespace.nsid()
            );
        }
        let largest = u64::from(namespace.max_transfer_block_count()) * block;
        let there_is = namespace.block_count().saturating_mul(block);
        Self::of(bench.bs, bench.numjobs.into(), bench.size, block, largest, there_is)
    }

    /// Bytes from one slot's memory to the next one's.
    pub(super) fn stride(&self) -> usize {
        self.io_bytes.next_multiple_of(PAGE_SIZE)
    }

    /// Bytes of a job's memory.
    pub(super) fn payload_bytes(&self, bench: &Bench) -> usize {
        bench.iodepth as usize * self.stride()
    }

    fn of(bs: u64, jobs: u64, size: Option<u64>, block: u64, largest: u64, there_is: u64) -> Result<Self> {
        if !bs.is_multiple_of(block) {
            bail!("--bs {bs} is not a multiple of the block size, {block}");
        }
        if bs > largest {
            bail!("--bs {bs} is more than one command moves on this device; at most {largest} are possible");
        }
        let size = size.unwrap_or(there_is);
        if size > there_is {
            bail!(
                "--size {size} is more than the namespace has; at most {there_is} ({}) are possible",
                output::bytes(there_is)
            );
        }
        let units_per_job = size / bs / jobs;
        if units_per_job == 0 {
            bail!(
                "{size} bytes are too few for {jobs} jobs with I/Os of {bs} bytes; at least {} are needed",
                bs.saturating_mul(jobs)
            );
        }
        Ok(Self { io_bytes: bs as usize, blocks_per_unit: (bs / block) as u32, units_per_job })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bs: u64, jobs: u64, size: Option<u64>) -> String {
        Plan::of(bs, jobs, size, 512, 2 << 20, 1 << 30).unwrap_err().to_string()
    }

    #[test]
    fn jobs_share_the_namespace() {
        let plan = Plan::of(4096, 3, None, 512, 2 << 20, 1 << 30).unwrap();
        assert_eq!((plan.io_bytes, plan.blocks_per_unit, plan.units_per_job), (4096, 8, (1 << 18) / 3));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(error(1000, 1, None).contains("multiple of the block size, 512"));
        assert!(error(4 << 20, 1, None).contains("at most 2097152"));
        assert!(error(4096, 1, Some(2 << 30)).contains("(1 GiB)"));
        assert!(error(4096, 2, Some(4096)).contains("at least 8192"));
        assert!(error(4096, 1, Some(1)).contains("at least 4096"));
    }
}

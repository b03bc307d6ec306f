//! The controller as a PCI function: its configuration space and the BAR of its MSI-X table.

/// Bytes of the configuration space (PCI Express).
const CONFIG: usize = 4096;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const BAR4: usize = 0x20;
const POWER: usize = 0x40;
const EXPRESS: usize = 0x50;
const MSIX: usize = 0xb0;
const DEVICE_CONTROL: usize = EXPRESS + 8;
/// Device Control: Initiate Function Level Reset.
const INITIATE_RESET: u16 = 1 << 15;

/// Which BAR holds the MSI-X table and its pending bits.
pub(crate) const MSIX_BAR: u32 = 4;
/// Within the device identifiers that the owner of vendor 1AF4h leaves to experiments.
const DEVICE_ID: u16 = 0x10f0;

/// What a write to the configuration space asks for beyond the change of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// A function level reset.
    Reset,
}

/// The configuration space: its bytes, and which bits of them can be written.
pub(crate) struct ConfigSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
}

impl ConfigSpace {
    /// That of a controller of a vendor, with a BAR 0 of `bar0` bytes and an MSI-X BAR as given.
    pub(crate) fn new(vendor: u16, bar0: u64, msix: &MsixBar) -> Self {
        let mut space = Self { bytes: vec![0; CONFIG], writable: vec![0; CONFIG] };
        space.header(vendor, bar0, msix);
        space.power(EXPRESS);
        space.express(if msix.vectors > 0 { MSIX } else { 0 });
        if msix.vectors > 0 {
            space.msix(msix);
        }
        space
    }

    fn header(&mut self, vendor: u16, bar0: u64, msix: &MsixBar) {
        self.set(0x00, &vendor.to_le_bytes());
        self.set(0x02, &DEVICE_ID.to_le_bytes());
        // Memory space, bus master, parity error response, SERR#, interrupt disable.
        self.allow(COMMAND, &0x0546u16.to_le_bytes());
        // There is a list of capabilities.
        self.set(STATUS, &0x0010u16.to_le_bytes());
        // Mass storage, non-volatile memory, NVM Express.
        self.set(0x09, &[0x02, 0x08, 0x01]);
        self.allow(0x0c, &[0xff]);
        // Memory, 64 bits wide.
        self.set(BAR0, &0x4u32.to_le_bytes());
        self.allow(BAR0, &bar0.wrapping_neg().to_le_bytes());
        if msix.vectors > 0 {
            self.allow(BAR4, &(msix.size() as u32).wrapping_neg().to_le_bytes());
        }
        self.set(0x2c, &vendor.to_le_bytes());
        self.set(0x2e, &DEVICE_ID.to_le_bytes());
        self.set(0x34, &[POWER as u8]);
        self.allow(0x3c, &[0xff]);
        // INTA.
        self.set(0x3d, &[1]);
    }

    /// PCI Power Management: D0 and D3, and nothing is lost between them.
    fn power(&mut self, next: usize) {
        self.set(POWER, &[0x01, next as u8, 0x03, 0x00, 0x08, 0x00]);
        self.allow(POWER.saturating_add(4), &[0x03]);
    }

    /// PCI Express: an endpoint of 4 lanes at 8 GT/s that has a function level reset.
    fn express(&mut self, next: usize) {
        let at = |offset: usize| EXPRESS.saturating_add(offset);
        self.set(at(0), &[0x10, next as u8, 0x02, 0x00]);
        self.set(at(0x04), &0x1000_8000u32.to_le_bytes());
        self.allow(DEVICE_CONTROL, &0x7fffu16.to_le_bytes());
        self.set(at(0x0c), &0x0000_0043u32.to_le_bytes());
        self.allow(at(0x10), &0x01fbu16.to_le_bytes());
        self.set(at(0x12), &0x0043u16.to_le_bytes());
        // Completion timeouts can be disabled.
        self.set(at(0x24), &0x10u32.to_le_bytes());
        self.allow(at(0x28), &0x001fu16.to_le_bytes());
        self.set(at(0x2c), &0x0000_000eu32.to_le_bytes());
        self.set(at(0x30), &0x0003u16.to_le_bytes());
    }

    fn msix(&mut self, bar: &MsixBar) {
        let at = |offset: usize| MSIX.saturating_add(offset);
        self.set(at(0), &[0x11, 0]);
        self.set(at(2), &bar.vectors.saturating_sub(1).to_le_bytes());
        // Enable, and mask all.
        self.allow(at(2), &0xc000u16.to_le_bytes());
        self.set(at(4), &MSIX_BAR.to_le_bytes());
        self.set(at(8), &(bar.pending_bits() as u32 | MSIX_BAR).to_le_bytes());
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        put(&mut self.bytes, at, bytes);
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        put(&mut self.writable, at, mask);
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes over the bytes that another had; false if they are not as many.
    pub(crate) fn restore(&mut self, bytes: Vec<u8>) -> bool {
        let fits = bytes.len() == self.bytes.len();
        if fits {
            self.bytes = bytes;
        }
        fits
    }

    /// Bytes of it.
    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Reads; `None` outside of it.
    pub(crate) fn read(&self, at: usize, len: usize) -> Option<&[u8]> {
        self.bytes.get(at..at.checked_add(len)?)
    }

    /// Writes what can be written; `None` outside of it.
    pub(crate) fn write(&mut self, at: usize, data: &[u8]) -> Option<Effect> {
        let range = at..at.checked_add(data.len())?;
        let bytes = self.bytes.get_mut(range.clone())?;
        let mut effect = Effect::None;
        for (((at, byte), mask), new) in range.clone().zip(bytes).zip(self.writable.get(range)?).zip(data) {
            *byte = *byte & !mask | new & mask;
            // It reads as zero: what it asks for is done at once.
            if at == DEVICE_CONTROL.saturating_add(1) && new & (INITIATE_RESET >> 8) as u8 != 0 {
                effect = Effect::Reset;
            }
        }
        Some(effect)
    }
}

/// The BAR with the MSI-X table and its pending bits. Clients keep the table that counts; this is what they read back.
pub(crate) struct MsixBar {
    pub(crate) vectors: u16,
    bytes: Vec<u8>,
}

impl MsixBar {
    pub(crate) fn new(vectors: u16) -> Self {
        // A table of 16 bytes a vector, and its pending bits in a page after it.
        let table = usize::from(vectors).saturating_mul(16).next_multiple_of(4096);
        let size = if vectors > 0 { table.saturating_add(4096).next_power_of_two() } else { 0 };
        Self { vectors, bytes: vec![0; size] }
    }

    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes over the bytes that another had; false if they are not as many.
    pub(crate) fn restore(&mut self, bytes: Vec<u8>) -> bool {
        let fits = bytes.len() == self.bytes.len();
        if fits {
            self.bytes = bytes;
        }
        fits
    }

    fn pending_bits(&self) -> usize {
        self.bytes.len() / 2
    }

    pub(crate) fn read(&self, at: usize, len: usize) -> Option<&[u8]> {
        self.bytes.get(at..at.checked_add(len)?)
    }

    pub(crate) fn write(&mut self, at: usize, data: &[u8]) -> Option<()> {
        let end = at.checked_add(data.len())?;
        let target = self.bytes.get_mut(at..end)?;
        // The pending bits are not the client's to write.
        if end <= usize::from(self.vectors).saturating_mul(16) {
            target.copy_from_slice(data);
        }
        Some(())
    }
}

fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    for (target, byte) in target.iter_mut().skip(at).zip(bytes) {
        *target = *byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(0x1af4, 0x4000, &MsixBar::new(65))
    }

    fn dword(space: &ConfigSpace, at: usize) -> u32 {
        u32::from_le_bytes(space.read(at, 4).unwrap().try_into().unwrap())
    }

    #[test]
    fn a_bar_tells_its_size_when_all_ones_are_written() {
        let mut space = space();
        space.write(BAR0, &[0xff; 8]).unwrap();
        space.write(BAR4, &[0xff; 4]).unwrap();
        assert_eq!((dword(&space, BAR0), dword(&space, BAR0 + 4)), (0xffff_c004, 0xffff_ffff));
        assert_eq!(dword(&space, BAR4), 0xffff_e000);
        space.write(0x14, &[0xff; 4]).unwrap();
        space.write(0x18, &[0xff; 4]).unwrap();
        assert_eq!(dword(&space, 0x18), 0, "there is no BAR 2");
    }

    #[test]
    fn identity_and_class_stay() {
        let mut space = space();
        space.write(0, &[0; 12]).unwrap();
        assert_eq!(dword(&space, 0), 0x10f0_1af4);
        assert_eq!(dword(&space, 8) >> 8, 0x01_0802);
    }

    #[test]
    fn the_list_of_capabilities_ends() {
        for (vectors, expected) in [(65, vec![0x01, 0x10, 0x11]), (0, vec![0x01, 0x10])] {
            let space = ConfigSpace::new(0x1af4, 0x4000, &MsixBar::new(vectors));
            let mut found = Vec::new();
            let mut at = space.bytes[0x34];
            while at != 0 {
                found.push(space.bytes[usize::from(at)]);
                at = space.bytes[usize::from(at) + 1];
            }
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_table_and_its_pending_bits_do_not_overlap() {
        for vectors in [1, 65, 256, 2048] {
            let bar = MsixBar::new(vectors);
            assert!(bar.pending_bits() >= usize::from(vectors) * 16);
            assert!(bar.pending_bits() + usize::from(vectors).div_ceil(64) * 8 <= bar.bytes.len());
            assert!(bar.bytes.len().is_power_of_two());
        }
    }

    #[test]
    fn a_function_level_reset_is_noticed_and_reads_as_zero() {
        let mut space = space();
        assert_eq!(space.write(DEVICE_CONTROL, &0x2810u16.to_le_bytes()), Some(Effect::None));
        assert_eq!(space.write(DEVICE_CONTROL, &0xa810u16.to_le_bytes()), Some(Effect::Reset));
        assert_eq!(dword(&space, DEVICE_CONTROL) as u16, 0x2810);
    }

    #[test]
    fn nothing_outside_is_touched() {
        let mut space = space();
        assert!(space.read(4094, 4).is_none() && space.read(usize::MAX, 2).is_none());
        assert!(space.write(4094, &[0; 4]).is_none() && space.write(usize::MAX, &[0; 2]).is_none());
    }
}

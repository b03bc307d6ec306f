//! What is measured: a way to do I/O, what of, and how large everything is.

/// A way to do I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The rings without a driver.
    Bare,
    /// The same, with a device that completes in the call that rings.
    BareInline,
    /// The loop that polls futures, with futures that do nothing.
    Executor,
    /// Into and from registered guest memory, by futures.
    Guest,
    /// Into and from buffers of the driver's, by futures.
    Buffer,
    /// Through the bounce pool, by futures.
    Bounce,
    /// As `Guest`, with a device that completes in the call that rings: ready at the first poll.
    Ready,
    /// As `Guest`, with a device that completes all in the call that rings for the last: what `doorbell bench zero-work:N`
    /// does, without what that itself costs.
    Together,
    /// On a queue of one's own, without futures.
    Exclusive,
    /// The rings without a driver, on an emulated controller in the same call.
    Emulated(Storage),
}

/// What an emulated namespace keeps its blocks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Null,
    Ram,
}

/// How the bytes of an I/O lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One page after the other, named by PRPs.
    Contiguous,
    /// One page after the other, named by an SGL.
    Sgl,
    /// No page follows another: a PRP list.
    Scattered,
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) queues: u32,
    pub(crate) namespaces: u32,
    /// Regions of guest memory.
    pub(crate) regions: u32,
}

const ONE: Shape = Shape { queues: 1, namespaces: 1, regions: 1 };

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) way: Way,
    pub(crate) write: bool,
    pub(crate) bytes: usize,
    pub(crate) layout: Layout,
    pub(crate) shape: Shape,
}

const fn read(way: Way, bytes: usize) -> Case {
    Case { way, write: false, bytes, layout: Layout::Contiguous, shape: ONE }
}

const fn write(way: Way, bytes: usize) -> Case {
    Case { write: true, ..read(way, bytes) }
}

const fn lies(layout: Layout, case: Case) -> Case {
    Case { layout, ..case }
}

const SMALL: usize = 512;
const PAGE: usize = 4096;
const LARGE: usize = 128 << 10;

impl Case {
    pub(crate) const BARE: Self = read(Way::Bare, PAGE);
    const BARE_INLINE: Self = read(Way::BareInline, PAGE);
    pub(crate) const EXECUTOR: Self = read(Way::Executor, PAGE);

    /// All that are in the table of an I/O's cost.
    pub(crate) const ALL: [Self; 26] = [
        read(Way::Guest, SMALL),
        read(Way::Guest, PAGE),
        write(Way::Guest, PAGE),
        read(Way::Guest, LARGE),
        lies(Layout::Sgl, read(Way::Guest, LARGE)),
        lies(Layout::Scattered, read(Way::Guest, LARGE)),
        lies(Layout::Scattered, write(Way::Guest, LARGE)),
        read(Way::Buffer, SMALL),
        read(Way::Buffer, PAGE),
        write(Way::Buffer, PAGE),
        read(Way::Buffer, LARGE),
        read(Way::Bounce, PAGE),
        write(Way::Bounce, PAGE),
        read(Way::Exclusive, SMALL),
        read(Way::Exclusive, PAGE),
        write(Way::Exclusive, PAGE),
        read(Way::Exclusive, LARGE),
        lies(Layout::Sgl, read(Way::Exclusive, LARGE)),
        lies(Layout::Scattered, read(Way::Exclusive, LARGE)),
        read(Way::Ready, PAGE),
        write(Way::Ready, PAGE),
        read(Way::Together, PAGE),
        read(Way::Emulated(Storage::Null), PAGE),
        write(Way::Emulated(Storage::Null), PAGE),
        read(Way::Emulated(Storage::Ram), PAGE),
        write(Way::Emulated(Storage::Ram), PAGE),
    ];

    /// A read of a page into guest memory, where there is more of something.
    pub(crate) const fn shaped(shape: Shape) -> Self {
        Self { shape, ..read(Way::Guest, PAGE) }
    }

    /// Whether it makes sense with so many in flight.
    pub(crate) fn allows(self, in_flight: usize) -> bool {
        match self.way {
            // Who is ready at once is never in flight with others.
            Way::Ready => in_flight == 1,
            Way::Together => in_flight > 1,
            _ => true,
        }
    }

    /// What its figures are net of: the same commands on the same rings, and the loop that polls.
    pub(crate) fn floors(self) -> &'static [Self] {
        match self.way {
            Way::Bare | Way::BareInline | Way::Executor | Way::Together | Way::Emulated(_) => &[],
            Way::Exclusive => &[Self::BARE],
            // Polled once.
            Way::Ready => &[Self::BARE_INLINE],
            Way::Guest | Way::Buffer | Way::Bounce => &[Self::BARE, Self::EXECUTOR],
        }
    }

    /// The case of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let floors = [Self::BARE, Self::BARE_INLINE, Self::EXECUTOR];
        let mut all = floors.into_iter().chain(Self::ALL).chain(crate::scaling::all());
        all.find(|case| case.name() == name)
    }

    /// For people.
    pub(crate) fn name(self) -> String {
        let what = if self.write { "write" } else { "read" };
        let size = match self.bytes {
            bytes if bytes < 1024 => format!("{bytes} B"),
            bytes => format!("{} KiB", bytes >> 10),
        };
        let way = match self.way {
            Way::Bare => return "(the bare ring itself)".into(),
            Way::BareInline => return "(the bare ring, completing at once)".into(),
            Way::Executor => return "(the loop that polls itself)".into(),
            Way::Guest => "guest memory",
            Way::Buffer => "DmaBuffer",
            Way::Bounce => "bounced",
            Way::Ready => "ready at the first poll",
            Way::Together => "completed together, all of it",
            Way::Exclusive => "exclusive queue",
            Way::Emulated(Storage::Null) => "emulated null namespace, all of it",
            Way::Emulated(Storage::Ram) => "emulated RAM namespace, all of it",
        };
        let layout = match self.layout {
            Layout::Contiguous if self.bytes > PAGE => ", contiguous",
            Layout::Contiguous => "",
            Layout::Sgl => ", contiguous, SGL",
            Layout::Scattered => ", scattered",
        };
        let Shape { queues, namespaces, regions } = self.shape;
        let of = |count: u32, what: &str| if count > 1 { format!(", {count} {what}") } else { String::new() };
        let shape = of(queues, "queues") + &of(namespaces, "namespaces") + &of(regions, "regions");
        format!("{what} {size}, {way}{layout}{shape}")
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        for case in Case::ALL.into_iter().chain(crate::scaling::all()) {
            assert_eq!(Case::named(&case.name()), Some(case));
        }
    }
}

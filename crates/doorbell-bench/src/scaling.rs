//! Curves: what an I/O costs where there is more of something.

use crate::case::{Case, Shape};
use crate::count;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Queues,
    Namespaces,
    Regions,
    /// Commands in flight on a queue.
    Depth,
}

impl Axis {
    pub(crate) const ALL: [Self; 4] = [Self::Queues, Self::Namespaces, Self::Regions, Self::Depth];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Axis::Queues => "queues",
            Axis::Namespaces => "namespaces",
            Axis::Regions => "regions of guest memory",
            Axis::Depth => "in flight on a queue",
        }
    }

    /// The points of its curve.
    pub(crate) fn points(self) -> &'static [u32] {
        match self {
            Axis::Queues => &[1, 2, 4, 8, 16, 32, 64],
            Axis::Namespaces => &[1, 4, 16, 64, 256, 1024],
            Axis::Regions => &[1, 2, 4, 16, 64, 256, 1024, 4096],
            Axis::Depth => &[32, 64, 128, 256, 512, 1024, 2048, 4095],
        }
    }

    /// The case at a point, and how many commands are in flight on each queue.
    pub(crate) fn at(self, point: u32) -> (Case, usize) {
        let one = Shape { queues: 1, namespaces: 1, regions: 1 };
        match self {
            Axis::Queues => (Case::shaped(Shape { queues: point, ..one }), 32),
            Axis::Namespaces => (Case::shaped(Shape { namespaces: point, ..one }), 32),
            Axis::Regions => (Case::shaped(Shape { regions: point, ..one }), 32),
            Axis::Depth => (Case::shaped(one), point as usize),
        }
    }
}

/// Every case of a curve.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    Axis::ALL.into_iter().flat_map(|axis| axis.points().iter().map(move |point| axis.at(*point).0))
}

/// The ends of the curves, for the gate.
pub(crate) fn ends() -> impl Iterator<Item = (Case, usize)> {
    Axis::ALL.into_iter().filter_map(|axis| Some(axis.at(*axis.points().last()?)))
}

/// A point of a curve.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Point {
    pub(crate) axis: &'static str,
    pub(crate) point: u32,
    pub(crate) instructions: f64,
    /// As many times what the first point of the curve has.
    pub(crate) ratio: f64,
}

/// Counts all curves.
pub(crate) fn curves() -> anyhow::Result<Vec<Point>> {
    let mut points = Vec::new();
    for axis in Axis::ALL {
        let mut first = None;
        for point in axis.points() {
            let (case, in_flight) = axis.at(*point);
            let instructions = count::net_instructions(case, in_flight)?;
            let ratio = instructions / *first.get_or_insert(instructions);
            points.push(Point { axis: axis.name(), point: *point, instructions, ratio });
        }
    }
    Ok(points)
}

//! The verbs, a file for each group of them.

pub(crate) mod blocks;
pub(crate) mod features;
pub(crate) mod format;
pub(crate) mod identify;
pub(crate) mod inspect;
pub(crate) mod io;
pub(crate) mod logs;
pub(crate) mod pci;
pub(crate) mod registers;
pub(crate) mod reservation;
pub(crate) mod shell;

mod controller_fields;
mod feature_fields;
mod namespace_fields;
mod register_fields;

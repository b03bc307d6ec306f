//! Namespaces that are another controller's.

mod chain;
mod crossing;
mod world;

//! Namespaces that are another controller's.

mod chain;
mod world;

//! Declares the crate's own `cfg`.

fn main() {
    // Set by `cargo xtask loom`: swaps atomics for the model checker's.
    println!("cargo::rustc-check-cfg=cfg(doorbell_loom)");
    println!("cargo::rerun-if-changed=build.rs");
}

//! doorbell-emulator

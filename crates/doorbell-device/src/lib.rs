//! doorbell-device

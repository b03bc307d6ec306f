//! nvme-spec

//! Opcodes (NVMe Base 2.0, "Opcodes for Admin Commands"; NVM Command Set, "Opcodes for NVM Commands").

/// Which way a command's data goes: the low two bits of its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// No data.
    None,
    /// The device reads the host's memory.
    HostToController,
    /// The device writes the host's memory.
    ControllerToHost,
    /// Both.
    Bidirectional,
}

impl Direction {
    /// The direction that an opcode's low two bits say.
    #[must_use]
    pub const fn of_opcode(opcode: u8) -> Self {
        match opcode & 0b11 {
            0b00 => Self::None,
            0b01 => Self::HostToController,
            0b10 => Self::ControllerToHost,
            _ => Self::Bidirectional,
        }
    }
}

codes! {
    /// Opcode of a command on the admin queue.
    pub struct AdminOpcode(u8);
    DELETE_IO_SQ = 0x00, "Delete I/O Submission Queue";
    CREATE_IO_SQ = 0x01, "Create I/O Submission Queue";
    GET_LOG_PAGE = 0x02, "Get Log Page";
    DELETE_IO_CQ = 0x04, "Delete I/O Completion Queue";
    CREATE_IO_CQ = 0x05, "Create I/O Completion Queue";
    IDENTIFY = 0x06, "Identify";
    ABORT = 0x08, "Abort";
    SET_FEATURES = 0x09, "Set Features";
    GET_FEATURES = 0x0a, "Get Features";
    ASYNC_EVENT_REQUEST = 0x0c, "Asynchronous Event Request";
    NAMESPACE_MANAGEMENT = 0x0d, "Namespace Management";
    FIRMWARE_COMMIT = 0x10, "Firmware Commit";
    FIRMWARE_IMAGE_DOWNLOAD = 0x11, "Firmware Image Download";
    DEVICE_SELF_TEST = 0x14, "Device Self-test";
    NAMESPACE_ATTACHMENT = 0x15, "Namespace Attachment";
    KEEP_ALIVE = 0x18, "Keep Alive";
    DIRECTIVE_SEND = 0x19, "Directive Send";
    DIRECTIVE_RECEIVE = 0x1a, "Directive Receive";
    VIRTUALIZATION_MANAGEMENT = 0x1c, "Virtualization Management";
    NVME_MI_SEND = 0x1d, "NVMe-MI Send";
    NVME_MI_RECEIVE = 0x1e, "NVMe-MI Receive";
    CAPACITY_MANAGEMENT = 0x20, "Capacity Management";
    /// Base 2.1.
    DISCOVERY_INFORMATION_MANAGEMENT = 0x21, "Discovery Information Management";
    /// Base 2.1.
    FABRIC_ZONING_RECEIVE = 0x22, "Fabric Zoning Receive";
    LOCKDOWN = 0x24, "Lockdown";
    /// Base 2.1.
    FABRIC_ZONING_LOOKUP = 0x25, "Fabric Zoning Lookup";
    /// Base 2.1.
    CLEAR_EXPORTED_NVM_RESOURCE_CONFIGURATION = 0x28, "Clear Exported NVM Resource Configuration";
    /// Base 2.1.
    FABRIC_ZONING_SEND = 0x29, "Fabric Zoning Send";
    /// Base 2.1.
    CREATE_EXPORTED_NVM_SUBSYSTEM = 0x2a, "Create Exported NVM Subsystem";
    /// Base 2.1.
    MANAGE_EXPORTED_NVM_SUBSYSTEM = 0x2d, "Manage Exported NVM Subsystem";
    /// Base 2.1.
    MANAGE_EXPORTED_NAMESPACE = 0x31, "Manage Exported Namespace";
    /// Base 2.1.
    MANAGE_EXPORTED_PORT = 0x35, "Manage Exported Port";
    /// Base 2.1.
    SEND_DISCOVERY_LOG_PAGE = 0x39, "Send Discovery Log Page";
    /// Base 2.1.
    TRACK_SEND = 0x3d, "Track Send";
    /// Base 2.1.
    TRACK_RECEIVE = 0x3e, "Track Receive";
    /// Base 2.1.
    MIGRATION_SEND = 0x41, "Migration Send";
    /// Base 2.1.
    MIGRATION_RECEIVE = 0x42, "Migration Receive";
    /// Base 2.1.
    CONTROLLER_DATA_QUEUE = 0x45, "Controller Data Queue";
    DOORBELL_BUFFER_CONFIG = 0x7c, "Doorbell Buffer Config";
    FABRICS = 0x7f, "Fabrics Commands";
    FORMAT_NVM = 0x80, "Format NVM";
    SECURITY_SEND = 0x81, "Security Send";
    SECURITY_RECEIVE = 0x82, "Security Receive";
    SANITIZE = 0x84, "Sanitize";
    /// Of the NVM command set.
    GET_LBA_STATUS = 0x86, "Get LBA Status";
}

codes! {
    /// Opcode of a command of the NVM command set on an I/O queue.
    pub struct NvmOpcode(u8);
    FLUSH = 0x00, "Flush";
    WRITE = 0x01, "Write";
    READ = 0x02, "Read";
    WRITE_UNCORRECTABLE = 0x04, "Write Uncorrectable";
    COMPARE = 0x05, "Compare";
    WRITE_ZEROES = 0x08, "Write Zeroes";
    DSM = 0x09, "Dataset Management";
    VERIFY = 0x0c, "Verify";
    RESERVATION_REGISTER = 0x0d, "Reservation Register";
    RESERVATION_REPORT = 0x0e, "Reservation Report";
    RESERVATION_ACQUIRE = 0x11, "Reservation Acquire";
    /// I/O management, of reclaim units (Base 2.1).
    IO_MANAGEMENT_RECEIVE = 0x12, "I/O Management Receive";
    RESERVATION_RELEASE = 0x15, "Reservation Release";
    /// Base 2.1.
    CANCEL = 0x18, "Cancel";
    COPY = 0x19, "Copy";
    /// I/O management, of reclaim units (Base 2.1).
    IO_MANAGEMENT_SEND = 0x1d, "I/O Management Send";
}

impl AdminOpcode {
    /// Whether the opcode is in the range left to vendors.
    #[must_use]
    pub const fn is_vendor_specific(self) -> bool {
        self.0 >= 0xc0
    }

    /// Which way the command's data goes, by its opcode.
    ///
    /// Some commands have data or not depending on their parameters (Set Features, Namespace Management, ...): then
    /// this is the direction if there is any.
    #[must_use]
    pub const fn direction(self) -> Direction {
        Direction::of_opcode(self.0)
    }
}

impl NvmOpcode {
    /// Whether the opcode is in the range left to vendors.
    #[must_use]
    pub const fn is_vendor_specific(self) -> bool {
        self.0 >= 0x80
    }

    /// Which way the command's data goes, by its opcode.
    #[must_use]
    pub const fn direction(self) -> Direction {
        Direction::of_opcode(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn directions() {
        assert_eq!(NvmOpcode::READ.direction(), Direction::ControllerToHost);
        assert_eq!(NvmOpcode::WRITE.direction(), Direction::HostToController);
        assert_eq!(NvmOpcode::COPY.direction(), Direction::HostToController);
        assert_eq!(NvmOpcode::FLUSH.direction(), Direction::None);
        assert_eq!(NvmOpcode::VERIFY.direction(), Direction::None);
        assert_eq!(NvmOpcode::RESERVATION_REPORT.direction(), Direction::ControllerToHost);
        assert_eq!(AdminOpcode::IDENTIFY.direction(), Direction::ControllerToHost);
        assert_eq!(AdminOpcode::DOORBELL_BUFFER_CONFIG.direction(), Direction::None);
    }

    #[test]
    fn names() {
        assert_eq!(AdminOpcode::IDENTIFY.name(), Some("Identify"));
        assert_eq!(format!("{}", NvmOpcode(0x7e)), "7Eh");
        assert_eq!(format!("{}", NvmOpcode::DSM), "Dataset Management (09h)");
        assert!(AdminOpcode(0xc0).is_vendor_specific() && !AdminOpcode::SANITIZE.is_vendor_specific());
    }
}

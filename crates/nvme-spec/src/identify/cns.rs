//! What Identify can be asked for (figure "Identify – CNS Values").

codes! {
    /// Controller or Namespace Structure.
    pub struct Cns(u8);
    /// [`IdentifyNamespace`](super::IdentifyNamespace), of the NVM command set and those built on it.
    NAMESPACE = 0x00, "Identify Namespace";
    /// [`IdentifyController`](super::IdentifyController).
    CONTROLLER = 0x01, "Identify Controller";
    /// [`NamespaceList`](super::NamespaceList) of the active ones after the command's NSID.
    ACTIVE_NAMESPACES = 0x02, "Active Namespace ID List";
    /// [`Descriptors`](super::Descriptors).
    NAMESPACE_DESCRIPTORS = 0x03, "Namespace Identification Descriptor List";
    NVM_SETS = 0x04, "NVM Set List";
    /// [`IdentifyNamespaceNvm`](super::IdentifyNamespaceNvm), for the NVM command set.
    NAMESPACE_CSI = 0x05, "I/O Command Set Specific Identify Namespace";
    /// [`IdentifyControllerNvm`](super::IdentifyControllerNvm), for the NVM command set.
    CONTROLLER_CSI = 0x06, "I/O Command Set Specific Identify Controller";
    /// [`NamespaceList`](super::NamespaceList) of the active ones of a command set, after the command's NSID.
    ACTIVE_NAMESPACES_CSI = 0x07, "I/O Command Set Specific Active Namespace ID List";
    /// [`IdentifyNamespaceIndependent`](super::IdentifyNamespaceIndependent).
    NAMESPACE_INDEPENDENT = 0x08, "I/O Command Set Independent Identify Namespace";
    NAMESPACE_USER_DATA_FORMAT = 0x09, "Identify Namespace User Data Format";
    NAMESPACE_USER_DATA_FORMAT_CSI = 0x0a, "I/O Command Set Specific Identify Namespace User Data Format";
    /// [`NamespaceList`](super::NamespaceList) of the allocated ones after the command's NSID.
    ALLOCATED_NAMESPACES = 0x10, "Allocated Namespace ID List";
    /// [`IdentifyNamespace`](super::IdentifyNamespace), whether attached or not.
    ALLOCATED_NAMESPACE = 0x11, "Identify Namespace of an Allocated Namespace";
    /// [`ControllerList`](super::ControllerList) of those a namespace is attached to.
    ATTACHED_CONTROLLERS = 0x12, "Namespace Attached Controller List";
    /// [`ControllerList`](super::ControllerList) of the NVM subsystem's.
    CONTROLLERS = 0x13, "Controller List";
    PRIMARY_CONTROLLER = 0x14, "Primary Controller Capabilities";
    SECONDARY_CONTROLLERS = 0x15, "Secondary Controller List";
    NAMESPACE_GRANULARITY = 0x16, "Namespace Granularity List";
    UUIDS = 0x17, "UUID List";
    DOMAINS = 0x18, "Domain List";
    ENDURANCE_GROUPS = 0x19, "Endurance Group List";
    /// [`NamespaceList`](super::NamespaceList) of the allocated ones of a command set, after the command's NSID.
    ALLOCATED_NAMESPACES_CSI = 0x1a, "I/O Command Set Specific Allocated Namespace ID List";
    ALLOCATED_NAMESPACE_CSI = 0x1b, "I/O Command Set Specific Identify Namespace of an Allocated Namespace";
    /// [`CommandSetCombinations`](super::CommandSetCombinations).
    COMMAND_SETS = 0x1c, "I/O Command Set Data Structure";
    /// Base 2.1.
    UNDERLYING_NAMESPACES = 0x1d, "Underlying Namespace List";
    /// Base 2.1.
    PORTS = 0x1e, "Ports List";
    /// Base 2.1.
    ALLOCATED_NAMESPACE_INDEPENDENT = 0x1f, "I/O Command Set Independent Identify of an Allocated Namespace";
    /// Base 2.1.
    CONTROLLER_STATE_FORMATS = 0x20, "Supported Controller State Formats";
}

/// Command Set Identifiers, CSI (figure "Command Set Identifiers").
pub mod csi {
    /// NVM command set.
    pub const NVM: u8 = 0x00;
    /// Key value command set.
    pub const KEY_VALUE: u8 = 0x01;
    /// Zoned namespace command set.
    pub const ZONED: u8 = 0x02;
    /// Subsystem local memory command set.
    pub const SUBSYSTEM_LOCAL_MEMORY: u8 = 0x03;
    /// Computational programs command set.
    pub const COMPUTATIONAL_PROGRAMS: u8 = 0x04;

    /// The specification's name of a command set.
    #[must_use]
    pub const fn name(csi: u8) -> Option<&'static str> {
        Some(match csi {
            NVM => "NVM Command Set",
            KEY_VALUE => "Key Value Command Set",
            ZONED => "Zoned Namespace Command Set",
            SUBSYSTEM_LOCAL_MEMORY => "Subsystem Local Memory Command Set",
            COMPUTATIONAL_PROGRAMS => "Computational Programs Command Set",
            _ => return None,
        })
    }
}

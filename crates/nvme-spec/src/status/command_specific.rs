//! Command Specific Status (figure "Command Specific Status Values"; NVM Command Set, 80h and up).

use super::{sct, status_table};

status_table! { sct::COMMAND_SPECIFIC;
    COMPLETION_QUEUE_INVALID = 0x00, "Completion Queue Invalid",
        "The completion queue that a submission queue is to use does not exist.";
    INVALID_QUEUE_IDENTIFIER = 0x01, "Invalid Queue Identifier",
        "The queue identifier is out of range, in use where it must be free, or free where it must be in use.";
    INVALID_QUEUE_SIZE = 0x02, "Invalid Queue Size",
        "The queue size is 0, or more than the controller supports.";
    ABORT_COMMAND_LIMIT_EXCEEDED = 0x03, "Abort Command Limit Exceeded",
        "More Abort commands are outstanding than the controller supports.";
    ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED = 0x05, "Asynchronous Event Request Limit Exceeded",
        "More Asynchronous Event Requests are outstanding than the controller supports.";
    INVALID_FIRMWARE_SLOT = 0x06, "Invalid Firmware Slot",
        "The firmware slot does not exist, is read-only, or holds nothing.";
    INVALID_FIRMWARE_IMAGE = 0x07, "Invalid Firmware Image",
        "The firmware image was refused.";
    INVALID_INTERRUPT_VECTOR = 0x08, "Invalid Interrupt Vector",
        "The interrupt vector is more than the controller has.";
    INVALID_LOG_PAGE = 0x09, "Invalid Log Page",
        "The controller does not have this log page, or not in this form.";
    INVALID_FORMAT = 0x0a, "Invalid Format",
        "The LBA format is not supported, or not with these settings.";
    FIRMWARE_ACTIVATION_REQUIRES_CONVENTIONAL_RESET = 0x0b, "Firmware Activation Requires Conventional Reset",
        "The firmware was committed, and becomes active at the next conventional reset.";
    INVALID_QUEUE_DELETION = 0x0c, "Invalid Queue Deletion",
        "The completion queue still has submission queues.";
    FEATURE_IDENTIFIER_NOT_SAVEABLE = 0x0d, "Feature Identifier Not Saveable",
        "The feature's value cannot be saved across resets.";
    FEATURE_NOT_CHANGEABLE = 0x0e, "Feature Not Changeable",
        "The feature's value cannot be changed.";
    FEATURE_NOT_NAMESPACE_SPECIFIC = 0x0f, "Feature Not Namespace Specific",
        "The feature has one value for the controller, not one for each namespace.";
    FIRMWARE_ACTIVATION_REQUIRES_SUBSYSTEM_RESET = 0x10, "Firmware Activation Requires NVM Subsystem Reset",
        "The firmware was committed, and becomes active at the next NVM subsystem reset.";
    FIRMWARE_ACTIVATION_REQUIRES_CONTROLLER_RESET = 0x11, "Firmware Activation Requires Controller Level Reset",
        "The firmware was committed, and becomes active at the next controller reset.";
    FIRMWARE_ACTIVATION_REQUIRES_MAXIMUM_TIME_VIOLATION = 0x12,
        "Firmware Activation Requires Maximum Time Violation",
        "Activation without a reset would take longer than the time the controller promises.";
    FIRMWARE_ACTIVATION_PROHIBITED = 0x13, "Firmware Activation Prohibited",
        "The image must not be activated on this device.";
    OVERLAPPING_RANGE = 0x14, "Overlapping Range",
        "A range overlaps another one, of the firmware image, or of a feature's list.";
    NAMESPACE_INSUFFICIENT_CAPACITY = 0x15, "Namespace Insufficient Capacity",
        "There is not enough free capacity for the namespace.";
    NAMESPACE_IDENTIFIER_UNAVAILABLE = 0x16, "Namespace Identifier Unavailable",
        "All namespace identifiers are in use.";
    NAMESPACE_ALREADY_ATTACHED = 0x18, "Namespace Already Attached",
        "The namespace is already attached to the controller.";
    NAMESPACE_IS_PRIVATE = 0x19, "Namespace Is Private",
        "The namespace is private and attached to another controller.";
    NAMESPACE_NOT_ATTACHED = 0x1a, "Namespace Not Attached",
        "The namespace is not attached to the controller.";
    THIN_PROVISIONING_NOT_SUPPORTED = 0x1b, "Thin Provisioning Not Supported",
        "The namespace's capacity must be its size.";
    CONTROLLER_LIST_INVALID = 0x1c, "Controller List Invalid",
        "The list of controllers is malformed or names one that cannot be used.";
    DEVICE_SELF_TEST_IN_PROGRESS = 0x1d, "Device Self-test In Progress",
        "A self-test is running already.";
    BOOT_PARTITION_WRITE_PROHIBITED = 0x1e, "Boot Partition Write Prohibited",
        "The boot partition is locked.";
    INVALID_CONTROLLER_IDENTIFIER = 0x1f, "Invalid Controller Identifier",
        "There is no such controller, or it is not one this command applies to.";
    INVALID_SECONDARY_CONTROLLER_STATE = 0x20, "Invalid Secondary Controller State",
        "The secondary controller is not in a state that allows the action.";
    INVALID_NUMBER_OF_CONTROLLER_RESOURCES = 0x21, "Invalid Number of Controller Resources",
        "There are not as many flexible resources.";
    INVALID_RESOURCE_IDENTIFIER = 0x22, "Invalid Resource Identifier",
        "The type of resource does not exist.";
    SANITIZE_PROHIBITED_WHILE_PMR_ENABLED = 0x23, "Sanitize Prohibited While Persistent Memory Region is Enabled",
        "The persistent memory region has to be disabled before a sanitize operation.";
    ANA_GROUP_IDENTIFIER_INVALID = 0x24, "ANA Group Identifier Invalid",
        "There is no such asymmetric namespace access group.";
    ANA_ATTACH_FAILED = 0x25, "ANA Attach Failed",
        "The namespace cannot be attached in the state of its asymmetric namespace access group.";
    INSUFFICIENT_CAPACITY = 0x26, "Insufficient Capacity",
        "There is not enough unallocated capacity.";
    NAMESPACE_ATTACHMENT_LIMIT_EXCEEDED = 0x27, "Namespace Attachment Limit Exceeded",
        "The controller, or its domain, has as many namespaces attached as it can have.";
    PROHIBITION_OF_COMMAND_EXECUTION_NOT_SUPPORTED = 0x28, "Prohibition of Command Execution Not Supported",
        "The command or feature cannot be locked down.";
    IO_COMMAND_SET_NOT_SUPPORTED = 0x29, "I/O Command Set Not Supported",
        "The controller does not have this I/O command set.";
    IO_COMMAND_SET_NOT_ENABLED = 0x2a, "I/O Command Set Not Enabled",
        "The controller has this I/O command set, but it is not enabled.";
    IO_COMMAND_SET_COMBINATION_REJECTED = 0x2b, "I/O Command Set Combination Rejected",
        "These I/O command sets are not supported together, or a namespace in use needs another one.";
    INVALID_IO_COMMAND_SET = 0x2c, "Invalid I/O Command Set",
        "The command does not apply to this I/O command set.";
    IDENTIFIER_UNAVAILABLE = 0x2d, "Identifier Unavailable",
        "All identifiers of that kind are in use.";
    NAMESPACE_IS_DISPERSED = 0x2e, "Namespace Is Dispersed",
        "The command is not allowed on a dispersed namespace (Base 2.1).";
    INVALID_DISCOVERY_INFORMATION = 0x2f, "Invalid Discovery Information",
        "The discovery information is malformed (Base 2.1).";
    ZONING_DATA_STRUCTURE_LOCKED = 0x30, "Zoning Data Structure Locked",
        "Another host has the fabric's zoning data structure locked (Base 2.1).";
    ZONING_DATA_STRUCTURE_NOT_FOUND = 0x31, "Zoning Data Structure Not Found",
        "There is no such fabric zoning data structure (Base 2.1).";
    INSUFFICIENT_DISCOVERY_RESOURCES = 0x32, "Insufficient Discovery Resources",
        "The discovery controller has no room for more (Base 2.1).";
    REQUESTED_FUNCTION_DISABLED = 0x33, "Requested Function Disabled",
        "The function is disabled (Base 2.1).";
    ZONEGROUP_ORIGINATOR_INVALID = 0x34, "ZoneGroup Originator Invalid",
        "The zone group belongs to somebody else (Base 2.1).";
    INVALID_HOST = 0x35, "Invalid Host",
        "There is no such host (Base 2.1).";
    INVALID_NVM_SUBSYSTEM = 0x36, "Invalid NVM Subsystem",
        "There is no such NVM subsystem (Base 2.1).";
    INVALID_CONTROLLER_DATA_QUEUE = 0x37, "Invalid Controller Data Queue",
        "There is no such controller data queue (Base 2.1).";
    NOT_ENOUGH_RESOURCES = 0x38, "Not Enough Resources",
        "The controller is out of what the command needs (Base 2.1).";
    CONTROLLER_SUSPENDED = 0x39, "Controller Suspended",
        "The controller is suspended for migration (Base 2.1).";
    CONTROLLER_NOT_SUSPENDED = 0x3a, "Controller Not Suspended",
        "The controller has to be suspended first (Base 2.1).";
    CONTROLLER_DATA_QUEUE_FULL = 0x3b, "Controller Data Queue Full",
        "The controller data queue has no room (Base 2.1).";
    CONFLICTING_ATTRIBUTES = 0x80, "Conflicting Attributes",
        "The attributes of the command, or of its dataset management ranges, contradict each other.";
    INVALID_PROTECTION_INFORMATION = 0x81, "Invalid Protection Information",
        "The protection information settings do not fit the namespace's format.";
    ATTEMPTED_WRITE_TO_READ_ONLY_RANGE = 0x82, "Attempted Write to Read Only Range",
        "The write reaches into a range that is read-only.";
    COMMAND_SIZE_LIMIT_EXCEEDED = 0x83, "Command Size Limit Exceeded",
        "The command is larger than a limit of the controller for this command.";
    INVALID_COMMAND_ID = 0x84, "Invalid Command ID",
        "The command to cancel is not one that can be cancelled (Base 2.1).";
    INCOMPATIBLE_NAMESPACE_OR_FORMAT = 0x85, "Incompatible Namespace or Format",
        "The copy's source and destination have formats that do not go together (NVM 1.1).";
    FAST_COPY_NOT_POSSIBLE = 0x86, "Fast Copy Not Possible",
        "Only a fast copy was wanted, and this one would not be fast (NVM 1.1).";
    OVERLAPPING_IO_RANGE = 0x87, "Overlapping I/O Range",
        "The copy's source and destination overlap (NVM 1.1).";
    NAMESPACE_NOT_REACHABLE = 0x88, "Namespace Not Reachable",
        "The copy's source cannot be reached from its destination (NVM 1.1).";
    INSUFFICIENT_RESOURCES = 0x89, "Insufficient Resources",
        "The controller is out of what the copy needs (NVM 1.1).";
    INVALID_ZONE_OPERATION_REQUEST = 0xb6, "Invalid Zone Operation Request",
        "The zone operation is not allowed here (zoned command set).";
    ZRWA_RESOURCES_UNAVAILABLE = 0xb7, "ZRWA Resources Unavailable",
        "There are no resources for another random write area (zoned command set).";
    ZONE_BOUNDARY_ERROR = 0xb8, "Zone Boundary Error",
        "The command crosses from one zone into the next (zoned command set).";
    ZONE_IS_FULL = 0xb9, "Zone Is Full",
        "The zone is full (zoned command set).";
    ZONE_IS_READ_ONLY = 0xba, "Zone Is Read Only",
        "The zone is read-only (zoned command set).";
    ZONE_IS_OFFLINE = 0xbb, "Zone Is Offline",
        "The zone is offline (zoned command set).";
    ZONE_INVALID_WRITE = 0xbc, "Zone Invalid Write",
        "The write does not start at the zone's write pointer (zoned command set).";
    TOO_MANY_ACTIVE_ZONES = 0xbd, "Too Many Active Zones",
        "As many zones are active as the controller supports (zoned command set).";
    TOO_MANY_OPEN_ZONES = 0xbe, "Too Many Open Zones",
        "As many zones are open as the controller supports (zoned command set).";
    INVALID_ZONE_STATE_TRANSITION = 0xbf, "Invalid Zone State Transition",
        "The zone cannot go from its state to the one asked for (zoned command set).";
}

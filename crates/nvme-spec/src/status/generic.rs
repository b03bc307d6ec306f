//! Generic Command Status (figure "Generic Command Status Values"; NVM Command Set, 80h and up).

use super::{sct, status_table};

status_table! { sct::GENERIC;
    SUCCESS = 0x00, "Successful Completion",
        "The command did what it was asked to.";
    INVALID_COMMAND_OPCODE = 0x01, "Invalid Command Opcode",
        "The controller does not have this command, or not in this place.";
    INVALID_FIELD_IN_COMMAND = 0x02, "Invalid Field in Command",
        "A field of the command holds a value that is reserved, unsupported or contradictory.";
    COMMAND_ID_CONFLICT = 0x03, "Command ID Conflict",
        "The command identifier is in use by another command of the same queue.";
    DATA_TRANSFER_ERROR = 0x04, "Data Transfer Error",
        "Data or metadata could not be moved to or from the host's memory.";
    ABORTED_POWER_LOSS = 0x05, "Commands Aborted due to Power Loss Notification",
        "The command was given up because a loss of power was announced.";
    INTERNAL_ERROR = 0x06, "Internal Error",
        "The controller failed inside; the error log may say more.";
    ABORT_REQUESTED = 0x07, "Command Abort Requested",
        "The command was ended by an Abort or Cancel command of the host.";
    ABORTED_SQ_DELETION = 0x08, "Command Aborted due to SQ Deletion",
        "The submission queue the command was in has been deleted.";
    ABORTED_FAILED_FUSED = 0x09, "Command Aborted due to Failed Fused Command",
        "The other command of the fused pair failed.";
    ABORTED_MISSING_FUSED = 0x0a, "Command Aborted due to Missing Fused Command",
        "The other command of the fused pair is missing, is not next to it, or does not fit it.";
    INVALID_NAMESPACE_OR_FORMAT = 0x0b, "Invalid Namespace or Format",
        "There is no such namespace for this controller, or its format is not supported.";
    COMMAND_SEQUENCE_ERROR = 0x0c, "Command Sequence Error",
        "The command came out of the order that a protocol of several commands prescribes.";
    INVALID_SGL_SEGMENT_DESCRIPTOR = 0x0d, "Invalid SGL Segment Descriptor",
        "A segment or last segment descriptor of the SGL is malformed or misplaced.";
    INVALID_NUMBER_OF_SGL_DESCRIPTORS = 0x0e, "Invalid Number of SGL Descriptors",
        "The SGL has more, or fewer, descriptors than are allowed in that place.";
    DATA_SGL_LENGTH_INVALID = 0x0f, "Data SGL Length Invalid",
        "The SGL for data is too short for the command, or too long for a controller that minds.";
    METADATA_SGL_LENGTH_INVALID = 0x10, "Metadata SGL Length Invalid",
        "The SGL for metadata is too short for the command, or too long for a controller that minds.";
    SGL_DESCRIPTOR_TYPE_INVALID = 0x11, "SGL Descriptor Type Invalid",
        "A descriptor has a type or sub type that the controller does not support there.";
    INVALID_USE_OF_CMB = 0x12, "Invalid Use of Controller Memory Buffer",
        "The controller memory buffer was used in a way that the controller does not support.";
    PRP_OFFSET_INVALID = 0x13, "PRP Offset Invalid",
        "A PRP entry has an offset into its page that is not allowed in that place.";
    ATOMIC_WRITE_UNIT_EXCEEDED = 0x14, "Atomic Write Unit Exceeded",
        "The write is longer than what the controller writes atomically.";
    OPERATION_DENIED = 0x15, "Operation Denied",
        "The host lacks the access rights that the command needs.";
    SGL_OFFSET_INVALID = 0x16, "SGL Offset Invalid",
        "The offset in an SGL descriptor leads outside of the capsule or is misaligned.";
    HOST_IDENTIFIER_INCONSISTENT_FORMAT = 0x18, "Host Identifier Inconsistent Format",
        "Hosts of the subsystem use 64-bit and 128-bit host identifiers at the same time.";
    KEEP_ALIVE_TIMER_EXPIRED = 0x19, "Keep Alive Timer Expired",
        "The keep alive timer ran out while the command was being processed.";
    KEEP_ALIVE_TIMEOUT_INVALID = 0x1a, "Keep Alive Timeout Invalid",
        "The keep alive time-out is outside of what the controller supports.";
    ABORTED_PREEMPT_AND_ABORT = 0x1b, "Command Aborted due to Preempt and Abort",
        "Another host preempted this one's registration and had its commands aborted.";
    SANITIZE_FAILED = 0x1c, "Sanitize Failed",
        "The last sanitize operation failed and nobody has recovered from it yet.";
    SANITIZE_IN_PROGRESS = 0x1d, "Sanitize In Progress",
        "A sanitize operation is running, and the command is not allowed meanwhile.";
    SGL_DATA_BLOCK_GRANULARITY_INVALID = 0x1e, "SGL Data Block Granularity Invalid",
        "The address or length of a data block is not aligned as the controller requires.";
    COMMAND_NOT_SUPPORTED_FOR_QUEUE_IN_CMB = 0x1f, "Command Not Supported for Queue in CMB",
        "The controller does not take this command from a queue in its memory buffer.";
    NAMESPACE_IS_WRITE_PROTECTED = 0x20, "Namespace is Write Protected",
        "The namespace is write protected by the host.";
    COMMAND_INTERRUPTED = 0x21, "Command Interrupted",
        "The controller was busy with something else and dropped the command; the host should try again.";
    TRANSIENT_TRANSPORT_ERROR = 0x22, "Transient Transport Error",
        "The transport had a passing fault; the host should try again.";
    COMMAND_PROHIBITED_BY_LOCKDOWN = 0x23, "Command Prohibited by Command and Feature Lockdown",
        "A Lockdown command forbids this command or feature.";
    ADMIN_COMMAND_MEDIA_NOT_READY = 0x24, "Admin Command Media Not Ready",
        "The admin command needs the medium, and the medium is not ready yet.";
    INVALID_KEY_TAG = 0x25, "Invalid Key Tag",
        "The key tag names no encryption key (Base 2.1).";
    HOST_DISPERSED_NAMESPACE_SUPPORT_NOT_ENABLED = 0x26, "Host Dispersed Namespace Support Not Enabled",
        "The namespace is dispersed, and the host has not said that it can handle that.";
    HOST_IDENTIFIER_NOT_INITIALIZED = 0x27, "Host Identifier Not Initialized",
        "The command needs a host identifier, and none has been set.";
    INCORRECT_KEY = 0x28, "Incorrect Key",
        "The encryption key is not the one the data was written with (Base 2.1).";
    FDP_DISABLED = 0x29, "FDP Disabled",
        "Flexible data placement is disabled in the endurance group (Base 2.1).";
    INVALID_PLACEMENT_HANDLE_LIST = 0x2a, "Invalid Placement Handle List",
        "The list of placement handles is malformed or names a handle that is not there (Base 2.1).";
    LBA_OUT_OF_RANGE = 0x80, "LBA Out of Range",
        "The command reaches past the end of the namespace.";
    CAPACITY_EXCEEDED = 0x81, "Capacity Exceeded",
        "The write would use more blocks than the namespace may have allocated.";
    NAMESPACE_NOT_READY = 0x82, "Namespace Not Ready",
        "The namespace cannot be accessed now; without Do Not Retry it may be later.";
    RESERVATION_CONFLICT = 0x83, "Reservation Conflict",
        "Another host holds a reservation that forbids the command, or the registration does not match.";
    FORMAT_IN_PROGRESS = 0x84, "Format In Progress",
        "A Format NVM command is running, and the command is not allowed meanwhile.";
    INVALID_VALUE_SIZE = 0x85, "Invalid Value Size",
        "The size of the value is not supported (key value command set).";
    INVALID_KEY_SIZE = 0x86, "Invalid Key Size",
        "The size of the key is not supported (key value command set).";
    KV_KEY_DOES_NOT_EXIST = 0x87, "KV Key Does Not Exist",
        "There is no such key (key value command set).";
    UNRECOVERED_ERROR = 0x88, "Unrecovered Error",
        "The value could not be read or written (key value command set).";
    KEY_EXISTS = 0x89, "Key Exists",
        "The key is there already (key value command set).";
}

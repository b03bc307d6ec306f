//! Media and Data Integrity Errors (figure "Media and Data Integrity Error Values"; NVM Command Set).

use super::{sct, status_table};

status_table! { sct::MEDIA;
    WRITE_FAULT = 0x80, "Write Fault",
        "The data could not be committed to the medium.";
    UNRECOVERED_READ_ERROR = 0x81, "Unrecovered Read Error",
        "The data could not be read back from the medium.";
    END_TO_END_GUARD_CHECK_ERROR = 0x82, "End-to-end Guard Check Error",
        "The guard of the protection information does not match the data.";
    END_TO_END_APPLICATION_TAG_CHECK_ERROR = 0x83, "End-to-end Application Tag Check Error",
        "The application tag of the protection information is not the expected one.";
    END_TO_END_REFERENCE_TAG_CHECK_ERROR = 0x84, "End-to-end Reference Tag Check Error",
        "The reference tag of the protection information is not the expected one.";
    COMPARE_FAILURE = 0x85, "Compare Failure",
        "The data on the medium is not the data it was compared with.";
    ACCESS_DENIED = 0x86, "Access Denied",
        "The data is locked, and the host is not allowed to access it.";
    DEALLOCATED_OR_UNWRITTEN_LOGICAL_BLOCK = 0x87, "Deallocated or Unwritten Logical Block",
        "A block was read that is deallocated or was never written, and the host asked to be told.";
    END_TO_END_STORAGE_TAG_CHECK_ERROR = 0x88, "End-to-End Storage Tag Check Error",
        "The storage tag of the protection information is not the expected one.";
}

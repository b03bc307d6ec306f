//! Path Related Status (figure "Path Related Status Values").

use super::{sct, status_table};

status_table! { sct::PATH;
    INTERNAL_PATH_ERROR = 0x00, "Internal Path Error",
        "Something on the way from the controller to the namespace failed.";
    ASYMMETRIC_ACCESS_PERSISTENT_LOSS = 0x01, "Asymmetric Access Persistent Loss",
        "This controller has lost the namespace for good.";
    ASYMMETRIC_ACCESS_INACCESSIBLE = 0x02, "Asymmetric Access Inaccessible",
        "This controller cannot reach the namespace now; another one may.";
    ASYMMETRIC_ACCESS_TRANSITION = 0x03, "Asymmetric Access Transition",
        "The access of this controller to the namespace is changing; the host should try again.";
    CONTROLLER_PATHING_ERROR = 0x60, "Controller Pathing Error",
        "The controller found a fault on the way to the host.";
    HOST_PATHING_ERROR = 0x70, "Host Pathing Error",
        "The host found a fault on the way to the controller; no device sends this.";
    ABORTED_BY_HOST = 0x71, "Command Aborted By Host",
        "The host gave the command up on its own side; no device sends this.";
}

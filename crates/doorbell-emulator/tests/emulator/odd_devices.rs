//! Devices that are odd but legal.

use doorbell_emulator::{ControllerConfig, Descriptors, NamespaceConfig, SglSupport, Subsystem};
use nvme_spec::identify::{IdentifyController, NamespaceIds};
use nvme_spec::registers::{Version, offset};
use nvme_spec::{Cdw0, Command, NvmOpcode, Status};

use crate::harness::{Host, blocks, host, io_command, pattern};
use doorbell_device::Device;

#[test]
fn each_moves_data() {
    let odd = [
        ControllerConfig { mqes: 1, ..Default::default() },
        ControllerConfig { mdts: 1, ..Default::default() },
        ControllerConfig { mpsmin: 4, ..Default::default() },
        ControllerConfig { vectors: 0, ..Default::default() },
        ControllerConfig { queue_pairs: 1, vectors: 1, ..Default::default() },
        ControllerConfig { dstrd: 4, ..Default::default() },
        ControllerConfig { aerl: 0, ..Default::default() },
        ControllerConfig { sgl: SglSupport::None, ..Default::default() },
        ControllerConfig::nvme_1_0(),
    ];
    for config in odd {
        let mut host = Host::new(config);
        for round in 0..10 {
            let data = pattern(round, 8192);
            assert_eq!(host.write(round * 2, &data), Status::SUCCESS);
            assert_eq!(host.read(round * 2, 8192).unwrap(), data);
        }
    }
}

#[test]
fn an_old_controller_knows_little() {
    let subsystem = Subsystem::default();
    for _ in 0..3 {
        subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap();
    }
    let mut host = Host::with_queue(&subsystem, ControllerConfig::nvme_1_0());
    assert_eq!(host.device.read32(offset::VS).unwrap(), Version::V1_0.into_bits());
    assert_eq!(host.device.read32(offset::CRTO).unwrap(), 0);
    let controller: IdentifyController = host.identify_as(1, 0);
    assert_eq!((controller.nn, controller.ver.into_bits()), (3, 0));
    for cns in [2, 3, 5, 6, 7, 8, 0x10, 0x13] {
        assert_eq!(host.identify(cns, 1).unwrap_err(), Status::INVALID_FIELD_IN_COMMAND, "{cns:#x}");
    }
    assert!(host.identify(0, 3).is_ok());
    let sgl = Command { cdw0: blocks(NvmOpcode::READ, 0, 1).cdw0.with_psdt(Cdw0::PSDT_SGL), ..Default::default() };
    assert_eq!(host.io(&Command { nsid: 1, ..sgl }), Status::INVALID_FIELD_IN_COMMAND);
    assert_eq!(host.io(&io_command(NvmOpcode::WRITE_ZEROES)), Status::INVALID_COMMAND_OPCODE);
}

#[test]
fn identifiers_can_be_missing() {
    let list = |descriptors| {
        let mut host = Host::new(ControllerConfig { descriptors, ..Default::default() });
        host.identify(3, 1).map(|list| NamespaceIds::parse(&list))
    };
    assert_eq!(list(Descriptors::Refused), Err(Status::INVALID_FIELD_IN_COMMAND));
    assert_eq!(list(Descriptors::Empty), Ok(NamespaceIds::default()));
    let ids = list(Descriptors::Full).unwrap();
    assert!(ids.eui64.is_some() && ids.nguid.is_some() && ids.uuid.is_some() && ids.csi == Some(0));
    let mut without = Host::new(ControllerConfig { identify_nvm_controller: false, ..Default::default() });
    assert_eq!(without.identify(6, 0).unwrap_err(), Status::INVALID_FIELD_IN_COMMAND);
    assert!(host().identify(6, 0).is_ok());
}

#[test]
fn optional_commands_can_be_missing() {
    let mut host = Host::new(ControllerConfig {
        oncs: nvme_spec::identify::Oncs::new(),
        format: false,
        doorbell_buffer_config: false,
        compare_and_write: false,
        ..Default::default()
    });
    for opcode in [0x04, 0x05, 0x08, 0x09, 0x0c, 0x0d, 0x0e, 0x11, 0x15, 0x19] {
        assert_eq!(host.io(&io_command(NvmOpcode(opcode))), Status::INVALID_COMMAND_OPCODE);
    }
    for opcode in [0x80, 0x7c] {
        host.admin_fails(&nvme_spec::AdminOpcode(opcode).command(), Status::INVALID_COMMAND_OPCODE);
    }
}

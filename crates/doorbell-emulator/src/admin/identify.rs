//! Identify (NVMe Base 2.0, "Identify command").

mod controller;
mod namespace;

use std::sync::Arc;

use nvme_spec::admin::{IdentifyCdw10, IdentifyCdw11};
use nvme_spec::identify::cns::{Cns, csi};
use nvme_spec::identify::{
    ControllerList, IDENTIFY_LEN, IdentifyControllerNvm, IdentifyNamespace, NamespaceIds, NamespaceList,
};
use nvme_spec::registers::Version;
use nvme_spec::{NSID_ALL, Status};
use zerocopy::IntoBytes;

use super::Call;
use crate::config::Descriptors;
use crate::controller::Controller;
use crate::namespace::Namespace;
use crate::sync::read;

/// The largest NSID with which a list of those after it can be asked for.
const LAST_LISTABLE: u32 = 0xffff_fffd;

impl Controller {
    pub(super) fn identify(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let cdw10 = IdentifyCdw10::from(call.command.cdw10);
        let nsid = call.command.nsid;
        let version = self.config.version;
        let refused = Err(Status::INVALID_FIELD_IN_COMMAND);
        let cns = cdw10.cns();
        if version < since(cns) {
            return refused;
        }
        let is_nvm = IdentifyCdw11::from(call.command.cdw11).csi() == csi::NVM;
        match cns {
            Cns::NAMESPACE => {
                let page = match self.attached_or_empty(nsid)? {
                    Some(namespace) => self.identify_namespace(&namespace),
                    None => IdentifyNamespace::default(),
                };
                self.send(call, page.as_bytes())?;
            }
            Cns::CONTROLLER => {
                let page = self.identify_controller();
                self.send(call, page.as_bytes())?;
            }
            Cns::ACTIVE_NAMESPACES => {
                let list = self.active_after(nsid)?;
                self.send(call, list.as_bytes())?;
            }
            Cns::NAMESPACE_DESCRIPTORS => {
                let namespace = self.attached(nsid)?.clone();
                let list = match self.config.descriptors {
                    Descriptors::Full => {
                        let ids = read(&namespace.state).ids;
                        let csi = (version >= Version::V2_0).then_some(csi::NVM);
                        NamespaceIds { csi, ..ids }.to_list()
                    }
                    Descriptors::Empty => [0; IDENTIFY_LEN],
                    Descriptors::Refused => return refused,
                };
                self.send(call, &list)?;
            }
            Cns::NAMESPACE_CSI if is_nvm => {
                let page = match self.attached_or_empty(nsid)? {
                    Some(namespace) => namespace::command_set_specific(&read(&namespace.state)),
                    None => nvme_spec::identify::IdentifyNamespaceNvm::default(),
                };
                self.send(call, page.as_bytes())?;
            }
            Cns::CONTROLLER_CSI if is_nvm && self.config.identify_nvm_controller => {
                let config = &self.config;
                let page = IdentifyControllerNvm {
                    vsl: config.vsl,
                    wzsl: config.wzsl,
                    wusl: config.wusl,
                    dmrl: config.dmrl,
                    dmrsl: config.dmrsl,
                    dmsl: config.dmsl,
                    ..IdentifyControllerNvm::default()
                };
                self.send(call, page.as_bytes())?;
            }
            Cns::ACTIVE_NAMESPACES_CSI if is_nvm => {
                let list = self.active_after(nsid)?;
                self.send(call, list.as_bytes())?;
            }
            Cns::NAMESPACE_INDEPENDENT => {
                let page = match self.attached_or_empty(nsid)? {
                    Some(namespace) => namespace::independent(&read(&namespace.state), &self.config),
                    None => nvme_spec::identify::IdentifyNamespaceIndependent::default(),
                };
                self.send(call, page.as_bytes())?;
            }
            Cns::ALLOCATED_NAMESPACES => {
                let list = list_after(self.subsystem.namespaces().into_iter(), nsid)?;
                self.send(call, list.as_bytes())?;
            }
            Cns::ALLOCATED_NAMESPACE => {
                let page = match self.subsystem.find(nsid) {
                    Some(namespace) => self.identify_namespace(&namespace),
                    None if nsid == 0 || nsid > self.max_nsid() => return Err(Status::INVALID_NAMESPACE_OR_FORMAT),
                    None => IdentifyNamespace::default(),
                };
                self.send(call, page.as_bytes())?;
            }
            Cns::ATTACHED_CONTROLLERS | Cns::CONTROLLERS => {
                let first = cdw10.cntid();
                let all = self.subsystem.hosts().into_iter().map(|(cntlid, _)| cntlid);
                let list: ControllerList = if cns == Cns::CONTROLLERS {
                    all.filter(|cntlid| *cntlid >= first).collect()
                } else {
                    let namespace = self.subsystem.find(nsid).ok_or(Status::INVALID_FIELD_IN_COMMAND)?;
                    let state = read(&namespace.state);
                    let list = state.config.controllers.as_deref();
                    let attached = |cntlid: &u16| list.is_none_or(|list| list.contains(cntlid));
                    all.filter(|cntlid| *cntlid >= first).filter(attached).collect()
                };
                self.send(call, list.as_bytes())?;
            }
            _ => return refused,
        }
        Ok(0)
    }

    /// An attached namespace. An NSID that cannot be, or that is not attached, is an error.
    pub(super) fn attached(&self, nsid: u32) -> Result<&Arc<Namespace>, Status> {
        self.namespace(nsid).ok_or_else(|| self.not_attached(nsid))
    }

    /// What is wrong with an NSID that no attached namespace has (NVMe Base 2.0, "Namespace Identifiers").
    #[cold]
    pub(crate) fn not_attached(&self, nsid: u32) -> Status {
        if nsid == 0 || nsid > self.max_nsid() {
            Status::INVALID_NAMESPACE_OR_FORMAT
        } else {
            Status::INVALID_FIELD_IN_COMMAND
        }
    }

    /// An attached namespace, or nothing where the NSID is possible and inactive.
    fn attached_or_empty(&self, nsid: u32) -> Result<Option<Arc<Namespace>>, Status> {
        if nsid == NSID_ALL {
            // Capabilities common to all namespaces are reported by controllers with Namespace Management only.
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
        }
        match self.namespace(nsid) {
            Some(namespace) => Ok(Some(namespace.clone())),
            None if nsid == 0 || nsid > self.max_nsid() => Err(Status::INVALID_NAMESPACE_OR_FORMAT),
            None => Ok(None),
        }
    }

    fn active_after(&self, nsid: u32) -> Result<NamespaceList, Status> {
        list_after(self.table.iter().flatten().map(|namespace| namespace.nsid), nsid)
    }
}

fn list_after(nsids: impl Iterator<Item = u32>, after: u32) -> Result<NamespaceList, Status> {
    if after > LAST_LISTABLE {
        return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
    }
    Ok(nsids.filter(|nsid| *nsid > after).collect())
}

/// The version that brought a CNS value.
fn since(cns: Cns) -> Version {
    match cns {
        Cns::NAMESPACE | Cns::CONTROLLER => Version::V1_0,
        Cns::ACTIVE_NAMESPACES => Version::V1_1,
        Cns::ALLOCATED_NAMESPACES | Cns::ALLOCATED_NAMESPACE | Cns::ATTACHED_CONTROLLERS | Cns::CONTROLLERS => {
            Version::V1_2
        }
        Cns::NAMESPACE_DESCRIPTORS => Version::V1_3,
        _ => Version::V2_0,
    }
}

//! The Namespace Identification Descriptor list (CNS 03h): EUI-64, NGUID, UUID and command set of a namespace.

use core::fmt;

/// Namespace Identifier Types, NIDT (figure "Identify – Namespace Identification Descriptor").
mod nidt {
    pub(super) const END: u8 = 0;
    pub(super) const EUI64: u8 = 1;
    pub(super) const NGUID: u8 = 2;
    pub(super) const UUID: u8 = 3;
    pub(super) const CSI: u8 = 4;
}

const HEADER_LEN: usize = 4;

/// What a namespace is known by. `None` is not reported; identifiers of all zero count as that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NamespaceIds {
    /// IEEE Extended Unique Identifier, big-endian.
    pub eui64: Option<[u8; 8]>,
    /// Namespace Globally Unique Identifier, big-endian.
    pub nguid: Option<[u8; 16]>,
    /// UUID, in the order of its text form.
    pub uuid: Option<[u8; 16]>,
    /// Command Set Identifier; see [`csi`](super::cns::csi).
    pub csi: Option<u8>,
}

impl NamespaceIds {
    /// Reads a list, as far as it is well-formed. Of a repeated type the first counts.
    #[must_use]
    pub fn parse(list: &[u8]) -> Self {
        let mut ids = Self::default();
        for descriptor in Descriptors::new(list).flatten() {
            match descriptor {
                NamespaceDescriptor::Eui64(id) => ids.eui64 = ids.eui64.or(non_zero(id)),
                NamespaceDescriptor::Nguid(id) => ids.nguid = ids.nguid.or(non_zero(id)),
                NamespaceDescriptor::Uuid(id) => ids.uuid = ids.uuid.or(non_zero(id)),
                NamespaceDescriptor::Csi(csi) => ids.csi = ids.csi.or(Some(csi)),
                NamespaceDescriptor::Other { .. } => {}
            }
        }
        ids
    }

    /// The list as Identify returns it.
    #[must_use]
    pub fn to_list(&self) -> [u8; super::IDENTIFY_LEN] {
        let mut list = [0; super::IDENTIFY_LEN];
        let mut rest = list.iter_mut();
        let mut put = |kind: u8, id: &[u8]| {
            let length = u8::try_from(id.len()).unwrap_or(u8::MAX);
            let bytes = [kind, length, 0, 0].into_iter().chain(id.iter().copied());
            // In this order: zip takes from its first side before it finds the second one empty.
            for (from, to) in bytes.zip(rest.by_ref()) {
                *to = from;
            }
        };
        if let Some(id) = self.eui64 {
            put(nidt::EUI64, &id);
        }
        if let Some(id) = self.nguid {
            put(nidt::NGUID, &id);
        }
        if let Some(id) = self.uuid {
            put(nidt::UUID, &id);
        }
        if let Some(csi) = self.csi {
            put(nidt::CSI, &[csi]);
        }
        list
    }
}

fn non_zero<const N: usize>(id: [u8; N]) -> Option<[u8; N]> {
    id.iter().any(|&b| b != 0).then_some(id)
}

/// One descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceDescriptor<'a> {
    /// IEEE Extended Unique Identifier, big-endian.
    Eui64([u8; 8]),
    /// Namespace Globally Unique Identifier, big-endian.
    Nguid([u8; 16]),
    /// UUID, in the order of its text form.
    Uuid([u8; 16]),
    /// Command Set Identifier.
    Csi(u8),
    /// One of a type that is not known here.
    Other {
        /// Namespace Identifier Type.
        nidt: u8,
        /// Namespace Identifier.
        nid: &'a [u8],
    },
}

/// Why a descriptor could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MalformedDescriptor {
    /// It has not the length that its type has. The list goes on behind it.
    Length {
        /// Namespace Identifier Type.
        nidt: u8,
        /// Namespace Identifier Length, in bytes.
        nidl: u8,
    },
    /// It reaches past the end of the list, which ends here.
    Truncated {
        /// Namespace Identifier Type.
        nidt: u8,
        /// Namespace Identifier Length, in bytes.
        nidl: u8,
    },
}

impl fmt::Display for MalformedDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { nidt, nidl } => {
                write!(f, "a namespace identification descriptor of type {nidt} cannot be {nidl} bytes long")
            }
            Self::Truncated { nidt, nidl } => {
                write!(f, "a namespace identification descriptor of type {nidt} and {nidl} bytes exceeds its list")
            }
        }
    }
}

impl core::error::Error for MalformedDescriptor {}

/// The descriptors of a list, whatever its bytes: the iterator ends at the end of the list or of the bytes.
#[derive(Clone, Debug)]
pub struct Descriptors<'a> {
    rest: &'a [u8],
}

impl<'a> Descriptors<'a> {
    /// The descriptors in `list`, which is what Identify with CNS 03h returned.
    #[must_use]
    pub const fn new(list: &'a [u8]) -> Self {
        Self { rest: list }
    }
}

impl<'a> Iterator for Descriptors<'a> {
    type Item = Result<NamespaceDescriptor<'a>, MalformedDescriptor>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&[nidt, nidl, _, _], body) = core::mem::take(&mut self.rest).split_first_chunk::<HEADER_LEN>()?;
        if nidt == nidt::END {
            return None;
        }
        let Some((nid, rest)) = body.split_at_checked(usize::from(nidl)) else {
            return Some(Err(MalformedDescriptor::Truncated { nidt, nidl }));
        };
        self.rest = rest;
        let known = match nidt {
            nidt::EUI64 => nid.try_into().ok().map(NamespaceDescriptor::Eui64),
            nidt::NGUID => nid.try_into().ok().map(NamespaceDescriptor::Nguid),
            nidt::UUID => nid.try_into().ok().map(NamespaceDescriptor::Uuid),
            nidt::CSI => <[u8; 1]>::try_from(nid).ok().map(|[csi]| NamespaceDescriptor::Csi(csi)),
            _ => Some(NamespaceDescriptor::Other { nidt, nid }),
        };
        Some(known.ok_or(MalformedDescriptor::Length { nidt, nidl }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_list_comes_back() {
        let ids = NamespaceIds { eui64: Some([1; 8]), nguid: Some([2; 16]), uuid: Some([3; 16]), csi: Some(0) };
        let list = ids.to_list();
        assert_eq!(list[..4], [1, 8, 0, 0]);
        assert_eq!(list[12..16], [2, 16, 0, 0]);
        assert_eq!(list[52..58], [4, 1, 0, 0, 0, 0]);
        assert_eq!(NamespaceIds::parse(&list), ids);
        assert_eq!(Descriptors::new(&list).count(), 4);
    }

    #[test]
    fn zero_identifiers_are_none() {
        let list = NamespaceIds { eui64: Some([0; 8]), uuid: Some([0; 16]), ..Default::default() }.to_list();
        assert_eq!(NamespaceIds::parse(&list), NamespaceIds::default());
    }

    #[test]
    fn malformed_lists() {
        let bytes = [1, 3, 0, 0, 9, 9, 9, 0x77, 2, 0, 0, 5, 6, 3, 16, 0, 0, 1];
        let all: Vec<_> = Descriptors::new(&bytes).collect();
        assert_eq!(
            all,
            [
                Err(MalformedDescriptor::Length { nidt: 1, nidl: 3 }),
                Ok(NamespaceDescriptor::Other { nidt: 0x77, nid: &[5, 6] }),
                Err(MalformedDescriptor::Truncated { nidt: 3, nidl: 16 }),
            ]
        );
        assert_eq!(Descriptors::new(&[1, 8, 0]).count(), 0);
        assert_eq!(Descriptors::new(&[]).count(), 0);
    }
}

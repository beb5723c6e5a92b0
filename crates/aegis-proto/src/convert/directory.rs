use std::sync::Arc;

use aegis_topology::{
    Key, Limits, Precedence, Root, SignedRecord, Stamp, SyncRequest, SyncResponse,
};
use bytes::Bytes;

use super::WireError;
use crate::mesh::v1 as wire;
use crate::mesh::v1::signed_record::Certificate;

/// Buckets of a directory.
const BUCKETS: usize = 256;
/// What a response's `next_page` holds when there is more; its content means nothing.
const MORE: &[u8] = &[1];

impl TryFrom<wire::SyncRequest> for SyncRequest {
    type Error = WireError;

    fn try_from(request: wire::SyncRequest) -> Result<Self, Self::Error> {
        if !matches!(request.buckets.len(), 0 | BUCKETS) {
            let count = request.buckets.len();
            return Err(WireError::Count { what: "buckets", count, limit: BUCKETS });
        }
        let mut decoded = Self::default();
        decoded.root = root(&request.root)?;
        decoded.nodes = request.nodes;
        decoded.recent = stamps(&request.recent)?;
        decoded.buckets =
            request.buckets.iter().map(|bucket| root(bucket)).collect::<Result<_, _>>()?;
        decoded.stamps = stamps(&request.stamps)?;
        (decoded.records, decoded.unreadable) = records(request.records)?;
        Ok(decoded)
    }
}

impl From<SyncRequest> for wire::SyncRequest {
    fn from(request: SyncRequest) -> Self {
        Self {
            root: bytes(&request.root.to_bytes()),
            nodes: request.nodes,
            recent: request.recent.into_iter().map(Into::into).collect(),
            buckets: request.buckets.iter().map(|bucket| bytes(&bucket.to_bytes())).collect(),
            stamps: request.stamps.into_iter().map(Into::into).collect(),
            records: signed_records(request.records),
        }
    }
}

impl TryFrom<wire::SyncResponse> for SyncResponse {
    type Error = WireError;

    fn try_from(response: wire::SyncResponse) -> Result<Self, Self::Error> {
        limit("buckets", response.differing.len(), BUCKETS)?;
        let bucket = |bucket: u32| {
            u8::try_from(bucket)
                .map_err(|_| WireError::Range { what: "bucket", value: i64::from(bucket) })
        };
        let mut decoded = Self::default();
        decoded.root = root(&response.root)?;
        decoded.recent = stamps(&response.recent)?;
        decoded.want = keys(&response.want)?;
        decoded.differing = response.differing.into_iter().map(bucket).collect::<Result<_, _>>()?;
        decoded.stamps = stamps(&response.stamps)?;
        (decoded.records, decoded.unreadable) = records(response.records)?;
        decoded.more = !response.next_page.is_empty();
        Ok(decoded)
    }
}

impl From<SyncResponse> for wire::SyncResponse {
    fn from(response: SyncResponse) -> Self {
        Self {
            root: bytes(&response.root.to_bytes()),
            recent: response.recent.into_iter().map(Into::into).collect(),
            want: response.want.iter().map(|key| bytes(key.as_bytes())).collect(),
            differing: response.differing.into_iter().map(u32::from).collect(),
            stamps: response.stamps.into_iter().map(Into::into).collect(),
            records: signed_records(response.records),
            next_page: if response.more { Bytes::from_static(MORE) } else { Bytes::new() },
        }
    }
}

impl TryFrom<wire::SignedRecord> for SignedRecord {
    type Error = WireError;

    fn try_from(record: wire::SignedRecord) -> Result<Self, Self::Error> {
        let Some(Certificate::Chain(chain)) = record.certificate else {
            return Err(WireError::NoChain);
        };
        limit("certificates", chain.der.len(), Limits::default().certificates)?;
        let scheme = u16::try_from(record.scheme).map_err(|_| WireError::Range {
            what: "signature scheme",
            value: i64::from(record.scheme),
        })?;
        // The message's buffer would live as long as the smallest part of it that is kept.
        let own = |part: &Bytes| Bytes::copy_from_slice(part);
        let chain: Arc<[Bytes]> = chain.der.iter().map(own).collect();
        Ok(Self::new(own(&record.body), chain, scheme, own(&record.signature)))
    }
}

impl From<SignedRecord> for wire::SignedRecord {
    fn from(record: SignedRecord) -> Self {
        let chain = wire::CertificateChain { der: record.chain.to_vec() };
        Self {
            body: record.body,
            scheme: record.scheme.into(),
            signature: record.signature,
            certificate: Some(Certificate::Chain(chain)),
        }
    }
}

impl TryFrom<&wire::Stamp> for Stamp {
    type Error = WireError;

    fn try_from(stamp: &wire::Stamp) -> Result<Self, Self::Error> {
        let key = Key::from_bytes(fixed("key", &stamp.key)?);
        Ok(Self::new(key, Precedence::new(stamp.incarnation, stamp.revision), stamp.hash))
    }
}

impl From<Stamp> for wire::Stamp {
    fn from(stamp: Stamp) -> Self {
        Self {
            key: bytes(stamp.key.as_bytes()),
            incarnation: stamp.precedence.incarnation,
            revision: stamp.precedence.revision,
            hash: stamp.hash,
        }
    }
}

/// Reads a root; no bytes at all are the root of nothing.
///
/// # Errors
/// [`WireError::Length`].
pub fn root(bytes: &[u8]) -> Result<Root, WireError> {
    if bytes.is_empty() {
        return Ok(Root::default());
    }
    Ok(Root::from_bytes(fixed("root", bytes)?))
}

/// Reads keys, as many as there can be nodes.
///
/// # Errors
/// [`WireError`] names the bound or the length.
pub fn keys(keys: &[Bytes]) -> Result<Vec<Key>, WireError> {
    limit("keys", keys.len(), Limits::default().stamps)?;
    keys.iter().map(|key| Ok(Key::from_bytes(fixed("key", key)?))).collect()
}

/// Reads signed records; nothing is verified yet. One that cannot be read is left out, and how many those were is
/// returned too: a message carries records of many owners.
///
/// # Errors
/// [`WireError::Count`] if there are more than a directory holds.
pub fn records(records: Vec<wire::SignedRecord>) -> Result<(Vec<SignedRecord>, usize), WireError> {
    limit("records", records.len(), Limits::default().nodes)?;
    let count = records.len();
    let read: Vec<_> = records.into_iter().filter_map(|it| it.try_into().ok()).collect();
    let unreadable = count - read.len();
    Ok((read, unreadable))
}

/// Signed records as a message holds them; bodies stay as they were signed.
pub fn signed_records(records: Vec<SignedRecord>) -> Vec<wire::SignedRecord> {
    records.into_iter().map(Into::into).collect()
}

fn stamps(stamps: &[wire::Stamp]) -> Result<Vec<Stamp>, WireError> {
    limit("stamps", stamps.len(), Limits::default().stamps)?;
    stamps.iter().map(TryInto::try_into).collect()
}

fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), WireError> {
    if limit < count {
        return Err(WireError::Count { what, count, limit });
    }
    Ok(())
}

pub(super) fn fixed<const N: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Length { what, length: bytes.len(), expected: N })
}

fn bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

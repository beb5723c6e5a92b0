use aegis_proto::convert::decode_record;
use aegis_tls::Tls;
use aegis_topology::{Evidence, Refusal, SignedRecord, Verify};

/// Verifies records by the mesh's CAs.
pub(crate) struct Verifier<'a> {
    pub(crate) tls: &'a Tls,
}

impl Verify for Verifier<'_> {
    fn verify(&self, signed: &SignedRecord) -> Result<Evidence, Refusal> {
        let chain: Vec<_> = signed.chain.iter().map(|der| der.as_ref().into()).collect();
        let owner = self
            .tls
            .verify_record(&chain, &signed.body, signed.scheme, &signed.signature)
            .map_err(|error| Refusal::Signature { source: Box::new(error) })?;
        let record = decode_record(&signed.body)
            .map_err(|error| Refusal::Body { source: Box::new(error) })?;
        Ok(Evidence::new(record, owner.spiffe_id, owner.not_after.into()))
    }
}

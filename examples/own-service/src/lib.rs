//! The audit service: its stubs, and a log in memory that implements it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aegis::{Caller, ServiceInfo};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::pb::audit_service_server::AuditService;
use crate::pb::{Event, ListRequest, RecordRequest, RecordResponse};

/// What the build script made of `proto/audit.proto`.
pub mod pb {
    tonic::include_proto!("acme.audit.v1");
}

/// The name under which providers advertise the service and consumers ask for it.
pub const AUDIT_V1: ServiceInfo = ServiceInfo::from_static("audit", "v1");

/// A log that lives as long as its process.
#[derive(Debug, Default)]
pub struct AuditLog {
    events: Mutex<Vec<Event>>,
}

impl AuditLog {
    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl AuditService for AuditLog {
    type ListStream = BoxStream<Event>;

    async fn record(
        &self,
        request: Request<RecordRequest>,
    ) -> Result<Response<RecordResponse>, Status> {
        let caller = Caller::from_request(&request)?;
        let RecordRequest { action, subject } = request.into_inner();
        if action.is_empty() {
            return Err(Status::invalid_argument("an event needs an action"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut events = self.events();
        let sequence = events.len() as u64 + 1;
        events.push(Event {
            sequence,
            recorded_by: caller.node_id().to_string(),
            recorded_at: now.as_millis().try_into().unwrap_or(i64::MAX),
            action,
            subject,
        });
        Ok(Response::new(RecordResponse { sequence }))
    }

    async fn list(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let after = request.into_inner().after;
        let kept: Vec<_> =
            self.events().iter().filter(|event| after < event.sequence).cloned().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(kept))))
    }
}

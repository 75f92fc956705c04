//! `CatalogService`: check, change, tell.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::domain::{CatalogChange, CatalogChanged, Failure};
use crate::wire::v1::catalog_service_server::CatalogService;
use crate::wire::{self, v1};

use super::access::Caller;
use super::desk::{Desk, Recommends};
use super::metrics::ServerMetrics;

/// `reg4rec.v1.CatalogService` over a desk.
#[derive(Debug)]
pub(super) struct Catalogue<R> {
    pub desk: Arc<Desk<R>>,
    pub metrics: Arc<ServerMetrics>,
}

#[tonic::async_trait]
impl<R: Recommends> CatalogService for Catalogue<R> {
    async fn upsert_items(
        &self,
        sent: Request<v1::UpsertItemsRequest>,
    ) -> Result<Response<v1::UpsertItemsResponse>, Status> {
        let changed = self.change(sent, wire::catalogue::upserts).await?;
        Ok(Response::new(wire::catalogue::upserted(changed)))
    }

    async fn remove_items(
        &self,
        sent: Request<v1::RemoveItemsRequest>,
    ) -> Result<Response<v1::RemoveItemsResponse>, Status> {
        let changed = self.change(sent, wire::catalogue::removals).await?;
        Ok(Response::new(wire::catalogue::removed(changed)))
    }

    async fn set_eligibility(
        &self,
        sent: Request<v1::SetEligibilityRequest>,
    ) -> Result<Response<v1::SetEligibilityResponse>, Status> {
        let changed = self.change(sent, wire::catalogue::eligibilities).await?;
        Ok(Response::new(wire::catalogue::set(changed)))
    }

    async fn get_item(&self, sent: Request<v1::GetItemRequest>) -> Result<Response<v1::GetItemResponse>, Status> {
        let found = wire::catalogue::asked(sent.into_inner())
            .and_then(|id| self.desk.recommender()?.item(&id))
            .map_err(|failure| self.refusal(&failure, None))?;
        Ok(Response::new(wire::catalogue::found(found)))
    }

    async fn list_items(&self, sent: Request<v1::ListItemsRequest>) -> Result<Response<v1::ListItemsResponse>, Status> {
        let page = wire::catalogue::page_asked(sent.into_inner())
            .and_then(|(after, most)| self.desk.recommender()?.items(after.as_deref(), most))
            .map_err(|failure| self.refusal(&failure, None))?;
        Ok(Response::new(wire::catalogue::page(page)))
    }
}

impl<R: Recommends> Catalogue<R> {
    async fn change<T>(
        &self,
        sent: Request<T>,
        read: impl FnOnce(T) -> Result<Vec<CatalogChange>, Failure>,
    ) -> Result<CatalogChanged, Status> {
        let caller = sent.extensions().get::<Caller>().cloned().unwrap_or_default();
        let outcome = async { self.desk.recommender()?.change_items(read(sent.into_inner())?).await }.await;
        outcome.map_err(|failure| self.refusal(&failure, caller.name()))
    }

    fn refusal(&self, failure: &Failure, client: Option<&str>) -> Status {
        match failure {
            Failure::Internal(cause) => tracing::error!(cause, "items were not changed"),
            _ => {
                self.metrics.refused(failure, client);
                tracing::debug!(%failure, "a call to the catalogue was refused");
            }
        }
        wire::status(failure, "")
    }
}

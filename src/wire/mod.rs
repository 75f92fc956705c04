//! Bytes to words and back: the messages of `proto/`, the checks that turn them into words of our own, and the one
//! table from failures to gRPC statuses. Pure: no runtime, no clock.
//!
//! The strings of requests are bytes in [`v1`] (see `build.rs`), so that one that is not UTF-8 is a named violation like
//! any other instead of a message that cannot be read.

mod bulk;
pub mod catalogue;
mod checks;
mod codec;
pub mod decode;
pub mod encode;
mod metadata;
pub mod record;
mod status;

pub use codec::{RequestCodec, RequestDecoder};
pub use metadata::forced_arm;
pub use status::{code, status, status_message};

/// The messages and the server of package `reg4rec.v1`, as `build.rs` wrote them.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("reg4rec.v1");
}

/// The client of package `reg4rec.v1`.
#[allow(missing_docs, clippy::all)]
pub mod client {
    include!(concat!(env!("OUT_DIR"), "/client/reg4rec.v1.rs"));
    pub use admin_service_client::AdminServiceClient;
    pub use catalog_service_client::CatalogServiceClient;
    pub use event_service_client::EventServiceClient;
    pub use recommendation_service_client::RecommendationServiceClient;
}

/// The descriptors of what the admin port serves and all it imports, encoded: what its reflection serves.
pub const ADMIN_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reg4rec.v1.admin.bin"));

/// The descriptors of the public services and all they import, encoded: what the public reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reg4rec.v1.bin"));

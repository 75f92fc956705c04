//! From a URL to the object store behind it.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;
use url::Url;

use super::BundleError;

/// Schemes that name an object store; `file` names a directory.
const SCHEMES: [&str; 9] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "http", "https"];

/// A store and the place in it that a URL names.
pub(super) type Place = (Arc<dyn ObjectStore>, ObjectPath);

/// Where a registry is, as its setting says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryPlace {
    /// A directory.
    Directory(std::path::PathBuf),
    /// An object store, and a place in it.
    Url(String),
}

impl RegistryPlace {
    /// A path is a directory, and so is a `file://` URL.
    ///
    /// # Errors
    /// A URL of another scheme, without a host, with a user or password, a query or a fragment.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::Directory(text.into()));
        }
        // Not shown before it is known to hold no password.
        let url = Url::parse(text).map_err(|error| format!("no URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            let scheme = url.scheme();
            return Err(format!("a URL of {scheme} with more than a place; credentials belong into the environment"));
        }
        if url.scheme() == "file" {
            return url.to_file_path().map(Self::Directory).map_err(|()| format!("{url}: expected file:///DIRECTORY"));
        }
        if !SCHEMES.contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) {
            return Err(format!("{url}: expected a directory, or a URL of s3, gs, az, http, https or file"));
        }
        Ok(Self::Url(text.to_owned()))
    }
}

/// The store that `url` names. Credentials and whatever else it needs come from the environment, under the names that the
/// crate `object_store` reads (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
#[cfg(feature = "object-store")]
pub(super) fn open(url: &str) -> Result<Place, BundleError> {
    use object_store::{ClientConfigKey, ClientOptions, ObjectStoreScheme, aws, azure, gcp, http};

    let refuse = |reason: String| BundleError::new(url, reason);
    let parsed = Url::parse(url).map_err(|error| refuse(format!("no URL: {error}")))?;
    let (scheme, path) = ObjectStoreScheme::parse(&parsed).map_err(|error| refuse(error.to_string()))?;
    // The one that gRPC's TLS uses. An error says that there is one already.
    drop(tokio_rustls::rustls::crypto::ring::default_provider().install_default());
    let (whole, piece) = (ClientConfigKey::Timeout, ClientConfigKey::ReadTimeout);
    let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match scheme {
        ObjectStoreScheme::AmazonS3 => aws::AmazonS3Builder::from_env()
            .with_url(url)
            .with_config(aws::AmazonS3ConfigKey::Client(whole), WHOLE_TIMEOUT)
            .with_config(aws::AmazonS3ConfigKey::Client(piece), PIECE_TIMEOUT)
            .with_retry(retries())
            .build()
            .map(|store| Arc::new(store) as _),
        ObjectStoreScheme::GoogleCloudStorage => gcp::GoogleCloudStorageBuilder::from_env()
            .with_url(url)
            .with_config(gcp::GoogleConfigKey::Client(whole), WHOLE_TIMEOUT)
            .with_config(gcp::GoogleConfigKey::Client(piece), PIECE_TIMEOUT)
            .with_retry(retries())
            .build()
            .map(|store| Arc::new(store) as _),
        ObjectStoreScheme::MicrosoftAzure => azure::MicrosoftAzureBuilder::from_env()
            .with_url(url)
            .with_config(azure::AzureConfigKey::Client(whole), WHOLE_TIMEOUT)
            .with_config(azure::AzureConfigKey::Client(piece), PIECE_TIMEOUT)
            .with_retry(retries())
            .build()
            .map(|store| Arc::new(store) as _),
        ObjectStoreScheme::Http => {
            let options = ClientOptions::new()
                .with_config(whole, WHOLE_TIMEOUT)
                .with_config(piece, PIECE_TIMEOUT)
                .with_allow_http(parsed.scheme() == "http");
            http::HttpBuilder::new()
                .with_url(&parsed[..url::Position::BeforePath])
                .with_client_options(options)
                .with_retry(retries())
                .build()
                .map(|store| Arc::new(store) as _)
        }
        other => return Err(refuse(format!("is a store of the kind {other:?}, which is not read here"))),
    };
    Ok((store.map_err(|error| refuse(error.to_string()))?, path))
}

/// This build reads directories only.
#[cfg(not(feature = "object-store"))]
pub(super) fn open(url: &str) -> Result<Place, BundleError> {
    Err(BundleError::new(url, "this build lacks the feature `object-store`; expected a directory"))
}

/// How long one file may take in all ...
#[cfg(feature = "object-store")]
const WHOLE_TIMEOUT: &str = "30 minutes";
/// ... and how long nothing of it may come.
#[cfg(feature = "object-store")]
const PIECE_TIMEOUT: &str = "15 seconds";

/// Few: who polls comes again anyhow, and wants to know soon that a store is away.
#[cfg(feature = "object-store")]
fn retries() -> object_store::RetryConfig {
    object_store::RetryConfig {
        max_retries: 2,
        retry_timeout: std::time::Duration::from_secs(10),
        ..object_store::RetryConfig::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_directory_and_a_url_a_store() {
        for path in ["registry", "/srv/registry", "a:b/c", "file:///srv/registry"] {
            let place = RegistryPlace::parse(path).unwrap();
            assert!(matches!(place, RegistryPlace::Directory(_)), "{path}: {place:?}");
        }
        assert_eq!(
            RegistryPlace::parse("file:///srv/registry").unwrap(),
            RegistryPlace::Directory("/srv/registry".into())
        );
        for url in ["s3://bucket/shop", "gs://bucket", "az://container/a/b", "http://127.0.0.1:9000/bundles"] {
            assert_eq!(RegistryPlace::parse(url).unwrap(), RegistryPlace::Url(url.to_owned()));
        }
    }

    #[test]
    fn a_url_that_holds_a_password_is_refused_without_showing_it() {
        for url in ["https://me:hidden@host/bundles", "https://host/bundles?sig=hidden", "https://hidden@host/b"] {
            let told = RegistryPlace::parse(url).unwrap_err();
            assert!(told.contains("environment") && !told.contains("hidden"), "{told}");
        }
        for url in ["ftp://host/bundles", "s3:///bundles", "://", "file://host/bundles"] {
            assert!(RegistryPlace::parse(url).is_err(), "{url}");
        }
    }
}

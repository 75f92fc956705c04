//! TLS on both ports: who is trusted, and certificates that change while it runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_types::StatusExt;

use reg4rec::server::TlsConfig;
use reg4rec::wire::client::AdminServiceClient;
use reg4rec::wire::v1;

use crate::fake::{Client, Fake, Running, settings, start_cold, user};
use crate::process::json;

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Else it is called as what it signs, which some take for signed by itself.
        params.distinguished_name.push(DnType::CommonName, "an authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// The files of a server's identity.
struct Files {
    home: tempfile::TempDir,
}

impl Files {
    fn new(signed: &Signed, client_ca: Option<&str>) -> Self {
        let files = Self { home: tempfile::tempdir().unwrap() };
        files.write(signed);
        client_ca.iter().for_each(|ca| std::fs::write(files.path("clients.pem"), ca).unwrap());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, signed: &Signed) {
        std::fs::write(self.path("server.pem"), &signed.certificate).unwrap();
        std::fs::write(self.path("server.key"), &signed.key).unwrap();
    }

    fn config(&self) -> TlsConfig {
        let clients = self.path("clients.pem");
        TlsConfig {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: if clients.exists() { clients } else { PathBuf::new() },
            admin: true,
            reload_ms: 3_600_000,
        }
    }
}

async fn serving(tls: TlsConfig) -> Running {
    let mut settings = settings();
    settings.tls = tls;
    settings.handshake_timeout_ms = 1000;
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake::default()));
    server
}

async fn connect(address: &str, ca: &str, own: Option<&Signed>) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some(own) = own {
        tls = tls.identity(Identity::from_pem(&own.certificate, &own.key));
    }
    Channel::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap().connect().await
}

/// Whether somebody who trusts `ca` gets an answer. A refused certificate shows with the first bytes, not before.
async fn answers(address: &str, ca: &str, own: Option<&Signed>) -> bool {
    match connect(address, ca, own).await {
        Ok(channel) => Client::new(channel).recommend(user("u")).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_trusts_the_authority_is_answered_and_nobody_in_plain_text() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let files = Files::new(&authority.sign("127.0.0.1"), None);
    let server = serving(files.config()).await;
    let (public, admin) = (server.public.to_string(), server.admin.to_string());
    assert!(answers(&public, &authority.pem(), None).await);
    assert!(!answers(&public, &stranger.pem(), None).await);
    let plain = Channel::from_shared(format!("http://{public}")).unwrap().connect().await;
    if let Ok(plain) = plain {
        assert!(Client::new(plain).recommend(user("u")).await.is_err());
    }
    let mut operator = AdminServiceClient::new(connect(&admin, &authority.pem(), None).await.unwrap());
    assert!(!operator.reload_tls(v1::ReloadTlsRequest {}).await.unwrap().into_inner().changed);

    // The person's tool, on both ports.
    let ca = files.path("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let run = move |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
        command.args(more).args(["--json", "--tls-ca"]).arg(&ca).output().unwrap()
    };
    let (asked, reloaded) = tokio::task::spawn_blocking(move || {
        let asked = run(&["ask", "--user", "u", "--server", &format!("https://{public}")]);
        (json(&asked), json(&run(&["reload-tls", "--admin", &admin])))
    })
    .await
    .unwrap();
    assert_eq!(asked["items"].as_array().unwrap().len(), 10);
    assert_eq!(reloaded["changed"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_a_certificate_of_the_authority_are_not_let_in_on_either_port() {
    let (authority, clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let files = Files::new(&authority.sign("127.0.0.1"), Some(&clients.pem()));
    let server = serving(files.config()).await;
    let (public, admin) = (server.public.to_string(), server.admin.to_string());
    let (own, others) = (clients.sign("shop"), stranger.sign("shop"));
    assert!(answers(&public, &authority.pem(), Some(&own)).await);
    assert!(!answers(&public, &authority.pem(), None).await);
    assert!(!answers(&public, &authority.pem(), Some(&others)).await);
    let operate = async |own: Option<&Signed>| {
        let channel = connect(&admin, &authority.pem(), own).await.ok()?;
        AdminServiceClient::new(channel).reload_tls(v1::ReloadTlsRequest {}).await.ok()
    };
    assert!(operate(Some(&own)).await.is_some());
    assert!(operate(None).await.is_none() && operate(Some(&others)).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_taken_when_they_fit_and_open_connections_go_on() {
    let (before, after) = (Authority::new(), Authority::new());
    let files = Files::new(&before.sign("127.0.0.1"), None);
    let server = serving(files.config()).await;
    let public = server.public.to_string();
    let mut open = Client::new(connect(&public, &before.pem(), None).await.unwrap());
    open.recommend(user("u")).await.unwrap();
    let mut operator = AdminServiceClient::new(connect(&server.admin.to_string(), &before.pem(), None).await.unwrap());

    // Half of it: the key is still the old one.
    let next = after.sign("127.0.0.1");
    std::fs::write(files.path("server.pem"), &next.certificate).unwrap();
    let status = operator.reload_tls(v1::ReloadTlsRequest {}).await.expect_err("taken");
    let told = (status.code(), status.get_details_error_info().unwrap().reason);
    assert_eq!(told, (Code::FailedPrecondition, "TLS_REFUSED".into()));
    assert!(answers(&public, &before.pem(), None).await, "the old certificate is gone");

    files.write(&next);
    assert!(operator.reload_tls(v1::ReloadTlsRequest {}).await.unwrap().into_inner().changed);
    assert!(answers(&public, &after.pem(), None).await);
    assert!(!answers(&public, &before.pem(), None).await, "the old certificate is still shown");
    open.recommend(user("u")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_found_without_being_told() {
    let (before, after) = (Authority::new(), Authority::new());
    let files = Files::new(&before.sign("127.0.0.1"), None);
    let server = serving(TlsConfig { reload_ms: 100, ..files.config() }).await;
    let public = server.public.to_string();
    assert!(answers(&public, &before.pem(), None).await);
    std::fs::write(files.path("server.key"), "no key").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(answers(&public, &before.pem(), None).await, "a key that is none was taken");
    files.write(&after.sign("127.0.0.1"));
    let began = Instant::now();
    while !answers(&public, &after.pem(), None).await {
        assert!(began.elapsed() < Duration::from_secs(20), "the new certificate never came");
    }
}

/// Says this, and no more; whether the server closes the connection.
async fn is_left(mut stream: impl AsyncRead + AsyncWrite + Unpin, said: &[u8]) -> bool {
    stream.write_all(said).await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut heard)).await;
    // An error is an end too.
    read.is_ok()
}

/// A connection whose TLS handshake is done.
async fn encrypted(address: SocketAddr, ca: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_nothing_or_half_a_beginning_is_closed() {
    let authority = Authority::new();
    let files = Files::new(&authority.sign("127.0.0.1"), None);
    let over_tls = serving(files.config()).await;
    let mut plain = settings();
    plain.handshake_timeout_ms = 300;
    let plain = start_cold(plain, Duration::from_secs(20)).await;
    let preface: &'static [u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut leaving = Vec::new();
    for said in [b"".as_slice(), b"P", &preface[..23], b"GET / HTTP/1.1\r\nHost: a\r\n"] {
        for address in [plain.public, plain.admin] {
            let left = async move { is_left(TcpStream::connect(address).await.unwrap(), said).await };
            leaving.push((address, said, tokio::spawn(left)));
        }
        for address in [over_tls.public, over_tls.admin] {
            let ca = authority.pem();
            let left = async move { is_left(encrypted(address, &ca).await, said).await };
            leaving.push((address, said, tokio::spawn(left)));
        }
    }
    for (address, said, left) in leaving {
        assert!(left.await.unwrap(), "{address}: {said:?}");
    }
    // Not even a handshake.
    assert!(is_left(TcpStream::connect(over_tls.public).await.unwrap(), b"").await);
    let (_, page) = plain.page("/metrics").await;
    assert!(page.contains(r#"reg4rec_connections_refused_total{reason="silent"} 8"#), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_closed_at_once_and_counted() {
    let mut settings = settings();
    settings.max_connections = 2;
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake::default()));
    let (mut one, mut other) = (server.client().await, server.client().await);
    one.recommend(user("u")).await.unwrap();
    other.recommend(user("u")).await.unwrap();
    let began = Instant::now();
    assert!(is_left(TcpStream::connect(server.public).await.unwrap(), b"").await);
    assert!(began.elapsed() < Duration::from_secs(5), "it was left to wait: {:?}", began.elapsed());
    // The other port has places of its own.
    let (_, page) = server.page("/metrics").await;
    assert!(page.contains(r#"reg4rec_connections_refused_total{reason="full"} 1"#), "{page}");
    one.recommend(user("u")).await.unwrap();
    drop(other);
    let began = Instant::now();
    let public = Channel::from_shared(format!("http://{}", server.public)).unwrap();
    let answered = async || Client::new(public.connect().await.ok()?).recommend(user("u")).await.ok();
    while answered().await.is_none() {
        assert!(began.elapsed() < Duration::from_secs(10), "the place of a connection that ended is not free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn files_that_are_no_identity_are_refused_by_name_before_anything_is_bound() {
    let authority = Authority::new();
    let (one, other) = (authority.sign("127.0.0.1"), authority.sign("127.0.0.1"));
    let files = Files::new(&one, None);
    let refusal = |certificate: &Path, key: &Path| {
        let mut command = crate::process::anything();
        command.env("REG4REC__SERVER__TLS__CERTIFICATE", certificate).env("REG4REC__SERVER__TLS__KEY", key);
        let output = command.output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let (certificate, key) = (files.path("server.pem"), files.path("server.key"));
    let told = refusal(&files.path("nowhere.pem"), &key);
    assert!(told.contains("server.tls.certificate") && told.contains("nowhere.pem"), "{told}");
    let told = refusal(&certificate, &certificate);
    assert!(told.contains("server.tls.key") && told.contains("private key"), "{told}");
    std::fs::write(files.path("other.key"), &other.key).unwrap();
    let told = refusal(&certificate, &files.path("other.key"));
    assert!(told.contains("server.tls"), "{told}");
    assert!(!told.contains(other.key.lines().nth(1).unwrap()), "the key is told: {told}");
}

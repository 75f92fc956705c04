//! TLS on both ports: who is trusted, and certificates that change while it runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
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
    settings.handshake_timeout_ms = 300;
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

/// Connects and says nothing; whether the server closes the connection.
async fn is_left(address: &str) -> bool {
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), silent.read_to_end(&mut said)).await;
    // An error is an end too.
    read.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_nothing_is_closed() {
    let authority = Authority::new();
    let files = Files::new(&authority.sign("127.0.0.1"), None);
    let encrypted = serving(files.config()).await;
    let mut plain = settings();
    plain.handshake_timeout_ms = 300;
    let plain = start_cold(plain, Duration::from_secs(20)).await;
    for address in [encrypted.public, encrypted.admin, plain.public, plain.admin] {
        assert!(is_left(&address.to_string()).await, "{address}");
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

//! A client in another language that knows nothing of us but the address: Python's grpcio, through reflection.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use crate::fake::{Fake, settings, start_cold};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/behaviour/foreign_client.py");

/// A Python that has grpcio: the one named by `REG4REC_PYTHON`, the one on the path, or else one set up for this test.
fn python() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("REG4REC_PYTHON") {
        return Ok(named.into());
    }
    let system = PathBuf::from("python3");
    if has_grpc(&system) {
        return Ok(system);
    }
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("foreign-python");
    let own = home.join("bin/python");
    if !has_grpc(&own) {
        run(Command::new(&system).args(["-m", "venv"]).arg(&home))?;
        let packages = ["grpcio", "grpcio-reflection", "grpcio-health-checking", "protobuf"];
        run(Command::new(&own).args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(packages))?;
    }
    Ok(own)
}

fn has_grpc(python: &PathBuf) -> bool {
    run(Command::new(python).args(["-c", "import grpc, grpc_reflection, grpc_health.v1.health_pb2_grpc"])).is_ok()
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_asks_through_reflection_alone() {
    let python = match tokio::task::spawn_blocking(python).await.unwrap() {
        Ok(python) => python,
        Err(reason) => return eprintln!("skipped: no Python with grpcio here: {reason}"),
    };
    let mut settings = settings();
    settings.deadline_margin_ms = 5;
    let server = start_cold(settings, Duration::from_secs(20)).await;
    assert!(server.opener.open(Fake { delay: Duration::from_millis(10), ..Fake::default() }));
    let address = server.public.to_string();
    let told = tokio::task::spawn_blocking(move || run(Command::new(python).arg(SCRIPT).arg(address)));
    let output = told.await.unwrap().unwrap_or_else(|reason| panic!("{reason}"));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ok\n"), "{output:?}");
    assert!(server.answers().await);
}

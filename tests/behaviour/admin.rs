//! What an operator may do, on the admin port and nowhere else.

use std::process::Command;
use std::time::{Duration, Instant};

use tonic::Code;
use tonic_types::StatusExt;

use reg4rec::wire::v1;

use crate::fake::page_at;
use crate::operated::{Operated, Operator, PATIENCE, channel, place, registry, request};

const METHODS: [&str; 6] = ["ListVariants", "LoadVariant", "Promote", "Rollback", "Drain", "SetLogLevel"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_admin_method_is_reachable_on_the_public_port() {
    let server = Operated::start().await;
    let public = channel(&server.process.public).await;
    let mut grpc = tonic::client::Grpc::new(public.clone());
    for method in METHODS {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<v1::DrainRequest, v1::DrainResponse>::default();
        let path = format!("/reg4rec.v1.AdminService/{method}").parse().unwrap();
        let status = grpc.unary(tonic::Request::new(v1::DrainRequest {}), path, codec).await.expect_err(method);
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status:?}");
    }
    // Nor is it on another path, or told of by reflection.
    let mut operator = Operator::new(public.clone());
    assert_eq!(operator.drain(v1::DrainRequest {}).await.expect_err("drained").code(), Code::Unimplemented);
    let descriptors = String::from_utf8_lossy(reg4rec::wire::DESCRIPTORS).into_owned();
    assert!(descriptors.contains("RecommendationService") && !descriptors.contains("AdminService"));
    assert_eq!(server.answering("").await, "v1");
    // And each of them is there on the admin port, beside the pages.
    let admin = channel(&server.process.admin).await;
    let mut grpc = tonic::client::Grpc::new(admin);
    for method in METHODS.into_iter().filter(|method| *method != "Drain") {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<v1::DrainRequest, v1::DrainResponse>::default();
        let path = format!("/reg4rec.v1.AdminService/{method}").parse().unwrap();
        let outcome = grpc.unary(tonic::Request::new(v1::DrainRequest {}), path, codec).await;
        assert!(outcome.err().is_none_or(|status| status.code() != Code::Unimplemented), "{method}");
    }
    assert_eq!(page_at(server.process.admin.trim_start_matches("http://"), "/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_wishes_are_refused_by_name_and_change_nothing() {
    let server = Operated::start().await;
    let mut operator = server.operator().await;
    let load = |variant: &str, bundle: &str| v1::LoadVariantRequest { variant: variant.into(), bundle: bundle.into() };
    for path in ["", "..", "../..", "/etc", "default/../../registry/default/v1", "."] {
        let status = operator.load_variant(load("default", path)).await.expect_err(path);
        assert_eq!(status.code(), Code::InvalidArgument, "{path:?}: {status:?}");
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "bundle");
    }
    let status = operator.load_variant(load("default", "default/v9")).await.expect_err("loaded");
    assert_eq!(
        (status.code(), status.get_details_error_info().unwrap().reason),
        (Code::NotFound, "UNKNOWN_BUNDLE".into())
    );
    let status = operator.load_variant(load("nobody", "default/v1")).await.expect_err("loaded");
    assert_eq!(
        (status.code(), status.get_details_error_info().unwrap().reason),
        (Code::NotFound, "UNKNOWN_VARIANT".into())
    );

    let promote =
        |variant: &str, version: &str| v1::PromoteRequest { variant: variant.into(), version: version.into() };
    for (asked, code) in [
        (promote("nobody", ""), Code::NotFound),
        (promote("default", "v9"), Code::NotFound),
        (promote("default", "../v1"), Code::InvalidArgument),
    ] {
        assert_eq!(operator.promote(asked.clone()).await.expect_err("promoted").code(), code, "{asked:?}");
    }
    let rollback = |variant: &str| v1::RollbackRequest { variant: variant.into() };
    let status = operator.rollback(rollback("default")).await.expect_err("rolled back");
    let told = (status.code(), status.get_details_error_info().unwrap().reason);
    assert_eq!(told, (Code::FailedPrecondition, "NO_PREVIOUS".into()));
    assert_eq!(operator.rollback(rollback("nobody")).await.expect_err("rolled back").code(), Code::NotFound);

    let dir = place(&server.registry, "default", "broken");
    std::fs::write(dir.join("golden.json"), "{}").unwrap();
    let status = operator.promote(promote("default", "broken")).await.expect_err("promoted");
    let told = (status.code(), status.get_details_error_info().unwrap().reason);
    assert_eq!(told, (Code::FailedPrecondition, "BUNDLE_REFUSED".into()));
    assert!(status.message().contains("stage verify: golden.json"), "{}", status.message());
    assert_eq!(server.registry.current("default").unwrap().as_deref(), Some("v1"), "the pointer moved");
    assert_eq!(server.answering("").await, "v1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_calls_end_and_the_process_with_zero() {
    let (home, registry) = registry();
    place(&registry, "default", "v1");
    registry.point("default", "v1").unwrap();
    let lag = |command: &mut Command| {
        command.env("REG4REC__SERVER__DRAIN_LAG_MS", "3000");
    };
    let mut server = Operated::follow(home, registry, lag).await;
    let admin = server.process.admin.trim_start_matches("http://").to_owned();
    let mut client = server.client().await;
    let mut operator = server.operator().await;
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.recommend(request("")).await })
        })
        .collect();
    let told = operator.drain(v1::DrainRequest {}).await.unwrap().into_inner();
    assert_eq!(told.lag.map(|lag| lag.seconds), Some(3));
    assert_eq!(told.limit.map(|limit| limit.seconds), Some(10));
    // Within the lag it says so and answers on.
    client.recommend(request("")).await.unwrap();
    let (status, phase) = page_at(&admin, "/readyz").await;
    assert_eq!((status, phase.as_str()), (503, "draining\n"));
    for call in asked {
        assert_eq!(call.await.unwrap().unwrap().into_inner().items.len(), 10);
    }
    let ended = tokio::task::spawn_blocking(move || server.process.ended()).await.unwrap();
    assert!(ended.success(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_level_changes_while_it_runs() {
    let server = Operated::start().await;
    let mut operator = server.operator().await;
    let mut client = server.client().await;
    let wrong = |id: &str| {
        let mut client = client.clone();
        let asked = v1::RecommendRequest { request_id: id.into(), variant: "nobody".into(), ..request("") };
        async move { assert!(client.recommend(asked).await.is_err()) }
    };
    let logged = |id: &str| server.process.logged.lock().unwrap().contains(id);
    wrong("quiet-one").await;
    let set = |filter: &str| v1::SetLogLevelRequest { filter: filter.into() };
    let told = operator.set_log_level(set("info,reg4rec=debug")).await.unwrap().into_inner();
    assert_eq!(told.previous, "info");
    wrong("loud-one").await;
    let began = Instant::now();
    while !logged("loud-one") {
        assert!(began.elapsed() < PATIENCE, "a refusal was not logged at level debug");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!logged("quiet-one"));
    for filter in ["", "reg4rec=loudest", &"a,".repeat(4096)] {
        let status = operator.set_log_level(set(filter)).await.expect_err("set");
        assert_eq!(status.code(), Code::InvalidArgument, "{filter:?}");
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "filter");
    }
    assert_eq!(operator.set_log_level(set("error")).await.unwrap().into_inner().previous, "info,reg4rec=debug");
    client.recommend(request("")).await.unwrap();
}

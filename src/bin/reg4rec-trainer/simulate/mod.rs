//! `simulate`: the whole loop on a synthetic shop. Users ask a server, and their taste shifts at a known time; one arm of
//! an experiment keeps its bundle, a sidecar refreshes the other's; in the end the report must tell the arms apart. Then what
//! is wrong on purpose must stop by itself: a worse model, a broken arm, a delivery that does not keep to the weights.

mod drills;
mod programs;
mod taste;
mod visits;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reg4rec::artifact::BundleRegistry;
use reg4rec::domain::EventKind;
use reg4rec::evaluation::HEADLINE;
use reg4rec::training::dataset::{Dataset, Interaction};
use reg4rec::training::evaluate::Ranking;
use reg4rec::training::fit::{FitArgs, Narrator, fit};
use reg4rec::training::generate::generate;
use reg4rec::training::preset::Preset;
use reg4rec::wire::client::RecommendationServiceClient;
use reg4rec::wire::v1;
use serde_json::{Value, json};
use tonic::transport::Channel;

use drills::BROKEN;
use programs::Programs;
use taste::{Season, Taste};
use visits::{Clock, Crowd, Tally};

/// The arm that keeps its bundle, and its variant.
const FROZEN: &str = "frozen";
/// The arm that is refreshed, and its variant.
const FRESH: &str = "fresh";
/// Visits at once.
const CROWDS: usize = 3;
/// Days that the visits stand for, and that the histories before them do.
const DAYS: i64 = 20;
const DAY: i64 = 86_400;

/// `simulate`: the closed loop, from a shop to the report of the experiment.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Directory for the shop, bundles, log and report; must be new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Users of the shop
    #[arg(long, default_value_t = 1_200, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    users: u32,
    /// Its items
    #[arg(long, default_value_t = 1_080, value_parser = clap::value_parser!(u32).range(144..=100_000))]
    items: u32,
    /// Visits before the taste shifts
    #[arg(long, default_value_t = 1_000)]
    before: usize,
    /// Visits after it
    #[arg(long, default_value_t = 8_000)]
    after: usize,
    /// Visits a second, at most: users come at their own pace, and a sidecar needs its time
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rate: u16,
    /// Passes of the first fit over its data
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    epochs: u16,
    /// Everything random but the order of calls follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The shop before it opens.
struct Shop {
    taste: Arc<Taste>,
    items: Arc<Vec<String>>,
    /// What each user has met.
    met: Vec<HashSet<usize>>,
    opening: i64,
}

/// Runs the simulation; answers the report, and fails when the loop did not hold what it promises.
pub fn run(args: &SimulateArgs) -> anyhow::Result<String> {
    let began = Instant::now();
    let programs = Programs::beside()?;
    let out = std::path::absolute(&args.out)?;
    ensure!(
        !out.exists() || fs::read_dir(&out)?.next().is_none(),
        "--out {}: holds files, expected a new or empty directory",
        out.display()
    );
    fs::create_dir_all(out.join("log"))?;
    let shop = open(args, &out)?;
    let registry = BundleRegistry::new(out.join("registry"));
    for variant in [FROZEN, FRESH] {
        registry.publish(&out.join("bundle"), variant, None)?;
    }
    drills::publish_broken(&out.join("bundle"), &registry, &out.join("broken"))?;
    let first = registry.current(FRESH)?.context("no version was published")?;
    told(began, "the bundle is fitted and published to both arms");

    fs::write(out.join("server.toml"), server_settings(&out))?;
    fs::write(out.join("sidecar.toml"), sidecar_settings(&out, "work", SIDECAR))?;
    fs::write(out.join("worse.toml"), sidecar_settings(&out, "work-worse", WORSE))?;
    let path = |name: &str| out.join(name).display().to_string();
    let mut server = programs.start("reg4rec-server", &["--config", &path("server.toml")], &out.join("server.log"))?;
    let address = server.said("gRPC")?;
    let admin = server.said("admin")?;
    server.said("ready")?;
    let mut sidecar =
        programs.start("reg4rec-trainer", &["sidecar", "--config", &path("sidecar.toml")], &out.join("sidecar.log"))?;
    sidecar.said("admin")?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let channel = runtime.block_on(Channel::from_shared(address)?.connect())?;
    runtime.block_on(loaded(&channel))?;
    let mut crowds = crowds(args, &shop, &channel);
    let step = DAYS * DAY / (args.before + args.after).max(1) as i64;
    let mut clock = Clock { from: shop.opening, step };
    let (mut whole, mut after) = (Tally::default(), Tally::default());
    let mut visit = |count: usize, season: Season, about: &str| -> anyhow::Result<Tally> {
        let rounds = count.div_ceil(1_000).max(1);
        let mut sum = Tally::default();
        for round in 0..rounds {
            let share = count / rounds + usize::from(round < count % rounds);
            let tally = runtime.block_on(visits(&mut crowds, share, season, clock))?;
            clock.from += step * share as i64;
            let version = registry.current(FRESH)?.unwrap_or_default();
            told(
                began,
                &format!(
                    "{about}: {share} visits, CTR {FROZEN} {:.3}, {FRESH} {:.3} ({FRESH} points at {version})",
                    tally.ctr(0),
                    tally.ctr(1)
                ),
            );
            sum.add(tally);
        }
        Ok(sum)
    };
    whole.add(visit(args.before, Season::Before, "before the shift")?);
    after.add(visit(args.after, Season::After, "after the shift")?);
    // The rest is not learnt from any more, and left for the worse model.
    drop(sidecar);
    after.add(visit(args.after / 8, Season::After, "without the sidecar")?);
    whole.add(after.clone());

    let versions = registry.versions(FRESH)?;
    let good = registry.current(FRESH)?;
    let worse = programs.run("reg4rec-trainer", &["sidecar", "--once", "--json", "--config", &path("worse.toml")])?;
    let worse: Value = serde_json::from_slice(&worse.stdout)
        .with_context(|| format!("the worse model: {}", String::from_utf8_lossy(&worse.stderr)))?;
    told(began, &format!("a worse model: {} ({})", worse["result"], worse["reason"]));
    let stopped = worse["result"] == "refused" && registry.current(FRESH)? == good;

    let log = path("log");
    let picture = path("lift.svg");
    let flags = ["experiment", "report", "--log", &log, "--experiment", "refresh"];
    let table = programs.run("reg4rec", &flags)?;
    let report = programs.run("reg4rec", &[&flags[..], &["--json", "--picture", &picture]].concat())?;
    let report: Value = serde_json::from_slice(&report.stdout).context("the experiment's report")?;
    let lift = report["experiments"][0]["arms"][1]["over_control"]["ctr"].clone();
    let low = lift["difference_low"].as_f64().context("the report has no band yet")?;

    let drills = runtime.block_on(drills::run(&channel, &admin))?;
    told(began, &format!("the drills: {}", drills.summary()));

    let seconds = began.elapsed().as_secs_f64();
    let summary = json!({
        "visits": whole.answers[0] + whole.answers[1],
        "failed_calls": whole.failed,
        "ctr_after_the_shift": { FROZEN: after.ctr(0), FRESH: after.ctr(1) },
        "ctr_difference": lift,
        "versions_that_answered": { FROZEN: whole.versions[0].len(), FRESH: whole.versions[1].len() },
        "versions_in_the_registry": versions.len(),
        "worse_model": worse,
        "sample_ratio_p": report["experiments"][0]["sample_ratio_p"],
        "drills": drills.summary(),
        "seconds": seconds.round(),
    });
    fs::write(out.join("summary.json"), serde_json::to_vec_pretty(&summary)?)?;
    let mut page = String::from_utf8_lossy(&table.stdout).into_owned();
    page.push_str(&format!(
        "\n{} visits, {} failed calls; {} answered by {} versions, {FROZEN} by {}; {seconds:.0} s",
        summary["visits"],
        whole.failed,
        FRESH,
        whole.versions[1].len(),
        whole.versions[0].len()
    ));
    ensure!(whole.failed == 0, "{page}\n{} calls failed, expected none", whole.failed);
    ensure!(good != Some(first), "{page}\nthe sidecar published nothing; {} says why", path("sidecar.log"));
    ensure!(whole.versions[1].len() > 1, "{page}\nthe server never changed its version");
    ensure!(stopped, "{page}\nthe gate let the worse model pass: {}", summary["worse_model"]);
    drills.check().context(page.clone())?;
    ensure!(low > 0.0, "{page}\nthe band does not exclude that both arms are equal: {}", summary["ctr_difference"]);
    Ok(page)
}

/// A line of progress.
fn told(began: Instant, text: &str) {
    eprintln!("{:>5.0} s  {text}", began.elapsed().as_secs_f64());
}

/// Generates the items, draws the taste, lets users find things by it, and fits a bundle to that.
fn open(args: &SimulateArgs, out: &Path) -> anyhow::Result<Shop> {
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    // Of the generated shop only the items: what these users like is drawn here.
    let items = generate(1, args.items as usize, args.seed)?.items;
    let users = args.users as usize;
    let taste = Taste::draw(&items, users, &mut random);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs() as i64;
    let opening = now - DAYS * DAY;
    let mut met = vec![HashSet::new(); users];
    let mut sequences = Vec::with_capacity(users);
    for (user, met) in met.iter_mut().enumerate() {
        let mut times: Vec<i64> =
            (0..random.random_range(8..=16)).map(|_| opening - random.random_range(DAY..2 * DAYS * DAY)).collect();
        times.sort_unstable();
        let mut sequence = Vec::new();
        for time in times {
            let Some(item) = taste.find(user, Season::Before, met, &mut random) else { continue };
            met.insert(item);
            sequence.push(Interaction {
                user: user as u32,
                item: item as u32,
                time,
                kind: EventKind::View,
                value: None,
            });
        }
        sequences.push(sequence);
    }
    let ids: Vec<String> = items.iter().map(|item| item.item.id.clone()).collect();
    let data = Dataset::new((0..users).map(|user| format!("u{user}")).collect(), items, sequences)?;
    data.write(&out.join("data"))?;
    let fitting = FitArgs {
        post_train: false,
        data: out.join("data"),
        out: out.join("bundle"),
        preset: Preset::Quick,
        seed: args.seed,
        resume: false,
        engine: Ranking::Beam,
        epochs: Some(args.epochs),
        set: Vec::new(),
        name: Some("shop".to_owned()),
        record: None,
        system: "reg4rec".to_owned(),
        group: HEADLINE.to_owned(),
    };
    fit(&fitting, &mut Narrator::silent())?;
    Ok(Shop { taste: Arc::new(taste), items: Arc::new(ids), met, opening })
}

/// Waits until all variants answer: the server is ready when its default one is.
async fn loaded(channel: &Channel) -> anyhow::Result<()> {
    let mut client = RecommendationServiceClient::new(channel.clone());
    let began = Instant::now();
    for variant in [FROZEN, FRESH, BROKEN] {
        let request = v1::RecommendRequest { user_id: "nobody".into(), variant: variant.into(), ..Default::default() };
        while let Err(status) = client.recommend(request.clone()).await {
            ensure!(began.elapsed() < Duration::from_secs(120), "variant {variant} never answered: {status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

fn crowds(args: &SimulateArgs, shop: &Shop, channel: &Channel) -> Vec<Crowd> {
    let part = |crowd: usize| {
        let users = shop.met.iter().cloned().enumerate().filter(|(user, _)| user % CROWDS == crowd).collect();
        let (taste, items) = (Arc::clone(&shop.taste), Arc::clone(&shop.items));
        let pace = Duration::from_secs(CROWDS as u64) / u32::from(args.rate);
        Crowd::new(taste, items, users, channel.clone(), pace, args.seed.wrapping_add(crowd as u64 + 1))
    };
    (0..CROWDS).map(part).collect()
}

/// `count` visits, spread over the crowds, which come at the same time.
async fn visits(crowds: &mut Vec<Crowd>, count: usize, season: Season, clock: Clock) -> anyhow::Result<Tally> {
    let each = Clock { step: clock.step * CROWDS as i64, ..clock };
    let mut tasks = Vec::new();
    for (at, mut crowd) in crowds.drain(..).enumerate() {
        let share = count / CROWDS + usize::from(at < count % CROWDS);
        tasks.push(tokio::spawn(async move {
            let tally = crowd.visits(share, season, each).await;
            (crowd, tally)
        }));
    }
    let mut sum = Tally::default();
    for task in tasks {
        let (crowd, tally) = task.await?;
        crowds.push(crowd);
        sum.add(tally?);
    }
    // An exposure may still be on its way to the log.
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(sum)
}

fn server_settings(out: &Path) -> String {
    format!(
        r#"[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
[bundle]
histories = {data:?}
[registry]
path = {registry:?}
variants = ["{FROZEN}", "{FRESH}", "{BROKEN}"]
default = "{FROZEN}"
poll_ms = 500
[recommend]
max_deadline_ms = 30000
[events]
path = {log:?}
[engine]
warmup_batches = [1, 4]
warmup_histories = [16, 50]
[experiments]
path = {book:?}
[[experiments.experiment]]
key = "refresh"
arms = [{{ name = "{FROZEN}", variant = "{FROZEN}" }}, {{ name = "{FRESH}", variant = "{FRESH}" }}]
"#,
        data = out.join("data"),
        registry = out.join("registry"),
        log = out.join("log"),
        book = out.join("experiments.json"),
    )
}

/// Cycles of some thousand events.
const SIDECAR: &str = r#"keep_versions = 20
[trigger]
poll_ms = 200
events = 2000
[increment]
# What was liked before the shift is no use after it.
context = 5
rehearsal = 0.2
[tune]
epochs = 3
learning_rate = 2e-3
[gate]
margin = 0.1
fewest_users = 50
"#;

/// A rate that no network survives.
const WORSE: &str = r#"[increment]
held_out_share = 0.4
[tune]
epochs = 1
learning_rate = 0.9
[gate]
fewest_users = 30
"#;

fn sidecar_settings(out: &Path, work: &str, more: &str) -> String {
    format!(
        "registry = {registry:?}\nvariant = \"{FRESH}\"\nevents = {log:?}\nwork = {work:?}\ndata = {data:?}\n\
         listen = \"127.0.0.1:0\"\n{more}",
        registry = out.join("registry"),
        log = out.join("log"),
        work = out.join(work),
        data = out.join("data"),
    )
}

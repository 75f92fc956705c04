//! Processes killed at random points (SIGKILL), with histories in Redis and events in NATS that go away as well: no
//! acknowledged event is lost, none counts twice, and a server that runs answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tonic::transport::Channel;

use reg4rec::artifact::{BundleRegistry, load};
use reg4rec::domain::Secret;
use reg4rec::history::{HistoryConfig, HistoryStore, RedisConfig, RedisStore, StoreKind};
use reg4rec::wire::client::EventServiceClient;
use reg4rec::wire::v1;

use crate::bundle;
use crate::fake::{Client, user};
use crate::operated::{channel, follower};
use crate::outside::Outside;
use crate::process::Process;
use crate::training::{shop, trainer};

const SENDERS: usize = 3;
/// Users of each sender.
const USERS: u64 = 40;

/// What may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Server,
    /// `reg4rec follow`, as on a trainer's machine.
    Follower,
    Redis,
    Nats,
    Sidecar,
}

/// How often the server was killed, and where it is now; none while it is down.
type Address = Arc<Mutex<(u64, Option<Channel>)>>;

/// Everything that runs, and where its files are.
struct World {
    home: tempfile::TempDir,
    registry: BundleRegistry,
    redis: Outside,
    nats: Outside,
    follower: Child,
    sidecar: Option<Child>,
    process: Option<Process>,
    address: Address,
    items: Vec<String>,
}

impl World {
    /// None: Redis or NATS are not on this machine.
    async fn new(trains: bool) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let redis = Outside::redis(&home.path().join("redis"), &[])?;
        let nats = Outside::nats(&home.path().join("nats"))?;
        let registry = BundleRegistry::new(home.path().join("registry"));
        let items = if trains {
            registry.publish(&shop().bundle, "default", None).unwrap();
            let bundle = load(&shop().bundle).unwrap();
            bundle.index.items().map(|row| row.item.id).collect()
        } else {
            bundle::write_version(&registry.directory("default", "v1").unwrap(), "v1", 0.0);
            registry.point("default", "v1").unwrap();
            (0..300).map(|number| format!("item-{number}")).collect()
        };
        let settings = format!(
            "[events]\npath = {:?}\n[events.nats]\nurl = \"nats://127.0.0.1:{}\"\ntimeout_ms = 3000\n[history]\nstore = \
             \"redis\"\nmax_events = 10000\ntimeout_ms = 1000\nretry_ms = 100\n[history.redis]\nurl = \
             \"redis://127.0.0.1:{}\"\n",
            home.path().join("log"),
            nats.port,
            redis.port
        );
        std::fs::write(home.path().join("settings.toml"), settings).unwrap();
        let sidecar = format!(
            "registry = {:?}\nevents = {:?}\nwork = {:?}\ndata = {:?}\nlisten = \"127.0.0.1:0\"\nkeep_versions = 10000\n\
             [gate]\nmargin = 1.0\nfewest_users = 5\n[trigger]\npoll_ms = 50\nevents = 150\nretry_s = 1\n[increment]\n\
             held_out_share = 0.3\n[tune]\nepochs = 1\n",
            registry.root(),
            home.path().join("log"),
            home.path().join("work"),
            if trains { shop().data.clone() } else { PathBuf::new() }
        );
        std::fs::write(home.path().join("sidecar.toml"), sidecar).unwrap();
        let follower = following(home.path());
        let mut world = Self {
            home,
            registry,
            redis,
            nats,
            follower,
            sidecar: None,
            process: None,
            address: Arc::default(),
            items,
        };
        world.serve().await;
        if trains {
            world.sidecar = Some(world.watching());
        }
        Some(world)
    }

    async fn serve(&mut self) {
        let (mut command, settings) = (follower(&self.registry), self.home.path().join("settings.toml"));
        command.arg("--config").arg(settings);
        let process = tokio::task::spawn_blocking(move || Process::spawn(&mut command, true)).await.unwrap();
        let open = channel(&process.public).await;
        self.process = Some(process);
        self.address.lock().unwrap().1 = Some(open);
    }

    fn watching(&self) -> Child {
        let settings = self.home.path().join("sidecar.toml");
        let mut command = trainer(&["sidecar", "--config", settings.to_str().unwrap()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Kills one of them, and begins it again: at once, or after a while without it.
    async fn kill(&mut self, victim: Victim, without: Duration) {
        match victim {
            Victim::Server => {
                {
                    let mut address = self.address.lock().unwrap();
                    *address = (address.0 + 1, None);
                }
                // Killed where it is dropped.
                drop(self.process.take());
                self.serve().await;
            }
            Victim::Follower => {
                end(&mut self.follower);
                self.follower = following(self.home.path());
            }
            Victim::Sidecar => {
                self.sidecar.iter_mut().for_each(end);
                // What servers would load now is whole.
                let current = self.registry.current("default").unwrap().unwrap();
                load(&self.registry.directory("default", &current).unwrap()).unwrap();
                self.sidecar = Some(self.watching());
            }
            Victim::Redis | Victim::Nats => {
                let outside = if victim == Victim::Redis { &mut self.redis } else { &mut self.nats };
                outside.kill();
                tokio::time::sleep(without).await;
                outside.begin();
            }
        }
    }

    /// What a log holds: how often each event id, once that are so many.
    async fn logged(&self, log: &str, count: usize) -> BTreeMap<String, usize> {
        let began = Instant::now();
        loop {
            let mut found = BTreeMap::<String, usize>::new();
            let log = self.home.path().join(log);
            reg4rec::events::read(&log, &mut |logged| *found.entry(logged.event.event_id).or_default() += 1).unwrap();
            if found.len() >= count || began.elapsed() > Duration::from_secs(40) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        end(&mut self.follower);
        self.sidecar.iter_mut().for_each(end);
    }
}

fn end(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn following(home: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reg4rec"));
    command.arg("follow").arg("--config").arg(home.join("settings.toml")).arg("--log").arg(home.join("elsewhere"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What clients do all the time.
#[derive(Default)]
struct Clients {
    over: AtomicBool,
    answered: AtomicU64,
    flagged: AtomicU64,
}

impl Clients {
    /// Sends events one after the other, each until it is acknowledged. Answers them, with their users.
    async fn send(self: Arc<Self>, sender: usize, address: Address, items: Vec<String>) -> Sent {
        let mut sent = Sent::new();
        for number in 0u64.. {
            let (who, id) = (format!("user-{sender}-{}", number % USERS), format!("{sender}-{number}"));
            let event = v1::Event {
                item_id: items[(number as usize * 7 + sender) % items.len()].clone().into(),
                kind: v1::EventKind::Click as i32,
                event_id: id.clone().into(),
                value: Some(number as f32),
                ..Default::default()
            };
            let event = v1::UserEvent { user_id: who.clone().into(), event: Some(event) };
            // Sent once more now and then, as if no answer had come.
            for _ in 0..1 + usize::from(number % 5 == 0) {
                loop {
                    let (_, to) = address.lock().unwrap().clone();
                    if let Some(to) = to {
                        let mut request = tonic::Request::new(v1::RecordRequest { events: vec![event.clone()] });
                        request.set_timeout(Duration::from_secs(8));
                        if EventServiceClient::new(to).record(request).await.is_ok() {
                            break;
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            sent.entry(who).or_default().push((id, number));
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sent
    }

    /// Asks; only a server that was killed meanwhile may fail to answer.
    async fn ask(self: Arc<Self>, asker: usize, address: Address) {
        for number in 0u64.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let (kills, to) = address.lock().unwrap().clone();
            if let Some(to) = to {
                let who = user(&format!("user-{asker}-{}", number % USERS));
                match Client::new(to).recommend(who).await {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        assert_eq!(answer.items.len(), 10);
                        assert!(!answer.history_missed || (answer.degraded && answer.cold_start));
                        self.flagged.fetch_add(u64::from(answer.history_missed), Ordering::SeqCst);
                        self.answered.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(status) => assert!(address.lock().unwrap().0 > kills, "a server that runs: {status:?}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The acknowledged events of each user: id and number.
type Sent = BTreeMap<String, Vec<(String, u64)>>;

/// Kills so many times, and holds every store against what was acknowledged.
async fn kills(count: usize, victims: &[Victim], seed: u64) {
    let Some(mut world) = World::new(victims.contains(&Victim::Sidecar)).await else { return };
    let clients = Arc::<Clients>::default();
    let senders: Vec<_> = (0..SENDERS)
        .map(|at| tokio::spawn(clients.clone().send(at, world.address.clone(), world.items.clone())))
        .collect();
    let askers: Vec<_> = (0..2).map(|at| tokio::spawn(clients.clone().ask(at, world.address.clone()))).collect();
    let mut random = seed; // xorshift
    let mut draw = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as f64 / (1_u64 << 53) as f64
    };
    let (began, mut killed) = (Instant::now(), BTreeMap::<Victim, usize>::new());
    for at in 0..count {
        tokio::time::sleep(Duration::from_secs_f64(0.5 * draw())).await;
        // Each at least once; from then on by chance.
        let victim = victims[if at < victims.len() { at } else { (draw() * victims.len() as f64) as usize }];
        world.kill(victim, Duration::from_secs_f64(0.3 * draw())).await;
        *killed.entry(victim).or_default() += 1;
    }
    clients.over.store(true, Ordering::SeqCst);
    for asker in askers {
        asker.await.unwrap();
    }
    let mut acknowledged = Sent::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    let events: usize = acknowledged.values().map(Vec::len).sum();
    for log in ["log", "elsewhere"] {
        let found = world.logged(log, events).await;
        let ids = acknowledged.values().flatten().map(|(id, _)| id);
        let lost: Vec<_> = ids.filter(|id| !found.contains_key(*id)).collect();
        assert!(lost.is_empty(), "{log}: {} of {events} are lost: {lost:?}", lost.len());
        assert_eq!(found.len(), events, "{log}");
        assert!(found.values().all(|times| *times == 1), "{log}: an event is there twice");
    }
    let redis =
        RedisConfig { url: Secret::new(format!("redis://127.0.0.1:{}", world.redis.port)), ..RedisConfig::default() };
    let config = HistoryConfig { store: StoreKind::Redis, redis, max_events: 10_000, ..HistoryConfig::default() };
    let store = RedisStore::new(&config).unwrap();
    let began_to_hold = Instant::now();
    for (who, sent) in &acknowledged {
        let expected: Vec<u64> = sent.iter().map(|(_, number)| *number).collect();
        loop {
            let events = store.recent(who).await.unwrap();
            let mut numbers: Vec<u64> = events.iter().map(|event| event.value.unwrap() as u64).collect();
            numbers.sort_unstable();
            if numbers == expected {
                break;
            }
            assert!(began_to_hold.elapsed() < Duration::from_secs(30), "{who}: {numbers:?}, expected {expected:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let cycles = world.sidecar.is_some().then(|| learnt(&mut world));
    let (answered, flagged) = (clients.answered.load(Ordering::SeqCst), clients.flagged.load(Ordering::SeqCst));
    assert!(answered > 0 && events > SENDERS * count / 2, "{answered} answers, {events} events");
    eprintln!(
        "{killed:?} in {:.0} s: {events} events acknowledged, each once in both logs and in Redis; {answered} requests \
         answered, {flagged} of them without their history; sidecar: {cycles:?} versions",
        began.elapsed().as_secs_f64()
    );
}

/// Ends the sidecar's work, and follows what it published: each version from the one before, of just the events that the one
/// before had not learnt. Answers how many there are.
fn learnt(world: &mut World) -> usize {
    world.sidecar.iter_mut().for_each(end);
    world.sidecar = None;
    let settings = world.home.path().join("sidecar.toml");
    let output = trainer(&["sidecar", "--once", "--json", "--config", settings.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let versions = world.registry.versions("default").unwrap();
    let mut before: Option<(String, u64)> = None;
    for version in &versions {
        let bundle = load(&world.registry.directory("default", version).unwrap()).unwrap();
        let told = &bundle.manifest.training["sidecar"];
        let through = told["learnt_through"].as_u64().unwrap_or(0);
        if let Some((parent, from)) = before {
            assert!(bundle.manifest.parent.as_ref().is_some_and(|label| label.ends_with(&parent)), "{version}");
            assert_eq!(told["events"]["learnt"].as_u64(), Some(through - from), "{version}");
        }
        before = Some((version.clone(), through));
    }
    versions.len() - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_server_or_follower_or_store_loses_no_acknowledged_event_and_doubles_none() {
    kills(6, &[Victim::Server, Victim::Redis, Victim::Nats, Victim::Follower], 88_172_645_463_325_252).await;
}

/// Takes some minutes: `cargo test --test behaviour -- --ignored --nocapture two_hundred_kills_of_everything`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "two hundred processes"]
async fn two_hundred_kills_of_everything_lose_and_double_nothing() {
    use Victim::{Follower, Nats, Redis, Server, Sidecar};
    // The server and the trainer most of all.
    kills(200, &[Server, Sidecar, Redis, Nats, Follower, Server, Sidecar, Server], 362_436_069).await;
}

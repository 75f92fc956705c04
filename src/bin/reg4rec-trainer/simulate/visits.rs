//! Visits to the shop: a user asks for recommendations, clicks by true taste, and finds other things by itself.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reg4rec::wire::client::{EventServiceClient, RecommendationServiceClient};
use reg4rec::wire::v1;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::taste::{Season, Taste};

/// Items that a visit shows.
const SHOWN: u32 = 5;
/// Things that a user finds by itself on each visit, at most.
const FOUND: usize = 2;

/// What came of the answers of each arm.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Answers of the control and of the other arm.
    pub answers: [u64; 2],
    /// Those with a click.
    pub clicked: [u64; 2],
    /// Calls that failed.
    pub failed: u64,
    /// Bundle versions that answered in each arm.
    pub versions: [BTreeSet<String>; 2],
}

/// A part of the users, with what each has met.
#[derive(Debug)]
pub struct Crowd {
    taste: Arc<Taste>,
    items: Arc<Vec<String>>,
    users: Vec<(usize, HashSet<usize>)>,
    random: ChaCha8Rng,
    /// From one visit to the next, at least.
    pace: Duration,
    client: RecommendationServiceClient<Channel>,
    events: EventServiceClient<Channel>,
}

/// When visits happen, in Unix seconds.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub from: i64,
    pub step: i64,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.failed += other.failed;
        for arm in 0..2 {
            self.answers[arm] += other.answers[arm];
            self.clicked[arm] += other.clicked[arm];
            self.versions[arm].extend(other.versions[arm].iter().cloned());
        }
    }

    /// Share of an arm's answers with a click.
    pub fn ctr(&self, arm: usize) -> f64 {
        self.clicked[arm] as f64 / self.answers[arm].max(1) as f64
    }
}

impl Crowd {
    pub fn new(
        taste: Arc<Taste>,
        items: Arc<Vec<String>>,
        users: Vec<(usize, HashSet<usize>)>,
        channel: Channel,
        pace: Duration,
        seed: u64,
    ) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let (client, events) = (RecommendationServiceClient::new(channel.clone()), EventServiceClient::new(channel));
        Self { taste, items, users, random, pace, client, events }
    }

    /// `count` visits of users at random, one after the other.
    pub async fn visits(&mut self, count: usize, season: Season, clock: Clock) -> anyhow::Result<Tally> {
        let (mut tally, began) = (Tally::default(), Instant::now());
        for visit in 0..count {
            tokio::time::sleep_until(began + self.pace * visit as u32).await;
            let at = self.random.random_range(0..self.users.len());
            self.visit(at, season, clock.from + clock.step * visit as i64, &mut tally).await?;
        }
        Ok(tally)
    }

    async fn visit(&mut self, at: usize, season: Season, now: i64, tally: &mut Tally) -> anyhow::Result<()> {
        let (user, met) = &mut self.users[at];
        let (user, id) = (*user, format!("u{user}"));
        let request = v1::RecommendRequest {
            user_id: id.clone().into(),
            k: Some(SHOWN),
            filter: Some(v1::Filter { exclude_seen: true, ..Default::default() }),
            ..Default::default()
        };
        let mut deeds = Vec::new();
        match self.client.recommend(request).await {
            Err(_) => tally.failed += 1,
            Ok(answer) => {
                let answer = answer.into_inner();
                let assignment = answer.assignment.context("an answer without an arm")?;
                let arm = usize::from(assignment.arm == super::FRESH);
                tally.answers[arm] += 1;
                tally.versions[arm].insert(answer.bundle_version);
                let mut clicked = false;
                for shown in &answer.items {
                    let number = self.items.iter().position(|item| *item == shown.item_id);
                    let number = number.with_context(|| format!("{:?} is no item of the shop", shown.item_id))?;
                    if self.random.random_bool(self.taste.click(user, number, season)) {
                        clicked = true;
                        met.insert(number);
                        deeds.push((number, v1::EventKind::Click, answer.request_id.clone()));
                    }
                }
                tally.clicked[arm] += u64::from(clicked);
            }
        }
        for _ in 0..self.random.random_range(1..=FOUND) {
            if let Some(found) = self.taste.find(user, season, met, &mut self.random) {
                met.insert(found);
                deeds.push((found, v1::EventKind::View, String::new()));
            }
        }
        let event = |(step, (item, kind, request_id)): (usize, (usize, v1::EventKind, String))| v1::UserEvent {
            user_id: id.clone().into(),
            event: Some(v1::Event {
                item_id: self.items[item].clone().into(),
                kind: kind as i32,
                time: Some(prost_types::Timestamp { seconds: now + step as i64, nanos: 0 }),
                event_id: format!("{id}-{now}-{item}").into(),
                request_id: request_id.into(),
                ..Default::default()
            }),
        };
        let events: Vec<v1::UserEvent> = deeds.into_iter().enumerate().map(event).collect();
        let sent = events.len();
        if sent > 0 {
            let told = self.events.record(v1::RecordRequest { events }).await.context("recording")?.into_inner();
            ensure!(told.recorded as usize == sent, "{} of {sent} events were recorded", told.recorded);
        }
        Ok(())
    }
}

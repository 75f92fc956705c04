//! The synthetic shop's users: a few intents each that drift, sessions of browsing and buying, and a clock.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::catalogue::{Catalogue, aisle};
use super::words::{Habit, SHELVES, STYLES};
use crate::domain::{EventKind, ItemNumber};
use crate::training::dataset::Interaction;

const DAY: i64 = 86_400;
/// 2024-01-01T00:00:00Z: nobody came before.
const OPENING: i64 = 1_704_067_200;
const OPENING_DAYS: i64 = 300;
const SHORTEST: usize = 5;
const LONGEST: usize = 60;

/// What a user is after: a shelf, and what a thing from it should be like.
#[derive(Clone, Copy)]
struct Intent {
    shelf: usize,
    weight: f64,
}

/// One user while being simulated.
struct Shopper<'a> {
    user: u32,
    catalogue: &'a Catalogue,
    rng: ChaCha8Rng,
    intents: Vec<Intent>,
    /// The styles the user likes, and the price tier.
    styles: [usize; 2],
    tier: usize,
    now: i64,
    events: Vec<Interaction>,
    bought: Vec<ItemNumber>,
    /// Bought and not rated yet.
    unrated: Vec<ItemNumber>,
}

/// The events of one user, oldest first. Users are independent: each draws from a stream of its own.
pub(super) fn simulate(user: u32, catalogue: &Catalogue, seed: u64) -> Vec<Interaction> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(user) + 1);
    let length = length(&mut rng);
    let mut shopper = Shopper::new(user, catalogue, rng);
    while shopper.events.len() < length {
        shopper.session();
    }
    shopper.events.truncate(length);
    shopper.events
}

/// Most users do little, some do much: 5 plus a geometric tail.
fn length(rng: &mut impl Rng) -> usize {
    let mut length = SHORTEST;
    while length < LONGEST && rng.random_bool(0.89) {
        length += 1;
    }
    length
}

impl<'a> Shopper<'a> {
    fn new(user: u32, catalogue: &'a Catalogue, mut rng: ChaCha8Rng) -> Self {
        let intents = (0..rng.random_range(2..=3))
            .map(|_| Intent { shelf: rng.random_range(0..SHELVES.len()), weight: rng.random_range(0.3..1.0) })
            .collect();
        let styles = [rng.random_range(0..STYLES.len()), rng.random_range(0..STYLES.len())];
        let tier = rng.random_range(0..3);
        let now = OPENING + rng.random_range(0..OPENING_DAYS * DAY);
        Self {
            user,
            catalogue,
            rng,
            intents,
            styles,
            tier,
            now,
            events: Vec::new(),
            bought: Vec::new(),
            unrated: Vec::new(),
        }
    }

    /// One visit: rate what came, perhaps buy again, then follow an intent; tastes drift between visits.
    fn session(&mut self) {
        if let Some(item) = self.unrated.pop()
            && self.rng.random_bool(0.15)
        {
            let rating = self.rating(item);
            self.record(item, EventKind::Rating, Some(rating));
        }
        if self.rng.random_bool(0.06)
            && let Some(&item) = self.bought.iter().rev().find(|&&item| self.catalogue.habit(item) == Habit::Impulse)
        {
            self.record(item, EventKind::Purchase, None);
        }
        let shelf = self.intent().shelf;
        match SHELVES[shelf].habit {
            Habit::Impulse => self.grab(shelf),
            Habit::Considered => self.compare(shelf),
        }
        self.drift();
        // Days between visits: mostly a few, now and then many.
        let days = 10.0_f64.powf(self.rng.random_range(-0.3..1.5));
        self.now += (days * DAY as f64) as i64;
    }

    /// Something seen and bought, and what goes with it.
    fn grab(&mut self, shelf: usize) {
        let item = self.next_item(shelf);
        let kind = self.pick(&[(EventKind::Purchase, 0.6), (EventKind::Cart, 0.2), (EventKind::Click, 0.2)]);
        self.record(item, kind, None);
        if self.rng.random_bool(0.5) {
            self.follow(item);
        }
    }

    /// A few looked at, one of them taken in the end, and later what goes with it.
    fn compare(&mut self, shelf: usize) {
        for _ in 0..self.rng.random_range(1..=3) {
            let item = self.next_item(shelf);
            let kind = self.pick(&[(EventKind::View, 0.6), (EventKind::Click, 0.38), (EventKind::Hide, 0.02)]);
            self.record(item, kind, None);
        }
        let item = self.next_item(shelf);
        let kind = self.pick(&[(EventKind::Purchase, 0.55), (EventKind::Cart, 0.3), (EventKind::Click, 0.15)]);
        self.record(item, kind, None);
        if kind == EventKind::Purchase && self.rng.random_bool(0.7) {
            self.now += self.rng.random_range(1..4) * DAY;
            self.follow(item);
        }
    }

    /// Buys one of an item's companions, likeliest first.
    fn follow(&mut self, item: ItemNumber) {
        if let Some(companion) = self.companion(item) {
            let kind = self.pick(&[(EventKind::Purchase, 0.5), (EventKind::Cart, 0.2), (EventKind::View, 0.3)]);
            self.record(companion, kind, None);
        }
    }

    /// A companion of the last event's item when it is on the shelf, else something of the shelf that suits the user.
    fn next_item(&mut self, shelf: usize) -> ItemNumber {
        if self.rng.random_bool(0.5)
            && let Some(last) = self.events.last()
            && aisle(shelf).contains(&self.catalogue.traits[last.item as usize].shelf)
            && let Some(companion) = self.companion(last.item)
        {
            return companion;
        }
        let mut best = self.catalogue.draw(shelf, &mut self.rng);
        for _ in 0..8 {
            let other = self.catalogue.draw(shelf, &mut self.rng);
            if self.suits(other) > self.suits(best) {
                best = other;
            }
        }
        best
    }

    fn companion(&mut self, item: ItemNumber) -> Option<ItemNumber> {
        let companions = &self.catalogue.traits[item as usize].companions;
        let fresh: Vec<ItemNumber> = companions.iter().copied().filter(|&companion| !self.met(companion)).collect();
        // Each next one is half as likely.
        let mut at = 0;
        while at + 1 < fresh.len() && self.rng.random_bool(0.5) {
            at += 1;
        }
        fresh.get(at).copied()
    }

    fn met(&self, item: ItemNumber) -> bool {
        self.events.iter().any(|event| event.item == item)
    }

    fn suits(&self, item: ItemNumber) -> u32 {
        let traits = &self.catalogue.traits[item as usize];
        let style = if traits.style == self.styles[0] { 4 } else { u32::from(traits.style == self.styles[1]) * 3 };
        let brand = u32::from(
            self.bought.last().is_some_and(|&last| self.catalogue.traits[last as usize].brand == traits.brand),
        );
        style + u32::from(traits.tier == self.tier) * 2 + brand + u32::from(!self.met(item)) * 6
    }

    fn intent(&mut self) -> Intent {
        let total: f64 = self.intents.iter().map(|intent| intent.weight).sum();
        let mut mark = self.rng.random_range(0.0..total);
        for intent in &self.intents {
            mark -= intent.weight;
            if mark < 0.0 {
                return *intent;
            }
        }
        self.intents[0]
    }

    /// Interests move: mostly to the next shelf of the aisle, sometimes to something new; styles seldom change.
    fn drift(&mut self) {
        if self.rng.random_bool(0.15) {
            let at = self.rng.random_range(0..self.intents.len());
            let beside = aisle(self.intents[at].shelf);
            let shelf = if self.rng.random_bool(0.7) {
                beside[self.rng.random_range(0..beside.len())]
            } else {
                self.rng.random_range(0..SHELVES.len())
            };
            self.intents[at] = Intent { shelf, weight: self.rng.random_range(0.3..1.0) };
        }
        if self.rng.random_bool(0.03) {
            self.styles[1] = self.rng.random_range(0..STYLES.len());
        }
    }

    /// Stars from 1 to 5: things that suit are liked.
    fn rating(&mut self, item: ItemNumber) -> f32 {
        let liked = self.catalogue.traits[item as usize].style == self.styles[0];
        let stars = if liked { self.rng.random_range(4..=5) } else { self.rng.random_range(1..=5) };
        stars as f32
    }

    fn pick(&mut self, kinds: &[(EventKind, f64)]) -> EventKind {
        let mut mark = self.rng.random_range(0.0..1.0);
        for &(kind, share) in kinds {
            mark -= share;
            if mark < 0.0 {
                return kind;
            }
        }
        kinds[0].0
    }

    fn record(&mut self, item: ItemNumber, kind: EventKind, value: Option<f32>) {
        self.events.push(Interaction { user: self.user, item, time: self.now, kind, value });
        self.now += self.rng.random_range(20..600);
        if kind == EventKind::Purchase {
            self.bought.push(item);
            self.unrated.push(item);
        }
    }
}

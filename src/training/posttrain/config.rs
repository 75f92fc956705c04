//! How post-training samples, rewards and moves.

use serde::{Deserialize, Serialize};

use super::reward::RewardWeights;
use crate::domain::{EventKind, Violation};
use crate::training::precision::LadqConfig;

/// Settings of post-training. Stored with the checkpoint: a resumed run must use the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostTrainConfig {
    /// Rounds at most; each ends with a validation and a checkpoint.
    pub rounds: usize,
    /// Steps of a round.
    pub steps: usize,
    /// Contexts (a history and what came next) of a step.
    pub contexts: usize,
    /// G: paths sampled for each context.
    pub group: usize,
    /// Times that the paths of a step are learnt from; from the second on the clip matters.
    pub updates: usize,
    /// Tokens of a sampled path at most. A path also ends when it leaves one item.
    pub path_steps: usize,
    /// Tokens are drawn from p^(1/temperature), normalised.
    pub temperature: f32,
    /// Peak learning rate of AdamW; it falls along a cosine to a twentieth.
    pub learning_rate: f64,
    /// Largest norm of one parameter's gradient.
    pub clip_norm: f32,
    /// epsilon: how far a probability may move from what sampled it before its gradient is cut.
    pub clip: f32,
    /// beta: weight of the KL to the frozen network that post-training began from.
    pub beta: f32,
    /// Weight of the rewards' part of the loss; 0 leaves only the supervised parts.
    pub reward_weight: f32,
    /// What a path is rewarded for.
    pub rewards: RewardWeights,
    /// Whether the weights of the rewards are learnt from what users did next, instead of taken from `rewards`.
    pub adaptive: bool,
    /// Beliefs of consecutive steps further apart than this, in nats, are inconsistent.
    pub theta: f32,
    /// h: how many of the next events of the training part reward a path.
    pub window: usize,
    /// w: what an event counts of the one before it.
    pub decay: f32,
    /// What a reward is worth by the kind of the event that it comes from.
    pub kinds: KindWeights,
    /// Weight of the path loss of pre-training, kept beside.
    pub path_weight: f32,
    /// lambda_c: weight of the category loss, kept beside.
    pub category_weight: f32,
    /// Candidates that a step of the path loss compares at most.
    pub path_candidates: usize,
    /// Whether the encoder learns too; else only what reads paths does.
    pub encoder: bool,
    /// Whether histories are read with the dropout of pre-training, where the encoder does not learn. Without it the encoder
    /// knows the training part by heart, and what reads its states learns to trust them more than new users deserve.
    pub noise: bool,
    /// Layer-adaptive precision.
    pub ladq: LadqConfig,
    /// Users that validation ranks for, at most.
    pub validation_users: usize,
    /// Rounds without a better validation NDCG@10 after which it stops.
    pub patience: usize,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What an event's reward is worth by its kind; negative where reaching the item was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KindWeights {
    /// Of a view.
    pub view: f32,
    /// Of a click.
    pub click: f32,
    /// Of an item put into the cart.
    pub cart: f32,
    /// Of a purchase.
    pub purchase: f32,
    /// Of an item that the user asked not to see again.
    pub hide: f32,
    /// Of a rating.
    pub rating: f32,
}

impl Default for KindWeights {
    fn default() -> Self {
        Self { view: 1.0, click: 1.0, cart: 1.0, purchase: 1.0, hide: -1.0, rating: 1.0 }
    }
}

impl KindWeights {
    /// The weight of an event of this kind.
    pub fn of(&self, kind: EventKind) -> f32 {
        match kind {
            EventKind::View => self.view,
            EventKind::Click => self.click,
            EventKind::Cart => self.cart,
            EventKind::Purchase => self.purchase,
            EventKind::Hide => self.hide,
            EventKind::Rating => self.rating,
        }
    }
}

impl Default for PostTrainConfig {
    fn default() -> Self {
        Self {
            rounds: 8,
            steps: 250,
            contexts: 128,
            group: 8,
            updates: 2,
            path_steps: 3,
            temperature: 1.0,
            learning_rate: 3.0e-4,
            clip_norm: 1.0,
            clip: 0.2,
            beta: 0.02,
            reward_weight: 1.0,
            rewards: RewardWeights::default(),
            adaptive: false,
            theta: 0.06,
            window: 3,
            decay: 0.8,
            kinds: KindWeights::default(),
            path_weight: 0.0,
            category_weight: 0.2,
            path_candidates: 96,
            encoder: false,
            noise: true,
            ladq: LadqConfig::default(),
            validation_users: 5_000,
            patience: 4,
            seed: 1,
        }
    }
}

impl PostTrainConfig {
    /// Every setting that cannot be.
    pub fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut expect = |held: bool, field: &str, told: String| {
            if !held {
                wrong.push(Violation::new(field, told));
            }
        };
        for (field, value, least) in [
            ("rounds", self.rounds, 1),
            ("steps", self.steps, 1),
            ("contexts", self.contexts, 1),
            ("group", self.group, 2),
            ("updates", self.updates, 1),
            ("path_steps", self.path_steps, 1),
            ("path_candidates", self.path_candidates, 2),
            ("validation_users", self.validation_users, 1),
            ("patience", self.patience, 1),
        ] {
            expect(value >= least, field, format!("{value}: expected at least {least}"));
        }
        let rate = self.learning_rate;
        expect(rate > 0.0 && rate < 1.0, "learning_rate", format!("{rate}: expected between 0 and 1"));
        let temperature = self.temperature;
        expect(temperature > 0.0 && temperature.is_finite(), "temperature", format!("{temperature}: expected above 0"));
        expect((0.0..1.0).contains(&self.clip), "clip", format!("{}: expected 0 to below 1", self.clip));
        expect((0.0..=1.0).contains(&self.decay), "decay", format!("{}: expected 0 to 1", self.decay));
        let ln_2 = std::f32::consts::LN_2;
        expect((0.0..=ln_2).contains(&self.theta), "theta", format!("{}: expected 0 to ln 2 = {ln_2}", self.theta));
        let rewards = self.rewards;
        for (field, value) in [
            ("clip_norm", self.clip_norm),
            ("beta", self.beta),
            ("reward_weight", self.reward_weight),
            ("path_weight", self.path_weight),
            ("category_weight", self.category_weight),
            ("rewards.step", rewards.step),
            ("rewards.category", rewards.category),
            ("rewards.consistency", rewards.consistency),
            ("rewards.path", rewards.path),
        ] {
            expect(value >= 0.0 && value.is_finite(), field, format!("{value}: expected at least 0"));
        }
        for kind in EventKind::ALL {
            let value = self.kinds.of(kind);
            expect(value.is_finite(), &format!("kinds.{}", kind.name()), format!("{value}: expected a finite number"));
        }
        wrong.extend(self.ladq.validate().err().into_iter().flatten());
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The learning rate of step `step` of all steps.
    pub fn rate(&self, step: usize) -> f64 {
        let done = (step as f64 / (self.rounds * self.steps).max(1) as f64).min(1.0);
        self.learning_rate * (0.05 + 0.95 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be() {
        assert_eq!(PostTrainConfig::default().validate(), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_named_with_its_value() {
        let kinds = KindWeights { hide: f32::NAN, ..KindWeights::default() };
        let config = PostTrainConfig { group: 1, clip: 1.5, beta: -1.0, kinds, ..PostTrainConfig::default() };
        let wrong = config.validate().unwrap_err();
        let told: Vec<String> = wrong.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.description)).collect();
        assert_eq!(
            told,
            [
                "group: 1: expected at least 2",
                "clip: 1.5: expected 0 to below 1",
                "beta: -1: expected at least 0",
                "kinds.hide: NaN: expected a finite number",
            ]
        );
    }

    #[test]
    fn the_rate_falls_to_a_twentieth() {
        let config = PostTrainConfig { rounds: 2, steps: 50, learning_rate: 0.1, ..PostTrainConfig::default() };
        assert!((config.rate(0) - 0.1).abs() < 1e-9);
        assert!((config.rate(100) - 0.005).abs() < 1e-9);
        assert!(config.rate(30) > config.rate(31));
    }
}

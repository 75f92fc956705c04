//! GRPO on measured paths: the clipped objective and the KL to the reference, as one number for each token.

use super::catalogue::Measured;

/// What an update comes to, and what each token's ln p is to be moved by.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Objective {
    /// d loss / d ln p of each token of each path.
    pub by_log_p: Vec<Vec<f32>>,
    /// The clipped objective's part of the loss, mean over paths of means over tokens.
    pub policy: f32,
    /// KL to the reference in nats by the k3 estimator, the same mean.
    pub kl: f32,
    /// The share of tokens whose gradient the clip cut.
    pub clipped: f32,
}

/// The loss of GRPO (Shao et al. 2024) and its gradient by every token's ln p.
///
/// With r = exp(ln p - ln p_old), a path's advantage A and k = ln p_ref - ln p, a token costs
/// -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A) + beta (exp(k) - k - 1). Tokens are averaged within their path, paths
/// over the batch, so that long paths do not count more.
pub fn objective(
    now: &[Measured],
    before: &[Vec<f32>],
    reference: &[Measured],
    advantages: &[f32],
    clip: f32,
    beta: f32,
) -> Objective {
    let paths = now.len().max(1) as f32;
    let mut found = Objective::default();
    let (mut tokens, mut cut) = (0usize, 0usize);
    for (((now, before), reference), &advantage) in now.iter().zip(before).zip(reference).zip(advantages) {
        let share = 1.0 / (paths * now.log_p.len().max(1) as f32);
        let mut by_log_p = Vec::with_capacity(now.log_p.len());
        for ((&log_p, &old), &frozen) in now.log_p.iter().zip(before).zip(&reference.log_p) {
            let ratio = (log_p - old).clamp(-20.0, 20.0).exp();
            let clipped = ratio.clamp(1.0 - clip, 1.0 + clip);
            let (free, bounded) = (ratio * advantage, clipped * advantage);
            let is_cut = bounded < free;
            let behind = (frozen - log_p).clamp(-20.0, 20.0);
            found.policy -= share * free.min(bounded);
            found.kl += share * (behind.exp() - behind - 1.0);
            let pull = if is_cut { 0.0 } else { -free };
            by_log_p.push(share * (pull + beta * (1.0 - behind.exp())));
            tokens += 1;
            cut += usize::from(is_cut);
        }
        found.by_log_p.push(by_log_p);
    }
    found.clipped = cut as f32 / tokens.max(1) as f32;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(log_p: &[f32]) -> Measured {
        Measured { log_p: log_p.to_vec(), ..Measured::default() }
    }

    #[test]
    fn its_gradient_is_the_slope_of_its_loss() {
        let before = vec![vec![-1.0, -0.5], vec![-2.0]];
        let reference = [measured(&[-1.1, -0.4]), measured(&[-1.8])];
        let (advantages, clip, beta) = ([0.7, -1.2], 0.2, 0.3);
        let loss = |log_p: [f32; 3]| {
            let now = [measured(&log_p[..2]), measured(&log_p[2..])];
            let found = objective(&now, &before, &reference, &advantages, clip, beta);
            (found.policy + beta * found.kl, found.by_log_p.concat())
        };
        // Inside the clip, past it on the side that is cut, past it on the side that is not.
        for log_p in [[-1.05f32, -0.55, -2.05], [-0.5, -0.1, -2.6], [-1.6, -0.9, -1.5]] {
            let (_, gradient) = loss(log_p);
            for at in 0..3 {
                let moved = |by: f32| {
                    let mut other = log_p;
                    other[at] += by;
                    loss(other).0
                };
                let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
                assert!((slope - gradient[at]).abs() < 2e-3, "{log_p:?} at {at}: {slope} and {}", gradient[at]);
            }
        }
    }

    #[test]
    fn where_nothing_moved_only_the_advantage_pulls() {
        let now = [measured(&[-1.0, -2.0])];
        let found = objective(&now, &[vec![-1.0, -2.0]], &now, &[0.5], 0.2, 0.1);
        assert_eq!((found.kl, found.clipped), (0.0, 0.0));
        assert_eq!(found.by_log_p, [vec![-0.25, -0.25]]);
    }
}

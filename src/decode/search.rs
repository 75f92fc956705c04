//! The search of one request, a step at a time.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;

use crate::catalog::{Candidates, Index};
use crate::domain::{ItemNumber, Token};

use super::answers::{Answer, Answers, Coverage, Standing};
use super::corp::{Verdict, divergence, judge};
use super::expand::Marginals;
use super::job::{DecodeJob, Outcome, Ranked};
use super::scoring::{Advance, ItemQuery, PathState, Residuals};
use super::settings::Expansion;
use super::sums::{Scored, Softmax, refine_items, score_items};
use super::trail::{Reading, Trail, likeliest};

/// A path that is being read or has just been read.
#[derive(Debug, Clone)]
struct Live {
    /// Its last token; none for `<BOS>`.
    node: Option<usize>,
    /// The codebooks it used, one bit each.
    used: u64,
    /// S = sum of ln p over its tokens.
    score: f64,
    /// Its candidates, within the scored items of the step.
    held: Range<usize>,
    /// The row of its parent in the advance before, and its token; none for `<BOS>`.
    extends: Option<(usize, Token)>,
}

/// A child that a path may have.
#[derive(Debug, Clone, Copy)]
struct Child {
    /// Its parent's place among the live paths.
    parent: usize,
    token: Token,
    /// ln p(token | h, parent).
    log_p: f64,
    /// S of the parent + `log_p`.
    score: f64,
}

impl Child {
    /// Best first; ties: by the parents' order, then by token.
    fn order(&self, other: &Child) -> Ordering {
        other.score.total_cmp(&self.score).then(self.parent.cmp(&other.parent)).then(self.token.cmp(&other.token))
    }
}

/// What steps need for a moment; shared by the searches of a batch, so that its memory is found once.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    root: Scored,
    refined: Vec<f32>,
    weights: Vec<f32>,
    marginals: Marginals,
    children: Vec<Child>,
    scores: Vec<f32>,
}

/// One request on its way.
#[derive(Debug)]
pub(super) struct Search<'a> {
    job: &'a DecodeJob<'a>,
    index: &'a Index,
    /// Its place in the encoded batch.
    request: usize,
    query: ItemQuery,
    /// Tokens in each live path.
    depth: usize,
    live: Vec<Live>,
    /// The candidates of all live paths, one after another.
    held: Scored,
    trail: Trail,
    answers: Answers,
    outcome: Outcome,
}

impl<'a> Search<'a> {
    /// A search that is about to read `<BOS>`. The job wants items and has candidates.
    pub(super) fn new(job: &'a DecodeJob<'a>, index: &'a Index, request: usize, query: ItemQuery) -> Self {
        let bos = Live { node: None, used: 0, score: 0.0, held: 0..0, extends: None };
        Self {
            job,
            index,
            request,
            query,
            depth: 0,
            live: vec![bos],
            held: Scored::default(),
            trail: Trail::default(),
            answers: Answers::new(job.settings.expansion == Expansion::Flat),
            outcome: Outcome { short: job.root.len() < job.k, ..Outcome::default() },
        }
    }

    /// Whether no path is left to read.
    pub(super) fn is_over(&self) -> bool {
        self.live.is_empty()
    }

    /// The paths to read next; none when the search is over.
    pub(super) fn rows(&self) -> impl Iterator<Item = Advance> + '_ {
        self.live.iter().map(|path| Advance { request: self.request, extends: path.extends })
    }

    /// Takes in what was read: prunes, finishes, and chooses the paths to read next. `states` are those of [`rows`]
    /// (Self::rows), the first of them row `first_row` of the advance; `before` are all states of the advance before.
    pub(super) fn step(
        &mut self,
        states: &mut [PathState],
        first_row: usize,
        before: &[PathState],
        residuals: Residuals<'_>,
        scratch: &mut Scratch,
    ) {
        self.outcome.passes += 1;
        let root = if self.depth == 0 { Some(self.open(residuals, scratch)) } else { None };
        let kept = self.prune(states, before);
        let finish_all = self.all_finish(&kept);

        // Moved out for the step, so that reading them does not lock the search.
        let held = std::mem::take(if self.depth == 0 { &mut scratch.root } else { &mut self.held });
        scratch.children.clear();
        for &path in &kept {
            self.read(path, &mut states[path], &held, finish_all, scratch);
        }
        self.choose(first_row, &held, root.as_ref(), scratch);
        if self.depth == 0 {
            scratch.root = held;
        }
        self.depth += 1;
    }

    /// The answer, best items first.
    pub(super) fn finish(mut self) -> Outcome {
        let best = std::mem::take(&mut self.answers).best(self.job.k);
        self.outcome.items = best
            .into_iter()
            .map(|answer| Ranked {
                item: answer.standing.item,
                score: answer.standing.score,
                path: self.job.explain.then(|| self.trail.path(answer.node, answer.log_finish)),
            })
            .collect();
        self.outcome
    }

    /// Items that the answer must hold in the end.
    fn needed(&self) -> usize {
        self.job.k.min(self.job.root.len())
    }

    /// Scores the root's candidates into the scratch, and narrows them to the shortlist.
    fn open(&mut self, residuals: Residuals<'_>, scratch: &mut Scratch) -> Candidates {
        let codes = self.index.codes();
        let (root, query) = (&mut scratch.root, &self.query);
        root.clear();
        root.numbers.extend(self.job.root.iter());
        self.outcome.non_finite += score_items(query, residuals, codes, &root.numbers, &mut root.scores);
        if let Some(bias) = self.job.bias {
            bias.add_to_scores(&root.numbers, &mut root.scores);
        }
        let shortlist = self.job.settings.shortlist.max(self.job.k);
        let candidates = if root.numbers.len() > shortlist {
            let mut order: Vec<usize> = (0..root.numbers.len()).collect();
            order.select_nth_unstable_by(shortlist - 1, |&a, &b| {
                root.scores[b].total_cmp(&root.scores[a]).then(a.cmp(&b))
            });
            order.truncate(shortlist);
            order.sort_unstable();
            root.scores = order.iter().map(|&at| root.scores[at]).collect();
            root.numbers = order.iter().map(|&at| root.numbers[at]).collect();
            Candidates::of(self.index.len(), root.numbers.iter().copied())
        } else {
            self.job.root.clone()
        };
        self.live[0].held = 0..root.numbers.len();
        candidates
    }

    /// CORP. Answers the places of the live paths that go on, best first.
    fn prune(&mut self, states: &[PathState], before: &[PathState]) -> Vec<usize> {
        let settings = self.job.settings;
        let compared = self.corp_reads(self.depth);
        let told = self.job.explain && self.depth > 1;
        let mut verdicts: Vec<Verdict> = self
            .live
            .iter()
            .zip(states)
            .map(|(path, state)| {
                let parent = path.extends.filter(|_| compared || told);
                let divergence = parent.map(|(row, _)| divergence(&before[row].beliefs, &state.beliefs));
                let inconsistent = compared && divergence.is_some_and(|js| js > settings.theta);
                Verdict { divergence, inconsistent, kept: !compared }
            })
            .collect();
        if compared {
            let mut coverage = Coverage::of(&self.answers, settings.expansion);
            let needed = self.needed();
            judge(&mut verdicts, settings.beam, |path| {
                if let Some(path) = path {
                    coverage.add(&self.held.numbers[self.live[path].held.clone()]);
                }
                coverage.len() >= needed
            });
            self.outcome.pruned += verdicts.iter().filter(|verdict| verdict.pruned()).count() as u32;
        }
        if self.job.explain {
            self.note(states, &verdicts);
        }
        (0..self.live.len()).filter(|&path| verdicts[path].kept).collect()
    }

    /// Whether CORP compares the belief of paths of so many tokens with that of their parents.
    fn corp_reads(&self, depth: usize) -> bool {
        self.job.settings.corp && depth > self.job.settings.corp_from
    }

    /// Notes for the explanation what was read after each kept path's last token.
    fn note(&mut self, states: &[PathState], verdicts: &[Verdict]) {
        let parents: Vec<Option<usize>> = self.live.iter().map(|path| self.trail.parent(path.node)).collect();
        for (at, (path, verdict)) in self.live.iter().zip(verdicts).enumerate() {
            let Some(node) = path.node.filter(|_| verdict.kept) else { continue };
            let siblings = parents.iter().zip(verdicts).filter(|(parent, _)| **parent == parents[at]);
            let reading = Reading {
                beliefs: likeliest(&states[at].beliefs),
                divergence: verdict.divergence.filter(|_| self.depth > 1),
                pruned_siblings: siblings.filter(|(_, sibling)| sibling.pruned()).count() as u32,
                inconsistent: verdict.inconsistent,
            };
            self.trail.note(node, reading);
        }
    }

    /// Whether all kept paths are finished at this step.
    fn all_finish(&self, kept: &[usize]) -> bool {
        let settings = self.job.settings;
        let held: usize = kept.iter().map(|&path| self.live[path].held.len()).sum();
        let few = settings.finish_together.saturating_mul(settings.beam.max(self.job.k));
        self.depth == self.index.codes().shape().codebooks || (!settings.full_path && held <= few)
    }

    /// Reads one path: its candidates become answers, or its children are listed.
    fn read(&mut self, path: usize, state: &mut PathState, held: &Scored, finish_all: bool, scratch: &mut Scratch) {
        let codes = self.index.codes();
        let shape = codes.shape();
        let (settings, live) = (self.job.settings, &self.live[path]);
        for r in (0..shape.codebooks).filter(|r| live.used >> r & 1 == 1) {
            state.token_refinements[r * shape.entries..(r + 1) * shape.entries].fill(0.0);
        }
        let numbers = &held.numbers[live.held.clone()];
        let scores = &held.scores[live.held.clone()];
        self.outcome.non_finite += refine_items(&state.token_refinements, codes, numbers, scores, &mut scratch.refined);
        let softmax = Softmax::over(&scratch.refined, &mut scratch.weights);

        if finish_all || (!settings.full_path && numbers.len() <= settings.finish_at) {
            for (&item, &score) in numbers.iter().zip(&scratch.refined) {
                let log_finish = softmax.log_share(score);
                let standing = Standing::new(self.index, item, live.score + log_finish);
                self.answers.add(Answer { standing, node: live.node, log_finish });
            }
            return;
        }
        scratch.marginals.fill(codes, numbers, &scratch.weights);
        let children = scratch.marginals.children(codes, live.used, settings.expansion);
        scratch.children.extend(children.map(|(token, weight)| {
            // The sums of weights are rounded, so that a certain token's share may come out above one.
            let log_p = softmax.log_share_of_weight(weight).min(0.0);
            Child { parent: path, token, log_p, score: live.score + log_p }
        }));
    }

    /// The best children become the live paths: as many as the beam is wide and CORP's reserve, and more while too few
    /// items are held. Children that cannot beat the k-th answer any more are left out: no item's score is above its
    /// path's.
    fn choose(&mut self, first_row: usize, held: &Scored, root: Option<&Candidates>, scratch: &mut Scratch) {
        let settings = self.job.settings;
        if let Some(kth) = self.answers.kth(self.job.k, &mut scratch.scores) {
            scratch.children.retain(|child| child.score as f32 >= kth);
        }
        let children = &mut scratch.children;
        // As a rule the beam is filled from the best few; the rest is sorted only when it is needed.
        let mut sorted = children.len().min(4 * (settings.beam + settings.reserve));
        if sorted < children.len() {
            children.select_nth_unstable_by(sorted, Child::order);
        }
        children[..sorted].sort_unstable_by(Child::order);

        let reserve = if self.corp_reads(self.depth + 1) { settings.reserve } else { 0 };
        let needed = self.needed();
        let mut coverage = Coverage::of(&self.answers, settings.expansion);
        let mut sets = HashSet::new();
        let (mut best, mut spare) = (0, 0);
        let mut next = Vec::new();
        let mut next_held = Scored::default();
        for at in 0..children.len() {
            if at == sorted {
                children[at..].sort_unstable_by(Child::order);
                sorted = children.len();
            }
            let child = children[at];
            let within_beam = best < settings.beam || coverage.len() < needed;
            if !within_beam && spare == reserve {
                break;
            }
            let parent = &self.live[child.parent];
            if settings.expansion == Expansion::Flat && !sets.insert(self.trail.token_set(parent.node, child.token)) {
                continue;
            }
            let start = next_held.numbers.len();
            self.narrow(held, parent.held.clone(), child.token, root, &mut next_held);
            let range = start..next_held.numbers.len();
            if within_beam {
                best += 1;
                coverage.add(&next_held.numbers[range.clone()]);
            } else {
                spare += 1;
            }
            next.push(Live {
                node: Some(self.trail.choose(parent.node, child.token, child.log_p)),
                used: parent.used | 1 << child.token.codebook,
                score: child.score,
                held: range,
                extends: Some((first_row + child.parent, child.token)),
            });
        }
        self.live = next;
        self.held = next_held;
    }

    /// Appends to `out` those of a path's candidates that hold the token. For the root, whose list is the catalogue,
    /// the token's postings are walked instead.
    fn narrow(&self, held: &Scored, range: Range<usize>, token: Token, root: Option<&Candidates>, out: &mut Scored) {
        let mut take = |number: ItemNumber, at: usize| {
            out.numbers.push(number);
            out.scores.push(held.scores[at]);
        };
        if let Some(root) = root {
            let mut at = 0;
            for &number in self.index.postings(token).iter().filter(|&&number| root.contains(number)) {
                // Both lists ascend, so the search goes on where it stood.
                at += held.numbers[at..].partition_point(|&other| other < number);
                take(number, at);
            }
            return;
        }
        let codes = self.index.codes();
        for at in range {
            let number = held.numbers[at];
            if codes.code(number)[usize::from(token.codebook)] == token.entry {
                take(number, at);
            }
        }
    }
}

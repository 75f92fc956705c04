//! The search of one request whose candidates are where the network is: the same search as [`Search`](super::search::Search),
//! for requests that want no more than items.

use crate::catalog::Index;
use crate::domain::{ItemNumber, Token};

use super::answers::{Answer, Answers, Standing};
use super::child::Child;
use super::corp::{Verdict, judge};
use super::job::{DecodeJob, Outcome, Ranked};
use super::resident::{Ask, Depth, Opening, Step, Told};
use super::scoring::Advance;
use super::settings::{Engine, Expansion};

/// A path that is being read.
#[derive(Debug, Clone, Copy)]
struct Live {
    /// S = sum of ln p over its tokens.
    score: f64,
    /// How many candidates it has.
    held: usize,
    /// The row of its parent in the step before, and its token; none for `<BOS>`.
    extends: Option<(usize, Token)>,
}

/// A child, and what is told of its candidates.
#[derive(Debug, Clone, Copy)]
struct Born {
    child: Child,
    /// How many they are.
    held: usize,
    /// The lowest of them.
    first: ItemNumber,
}

/// One request on its way.
#[derive(Debug)]
pub(super) struct ResidentSearch<'a> {
    job: &'a DecodeJob<'a>,
    index: &'a Index,
    /// Its place in the encoded batch.
    request: usize,
    /// Tokens in each live path.
    depth: usize,
    live: Vec<Live>,
    /// Paths of a single candidate that ended when they were chosen last, and count as if they were read now.
    lone: usize,
    answers: Answers,
    outcome: Outcome,
    /// Items that the answer must hold in the end.
    needed: usize,
    children: Vec<Born>,
    /// Room for the scores of answers.
    scores: Vec<f32>,
}

impl<'a> ResidentSearch<'a> {
    /// Whether such a search answers the job as any would: with no paths told, no limits, no other engine or expansion, and
    /// with more candidates than are finished at once.
    pub(super) fn fits(job: &DecodeJob<'_>, index: &Index) -> bool {
        let settings = job.settings;
        let plain = settings.engine == Engine::Beam && settings.expansion == Expansion::Crss && !job.explain;
        let at_once = if settings.full_path { 0 } else { settings.finish_at.max(job.few()) };
        plain && job.room(index).is_none() && job.root.len().min(job.looked_at()) > at_once
    }

    /// A search that is about to read `<BOS>` for a job that it fits.
    pub(super) fn new(job: &'a DecodeJob<'a>, index: &'a Index, request: usize) -> Self {
        let needed = job.needed(index);
        let mut answers = Answers::default();
        answers.reset(false);
        Self {
            job,
            index,
            request,
            depth: 0,
            live: vec![Live { score: 0.0, held: job.root.len().min(job.looked_at()), extends: None }],
            lone: 0,
            answers,
            outcome: Outcome { short: needed < job.k, ..Outcome::default() },
            needed,
            children: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// What it may be answered.
    pub(super) fn opening(&self) -> Opening<'a> {
        let bias = self.job.bias.filter(|bias| !bias.is_neutral()).map(|bias| {
            let mut nats = vec![0.0; self.index.len()];
            bias.add_to(self.index, &mut nats);
            nats
        });
        let looked_at = self.job.looked_at();
        Opening {
            eligible: self.job.root.words(),
            bias,
            shortlist: (looked_at < self.job.root.len()).then_some(looked_at),
        }
    }

    /// Whether no path is left to read.
    pub(super) fn is_over(&self) -> bool {
        self.live.is_empty()
    }

    /// How much it wants to be told next. Every child that is chosen holds an item that is wanted, or has a place of the beam
    /// or the reserve, so that no path has more of them.
    pub(super) fn wants(&self) -> Depth {
        let settings = self.job.settings;
        let children = settings.beam.max(self.needed) + settings.reserve;
        Depth { children, divergences: self.job.corp_reads(self.depth) }
    }

    /// The paths to read next; none when the search is over. Of those that will end their candidates are wanted, and of those
    /// that may end when CORP ends others.
    pub(super) fn asks(&self) -> impl Iterator<Item = Ask> + '_ {
        let all_end = self.all_finish(self.live.iter().map(|path| path.held).sum());
        let may_end = if self.job.corp_reads(self.depth) { self.job.few() } else { 0 };
        self.live.iter().map(move |path| {
            let ends = all_end || self.finishes(path.held) || (!self.job.settings.full_path && path.held <= may_end);
            Ask { path: Advance { request: self.request, extends: path.extends }, listed: ends.then_some(path.held) }
        })
    }

    /// Takes in what was read of its paths, the first of them row `first_row` of the step.
    pub(super) fn step(&mut self, step: &Step, first_row: usize) {
        self.outcome.passes += 1;
        let told = &step.paths[first_row..first_row + self.live.len()];
        let kept = self.prune(told);
        let finish_all = self.all_finish(kept.iter().map(|&path| self.live[path].held).sum());
        self.children.clear();
        for path in kept {
            self.read(path, &told[path], step, finish_all);
        }
        self.choose(first_row);
        self.depth += 1;
    }

    /// The answer, best items first.
    pub(super) fn finish(mut self) -> Outcome {
        let ranked = |answer: &Answer| Ranked { item: answer.standing.item, score: answer.standing.score, path: None };
        self.outcome.items = self.answers.best(self.job.k, None).map(ranked).collect();
        self.outcome
    }

    /// CORP. Answers the places of the live paths that go on, best first.
    fn prune(&mut self, told: &[Told]) -> Vec<usize> {
        if !self.job.corp_reads(self.depth) {
            return (0..self.live.len()).collect();
        }
        let settings = self.job.settings;
        let verdict = |(path, told): (&Live, &Told)| {
            let divergence = path.extends.map(|_| told.divergence);
            let inconsistent = divergence.is_some_and(|js| js > settings.theta);
            Verdict { divergence, inconsistent, kept: false }
        };
        let mut verdicts: Vec<Verdict> = self.live.iter().zip(told).map(verdict).collect();
        let (mut covered, needed) = (self.answers.len(), self.needed);
        judge(&mut verdicts, settings.beam, |path| {
            covered += path.map_or(0, |path| self.live[path].held);
            covered >= needed
        });
        self.outcome.pruned += verdicts.iter().filter(|verdict| verdict.pruned()).count() as u32;
        (0..self.live.len()).filter(|&path| verdicts[path].kept).collect()
    }

    /// Whether paths that hold so many candidates together are all finished at this step.
    fn all_finish(&self, held: usize) -> bool {
        self.depth == self.index.codes().shape().codebooks
            || (!self.job.settings.full_path && self.lone + held <= self.job.few())
    }

    /// Whether a path of so many candidates is finished whatever the others hold.
    fn finishes(&self, held: usize) -> bool {
        !self.job.settings.full_path && held <= self.job.settings.finish_at
    }

    /// Reads one path: its candidates become answers, or its children are listed.
    fn read(&mut self, path: usize, told: &Told, step: &Step, finish_all: bool) {
        self.outcome.non_finite += told.non_finite;
        let live = self.live[path];
        let log_sum = f64::from(told.sum).ln();
        if finish_all || self.finishes(live.held) {
            for &(item, score) in &step.listed[told.listed.clone()] {
                let log_finish = f64::from(score - told.best) - log_sum;
                self.answer(item, live.score + log_finish, log_finish);
            }
            return;
        }
        self.children.extend(step.children[told.children.clone()].iter().map(|heavy| {
            // The sums of weights are rounded, so that a certain token's share may come out above one.
            let log_p = (f64::from(heavy.weight).ln() - log_sum).min(0.0);
            let token = Token { codebook: told.codebook, entry: heavy.entry };
            let child = Child { parent: path, token, log_p, score: live.score + log_p };
            Born { child, held: heavy.held, first: heavy.first }
        }));
    }

    fn answer(&mut self, item: ItemNumber, score: f64, log_finish: f64) {
        self.answers.add(Answer { standing: Standing::new(self.index, item, score), node: None, log_finish });
    }

    /// The best children become the live paths: as many as the beam is wide and CORP's reserve, and more while too few
    /// items are held. Children that cannot beat the k-th answer any more are left out.
    fn choose(&mut self, first_row: usize) {
        let settings = self.job.settings;
        let mut children = std::mem::take(&mut self.children);
        if let Some(kth) = self.answers.kth(self.job.k, None, &mut self.scores) {
            children.retain(|born| born.child.score as f32 >= kth);
        }
        let reserve = if self.job.corp_reads(self.depth + 1) { settings.reserve } else { 0 };
        let most = (settings.beam.max(self.needed) + reserve).min(children.len());
        let order = |one: &Born, other: &Born| one.child.order(&other.child);
        if most < children.len() {
            children.select_nth_unstable_by(most, order);
        }
        children[..most].sort_unstable_by(order);

        let lone_ends = !settings.full_path && settings.finish_at > 0 && !settings.corp;
        let (mut best, mut spare, mut covered) = (0, 0, self.answers.len());
        self.live.clear();
        self.lone = 0;
        for &Born { child, held, first } in &children[..most] {
            let within_beam = best < settings.beam || covered < self.needed;
            if !within_beam && spare == reserve {
                break;
            }
            if within_beam {
                (best, covered) = (best + 1, covered + held);
            } else {
                spare += 1;
            }
            if lone_ends && held == 1 {
                // Its only candidate is certain, whatever the decoder would say.
                self.answer(first, child.score, 0.0);
                self.lone += 1;
                continue;
            }
            let extends = Some((first_row + child.parent, child.token));
            self.live.push(Live { score: child.score, held, extends });
        }
        self.children = children;
    }
}

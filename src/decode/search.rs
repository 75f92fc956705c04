//! The search of one request, a step at a time.

use std::collections::HashSet;
use std::ops::Range;

use crate::catalog::{Candidates, Index};
use crate::domain::{ItemNumber, Token};

use super::answers::{Answer, Answers, Coverage, Standing};
use super::child::Child;
use super::corp::{Verdict, divergence, judge};
use super::groups::Groups;
use super::job::{DecodeJob, Outcome, Ranked};
use super::limits::Room;
use super::scoring::{Advance, PathState, TokenVectors};
use super::scratch::Scratch;
use super::settings::{Engine, Expansion};
use super::sums::{Refinement, Scored, Softmax};
use super::trail::{Reading, Trail, likeliest};
use super::watch::Part;

/// A path that is being read or has just been read.
#[derive(Debug, Clone)]
pub(super) struct Live {
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

/// Where a step's paths find their candidates.
#[derive(Clone, Copy)]
enum Source<'s> {
    /// `<BOS>`: these items, and s(i) of every item of the catalogue.
    Root(&'s Candidates, &'s [f32]),
    /// `<BOS>`, of a shortlist, by the tokens of the codebook that is expanded.
    Groups(&'s Groups),
    /// The candidates of all live paths, one after another.
    Held(&'s Scored),
}

/// What a search grows, kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Memory {
    live: Vec<Live>,
    held: Scored,
    trail: Trail,
    answers: Answers,
}

/// One request on its way.
#[derive(Debug)]
pub(super) struct Search<'a> {
    job: &'a DecodeJob<'a>,
    index: &'a Index,
    /// Its place in the encoded batch.
    request: usize,
    /// Tokens in each live path.
    depth: usize,
    live: Vec<Live>,
    /// The candidates of all live paths, one after another.
    held: Scored,
    /// Paths of a single candidate that ended when they were chosen last, and count as if they were read now: the search
    /// goes the same way whether paths are told, for which all are read, or not.
    lone: usize,
    /// The items that alone are ranked, lowest number first, where a draft says which.
    drafted: Option<Vec<ItemNumber>>,
    trail: Trail,
    answers: Answers,
    outcome: Outcome,
    /// Items that the answer must hold in the end.
    needed: usize,
}

impl<'a> Search<'a> {
    /// A search that is about to read `<BOS>`, in the memory of one that is over. The job wants items and has candidates.
    pub(super) fn new(job: &'a DecodeJob<'a>, index: &'a Index, request: usize, memory: Memory) -> Self {
        let Memory { mut live, held, mut trail, mut answers } = memory;
        live.clear();
        live.push(Live { node: None, used: 0, score: 0.0, held: 0..0, extends: None });
        trail.clear();
        answers.reset(job.settings.expansion == Expansion::Flat);
        let needed = job.needed(index);
        Self {
            job,
            index,
            request,
            depth: 0,
            live,
            held,
            lone: 0,
            drafted: None,
            trail,
            answers,
            outcome: Outcome { short: needed < job.k, ..Outcome::default() },
            needed,
        }
    }

    /// Whether no path is left to read.
    pub(super) fn is_over(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether anybody reads the category beliefs of its paths.
    pub(super) fn reads_beliefs(&self) -> bool {
        self.job.explain || (self.job.settings.corp && !self.drafts())
    }

    /// Whether it ranks the scorer's best items and no others.
    fn drafts(&self) -> bool {
        self.job.settings.engine == Engine::Draft
    }

    /// The paths to read next; none when the search is over.
    pub(super) fn rows(&self) -> impl Iterator<Item = Advance> + '_ {
        self.live.iter().map(|path| Advance { request: self.request, extends: path.extends })
    }

    /// Takes in what was read after `<BOS>`, row `first_row` of the advance, and chooses the paths to read next. `scores`
    /// holds s of every item of the index, the job's bias not yet in it.
    pub(super) fn begin(
        &mut self,
        state: &PathState,
        first_row: usize,
        scores: &mut [f32],
        tokens: TokenVectors<'_>,
        scratch: &mut Scratch,
    ) {
        self.outcome.passes += 1;
        self.outcome.non_finite += scratch.ready(scores, self.index, self.job);
        if self.job.explain {
            self.trail.begin(&state.attention);
        }
        let shortened = self.shorten(scores, scratch);
        self.live[0].held = 0..scratch.root.numbers.len();
        let finish_all = self.all_finish(&[0]);
        scratch.children.clear();
        // Moved out for the step, so that reading it does not lock the scratch.
        let held = std::mem::take(&mut scratch.root);
        self.read(0, state, &held, tokens, finish_all, scratch);
        let expanded = scratch.children.first().map(|child| child.token.codebook);
        let job = self.job;
        match expanded.filter(|_| shortened) {
            Some(_) if job.settings.expansion == Expansion::Flat => {
                self.choose(first_row, Source::Held(&held), scratch);
            }
            Some(codebook) => {
                scratch.watch.turns_to(Part::Index);
                let mut groups = std::mem::take(&mut scratch.groups);
                groups.group(&held, self.index.codes(), codebook);
                self.choose(first_row, Source::Groups(&groups), scratch);
                scratch.groups = groups;
            }
            None => self.choose(first_row, Source::Root(job.root, scores), scratch),
        }
        scratch.root = held;
        self.depth += 1;
    }

    /// Takes in what was read of the live paths: prunes, finishes, and chooses the paths to read next. `states` are those
    /// of [`rows`](Self::rows), the first of them row `first_row` of the advance; `before` are all states of the advance
    /// before.
    pub(super) fn step(
        &mut self,
        states: &[PathState],
        first_row: usize,
        before: &[PathState],
        tokens: TokenVectors<'_>,
        scratch: &mut Scratch,
    ) {
        self.outcome.passes += 1;
        scratch.watch.turns_to(Part::Selection);
        let mut kept = std::mem::take(&mut scratch.kept);
        self.prune(states, before, &mut scratch.verdicts, &mut kept);
        let finish_all = self.all_finish(&kept);
        scratch.children.clear();
        // Moved out for the step, so that reading them does not lock the search.
        let held = std::mem::take(&mut self.held);
        for &path in &kept {
            self.read(path, &states[path], &held, tokens, finish_all, scratch);
        }
        self.choose(first_row, Source::Held(&held), scratch);
        (scratch.held, scratch.kept) = (held, kept);
        self.depth += 1;
    }

    /// The answer, best items first, and the memory for another search.
    pub(super) fn finish(mut self) -> (Outcome, Memory) {
        let (explain, events, trail) = (self.job.explain, self.job.history.len(), &self.trail);
        let ranked = |answer: &Answer| Ranked {
            item: answer.standing.item,
            score: answer.standing.score,
            path: explain.then(|| trail.path(answer.node, answer.log_finish, events)),
        };
        self.outcome.items = self.answers.best(self.job.k, self.job.room(self.index)).map(ranked).collect();
        let Self { live, held, trail, answers, outcome, .. } = self;
        (outcome, Memory { live, held, trail, answers })
    }

    /// Lists the root's candidates or the shortlist of them in the scratch, and answers whether it is one; for a draft, its
    /// items are noted.
    fn shorten(&mut self, scores: &[f32], scratch: &mut Scratch) -> bool {
        let shortened = scratch.list(scores, self.job.root.len(), self.job.looked_at());
        let room = self.job.room(self.index);
        if let Some(room) = room.as_ref().filter(|_| shortened) {
            scratch.list_within(room, self.job.k, scores, self.index);
        }
        if self.drafts() {
            self.drafted = Some(self.draft(room, scratch));
        }
        shortened
    }

    /// The items that a draft ranks, lowest number first. Limits hold for it, too, in proportion to its length, so that it has
    /// more of each kind than can be answered, and what can be answered at least.
    fn draft(&self, room: Option<Room<'_>>, scratch: &mut Scratch) -> Vec<ItemNumber> {
        let (count, k) = (self.job.drafted(), self.job.k);
        let Some(room) = room else { return scratch.best(count, self.index, None) };
        let mut numbers = scratch.best(k, self.index, Some(&room));
        numbers.extend(scratch.best(count, self.index, Some(&room.wider(count, k))));
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// CORP. `kept` takes the places of the live paths that go on, best first.
    fn prune(
        &mut self,
        states: &[PathState],
        before: &[PathState],
        verdicts: &mut Vec<Verdict>,
        kept: &mut Vec<usize>,
    ) {
        let settings = self.job.settings;
        let compared = self.job.corp_reads(self.depth);
        let told = self.job.explain && self.depth > 1;
        verdicts.clear();
        verdicts.extend(self.live.iter().zip(states).map(|(path, state)| {
            let parent = path.extends.filter(|_| compared || told);
            let divergence = parent.map(|(row, _)| divergence(&before[row].beliefs, &state.beliefs));
            let inconsistent = compared && divergence.is_some_and(|js| js > settings.theta);
            Verdict { divergence, inconsistent, kept: !compared }
        }));
        if compared {
            let mut coverage = Coverage::of(&self.answers, settings.expansion, self.job.room(self.index));
            let needed = self.needed;
            judge(verdicts, settings.beam, |path| {
                if let Some(path) = path {
                    coverage.add(&self.held.numbers[self.live[path].held.clone()]);
                }
                coverage.len() >= needed
            });
            self.outcome.pruned += verdicts.iter().filter(|verdict| verdict.pruned()).count() as u32;
        }
        if self.job.explain {
            self.note(states, verdicts);
            for (path, _) in self.live.iter().zip(verdicts.iter()).filter(|(_, verdict)| verdict.pruned()) {
                self.outcome.pruned_items.extend_from_slice(&self.held.numbers[path.held.clone()]);
            }
        }
        kept.clear();
        kept.extend((0..self.live.len()).filter(|&path| verdicts[path].kept));
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
                attention: states[at].attention.clone(),
            };
            self.trail.note(node, reading);
        }
    }

    /// Whether all kept paths are finished at this step.
    fn all_finish(&self, kept: &[usize]) -> bool {
        let settings = self.job.settings;
        let held = self.lone + kept.iter().map(|&path| self.live[path].held.len()).sum::<usize>();
        self.depth == self.index.codes().shape().codebooks || (!settings.full_path && held <= self.job.few())
    }

    /// Reads one path: its candidates become answers, or its children are listed.
    fn read(
        &mut self,
        path: usize,
        state: &PathState,
        held: &Scored,
        tokens: TokenVectors<'_>,
        finish_all: bool,
        scratch: &mut Scratch,
    ) {
        scratch.watch.turns_to(Part::Marginals);
        let codes = self.index.codes();
        let (settings, live) = (self.job.settings, &self.live[path]);
        let numbers = &held.numbers[live.held.clone()];
        let scores = &held.scores[live.held.clone()];
        let refinement = Refinement { query: &state.refinement, tokens, codes, used: live.used };
        self.outcome.non_finite += refinement.refine(numbers, scores, &mut scratch.table, &mut scratch.refined);
        let softmax = Softmax::over(&scratch.refined, &mut scratch.weights);

        if finish_all || (!settings.full_path && numbers.len() <= settings.finish_at) {
            scratch.watch.turns_to(Part::Selection);
            for (&item, &score) in numbers.iter().zip(&scratch.refined) {
                if self.is_ranked(item) {
                    let log_finish = softmax.log_share(score);
                    let standing = Standing::new(self.index, item, live.score + log_finish);
                    self.answers.add(Answer { standing, node: live.node, log_finish });
                }
            }
            return;
        }
        scratch.marginals.fill(codes, live.used, numbers, &scratch.weights);
        scratch.watch.turns_to(Part::Selection);
        let first = scratch.children.len();
        // Walked back to only where an order is drawn by it.
        let salt = if settings.expansion == Expansion::Random { self.trail.salt(live.node) } else { 0 };
        let children = scratch.marginals.children(codes, live.used, settings.expansion, salt);
        scratch.children.extend(children.map(|(token, weight)| {
            // The sums of weights are rounded, so that a certain token's share may come out above one.
            let log_p = softmax.log_share_of_weight(weight).min(0.0);
            Child { parent: path, token, log_p, score: live.score + log_p }
        }));
        if let Some(drafted) = &self.drafted {
            let here = drafted.iter().filter(|item| numbers.binary_search(item).is_ok());
            scratch.marginals.keep_tokens_of(codes, here.copied());
            let marginals = &scratch.marginals;
            let mut at = 0;
            scratch.children.retain(|child| {
                at += 1;
                at <= first || marginals.keeps(codes, child.token)
            });
        }
    }

    /// Whether the item may be answered: any, unless there is a draft.
    fn is_ranked(&self, item: ItemNumber) -> bool {
        self.drafted.as_ref().is_none_or(|drafted| drafted.binary_search(&item).is_ok())
    }

    /// The best children become the live paths: as many as the beam is wide and CORP's reserve, and more while too few
    /// items are held. Children that cannot beat the k-th answer any more are left out: no item's score is above its
    /// path's.
    fn choose(&mut self, first_row: usize, source: Source<'_>, scratch: &mut Scratch) {
        scratch.watch.turns_to(Part::Selection);
        let settings = self.job.settings;
        // Every path to a drafted item is followed.
        let beam = if self.drafts() { usize::MAX } else { settings.beam };
        let room = self.job.room(self.index);
        if let Some(kth) = self.answers.kth(self.job.k, room.clone(), &mut scratch.scores) {
            scratch.children.retain(|child| child.score as f32 >= kth);
        }
        let children = &mut scratch.children;
        // As a rule the beam is filled from the best few; the rest is sorted only when it is needed.
        let mut sorted = children.len().min(beam.saturating_add(settings.reserve).saturating_mul(4));
        if sorted < children.len() {
            children.select_nth_unstable_by(sorted, Child::order);
        }
        children[..sorted].sort_unstable_by(Child::order);

        let reserve = if self.job.corp_reads(self.depth + 1) { settings.reserve } else { 0 };
        let needed = self.needed;
        // Twice the share of the beam that a limit is of the answer: what is beyond could hardly be answered.
        let (times, by) = (2 * settings.beam.max(self.job.k), self.job.k);
        let mut places = room.clone().filter(|_| !self.drafts()).map(|room| room.wider(times, by));
        let mut coverage = Coverage::of(&self.answers, settings.expansion, room);
        let mut sets = HashSet::new();
        let (mut best, mut spare) = (0, 0);
        let lone_ends = !settings.full_path && settings.finish_at > 0 && !self.reads_beliefs();
        let mut lone = std::mem::take(&mut scratch.ended);
        let mut next = std::mem::take(&mut scratch.live);
        let mut next_held = std::mem::take(&mut scratch.held);
        next.clear();
        next_held.clear();
        for at in 0..children.len() {
            if at == sorted {
                children[at..].sort_unstable_by(Child::order);
                sorted = children.len();
            }
            let child = children[at];
            let within_beam = best < beam || coverage.len() < needed;
            if !within_beam && spare == reserve {
                break;
            }
            let parent = &self.live[child.parent];
            if settings.expansion == Expansion::Flat && !sets.insert(self.trail.token_set(parent.node, child.token)) {
                continue;
            }
            let start = next_held.numbers.len();
            scratch.watch.turns_to(Part::Index);
            self.narrow(source, parent.held.clone(), child.token, &mut next_held);
            scratch.watch.turns_to(Part::Selection);
            let range = start..next_held.numbers.len();
            let held = &next_held.numbers[range.clone()];
            let counts = within_beam && coverage.add(held);
            let placed = |places: &mut Room<'_>| (best < beam || !within_beam) && places.take_path(held);
            if !places.as_mut().is_none_or(placed) && !counts {
                // Its kind has its places, and nothing of it is needed.
                next_held.numbers.truncate(start);
                next_held.scores.truncate(start);
                continue;
            }
            *(if within_beam { &mut best } else { &mut spare }) += 1;
            let node = Some(self.trail.choose(parent.node, child.token, child.log_p));
            if let (true, &[item]) = (lone_ends, &next_held.numbers[range.clone()]) {
                // Its only candidate is certain, whatever the decoder would say.
                let standing = Standing::new(self.index, item, child.score);
                lone.push(Answer { standing, node, log_finish: 0.0 });
                next_held.numbers.truncate(start);
                next_held.scores.truncate(start);
                continue;
            }
            next.push(Live {
                node,
                used: parent.used | 1 << child.token.codebook,
                score: child.score,
                held: range,
                extends: Some((first_row + child.parent, child.token)),
            });
        }
        if self.depth + 1 == self.index.codes().shape().codebooks && !self.reads_beliefs() {
            // Nothing that the decoder says of a whole path tells its candidates apart.
            for path in next.drain(..) {
                let softmax = Softmax::of(&next_held.scores[path.held.clone()], 1);
                for (&item, &score) in next_held.numbers[path.held.clone()].iter().zip(&next_held.scores[path.held]) {
                    let log_finish = softmax.log_share(score);
                    let standing = Standing::new(self.index, item, path.score + log_finish);
                    lone.push(Answer { standing, node: path.node, log_finish });
                }
            }
        }
        self.lone = lone.len();
        lone.drain(..).for_each(|answer| {
            if self.is_ranked(answer.standing.item) {
                self.answers.add(answer);
            }
        });
        scratch.ended = lone;
        scratch.live = std::mem::replace(&mut self.live, next);
        scratch.held = std::mem::replace(&mut self.held, next_held);
    }

    /// Appends to `out` those of a path's candidates that hold the token. For the root, whose list is the catalogue,
    /// the token's postings are walked instead.
    fn narrow(&self, source: Source<'_>, range: Range<usize>, token: Token, out: &mut Scored) {
        match source {
            Source::Root(root, scores) => {
                let holders = self.index.postings(token).iter().filter(|&number| root.contains(number));
                holders.for_each(|number| out.push(number, scores[number as usize]));
            }
            Source::Groups(groups) => {
                let (numbers, scores) = groups.of(token);
                out.numbers.extend_from_slice(numbers);
                out.scores.extend_from_slice(scores);
            }
            Source::Held(held) => {
                let items = held.numbers[range.clone()].iter().zip(&held.scores[range]);
                let codes = self.index.codes();
                match codes.bytes() {
                    Some(bytes) => {
                        let (width, codebook) = (codes.shape().codebooks, usize::from(token.codebook));
                        let entry = |number: ItemNumber| u16::from(bytes[number as usize * width + codebook]);
                        let holders = items.filter(|(number, _)| entry(**number) == token.entry);
                        holders.for_each(|(&number, &score)| out.push(number, score));
                    }
                    None => {
                        let holders = items.filter(|(number, _)| codes.holds(**number, token));
                        holders.for_each(|(&number, &score)| out.push(number, score));
                    }
                }
            }
        }
    }
}

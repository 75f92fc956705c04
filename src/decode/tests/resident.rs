//! A network that goes through candidates itself, made of tables: the search answers as it does from path states.

use std::convert::Infallible;
use std::ops::Range;

use crate::catalog::{Candidates, Index};
use crate::decode::{
    Advance, Ask, Bias, DecodeError, DecodeJob, DecodeSettings, Depth, Heavy, Limits, Opening, Outcome, PathModel,
    PathState, Placement, ResidentModel, Step, TokenVectors, Told, decode, divergence,
};
use crate::domain::{CodeShape, CodeTable, Filter, History, ItemNumber, Token};

use super::fake::{Fake, everything, history, random_catalogue};

/// The fake, with its candidates beside it.
struct Resident {
    fake: Fake,
    codes: CodeTable,
    /// Of each request: s of all items, bias and all; none for those that are no candidates.
    scores: Vec<Vec<Option<f32>>>,
    /// Of the last step's paths: tokens, and beliefs.
    paths: Vec<(Vec<Token>, Vec<f32>)>,
    /// How often paths were read here, and by `advance`.
    reads: usize,
    /// A step forgets the last path's candidates.
    forgets: bool,
}

impl Resident {
    fn new(fake: Fake, index: &Index) -> Self {
        Self { fake, codes: index.codes().clone(), scores: vec![], paths: vec![], reads: 0, forgets: false }
    }

    /// A path's candidates and their s_t, lowest number first.
    fn candidates(&self, request: usize, tokens: &[Token], state: &PathState) -> Vec<(ItemNumber, f32)> {
        let shape = self.codes.shape();
        let of = |(item, score): (usize, &Option<f32>)| {
            let code = self.codes.code(item as ItemNumber);
            let held = tokens.iter().all(|token| code[usize::from(token.codebook)] == token.entry);
            let unused = (0..shape.codebooks).filter(|r| tokens.iter().all(|token| usize::from(token.codebook) != *r));
            let said: f32 = unused.map(|r| state.refinement[r * shape.entries + usize::from(code[r])]).sum();
            score.filter(|_| held).map(|score| (item as ItemNumber, score + said))
        };
        self.scores[request].iter().enumerate().filter_map(of).collect()
    }
}

impl PathModel for Resident {
    type Error = Infallible;

    fn shape(&self) -> CodeShape {
        self.fake.shape()
    }

    fn categories(&self) -> usize {
        self.fake.categories()
    }

    fn token_vectors(&self) -> TokenVectors<'_> {
        self.fake.token_vectors()
    }

    fn resident(&mut self) -> Option<&mut dyn ResidentModel<Error = Infallible>> {
        Some(self)
    }

    fn encode(&mut self, histories: &[&History]) -> Result<(), Infallible> {
        self.fake.encode(histories)
    }

    fn score_items(&mut self, requests: Range<usize>, scores: &mut [f32]) -> Result<(), Infallible> {
        self.fake.score_items(requests, scores)
    }

    fn advance(&mut self, rows: &[Advance], beliefs: bool) -> Result<Vec<PathState>, Infallible> {
        self.fake.advance(rows, beliefs)
    }

    fn place(&mut self, codes: &CodeTable, placed: &[Placement]) -> Result<(), Infallible> {
        self.codes = codes.clone();
        self.fake.place(codes, placed)
    }
}

impl ResidentModel for Resident {
    type Error = Infallible;

    fn open(&mut self, requests: &[Opening<'_>]) -> Result<(), Infallible> {
        let items = self.codes.items();
        let mut all = vec![0.0; requests.len() * items];
        self.fake.score_items(0..requests.len(), &mut all)?;
        let open = |(opening, scores): (&Opening<'_>, &[f32])| {
            let of = |item: usize| {
                let word = opening.eligible.get(item / 64).copied().unwrap_or(0);
                let nats = opening.bias.as_ref().map_or(0.0, |bias| bias[item]);
                (word >> (item % 64) & 1 == 1).then_some(scores[item] + nats)
            };
            let mut found: Vec<Option<f32>> = (0..items).map(of).collect();
            if let Some(count) = opening.shortlist {
                let mut best: Vec<f32> = found.iter().flatten().copied().collect();
                best.sort_by(|one, other| other.total_cmp(one));
                found.iter_mut().for_each(|score| *score = score.filter(|score| *score >= best[count - 1]));
            }
            found
        };
        self.scores = requests.iter().zip(all.chunks(items)).map(open).collect();
        self.paths.clear();
        Ok(())
    }

    fn read(&mut self, asks: &[Ask], depth: Depth) -> Result<Step, Infallible> {
        self.reads += 1;
        let rows: Vec<Advance> = asks.iter().map(|ask| ask.path).collect();
        let states = self.fake.advance(&rows, true)?;
        let (mut step, mut paths) = (Step::default(), Vec::new());
        for (ask, state) in asks.iter().zip(states) {
            let before = ask.path.extends.map(|(parent, token)| (self.paths[parent].clone(), token));
            let tokens = before.iter().flat_map(|((tokens, _), token)| tokens.iter().chain([token])).copied();
            let tokens: Vec<Token> = tokens.collect();
            let found = self.candidates(ask.path.request, &tokens, &state);
            let shape = self.codes.shape();
            let best = found.iter().map(|(_, score)| *score).fold(f32::MIN, f32::max);
            let mut held = vec![vec![Vec::new(); shape.entries]; shape.codebooks];
            for &(item, score) in &found {
                for (r, &entry) in self.codes.code(item).iter().enumerate() {
                    held[r][usize::from(entry)].push((item, (score - best).exp()));
                }
            }
            let weight = |items: &Vec<(ItemNumber, f32)>| items.iter().map(|(_, weight)| weight).sum::<f32>();
            let surest = |r: usize| held[r].iter().map(weight).fold(0.0, f32::max);
            let unused = (0..shape.codebooks).filter(|r| tokens.iter().all(|token| usize::from(token.codebook) != *r));
            let codebook = unused.reduce(|one, other| if surest(other) > surest(one) { other } else { one });
            let codebook = codebook.unwrap_or(0);
            let heavy = |(entry, items): (usize, &Vec<(ItemNumber, f32)>)| {
                let first = items.first()?.0;
                Some(Heavy { entry: entry as u16, weight: weight(items), held: items.len(), first })
            };
            let mut children: Vec<Heavy> = held[codebook].iter().enumerate().filter_map(heavy).collect();
            children.sort_by(|one, other| other.weight.total_cmp(&one.weight).then(one.entry.cmp(&other.entry)));
            children.truncate(if tokens.len() < shape.codebooks { depth.children } else { 0 });
            if let Some(count) = ask.listed {
                assert_eq!(count, found.len(), "the search knows how many candidates a path has");
            }
            let (first_child, first_listed) = (step.children.len(), step.listed.len());
            step.children.extend(children);
            step.listed.extend(found.iter().filter(|_| ask.listed.is_some()));
            let compared = before.filter(|_| depth.divergences);
            step.paths.push(Told {
                best,
                sum: found.iter().map(|(_, score)| (score - best).exp()).sum(),
                codebook: codebook as u8,
                children: first_child..step.children.len(),
                listed: first_listed..step.listed.len(),
                divergence: compared.map_or(0.0, |((_, beliefs), _)| divergence(&beliefs, &state.beliefs)),
                non_finite: 0,
            });
            paths.push((tokens, state.beliefs));
        }
        self.paths = paths;
        if self.forgets {
            let last = step.paths.last_mut().filter(|told| !told.listed.is_empty());
            last.into_iter().for_each(|told| told.listed.end -= 1);
        }
        Ok(step)
    }
}

fn assert_same(one: &Outcome, other: &Outcome, about: &str) {
    let told = |outcome: &Outcome| (outcome.items.len(), outcome.short, outcome.pruned, outcome.non_finite);
    assert_eq!(told(one), told(other), "{about}");
    for (a, b) in one.items.iter().zip(&other.items) {
        assert!((a.score - b.score).abs() < 2e-5, "{about}: {} against {}", a.score, b.score);
        let again = other.items.iter().find(|item| item.item == a.item).expect("the same items");
        assert!((a.score - again.score).abs() < 2e-5, "{about}: {} against {}", a.score, again.score);
    }
}

#[test]
fn requests_get_what_they_get_from_path_states() {
    let base = DecodeSettings { beam: 6, reserve: 3, finish_at: 3, finish_together: 1, ..DecodeSettings::default() };
    let open = DecodeSettings { corp: false, ..base.clone() };
    let variants = [
        base.clone(),
        open.clone(),
        DecodeSettings { full_path: true, ..base.clone() },
        DecodeSettings { full_path: true, ..open.clone() },
        DecodeSettings { theta: 0.01, corp_from: 0, finish_together: 4, ..base.clone() },
        DecodeSettings { finish_at: 0, finish_together: 0, ..open.clone() },
        DecodeSettings { finish_at: 1, finish_together: 0, beam: 2, ..open.clone() },
        DecodeSettings { beam: 1, reserve: 0, ..base.clone() },
        DecodeSettings { shortlist: 90, ..open.clone() },
        DecodeSettings { shortlist: 40, finish_together: 0, ..base.clone() },
        DecodeSettings { beam: 60, finish_together: 0, ..base },
    ];
    for (seed, shape) in [(3, CodeShape { codebooks: 4, entries: 5 }), (4, CodeShape { codebooks: 3, entries: 16 })] {
        let index = random_catalogue(seed, 400, shape);
        let cheap = Filter { max_price: Some(250.0), ..Filter::default() };
        let roots = [everything(&index), index.root(&cheap, &[]), index.root(&Filter::default(), &[5, 9])];
        let liked = Bias {
            sets: vec![(Candidates::of(400, (0..400).step_by(3)), 0.7)],
            tokens: vec![(Token { codebook: 1, entry: 2 }, -0.4)],
            limits: Limits::default(),
        };
        let histories: Vec<History> = (0..33).map(history).collect();
        let jobs: Vec<DecodeJob> = (0..33)
            .map(|n| DecodeJob {
                history: &histories[n],
                k: [10, 1, 30][n % 3],
                root: &roots[n / 11],
                settings: &variants[n % 11],
                explain: false,
                bias: (n % 2 == 1).then_some(&liked),
            })
            .collect();
        let mut model = Fake::random(seed, &index, 1.0);
        let plain = decode(&mut model, &index, &jobs, &|_| true).unwrap();
        let mut resident = Resident::new(model, &index);
        let found = decode(&mut resident, &index, &jobs, &|_| true).unwrap();
        assert!(resident.reads > 2);
        for (n, (one, other)) in found.iter().zip(&plain).enumerate() {
            let (one, other) = (one.as_ref().unwrap(), other.as_ref().unwrap());
            assert_same(one, other, &format!("job {n} of {shape:?}"));
            assert!(one.passes <= other.passes + 1, "{} passes for {}", one.passes, other.passes);
            let alone = decode(&mut resident, &index, &[jobs[n]], &|_| true).unwrap();
            assert_eq!(alone[0].as_ref(), Some(one), "job {n} alone");
        }
    }
}

#[test]
fn requests_that_want_more_are_searched_from_path_states() {
    let index = random_catalogue(7, 300, CodeShape { codebooks: 4, entries: 5 });
    let (history, root) = (history(1), everything(&index));
    let base = DecodeSettings { beam: 6, finish_together: 1, ..DecodeSettings::default() };
    // So few that they are answered before the first token.
    let short = DecodeSettings { shortlist: 8, ..base.clone() };
    let limited = Bias { limits: Limits { per_category: Some(3), ..Limits::default() }, ..Bias::default() };
    let job = |settings, explain, bias| DecodeJob { history: &history, k: 10, root: &root, settings, explain, bias };
    let jobs =
        [job(&base, true, None), job(&short, false, None), job(&base, false, Some(&limited)), job(&base, false, None)];
    let mut model = Fake::random(7, &index, 1.0);
    let plain = decode(&mut model, &index, &jobs, &|_| true).unwrap();
    let mut resident = Resident::new(model, &index);
    for (n, job) in jobs.iter().enumerate() {
        resident.reads = 0;
        let found = decode(&mut resident, &index, &[*job], &|_| true).unwrap();
        assert_eq!(resident.reads > 0, n == 3, "job {n}");
        assert_same(found[0].as_ref().unwrap(), plain[n].as_ref().unwrap(), &format!("job {n}"));
    }
    let together = decode(&mut resident, &index, &jobs, &|_| true).unwrap();
    for (n, (one, other)) in together.iter().zip(&plain).enumerate() {
        assert_same(one.as_ref().unwrap(), other.as_ref().unwrap(), &format!("job {n} among others"));
    }
    let dropped = decode(&mut resident, &index, &jobs, &|n| n != 3).unwrap();
    assert!(dropped[3].is_none() && dropped[..3].iter().all(Option::is_some));
}

#[test]
fn a_step_that_lacks_what_was_asked_for_is_an_error() {
    let index = random_catalogue(7, 300, CodeShape { codebooks: 4, entries: 5 });
    let (history, root) = (history(1), everything(&index));
    let settings = DecodeSettings { beam: 6, finish_together: 1, ..DecodeSettings::default() };
    let job = DecodeJob { history: &history, k: 10, root: &root, settings: &settings, explain: false, bias: None };
    let mut resident = Resident::new(Fake::random(7, &index, 1.0), &index);
    resident.forgets = true;
    let refused = decode(&mut resident, &index, &[job], &|_| true);
    assert!(matches!(refused, Err(DecodeError::Shape { what: "a path's candidates", .. })), "{refused:?}");
}

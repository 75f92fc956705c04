//! Once its memory is found, a search asks for no more.

use allocation_counter::measure;

use crate::decode::scratch::Scratch;
use crate::decode::search::{Memory, Search};
use crate::decode::{Advance, DecodeJob, DecodeSettings, Engine, Outcome, PathModel, PathState};
use crate::domain::CodeShape;

use super::fake::{Fake, everything, history, random_catalogue};

/// One whole search over what the network said; answers the outcome, the memory, and the allocations of its steps.
fn replay(
    job: &DecodeJob<'_>,
    index: &crate::catalog::Index,
    said: &[Vec<PathState>],
    model: &mut Fake,
    (scratch, memory): (&mut Scratch, Memory),
) -> (Outcome, Memory, u64) {
    model.encode(&[job.history]).unwrap();
    let mut scores = vec![0.0; index.len()];
    model.score_items(0..1, &mut scores).unwrap();
    let mut search = None;
    let counted = measure(|| {
        let search = search.insert(Search::new(job, index, 0, memory));
        search.begin(&said[0][0], 0, &mut scores, model.token_vectors(), scratch);
        for step in said.windows(2) {
            search.step(&step[1], 0, &step[0], model.token_vectors(), scratch);
        }
    });
    let search = search.unwrap();
    assert!(search.is_over());
    let (outcome, memory) = search.finish();
    (outcome, memory, counted.count_total)
}

/// What the network says in the course of a search.
fn said(job: &DecodeJob<'_>, index: &crate::catalog::Index, model: &mut Fake) -> Vec<Vec<PathState>> {
    model.encode(&[job.history]).unwrap();
    let mut scores = vec![0.0; index.len()];
    model.score_items(0..1, &mut scores).unwrap();
    let (mut scratch, mut said) = (Scratch::default(), Vec::<Vec<PathState>>::new());
    let mut search = Search::new(job, index, 0, Memory::default());
    while !search.is_over() {
        let rows: Vec<Advance> = search.rows().collect();
        let states = model.advance(&rows, false).unwrap();
        match said.last() {
            None => search.begin(&states[0], 0, &mut scores, model.token_vectors(), &mut scratch),
            Some(before) => search.step(&states, 0, before, model.token_vectors(), &mut scratch),
        }
        said.push(states);
    }
    said
}

#[test]
fn a_search_in_the_memory_of_another_allocates_nothing() {
    let shape = CodeShape { codebooks: 8, entries: 16 };
    let index = random_catalogue(3, 3000, shape);
    let mut model = Fake::random(3, &index, 1.0);
    let (root, histories) = (everything(&index), [history(1), history(2), history(3)]);
    let open = DecodeSettings { corp: false, finish_at: 2, finish_together: 1, ..DecodeSettings::default() };
    for settings in [open.clone(), DecodeSettings { full_path: true, ..open }] {
        let jobs = histories.each_ref().map(|history| DecodeJob {
            history,
            k: 10,
            root: &root,
            settings: &settings,
            explain: false,
            bias: None,
        });
        assert_eq!(settings.engine, Engine::Beam);
        let said = jobs.each_ref().map(|job| said(job, &index, &mut model));
        let (mut scratch, mut memory) = (Scratch::default(), Memory::default());
        let mut rounds = Vec::new();
        for _ in 0..3 {
            let mut round = Vec::new();
            for (job, said) in jobs.iter().zip(&said) {
                let (outcome, kept, count) = replay(job, &index, said, &mut model, (&mut scratch, memory));
                memory = kept;
                round.push((outcome, count));
            }
            rounds.push(round);
        }
        let allocations = |round: usize| rounds[round].iter().map(|(_, count)| *count).collect::<Vec<u64>>();
        assert!(allocations(0)[0] > 0, "nothing is counted");
        assert_eq!(allocations(2), [0, 0, 0]);
        for (first, last) in rounds[0].iter().zip(&rounds[2]) {
            assert_eq!(first.0, last.0);
        }
    }
}

//! CORP: pruning and roll-back, on a catalogue made by hand.

use crate::decode::{DecodeSettings, divergence};
use crate::domain::{CodeShape, Token};

use super::fake::{Fake, ItemQuery, TableState, alone, catalogue, everything};

const SHAPE: CodeShape = CodeShape { codebooks: 2, entries: 4 };

/// Items (0,0), (0,1), (0,2), (0,3) and (1,0). Codebook 0 is the surest; its token 0 is nearly certain, and the
/// entries of codebook 1 come in the order 0, 1, 2, 3. The belief jumps after the tokens of `jumps` (codebook 1).
fn scenario(jumps: &'static [u16]) -> (crate::catalog::Index, Fake) {
    let index = catalogue(SHAPE, vec![0, 0, 0, 1, 0, 2, 0, 3, 1, 0]);
    let query = |_| ItemQuery { token_scores: vec![4.0, 0.0, 0.0, 0.0, 1.0, 0.8, 0.6, 0.4], residual: vec![] };
    let read = move |_, tokens: &[Token]| {
        let jumped = tokens.iter().any(|token| token.codebook == 1 && jumps.contains(&token.entry));
        // Jumps differ in size: a higher entry jumps less.
        let size = 0.9 - 0.1 * tokens.last().map_or(0.0, |token| f32::from(token.entry));
        let beliefs = if jumped { vec![1.0 - size, size] } else { vec![1.0, 0.0] };
        TableState { token_refinements: vec![0.0; 8], beliefs, attention: Vec::new() }
    };
    let fake = Fake::of(&index, 2, 0, vec![], Box::new(query), Box::new(read));
    (index, fake)
}

fn settings() -> DecodeSettings {
    DecodeSettings { beam: 2, reserve: 1, full_path: true, ..DecodeSettings::default() }
}

fn found(jumps: &'static [u16], k: usize, settings: &DecodeSettings) -> (Vec<u32>, crate::decode::Outcome) {
    let (index, mut model) = scenario(jumps);
    let outcome = alone(&mut model, &index, &everything(&index), k, settings);
    (outcome.items.iter().map(|item| item.item).collect(), outcome)
}

#[test]
fn a_pruned_path_rolls_back_and_the_next_best_child_takes_its_place() {
    let (items, outcome) = found(&[], 2, &settings());
    assert_eq!((items, outcome.pruned), (vec![0, 1], 0));

    let (items, outcome) = found(&[0], 2, &settings());
    assert_eq!((items, outcome.pruned, outcome.short), (vec![1, 2], 1, false));
    let path = outcome.items[0].path.as_ref().unwrap();
    assert_eq!(path.steps[1].token, Token { codebook: 1, entry: 1 });
    assert_eq!(path.steps[1].pruned_siblings, 1);
    assert_eq!(path.steps[1].divergence, Some(0.0));
    assert!(!path.steps[1].inconsistent);
    assert_eq!(path.steps[0].divergence, None);
    assert_eq!(outcome.passes, 3, "no further pass was needed");
}

#[test]
fn without_corp_nothing_is_pruned() {
    let (items, outcome) = found(&[0, 1], 2, &DecodeSettings { corp: false, ..settings() });
    assert_eq!((items, outcome.pruned), (vec![0, 1], 0));
}

#[test]
fn the_least_inconsistent_are_kept_when_too_few_remain() {
    let (items, outcome) = found(&[0, 1, 2, 3], 2, &settings());
    // Three were read (beam and reserve); 2 and 1 jumped less than 0.
    assert_eq!((items, outcome.pruned, outcome.short), (vec![1, 2], 1, false));
    for item in &outcome.items {
        let step = &item.path.as_ref().unwrap().steps[1];
        assert!(step.inconsistent && step.divergence.unwrap() > 0.06);
        assert_eq!(step.pruned_siblings, 1);
    }
}

#[test]
fn pruning_never_makes_an_answer_short() {
    for k in 1..=5 {
        let (items, outcome) = found(&[0, 1, 2, 3], k, &settings());
        assert_eq!((items.len(), outcome.short), (k, false));
    }
}

#[test]
fn the_first_token_is_exempt_unless_asked() {
    // Codebook 0 after codebook 1 never happens here, so only the first step's belief could jump; it does not.
    let (_, outcome) = found(&[], 5, &DecodeSettings { corp_from: 0, ..settings() });
    assert_eq!(outcome.pruned, 0);

    let (index, mut model) = scenario(&[]);
    model.read = Box::new(|_, tokens: &[Token]| TableState {
        token_refinements: vec![0.0; 8],
        // After codebook 0's token 0 the belief jumps and stays.
        beliefs: if tokens.first().is_some_and(|t| t.entry == 0) { vec![0.0, 1.0] } else { vec![1.0, 0.0] },
        attention: Vec::new(),
    });
    let root = everything(&index);
    let exempt = alone(&mut model, &index, &root, 1, &DecodeSettings { beam: 1, ..settings() });
    assert_eq!((exempt.items[0].item, exempt.pruned), (0, 0));
    let strict = alone(&mut model, &index, &root, 1, &DecodeSettings { beam: 1, corp_from: 0, ..settings() });
    assert_eq!((strict.items[0].item, strict.pruned), (4, 1));
}

#[test]
fn divergence_is_zero_for_equals_and_ln_2_for_strangers() {
    assert_eq!(divergence(&[0.25, 0.75], &[0.25, 0.75]), 0.0);
    assert_eq!(divergence(&[1.0, 0.0], &[0.0, 1.0]), std::f32::consts::LN_2);
    // By hand: m = (.7, .3); (.9 ln(.9/.7) + .1 ln(.1/.3) + .5 ln(.5/.7) + .5 ln(.5/.3)) / 2.
    assert!((divergence(&[0.9, 0.1], &[0.5, 0.5]) - 0.101_755).abs() < 1e-5);
    assert_eq!(divergence(&[0.9, 0.1], &[0.5, 0.5]), divergence(&[0.5, 0.5], &[0.9, 0.1]));
}

#[test]
fn what_is_no_distribution_is_as_far_as_can_be() {
    for broken in [vec![f32::NAN, 1.0], vec![f32::INFINITY, 0.0], vec![-0.5, 0.2], vec![1.0]] {
        assert_eq!(divergence(&broken, &[0.5, 0.5]), std::f32::consts::LN_2);
    }
}

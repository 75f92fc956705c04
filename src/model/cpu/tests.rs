//! Histories that threads share.

#![allow(clippy::unwrap_used)]

use burn::backend::Flex;

use super::layers::Room;
use super::memory::EventMemory;
use super::network::{CpuNetwork, PathRow, Read, Said};
use crate::domain::{CodeShape, CodeTable, EventKind, HistoryEntry};
use crate::model::NetworkConfig;

const ITEMS: usize = 50;
const EVENTS: usize = 150;

fn config(encoder_layers: usize) -> NetworkConfig {
    NetworkConfig {
        items: ITEMS,
        codes: CodeShape { codebooks: 4, entries: 8 },
        width: 24,
        heads: 3,
        encoder_layers,
        decoder_layers: 2,
        feed_forward: 40,
        max_history: EVENTS,
        ..NetworkConfig::tiny()
    }
}

fn history(events: usize, first: u32) -> Vec<HistoryEntry> {
    let entry =
        |at: u32| HistoryEntry { item: (first + at * 7) % ITEMS as u32, kind: EventKind::ALL[0], time: at.into() };
    (0..events as u32).map(entry).collect()
}

/// h of some histories, read by so many threads, and what paths read of them afterwards; or h as it is read for scores alone.
fn read(network: &CpuNetwork, config: &NetworkConfig, histories: &[&[HistoryEntry]], threads: usize) -> [Vec<f32>; 3] {
    let mut rooms: Vec<Room> = (0..threads).map(|_| Room::default()).collect();
    let mut queries = vec![0.0; histories.len() * config.width];
    let mut for_scores = queries.clone();
    let mut memory: Vec<Vec<EventMemory>> = vec![Vec::new(); histories.len()];
    // A longer batch before leaves what is not to be seen.
    network.encode(&[&history(EVENTS, 3)], &mut rooms, &mut vec![0.0; config.width], Some(&mut [Vec::new()]));
    network.encode(histories, &mut rooms, &mut queries, Some(&mut memory));
    network.encode(histories, &mut rooms, &mut for_scores, None);

    let rows: Vec<PathRow> =
        (0..histories.len()).map(|request| PathRow { token: None, request, parent: None }).collect();
    let mut refinements = vec![0.0; rows.len() * config.width];
    let mut new = vec![vec![0.0; rows.len() * 2 * config.attention_width()]; network.blocks()];
    let mut new: Vec<&mut [f32]> = new.iter_mut().map(Vec::as_mut_slice).collect();
    let read = Read { step: 0, queries: &queries, history: &memory, past: vec![&[]; network.blocks()], parents: &[] };
    let said = Said { refinements: &mut refinements, beliefs: &mut [], attention: &mut [] };
    network.decode(&rows, &read, &mut rooms[0], &mut new, said);
    [queries, refinements, for_scores]
}

#[test]
fn histories_that_threads_share_are_read_as_by_one() {
    for layers in [0, 1, 3] {
        let config = config(layers);
        let entries = (0..ITEMS * 4).map(|at| (at * at % 8) as u16).collect();
        let codes = CodeTable::new(config.codes, entries).unwrap();
        let mut drawn = config.init::<Flex>(&Default::default());
        // Fresh path heads say nothing.
        drawn.refinement_head.weight = drawn.refinement_head.weight.map(|weight| weight.ones_like());
        let network = CpuNetwork::of(&drawn, &config, &codes).unwrap();
        let histories = [history(EVENTS, 0), history(1, 5), history(66, 9), history(5, 2)];
        let histories: Vec<&[HistoryEntry]> = histories.iter().map(Vec::as_slice).collect();
        let [queries, refinements, for_scores] = read(&network, &config, &histories, 1);
        assert!(queries.iter().chain(&refinements).all(|number| number.abs() > 0.0));
        for threads in [2, 3, 8] {
            let by_all = read(&network, &config, &histories, threads);
            assert_eq!(by_all[0], queries, "h, {layers} blocks, {threads} threads");
            assert_eq!(by_all[1], refinements, "what paths read, {layers} blocks, {threads} threads");
            for (one, all) in for_scores.iter().zip(&by_all[2]) {
                assert!((one - all).abs() < 1e-5, "{one} and {all}, {layers} blocks, {threads} threads");
            }
        }
    }
}

//! The network on a CPU, by loops of our own: burn's network stays the definition, and a test holds the two equal.
//!
//! A tensor library pays for every operation: allocation, dispatch, layout. At serving's sizes (tens of rows of 128
//! numbers) that is most of the time. Here weights are packed once, histories lie one after another without padding, the
//! positions of paths form a tree that nothing is copied in, and all memory is kept from batch to batch.

mod attention;
mod coarse;
mod encoder;
mod gemm;
mod items;
mod layers;
mod memory;
mod network;
mod scorer;
mod softmax;
#[cfg(test)]
mod tests;
mod vectors;

pub use scorer::CpuScorer;

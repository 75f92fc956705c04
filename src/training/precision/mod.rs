//! LADQ, layer-adaptive precision (design 3.6): which weights a step computes with in fewer bits. Sensitivities by K-FAC
//! traces, formats under a budget. On devices without a format it is emulated: weights are rounded to its values, products
//! and activations stay f32, and no speed is claimed.

mod assign;
mod format;
mod ladq;
mod layers;

pub use assign::{LayerFacts, assign};
pub use format::Format;
pub use ladq::{Assignment, Ladq, LadqConfig, LadqReport, LadqState};
pub use layers::{Traces, finite, layers, rounded, traces};

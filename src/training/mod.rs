//! From events to a bundle: data sets, tokens, pre-training, fit, publish.

pub mod dataset;

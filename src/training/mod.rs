//! From events to a bundle: data sets, tokens, pre-training, fit, publish; the sidecar that refreshes bundles; run records and the report of them.

pub mod baseline;
pub mod classes;
pub mod cold_start;
pub mod dataset;
pub mod evaluate;
pub mod fit;
pub mod generate;
pub mod import;
pub mod newcomers;
pub mod posttrain;
pub mod precision;
pub mod preset;
pub mod pretrain;
pub mod record;
pub mod reflect;
pub mod report;
pub mod sidecar;

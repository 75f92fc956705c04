//! REG4Rec: an online recommendation service that writes a token path for the user's next item, and its trainer.
//!
//! The map of the house, in the order data flows:
//!
//! | room | what happens there |
//! |---|---|
//! | [`domain`] | the words: item, token, code, event, history, path, failure |
//! | [`wire`] | bytes to words and back; every field checked |
//! | [`events`] | the log of what users did, durable before it is acknowledged, and of what experiments showed them |
//! | [`history`] | the recent events of each user |
//! | [`catalog`] | items, eligibility, filters, the token index, and live changes over it with their log |
//! | [`decode`] | the engines: CRSS beam search with CORP and early finish, the exact scorer, the draft; no tensors |
//! | [`batch`] | admission, queue, batches by deadline |
//! | [`experiment`] | who gets which arm, what came of it, when to stop |
//! | [`tokenizer`] | item features and quantisers (MPQ, RQ-VAE, OPQ): feature vector to code |
//! | [`model`] | the network: encoder, scorer, path decoder, category head |
//! | [`artifact`] | the bundle: what serving needs from training, verified |
//! | [`engine`] | the one thread per device that owns networks |
//! | [`recommend`] | the online sentence: request, history, batch, engine, items, answer |
//! | [`rollout`] | from a bundle to a variant that serves, stage by stage; the registry's pointers, rollback |
//! | [`server`] | tonic services, health, metrics page, drain |
//! | [`training`] | data, tokens, pre-training, fit, publish, report |
//! | [`evaluation`] | metrics over the full catalogue, baselines, run records |
//! | [`config`] | one struct of every part's settings; refuses, never warns |

pub mod artifact;
pub mod batch;
pub mod catalog;
pub mod config;
pub mod decode;
pub mod domain;
pub mod engine;
#[cfg(feature = "train")]
pub mod evaluation;
pub mod events;
pub mod experiment;
pub mod history;
pub mod model;
pub mod recommend;
pub mod rollout;
pub mod server;
pub mod tokenizer;
#[cfg(feature = "train")]
pub mod training;
pub mod wire;

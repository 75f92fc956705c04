//! Facts about the live catalogue.

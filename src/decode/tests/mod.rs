//! Facts about the search, held with a network made of tables.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod allocation;
mod broken;
mod corp;
mod equalities;
mod fake;
mod limits;
mod naive;
mod near;
mod promises;
mod resident;
mod steering;
mod told;

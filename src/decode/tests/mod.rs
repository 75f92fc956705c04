//! Facts about the search.

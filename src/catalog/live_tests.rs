//! Facts about views and the log of changes.

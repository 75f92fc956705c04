//! What is logged, changed while the process runs.

use std::sync::{Mutex, PoisonError};

/// Puts new directives in the place of those that hold.
type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The process's log filter. Who set up the log hands it over, because only there is its type known.
pub struct LogFilter {
    directives: Mutex<String>,
    apply: Apply,
}

impl LogFilter {
    /// `directives` hold now; `apply` puts others in their place or says what is wrong with them.
    pub fn new(
        directives: impl Into<String>,
        apply: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { directives: Mutex::new(directives.into()), apply: Box::new(apply) }
    }

    /// Puts `directives` in force; answers those before.
    ///
    /// # Errors
    /// What is wrong with them; then those before go on.
    pub(super) fn set(&self, directives: &str) -> Result<String, String> {
        let mut now = self.directives.lock().unwrap_or_else(PoisonError::into_inner);
        (self.apply)(directives)?;
        Ok(std::mem::replace(&mut now, directives.to_owned()))
    }
}

impl std::fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let directives = self.directives.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("LogFilter").field("directives", &*directives).finish_non_exhaustive()
    }
}

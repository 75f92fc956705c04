//! What a decode is busy with, told to whoever has a clock: the search itself has none.

/// A part of a decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The encoder reads the histories.
    Encode,
    /// s(i) of all items.
    Scorer,
    /// The decoder reads paths.
    Passes,
    /// Items' probabilities after a path, and their sums by token.
    Marginals,
    /// Which paths are read next.
    Selection,
    /// The candidates of a request or of a path.
    Index,
    /// The answers, best first.
    Answers,
}

impl Part {
    /// Every part, in the order of the decode.
    pub const ALL: [Part; 7] =
        [Part::Encode, Part::Scorer, Part::Passes, Part::Marginals, Part::Selection, Part::Index, Part::Answers];
}

/// Tells, if anybody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watch(Option<fn(Part)>);

impl Watch {
    pub(super) fn by(tell: fn(Part)) -> Self {
        Self(Some(tell))
    }

    /// The decode turns to this part now.
    pub(super) fn turns_to(self, part: Part) {
        if let Some(tell) = self.0 {
            tell(part);
        }
    }
}

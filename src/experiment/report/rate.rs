//! A rate of one arm, sum of y over sum of x, with a variance by units: the requests of one unit are no independent draws.

/// What came of one unit so far: `y` (as answers clicked) of `x` (as answers shown; 1 for a mean per unit).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// The numerator.
    pub y: f64,
    /// The denominator; above 0.
    pub x: f64,
}

/// Sums over the units of an arm; a unit's outcome may change at any time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rate {
    units: u64,
    y: f64,
    x: f64,
    yy: f64,
    xy: f64,
    xx: f64,
}

impl Rate {
    /// A unit's outcome is `now`, where it was `before`; none: the unit is new.
    pub fn change(&mut self, before: Option<Outcome>, now: Outcome) {
        self.units += u64::from(before.is_none());
        let Outcome { y: was, x: of } = before.unwrap_or_default();
        let Outcome { y, x } = now;
        self.y += y - was;
        self.x += x - of;
        self.yy += y * y - was * was;
        self.xy += x * y - of * was;
        self.xx += x * x - of * of;
    }

    /// How many units there are.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// Sum of y over sum of x; none before the first unit.
    pub fn value(&self) -> Option<f64> {
        (self.x > 0.0).then(|| self.y / self.x)
    }

    /// The squared standard error of the rate r by the delta method over units (Deng, Knoblich and Lu, "Applying the delta
    /// method in metric analytics", KDD 2018): n / (n - 1) * sum (y - r x)^2 / (sum x)^2. None for fewer than 2 units.
    pub fn variance(&self) -> Option<f64> {
        let rate = self.value().filter(|_| self.units >= 2)?;
        let squares = (self.yy - 2.0 * rate * self.xy + rate * rate * self.xx).max(0.0);
        let units = self.units as f64;
        Some(units / (units - 1.0) * squares / (self.x * self.x))
    }
}

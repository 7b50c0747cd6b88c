//! Repeats of one measurement, and what is said of them: the median and the ends.

/// The repeats, sorted.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Takes one repeat's value.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// All values, the smallest first.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The value in the middle; of an even number, the mean of the two there. 0 when there is none.
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => 0.0,
            len if len % 2 == 1 => self.0[middle],
            _ => f64::midpoint(self.0[middle - 1], self.0[middle]),
        }
    }

    /// The smallest; 0 when there is none.
    pub fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    /// The largest; 0 when there is none.
    pub fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// The median, and the smallest and largest in parentheses.
    pub fn text(&self) -> String {
        let (least, most) = (short(self.least()), short(self.most()));
        format!("{} ({least}-{most})", short(self.median()))
    }
}

/// Three digits of a small number, all of those before the point of a large one.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

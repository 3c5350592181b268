//! Time on a machine that others use too: many short batches in turn, and their medians.

use std::time::Instant;

/// One way of doing something, to be timed beside others.
pub struct Lane<'a> {
    /// None where there is nothing to run; its figures are NaN.
    batch: Option<Box<dyn FnMut() + 'a>>,
    /// Nanoseconds of each batch, in the order they ran.
    times: Vec<f64>,
}

impl<'a> Lane<'a> {
    /// `batch` does the thing `operations` times (as [`run`] is told).
    pub fn new(batch: impl FnMut() + 'a) -> Self {
        Lane::maybe(Some(batch))
    }

    /// The same, where it may be that it cannot be done here.
    pub fn maybe(batch: Option<impl FnMut() + 'a>) -> Self {
        Lane { batch: batch.map(|batch| Box::new(batch) as _), times: Vec::new() }
    }
}

/// Nanoseconds an operation, per lane.
#[derive(Clone, Debug)]
pub struct Times {
    lanes: Vec<Vec<f64>>,
}

/// Runs the lanes in turn, `rounds` times, after a tenth as many rounds that do not count.
/// `operations` is what one batch does.
pub fn run(rounds: usize, operations: usize, lanes: &mut [Lane]) -> Times {
    for round in 0..rounds + rounds / 10 {
        for lane in &mut *lanes {
            let start = Instant::now();
            let took = match &mut lane.batch {
                Some(batch) => {
                    batch();
                    start.elapsed().as_nanos() as f64 / operations as f64
                }
                None => f64::NAN,
            };
            if round >= rounds / 10 {
                lane.times.push(took);
            }
        }
    }
    Times { lanes: lanes.iter_mut().map(|lane| std::mem::take(&mut lane.times)).collect() }
}

/// As [`run`], where each lane takes its own time and returns nanoseconds an operation.
pub fn turns(rounds: usize, lanes: &mut [Box<dyn FnMut() -> f64 + '_>]) -> Times {
    let mut times = vec![Vec::new(); lanes.len()];
    for round in 0..rounds + rounds / 10 {
        for (lane, times) in lanes.iter_mut().zip(&mut times) {
            let took = lane();
            if round >= rounds / 10 {
                times.push(took);
            }
        }
    }
    Times { lanes: times }
}

impl Times {
    /// The median of a lane.
    pub fn median(&self, lane: usize) -> f64 {
        median(self.lanes[lane].iter().copied())
    }

    /// The best batch of a lane.
    pub fn min(&self, lane: usize) -> f64 {
        self.lanes[lane].iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The median, over the rounds, of what `a` took over what `b` took.
    pub fn ratio(&self, a: usize, b: usize) -> f64 {
        median(self.lanes[a].iter().zip(&self.lanes[b]).map(|(a, b)| a / b))
    }

    /// The median, over the rounds, of what `a` took more than `b`.
    pub fn difference(&self, a: usize, b: usize) -> f64 {
        median(self.lanes[a].iter().zip(&self.lanes[b]).map(|(a, b)| a - b))
    }
}

/// The middle value.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

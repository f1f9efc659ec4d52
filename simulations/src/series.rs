//! Figures over time, for pictures: equal steps that double when there are too many of them, so a long
//! run takes no more room than a short one.

use protocol::{Span, Time};

/// Steps that are kept; one more, and each two become one.
pub const STEPS_MAX: usize = 1024;

/// Amounts that are added up in each step.
#[derive(Clone, PartialEq, Debug)]
pub struct Sums {
    step: Span,
    sums: Vec<u64>,
}

impl Sums {
    /// Nothing yet, in steps of this length.
    pub fn new(step: Span) -> Sums {
        Sums {
            step: Span(step.0.max(1)),
            sums: Vec::new(),
        }
    }

    /// Something came at a moment.
    pub fn add(&mut self, at: Time, amount: u64) {
        while at.0 / self.step.0 >= STEPS_MAX as u64 {
            self.step = Span(self.step.0 * 2);
            self.sums = self.sums.chunks(2).map(|two| two.iter().sum()).collect();
        }
        let step = (at.0 / self.step.0) as usize;
        if self.sums.len() <= step {
            self.sums.resize(step + 1, 0);
        }
        self.sums[step] += amount;
    }

    /// For each step when it began, in seconds, and how much came in a second of it.
    pub fn rates(&self) -> Vec<(f64, f64)> {
        let seconds = self.step.0 as f64 / 1000.0;
        let rate = |(n, sum): (usize, &u64)| (n as f64 * seconds, *sum as f64 / seconds);
        self.sums.iter().enumerate().map(rate).collect()
    }
}

/// Levels: what was last told in each step.
#[derive(Clone, PartialEq, Debug)]
pub struct Levels<T> {
    step: Span,
    levels: Vec<(Time, T)>,
}

impl<T: Copy + PartialEq> Levels<T> {
    /// Nothing yet, in steps of this length.
    pub fn new(step: Span) -> Levels<T> {
        Levels {
            step: Span(step.0.max(1)),
            levels: Vec::new(),
        }
    }

    /// The level from a moment on. What is told later is never earlier.
    pub fn set(&mut self, at: Time, level: T) {
        let step = self.step.0;
        match self.levels.last_mut() {
            Some(last) if last.1 == level => return,
            Some(last) if last.0.0 / step == at.0 / step => *last = (at, level),
            _ => self.levels.push((at, level)),
        }
        while self.levels.len() > STEPS_MAX {
            self.step = Span(self.step.0 * 2);
            let step = self.step.0;
            let all = std::mem::take(&mut self.levels);
            for (at, level) in all {
                match self.levels.last_mut() {
                    Some(last) if last.0.0 / step == at.0 / step => *last = (at, level),
                    _ => self.levels.push((at, level)),
                }
            }
        }
    }

    /// When each level began, and the level.
    pub fn levels(&self) -> &[(Time, T)] {
        &self.levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_kept_whole_when_steps_double() {
        let mut sums = Sums::new(Span::from_secs(1));
        for second in 0..5_000 {
            sums.add(Time::from_secs(second), 10);
        }
        let rates = sums.rates();
        assert!(rates.len() <= STEPS_MAX);
        assert_eq!(rates[1].0, 8.0, "steps of eight seconds");
        assert!(rates.iter().all(|(_, rate)| *rate == 10.0));
        sums.add(Time::from_secs(1), 80);
        assert_eq!(sums.rates()[0].1, 20.0, "late ones count too");
    }

    #[test]
    fn levels_keep_the_last_of_each_step() {
        let mut levels = Levels::new(Span::from_secs(1));
        for ms in [100, 200, 900, 1_100] {
            levels.set(Time(ms), ms);
        }
        levels.set(Time(1_200), 1_100);
        assert_eq!(levels.levels(), [(Time(900), 900), (Time(1_100), 1_100)]);
        for second in 2..5_000 {
            levels.set(Time::from_secs(second), second);
        }
        assert!(levels.levels().len() <= STEPS_MAX);
        assert_eq!(
            levels.levels().last(),
            Some(&(Time::from_secs(4_999), 4_999))
        );
    }
}

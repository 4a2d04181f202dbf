//! The numbers of progress messages: they must rise, whoever makes them.

use std::fmt::Write as _;

use crate::ids::epoch_ms;

/// One message on the way to an answer.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// How far it is.
    pub number: f64,
    /// Of how much, where that is known.
    pub total: Option<f64>,
    /// What happened.
    pub message: &'a str,
}

/// Where the numbers of one call's messages stand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Numbers {
    last: f64,
    /// The work numbers its own progress: whatever comes between must stay between.
    finely: bool,
}

/// What comes between two steps of the work moves by this.
const BETWEEN: f64 = 1e-9;

impl Numbers {
    /// Those of a call. How far they had come for one that was sent before nobody knows, but never more than one came
    /// each millisecond.
    pub fn new(resume: bool) -> Self {
        let last =
            if resume { u32::try_from(epoch_ms() / 1000).map_or(0.0, f64::from) * 1000.0 } else { 0.0 };
        Self { last, finely: false }
    }

    /// The work numbers its own progress, from zero on.
    pub fn leave_room(&mut self) {
        *self = Self { last: 0.0, finely: true };
    }

    /// The number of a message that has none of its own.
    pub fn rise(&mut self) -> f64 {
        let by = if self.finely { BETWEEN } else { 1.0 };
        let next = self.last + by;
        self.last = if next > self.last { next } else { self.last.next_up() };
        self.last
    }

    /// The number of a message that brings one; it is raised where it would not rise.
    pub fn at(&mut self, number: f64) -> f64 {
        if number > self.last {
            self.last = number;
            return number;
        }
        self.rise()
    }
}

/// Appends a number as people write it.
pub fn push_number(out: &mut String, number: f64) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{number}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_between_two_steps_stays_between() {
        let mut numbers = Numbers::default();
        numbers.leave_room();
        let told = [numbers.rise(), numbers.at(0.25), numbers.rise(), numbers.rise(), numbers.at(0.5)];
        assert!(told.is_sorted_by(|before, after| before < after), "{told:?}");
        assert_eq!((told[1], told[4]), (0.25, 0.5));
    }

    #[test]
    fn a_number_that_does_not_rise_is_raised() {
        let mut numbers = Numbers::default();
        numbers.leave_room();
        let told = [3.0, 3.0, 1.0, 1e300, 1e300, 4.0].map(|number| numbers.at(number));
        assert!(told.is_sorted_by(|before, after| before < after), "{told:?}");
    }

    #[test]
    fn whole_numbers_are_written_without_a_point() {
        let mut numbers = Numbers::default();
        let mut out = String::new();
        for number in [numbers.rise(), numbers.rise(), 0.25] {
            push_number(&mut out, number);
            out.push(' ');
        }
        assert_eq!(out, "1 2 0.25 ");
    }
}

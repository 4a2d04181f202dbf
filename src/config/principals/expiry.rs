//! When a principal's tokens stop being good.

use super::Wrong;

const DAY_MS: i64 = 86_400_000;

/// An instant of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    epoch_ms: i64,
}

impl Expiry {
    /// Reads a date, which begins at 00:00 UTC, or a time with its offset (RFC 3339).
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let read: toml::value::Datetime = text.parse().map_err(|_| Wrong::NotDate)?;
        let date = read.date.ok_or(Wrong::NotDate)?;
        let midnight = days(i64::from(date.year), i64::from(date.month), i64::from(date.day)) * DAY_MS;
        let Some(time) = read.time else { return Ok(Self { epoch_ms: midnight }) };
        // A time of which nobody says where would mean another instant on every machine.
        let minutes_ahead = match read.offset.ok_or(Wrong::NotDate)? {
            toml::value::Offset::Z => 0,
            toml::value::Offset::Custom { minutes } => i64::from(minutes),
        };
        let minutes = i64::from(time.hour) * 60 + i64::from(time.minute) - minutes_ahead;
        let ms =
            i64::from(time.second.unwrap_or(0)) * 1000 + i64::from(time.nanosecond.unwrap_or(0)) / 1_000_000;
        Ok(Self { epoch_ms: midnight + minutes * 60_000 + ms })
    }

    /// Whether it has come by then, in milliseconds since 1970.
    pub fn has_come(self, epoch_ms: u64) -> bool {
        i64::try_from(epoch_ms).unwrap_or(i64::MAX) >= self.epoch_ms
    }
}

/// Days from 1970-01-01 to a date, counted in eras of 400 years that begin on 1 March (H. Hinnant,
/// "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_begins_at_midnight_utc_and_a_time_has_an_offset() {
        for (text, epoch_ms) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400_000),
            ("2026-11-21T02:52:55.123Z", 1_795_229_575_123),
            ("2026-11-21t03:52:55.123+01:00", 1_795_229_575_123),
            ("2026-11-20T21:22:55.123-05:30", 1_795_229_575_123),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
        ] {
            assert_eq!(Expiry::parse(text).map(|expiry| expiry.epoch_ms), Ok(epoch_ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "soon",
            "2027-02-29",
            "2027-1-31",
            "31.01.2027",
            "2027-01-31T00:00:00",
            "12:00:00",
            "2027-01-31Z",
        ] {
            assert_eq!(Expiry::parse(text), Err(Wrong::NotDate), "{text}");
        }
    }

    #[test]
    fn it_has_come_from_its_first_millisecond_on() {
        let expiry = Expiry::parse("2000-02-29").unwrap();
        assert!(!expiry.has_come(951_782_399_999) && expiry.has_come(951_782_400_000));
    }
}

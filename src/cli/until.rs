//! `--until`: when a run is to begin no further cell.

use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A moment, as the clock of the machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until(Timestamp);

impl FromStr for Until {
    type Err = String;

    /// Seconds since 1970, as schedulers give them, or `2026-01-31T12:00:00Z`.
    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let moment = seconds.or_else(|| text.parse().ok());
        let expected = "expected seconds since 1970, or a time with its zone such as `2026-01-31T12:00:00Z`";
        moment.map(Self).ok_or_else(|| format!("`{text}` is no time, {expected}"))
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Until {
    /// The same on the clock that nobody sets: it is now looked at once, however the other one is set later.
    pub fn instant(self) -> Instant {
        let left = self.0.duration_since(Timestamp::now()).try_into().unwrap_or(Duration::ZERO);
        let now = Instant::now();
        // What is further away than clocks go is never.
        now.checked_add(left).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_as_seconds_or_in_words() {
        let until = |text: &str| text.parse::<Until>().map(|until| until.to_string());
        assert_eq!(until("1767225600").as_deref(), Ok("2026-01-01T00:00:00Z"));
        assert_eq!(until("2026-01-01T01:00:00+01:00").as_deref(), Ok("2026-01-01T00:00:00Z"));
        for text in ["", "soon", "2026-01-01", "12:00", "99999999999999999999", "1e9"] {
            let error = until(text).unwrap_err();
            assert!(error.contains(&format!("`{text}` is no time")), "{error}");
        }
    }

    #[test]
    fn what_is_over_is_over() {
        let at = |seconds: i64| Until(Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).instant();
        assert!(at(-3600) <= Instant::now() && "0".parse::<Until>().unwrap().instant() <= Instant::now());
        let hour = at(3600).duration_since(Instant::now()).as_secs();
        assert!((3590..=3600).contains(&hour), "{hour}");
        assert!(Until(Timestamp::MAX).instant() > Instant::now());
    }
}

//! Ranges: `{ from = 0.1, to = 0.9, step = 0.1 }` where an axis of numbers stands.
//!
//! Owns the arithmetic, in decimals as they are written: the third value of the range above is 0.3, not
//! 0.30000000000000004. Both ends belong to a range.
//!
//! ```text
//! from, to, step ──text──▶ digits × 10⁻ˢ, one s for all ──▶ from, from + step, … , to ──text──▶ values
//! ```

/// The keys of a range.
pub const KEYS: [&str; 3] = ["from", "to", "step"];
/// The most values of a range: whoever wants more has mistyped the step.
pub const MOST: usize = 1000;
/// The most digits after the decimal point.
const FINEST: usize = 12;
/// The largest number of a range, as digits.
const LARGEST: i128 = 1_000_000_000_000_000_000;

/// Why a range has no values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A number that is too large, or has too many digits.
    #[error("has more than {FINEST} digits behind the point, or is too large")]
    Digits {
        /// Which of [`KEYS`].
        key: &'static str,
    },
    /// A step of 0, or one that leads away from `to`.
    #[error("leads nowhere: `to` can't be reached from `from`")]
    Step,
    /// The step jumps over `to`.
    #[error("is jumped over: the values before and after it are {before} and {after}")]
    Misses {
        /// The last value before `to`.
        before: String,
        /// The next one.
        after: String,
    },
    /// More than [`MOST`] values.
    #[error("makes {count} values, more than {MOST}")]
    TooMany {
        /// How many.
        count: i128,
    },
}

impl RangeError {
    /// The key that it is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Digits { key } => key,
            Self::Step | Self::TooMany { .. } => "step",
            Self::Misses { .. } => "to",
        }
    }
}

/// A number as its digits, `10^scale` times what it is.
#[derive(Clone, Copy)]
struct Decimal {
    digits: i128,
    scale: usize,
}

impl Decimal {
    /// Of a text such as `0.1`, `-5`, `1e-3` or `1_000`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.replace('_', "");
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
            None => (text.as_str(), 0),
        };
        let (whole, behind) = number.split_once('.').unwrap_or((number, ""));
        let behind = behind.trim_end_matches('0');
        let mut digits: i128 = format!("{whole}{behind}").parse().ok()?;
        let mut scale = i32::try_from(behind.len()).ok()?.checked_sub(exponent)?;
        while scale < 0 {
            digits = digits.checked_mul(10)?;
            scale += 1;
        }
        let scale = usize::try_from(scale).ok()?;
        (scale <= FINEST && digits.abs() <= LARGEST).then_some(Self { digits, scale })
    }

    /// The digits at a finer scale.
    fn at(self, scale: usize) -> Option<i128> {
        let factor = 10i128.checked_pow(u32::try_from(scale - self.scale).ok()?)?;
        self.digits.checked_mul(factor)
    }

    fn text(digits: i128, scale: usize) -> String {
        let sign = if digits < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", digits.abs(), width = scale + 1);
        let (whole, behind) = digits.split_at(digits.len() - scale);
        match behind.trim_end_matches('0') {
            "" => format!("{sign}{whole}"),
            behind => format!("{sign}{whole}.{behind}"),
        }
    }
}

/// The values of a range, as texts.
///
/// # Errors
/// When there are none, too many, or `to` is not among them.
pub fn values(ends: [&str; 3]) -> Result<Vec<String>, RangeError> {
    let parse = |at: usize| Decimal::parse(ends[at]).ok_or(RangeError::Digits { key: KEYS[at] });
    let [from, to, step] = [parse(0)?, parse(1)?, parse(2)?];
    let scale = from.scale.max(to.scale).max(step.scale);
    let fine = |number: Decimal, key| number.at(scale).ok_or(RangeError::Digits { key });
    let (from, to, step) = (fine(from, "from")?, fine(to, "to")?, fine(step, "step")?);
    if step == 0 || (to - from).signum() * step.signum() < 0 {
        return Err(RangeError::Step);
    }
    let steps = (to - from) / step;
    if steps >= MOST as i128 {
        return Err(RangeError::TooMany { count: steps + 1 });
    }
    let value = |index: i128| Decimal::text(from + index * step, scale);
    if from + steps * step != to {
        return Err(RangeError::Misses { before: value(steps), after: value(steps + 1) });
    }
    Ok((0..=steps).map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_stay_decimals() {
        let tenths = values(["0.1", "0.9", "0.1"]).unwrap();
        assert_eq!(tenths, ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]);
        assert_eq!(values(["0.95", "0.5", "-0.15"]).unwrap(), ["0.95", "0.8", "0.65", "0.5"]);
        assert_eq!(values(["1", "1024", "341"]).unwrap(), ["1", "342", "683", "1024"]);
        assert_eq!(values(["-1", "1", "0.5"]).unwrap(), ["-1", "-0.5", "0", "0.5", "1"]);
        assert_eq!(values(["1e-3", "3E-3", "0.0010"]).unwrap(), ["0.001", "0.002", "0.003"]);
        assert_eq!(values(["0.5", "0.5", "0.1"]).unwrap(), ["0.5"]);
        assert_eq!(values(["1_000", "3e3", "1e3"]).unwrap(), ["1000", "2000", "3000"]);
    }

    #[test]
    fn what_leads_nowhere_is_an_error() {
        assert_eq!(values(["0.1", "0.9", "0"]), Err(RangeError::Step));
        assert_eq!(values(["0.1", "0.9", "-0.1"]), Err(RangeError::Step));
        let misses = RangeError::Misses { before: "0.9".into(), after: "1".into() };
        assert_eq!(values(["0.1", "0.95", "0.1"]), Err(misses));
        assert_eq!(values(["0", "1", "0.001"]), Err(RangeError::TooMany { count: 1001 }));
        assert_eq!(values(["0", "0.999", "0.001"]).unwrap().len(), 1000);
        for (at, key) in KEYS.iter().enumerate() {
            for bad in ["1e-13", "1e30", "inf", "nan", "1e999999999999", "", "0x10"] {
                let mut ends = ["0", "1", "1"];
                ends[at] = bad;
                assert_eq!(values(ends), Err(RangeError::Digits { key }), "{bad}");
            }
        }
    }
}

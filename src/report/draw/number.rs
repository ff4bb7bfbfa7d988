//! Numbers as a reader wants them: no more digits than needed, thousands marked, powers of ten.
//!
//! Owns the text of tick and value labels. Knows nothing of positions.

use crate::report::figure::Format;

/// From here on, and below [`TINY`], numbers are written with a power of ten.
const HUGE: f64 = 1e6;
const TINY: f64 = 1e-3;

/// A value beside its mark, such as `27.7`, `1,234`, `33.3%` or `1.2×10⁶`.
pub(super) fn value(v: f64, format: Format) -> String {
    match format {
        Format::Percent(decimals) => format!("{}%", grouped(v * 100.0, decimals)),
        Format::Fixed(decimals) if v.abs() < HUGE => grouped(v, decimals),
        Format::Auto if v == 0.0 || (TINY..HUGE).contains(&v.abs()) => trimmed(grouped(v, decimals_of(v, 3))),
        _ => power(v, 1),
    }
}

/// A tick of a linear axis whose ticks are `10^step_exponent` apart, or a multiple of it.
/// `largest` is the axis' largest absolute tick: all labels of an axis are written alike.
pub(super) fn linear_tick(v: f64, step_exponent: i32, largest: f64, format: Format) -> String {
    if matches!(format, Format::Percent(_)) {
        return format!("{}%", grouped(v * 100.0, (-2 - step_exponent).max(0) as usize));
    }
    if largest >= 10.0 * HUGE || (largest > 0.0 && largest < TINY) {
        let decimals = (exponent(largest) - step_exponent).max(0) as usize;
        return if v == 0.0 { "0".to_owned() } else { scaled(v, exponent(largest), decimals) };
    }
    grouped(v, (-step_exponent).max(0) as usize)
}

/// A tick of a logarithmic axis that runs from `lo` to `hi`, such as `0.5`, `2,000` or `10⁴`.
pub(super) fn log_tick(v: f64, (lo, hi): (f64, f64), format: Format) -> String {
    match format {
        Format::Percent(_) => format!("{}%", trimmed(grouped(v * 100.0, decimals_of(v * 100.0, 3)))),
        _ if lo >= TINY / 2.0 && hi < HUGE => trimmed(grouped(v, decimals_of(v, 3))),
        _ => power(v, 3),
    }
}

/// The decimals that show this many significant digits.
fn decimals_of(v: f64, significant: i32) -> usize {
    if v == 0.0 { 0 } else { (significant - 1 - exponent(v)).max(0) as usize }
}

/// The exponent of the decimal scientific notation.
pub(super) fn exponent(v: f64) -> i32 {
    // Formatting is exact at powers of ten, where the logarithm may be one ulp off.
    let text = format!("{:e}", v.abs());
    text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

/// `2×10⁶`, or `10⁶` for a mantissa of 1; at most `decimals` decimals in the mantissa.
fn power(v: f64, decimals: usize) -> String {
    let rounded: f64 = format!("{v:.decimals$e}").parse().unwrap_or(v);
    let exponent = exponent(rounded);
    let mantissa = trimmed(scaled_mantissa(rounded, exponent, decimals));
    match mantissa.as_str() {
        "1" => format!("10{}", superscript(exponent)),
        _ => format!("{mantissa}×10{}", superscript(exponent)),
    }
}

fn scaled(v: f64, exponent: i32, decimals: usize) -> String {
    format!("{}×10{}", scaled_mantissa(v, exponent, decimals), superscript(exponent))
}

fn scaled_mantissa(v: f64, exponent: i32, decimals: usize) -> String {
    grouped(v / 10f64.powi(exponent), decimals)
}

fn superscript(exponent: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let text = exponent.to_string();
    text.chars().map(|c| c.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize])).collect()
}

/// Fixed decimals, a comma between thousands and a true minus sign.
fn grouped(v: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", v.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    if v < 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        out.push('−');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if decimals > 0 {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// Without the zeros that end a fraction.
fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits() {
        let auto = |v| value(v, Format::Auto);
        assert_eq!(auto(0.1 + 0.2), "0.3");
        assert_eq!(auto(27.6591), "27.7");
        assert_eq!(auto(50.0), "50");
        assert_eq!(auto(123.4), "123");
        assert_eq!(auto(12_345.6), "12,346");
        assert_eq!(auto(1.23e6), "1.2×10⁶");
        assert_eq!(auto(9.99e6), "10⁷");
        assert_eq!(auto(-0.5), "−0.5");
        assert_eq!(auto(0.0), "0");
        assert_eq!(auto(-0.0), "0");
        assert_eq!(auto(2e-5), "2×10⁻⁵");
    }

    #[test]
    fn values_with_a_format() {
        assert_eq!(value(0.333, Format::Percent(1)), "33.3%");
        assert_eq!(value(0.5, Format::Percent(0)), "50%");
        assert_eq!(value(27.6591, Format::Fixed(2)), "27.66");
        assert_eq!(value(-0.001, Format::Fixed(1)), "0.0");
    }

    #[test]
    fn linear_ticks_share_their_decimals() {
        assert_eq!(linear_tick(0.30000000000000004, -1, 0.5, Format::Auto), "0.3");
        assert_eq!(linear_tick(1500.0, 2, 2000.0, Format::Auto), "1,500");
        assert_eq!(linear_tick(0.25, -2, 1.0, Format::Percent(0)), "25%");
        assert_eq!(linear_tick(0.005, -3, 0.01, Format::Percent(0)), "0.5%");
        assert_eq!(linear_tick(2e7, 7, 4e7, Format::Auto), "2×10⁷");
        assert_eq!(linear_tick(0.0, 7, 4e7, Format::Auto), "0");
    }

    #[test]
    fn log_ticks_turn_to_powers_together() {
        assert_eq!(log_tick(200.0, (10.0, 5000.0), Format::Auto), "200");
        assert_eq!(log_tick(0.5, (0.1, 50.0), Format::Auto), "0.5");
        assert_eq!(log_tick(1000.0, (10.0, 2e6), Format::Auto), "10³");
        assert_eq!(log_tick(2e6, (10.0, 2e6), Format::Auto), "2×10⁶");
        assert_eq!(log_tick(0.1, (0.01, 1.0), Format::Percent(0)), "10%");
    }

    #[test]
    fn exponents_are_exact_at_powers_of_ten() {
        for e in -300..=300 {
            let v: f64 = format!("1e{e}").parse().unwrap();
            assert_eq!(exponent(v), e);
        }
    }
}

//! Which answers are right: choices by their likelihoods, and numbers in what a model has written.
//!
//! By lm-evaluation-harness 0.4: `numpy.argmax` takes the first of equals; its means and standard errors are sums in the
//! order of the items. Knows texts and numbers only.

/// The likeliest choice, the first of equals.
pub fn likeliest(log_likelihoods: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in log_likelihoods.iter().enumerate() {
        if *value > log_likelihoods[best] {
            best = index;
        }
    }
    best
}

/// The likeliest choice where each likelihood is divided by the characters of its choice. An empty choice is the last.
pub fn likeliest_by_length(log_likelihoods: &[f64], characters: &[usize]) -> usize {
    let by_length = |(value, &count): (&f64, &usize)| if count == 0 { f64::NEG_INFINITY } else { value / count as f64 };
    likeliest(&log_likelihoods.iter().zip(characters).map(by_length).collect::<Vec<_>>())
}

/// The mean, and its standard error where there are two values: sd / √n, of n − 1.
pub fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    let error = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt() / count.sqrt());
    (mean, error)
}

/// The number behind the first `#### ` of a text.
pub fn strict_number(text: &str) -> Option<&str> {
    text.match_indices("#### ").find_map(|(at, mark)| {
        let behind = &text[at + mark.len()..];
        let sign = usize::from(behind.starts_with('-'));
        let digits =
            behind[sign..].bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',')).count();
        (digits > 0).then(|| &behind[..sign + digits])
    })
}

/// The last number of a text: at least two of digits, `$`, `.` and `,`, or one digit; with a sign in front.
pub fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let long =
        |from: usize| bytes[from..].iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'$' | b'.' | b',')).count();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (mut at, mut last) = (0, None);
    while at < bytes.len() {
        let sign = usize::from(bytes[at] == b'-');
        let length = match (long(at + sign), digits(at + sign)) {
            (long, _) if long >= 2 => sign + long,
            (_, digits) if digits > 0 => sign + digits,
            _ => 0,
        };
        if length > 0 {
            last = Some(&text[at..at + length]);
        }
        at += length.max(1);
    }
    last
}

/// Whether a number that was found is the right one, without regard to commas, dollar signs and a full stop at its end.
pub fn same_number(found: Option<&str>, right: &str) -> bool {
    let plain = |text: &str| {
        let text: String = text.chars().filter(|c| !matches!(c, ',' | '$')).collect();
        text.strip_suffix('.').map(str::to_owned).unwrap_or(text).to_lowercase()
    };
    found.is_some_and(|found| plain(found) == plain(right))
}

/// Where one of the words that end an answer begins, if one is there.
pub fn end_of_answer(text: &str, ends: &[&str]) -> Option<usize> {
    ends.iter().filter_map(|end| text.find(end)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_taken_and_an_empty_choice_is_last() {
        assert_eq!(likeliest(&[-2.0, -1.0, -1.0]), 1);
        assert_eq!(likeliest_by_length(&[-2.0, -1.0, -0.5], &[4, 1, 0]), 0);
        assert_eq!(likeliest_by_length(&[-3.0, -3.0], &[3, 3]), 0);
    }

    /// Of `numpy.std(x, ddof=1) / sqrt(n)`.
    #[test]
    fn errors_are_those_of_a_sample() {
        let (mean, error) = mean_and_error(&[1.0, 0.0, 0.0, 1.0, 1.0]);
        assert_eq!((mean, error), (0.6, Some(0.244_948_974_278_317_83)));
        assert_eq!(mean_and_error(&[1.0]), (1.0, None));
    }

    /// What the two regular expressions of lm-evaluation-harness 0.4.13 find, tried with Python's `re`.
    #[test]
    fn numbers_are_found_in_what_was_written() {
        let cases = [
            (" She has 3 + 4 = 7.\n#### 7", Some("7"), Some("7")),
            (" The total is $1,234.50.\n#### 1,234.50\n\nQ", Some("1,234.50"), Some("1,234.50")),
            (" So -5.\n#### -5 apples", Some("-5"), Some("-5")),
            (" #### x\n#### 12.", Some("12."), Some("12.")),
            (" It costs $18.", None, Some("$18.")),
            (" no number", None, None),
            (" 5 apples and a pear", None, Some("5")),
            (" ##### 3", Some("3"), Some("3")),
            ("####  3, then 4... ok", None, Some("4...")),
            (" is 10-5 then", None, Some("-5")),
            (" one, two.. ", None, Some("..")),
            (" €7, –8", None, Some("8")),
        ];
        for (text, strict, flexible) in cases {
            assert_eq!((strict_number(text), last_number(text)), (strict, flexible), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_compared_without_their_dress() {
        assert!(same_number(Some("1,234."), "1234") && same_number(Some("$18.00"), "18.00"));
        assert!(!same_number(Some("18.00"), "18") && !same_number(None, "18") && !same_number(Some("-5"), "5"));
    }

    #[test]
    fn answers_end_at_the_first_word_that_ends_them() {
        assert_eq!(end_of_answer("7\n\nQuestion: a </s>", &["</s>", "Question:"]), Some(3));
        assert_eq!(end_of_answer("7", &["</s>"]), None);
    }
}

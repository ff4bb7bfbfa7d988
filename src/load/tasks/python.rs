//! What Python's `str` does, which the published prompts go by.

/// `str.isspace` of a character: Unicode's white space, and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `str.strip`
pub fn stripped(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.lstrip`
pub fn lstripped(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// `str.rstrip`
pub fn rstripped(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// `str.capitalize`: the first character in title case, all others in lower case.
pub fn capitalised(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    // Of the whole, since a sigma is written by what stands around it.
    let lower = text.to_lowercase();
    title(first).chars().chain(lower.chars().skip(first.to_lowercase().count())).collect()
}

/// A character in title case, by Unicode's UnicodeData.txt and SpecialCasing.txt.
fn title(c: char) -> String {
    let moved = |by: u32| char::from_u32(u32::from(c) + by).map_or_else(|| c.to_string(), String::from);
    let with_iota = |letters: &str| format!("{letters}\u{345}");
    match c {
        // Letters for two, of which the first is large.
        '\u{1c4}'..='\u{1c6}' => '\u{1c5}'.into(),
        '\u{1c7}'..='\u{1c9}' => '\u{1c8}'.into(),
        '\u{1ca}'..='\u{1cc}' => '\u{1cb}'.into(),
        '\u{1f1}'..='\u{1f3}' => '\u{1f2}'.into(),
        // Georgian has large letters for whole words only.
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => c.into(),
        // Greek with an iota below, which stays where it is.
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => moved(8),
        '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}' | '\u{1fa8}'..='\u{1faf}' => c.into(),
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => moved(9),
        '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}' => c.into(),
        '\u{1fb2}' => with_iota("\u{1fba}"),
        '\u{1fb4}' => with_iota("\u{386}"),
        '\u{1fb7}' => with_iota("\u{391}\u{342}"),
        '\u{1fc2}' => with_iota("\u{1fca}"),
        '\u{1fc4}' => with_iota("\u{389}"),
        '\u{1fc7}' => with_iota("\u{397}\u{342}"),
        '\u{1ff2}' => with_iota("\u{1ffa}"),
        '\u{1ff4}' => with_iota("\u{38f}"),
        '\u{1ff7}' => with_iota("\u{3a9}\u{342}"),
        // Ligatures, which become several letters.
        '\u{df}' | '\u{587}' | '\u{fb00}'..='\u{fb06}' | '\u{fb13}'..='\u{fb17}' => {
            let mut letters = c.to_uppercase();
            letters.next().into_iter().chain(letters.flat_map(char::to_lowercase)).collect()
        }
        c => c.to_uppercase().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.11 gives.
    #[test]
    fn strings_are_as_python_has_them() {
        let cases = [
            ("then Mr. Bell and the NASA crew", "Then mr. bell and the nasa crew"),
            ("ßa", "Ssa"),
            ("ǆABC", "ǅabc"),
            ("aİ", "Ai\u{307}"),
            ("ΟΔΟΣ", "Οδος"),
            ("ﬁRST", "First"),
            ("ᾳΣ", "ᾼς"),
            ("ŉA", "ʼNa"),
            ("აბ", "აბ"),
            ("", ""),
        ];
        for (text, capital) in cases {
            assert_eq!(capitalised(text), capital, "{text}");
        }
        assert_eq!(stripped("\u{1c}\u{a0} a\u{200b}\u{2003}\u{85}"), "a\u{200b}");
        assert_eq!((lstripped("\t a "), rstripped(" a\n\u{1f}")), ("a ", " a"));
    }
}

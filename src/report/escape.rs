//! Text of others in our formats: a model's name, a title or a message must stay what it is, words.
//!
//! A results folder may come from anybody, and so may what is in its names: HTML and images for Markdown, formulas for
//! spreadsheets, commands for LaTeX, escape sequences for terminals. Knows formats and no tables.

use std::borrow::Cow;

/// Characters that do something instead of being seen: controls, line and paragraph separators, and marks that turn the
/// direction of the text after them.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// One line of text that a terminal shows and does not obey: `\n` and `\u{1b}` in place of such characters.
pub fn line(text: &str) -> Cow<'_, str> {
    visible(text, |_| false)
}

/// As [`line()`], of a text that has lines.
pub fn lines(text: &str) -> Cow<'_, str> {
    visible(text, |c| c == '\n')
}

/// As [`lines()`], of a text with colours of our own: sequences that do no more than colour stay.
pub fn coloured(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        out.push_str(&lines(&rest[..at]));
        let behind = &rest[at + 1..];
        let colour = behind.strip_prefix('[').and_then(|codes| codes.find(|c: char| !c.is_ascii_digit() && c != ';'));
        match colour.filter(|&end| behind.as_bytes()[1..][end] == b'm') {
            Some(end) => {
                out.push_str(&rest[at..at + 3 + end]);
                rest = &behind[end + 2..];
            }
            None => {
                out.push_str(&line("\u{1b}"));
                rest = behind;
            }
        }
    }
    out.push_str(&lines(rest));
    out
}

fn visible(text: &str, allowed: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| acts(c) && !allowed(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !acts(c) || allowed(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(out)
}

/// A field of a CSV file that spreadsheets take for words: what would begin a formula gets the `'` in front that they
/// know. Quotes are the writer's affair.
pub fn csv(text: &str) -> Cow<'_, str> {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        true => Cow::Owned(format!("'{text}")),
        false => Cow::Borrowed(text),
    }
}

/// The text of a cell of a Markdown table: no markup, HTML, link or line break.
pub fn markdown(text: &str) -> String {
    let text = line(text);
    let mut out = String::with_capacity(text.len());
    let mut before = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        // Within a word an underscore is one; elsewhere it may emphasise.
        let in_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '|' | '`' | '*' | '[' | ']' | '!' | '~' | '$' => out.extend(['\\', c]),
            '_' if !(in_word(before) && in_word(rest.peek().copied())) => out.push_str("\\_"),
            // What looks like an address becomes a link by itself.
            ':' if rest.peek() == Some(&'/') => out.push_str("\\:"),
            c => out.push(c),
        }
        before = Some(c);
    }
    out
}

/// The text of a cell of a LaTeX table.
pub fn latex(text: &str) -> String {
    let text = line(text);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '\\' => out.push_str("\\textbackslash{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            // After the `\\` of the line before, these are its arguments.
            '[' | ']' | '*' => out.extend(['{', c, '}']),
            c => out.push(c),
        }
    }
    out
}

/// The text of an XML element.
pub fn xml(text: &str) -> String {
    line(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Text of an HTML element or of an attribute in double quotes, with its lines and tabs.
pub fn html(text: &str) -> String {
    let text = visible(text, |c| matches!(c, '\n' | '\t'));
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// JSON within a `<script>` element: no letters that end the element or begin a comment.
pub fn json_in_html(json: &str) -> String {
    json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "<script>a|b</script>\n![x](http://y/z) \u{1b}[31m\u{202e}";

    #[test]
    fn terminals_see_and_do_not_obey() {
        assert_eq!(line("a\u{1b}[2Jb\r\n\u{9b}c"), "a\\u{1b}[2Jb\\r\\n\\u{9b}c");
        assert_eq!(lines("a\nb\u{7}"), "a\nb\\u{7}");
        for plain in ["", "модель", "a b_c-d", "50 %"] {
            assert!(matches!(line(plain), Cow::Borrowed(text) if text == plain));
        }
    }

    #[test]
    fn colours_are_all_that_a_message_may_have() {
        assert_eq!(coloured("\u{1b}[31;1merror:\u{1b}[0m a\n"), "\u{1b}[31;1merror:\u{1b}[0m a\n");
        assert_eq!(coloured("a\u{1b}[2Jb\u{1b}]0;x\u{7}\u{1b}"), "a\\u{1b}[2Jb\\u{1b}]0;x\\u{7}\\u{1b}");
        assert_eq!(coloured("\u{1b}[é\u{1b}[1"), "\\u{1b}[é\\u{1b}[1");
    }

    #[test]
    fn markdown_has_no_markup() {
        let text = markdown(NASTY);
        assert_eq!(text, "&lt;script&gt;a\\|b&lt;/script&gt;\\\\n\\!\\[x\\](http\\://y/z) \\\\u{1b}\\[31m\\\\u{202e}");
        assert_eq!(markdown("path:tiny_opt"), "path:tiny_opt");
        assert_eq!(markdown("_a_ *b* `c` &amp;"), "\\_a\\_ \\*b\\* \\`c\\` &amp;amp;");
    }

    #[test]
    fn no_field_of_a_csv_file_is_a_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(csv(formula), format!("'{formula}"));
        }
        for plain in ["a=1", "path:-", "", "2:4", "'x"] {
            assert_eq!(csv(plain), plain);
        }
    }

    #[test]
    fn latex_typesets_what_stands_there() {
        assert_eq!(latex("a_b & 50 %"), "a\\_b \\& 50 \\%");
        assert_eq!(
            latex("[1]*<x>|\\input{y}\n"),
            "{[}1{]}{*}\\textless{}x\\textgreater{}\\textbar{}\\textbackslash{}input\\{y\\}\\textbackslash{}n"
        );
    }

    #[test]
    fn html_has_no_elements_and_ends_no_script() {
        assert_eq!(html("<b class='x'>\"&\u{202e}\n\t"), "&lt;b class=&#39;x&#39;&gt;&quot;&amp;\\u{202e}\n\t");
        assert_eq!(json_in_html("[\"</script><!--&\"]"), "[\"\\u003c/script\\u003e\\u003c!--\\u0026\"]");
    }

    #[test]
    fn xml_has_no_elements_and_no_forbidden_characters() {
        assert_eq!(xml("<a>&\u{0}"), "&lt;a&gt;&amp;\\u{0}");
    }
}

//! Colours for an experiment file: TOML cut into pieces, each with a class.
//!
//! Owns what a piece is. Whether the text is right is not its affair: every byte comes out again, whatever it is.

use crate::report::escape;

/// What a piece of a file is, and its class in the page.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Piece {
    Comment,
    Header,
    Key,
    Text,
    Number,
    Plain,
}

impl Piece {
    fn class(self) -> Option<&'static str> {
        match self {
            Self::Comment => Some("c"),
            Self::Header => Some("h"),
            Self::Key => Some("k"),
            Self::Text => Some("s"),
            Self::Number => Some("n"),
            Self::Plain => None,
        }
    }
}

/// The file as HTML.
pub(super) fn highlighted(file: &str) -> String {
    let mut html = String::with_capacity(2 * file.len());
    for (piece, text) in pieces(file) {
        let text = escape::html(text);
        match piece.class() {
            Some(class) => html.push_str(&format!("<span class=\"{class}\">{text}</span>")),
            None => html.push_str(&text),
        }
    }
    html
}

/// The pieces of a file, in order: together they are the file.
fn pieces(file: &str) -> Vec<(Piece, &str)> {
    let mut pieces = Vec::new();
    let (mut rest, mut line_begins, mut depth) = (file, true, 0usize);
    while let Some(c) = rest.chars().next() {
        let (piece, length) = match c {
            '#' => (Piece::Comment, rest.find('\n').unwrap_or(rest.len())),
            '"' | '\'' => (Piece::Text, quoted(rest, c)),
            '[' if line_begins && depth == 0 => (Piece::Header, header(rest)),
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (word(&rest[..length], &rest[length..]), length)
            }
            c => (Piece::Plain, c.len_utf8()),
        };
        match c {
            '[' | '{' if piece == Piece::Plain => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        // A key in quotes is a key.
        let is_key = piece == Piece::Text && rest[length..].trim_start_matches([' ', '\t']).starts_with('=');
        pieces.push((if is_key { Piece::Key } else { piece }, &rest[..length]));
        line_begins = c == '\n' || (line_begins && c.is_whitespace());
        rest = &rest[length..];
    }
    pieces
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.')
}

fn word(word: &str, behind: &str) -> Piece {
    if behind.trim_start_matches([' ', '\t']).starts_with('=') {
        return Piece::Key;
    }
    let number = word.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit());
    let known = matches!(word.trim_start_matches(['+', '-']), "true" | "false" | "inf" | "nan");
    if number || known { Piece::Number } else { Piece::Plain }
}

/// The length of a string that begins here; an open one ends with its line, or with the file.
fn quoted(text: &str, quote: char) -> usize {
    let three: String = [quote; 3].iter().collect();
    let (open, one_line) = if text.starts_with(&three) { (3, false) } else { (1, true) };
    let mut at = open;
    while let Some(c) = text[at..].chars().next() {
        let ends = if one_line { c == quote } else { text[at..].starts_with(&three) };
        match c {
            _ if ends => return at + open,
            '\n' if one_line => return at,
            // What is escaped ends nothing.
            '\\' if quote == '"' => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
            c => at += c.len_utf8(),
        }
    }
    text.len()
}

/// The length of `[name]` or `[[name]]`, up to the end of its line.
fn header(text: &str) -> usize {
    let line = text.find('\n').unwrap_or(text.len());
    text[..line].rfind(']').map_or(line, |at| match text[..line].find('#') {
        Some(comment) if comment < at => comment,
        _ => at + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(piece: Piece, file: &str) -> Vec<&str> {
        pieces(file).into_iter().filter(|(of, _)| *of == piece).map(|(_, text)| text).collect()
    }

    const FILE: &str = "# why\nname = \"a # b\" # c\n[data]\n\"q k\" = 'x\\'\nsparsity = [\n  [0.5, -1e3], true]\n\
                        [[prune]] # p\nr = { from = 0.1 }\nsql = \"\"\"SELECT \"a\"\n# not one\"\"\"\n";

    #[test]
    fn pieces_are_what_toml_takes_them_for() {
        assert_eq!(of(Piece::Comment, FILE), ["# why", "# c", "# p"]);
        assert_eq!(of(Piece::Header, FILE), ["[data]", "[[prune]]"]);
        assert_eq!(of(Piece::Key, FILE), ["name", "\"q k\"", "sparsity", "r", "from", "sql"]);
        assert_eq!(of(Piece::Text, FILE), ["\"a # b\"", "'x\\'", "\"\"\"SELECT \"a\"\n# not one\"\"\""]);
        assert_eq!(of(Piece::Number, FILE), ["0.5", "-1e3", "true", "0.1"]);
    }

    #[test]
    fn nothing_is_lost_of_any_text() {
        for file in
            [FILE, "", "\"open", "'''open\n", "\"\\", "[", "[[\u{fc}", "a = \"\\\u{fc}\"", "\u{1f600} = 1", "]]}"]
        {
            let together: String = pieces(file).into_iter().map(|(_, text)| text).collect();
            assert_eq!(together, file);
        }
        assert_eq!(
            highlighted("a = \"<script>\""),
            "<span class=\"k\">a</span> = <span class=\"s\">&quot;&lt;script&gt;&quot;</span>"
        );
    }
}

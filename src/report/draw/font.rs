//! The embedded font: text widths, line breaking and glyph coverage.
//!
//! Owns everything that depends on glyph shapes. One font ships with the program, so that a
//! figure's layout is the same on every machine.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, PxScale, point};

/// CSS family list of SVG text: the embedded font, one of near-equal widths, any.
pub(super) const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// Height of capitals and digits over the baseline, in em.
pub(super) const CAP_HEIGHT: f64 = 0.73;
/// Height of the tallest letter over the baseline, in em.
pub(super) const ASCENT: f64 = 0.78;
/// Depth of the lowest letter under the baseline, in em.
pub(super) const DESCENT: f64 = 0.24;
/// Distance of two baselines, in em.
pub(super) const LINE: f64 = 1.2;

/// The font's file.
pub(super) const FILE: &[u8] = include_bytes!("../../../assets/fonts/DejaVuSans-subset.ttf");

static FONT: LazyLock<FontRef<'static>> =
    LazyLock::new(|| FontRef::try_from_slice(FILE).expect("the embedded font parses"));

fn units_per_em() -> f64 {
    FONT.units_per_em().map_or(2048.0, f64::from)
}

/// Width of a line of text at `size` pixels per em, kerning included.
pub(super) fn width(text: &str, size: f64) -> f64 {
    advances(text).last().map_or(0.0, |(_, end)| end) * size / units_per_em()
}

/// Each character with the position where it ends, in font units.
fn advances(text: &str) -> impl Iterator<Item = (char, f64)> {
    let mut previous = None;
    let mut end = 0.0;
    text.chars().map(move |c| {
        let glyph = FONT.glyph_id(c);
        end += previous.map_or(0.0, |p| f64::from(FONT.kern_unscaled(p, glyph)));
        end += f64::from(FONT.h_advance_unscaled(glyph));
        previous = Some(glyph);
        (c, end)
    })
}

/// Calls `put(x, y, coverage)` for the pixels of a line whose baseline starts at the origin, at
/// `size` pixels per em; coverage from 0 to 1.
pub(super) fn rasterize(text: &str, size: f64, mut put: impl FnMut(i32, i32, f32)) {
    let unit = size / units_per_em();
    let scale = PxScale::from((f64::from(FONT.height_unscaled()) * unit) as f32);
    for (c, end) in advances(text) {
        let glyph = FONT.glyph_id(c);
        let start = end - f64::from(FONT.h_advance_unscaled(glyph));
        let placed = glyph.with_scale_and_position(scale, point((start * unit) as f32, 0.0));
        if let Some(outline) = FONT.outline_glyph(placed) {
            let corner = outline.px_bounds().min;
            outline.draw(|x, y, coverage| put(x as i32 + corner.x as i32, y as i32 + corner.y as i32, coverage));
        }
    }
}

/// Breaks a text into lines no wider than `room`: at spaces, after `_ - / ,` and between a name
/// and its number (`Masked33.3`), and only where none of these helps anywhere in a word.
pub(super) fn wrap(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for piece in pieces(text) {
        let longer = format!("{line}{piece}");
        if width(longer.trim_end(), size) <= room {
            line = longer;
            continue;
        }
        flush(&mut line, &mut lines);
        for c in piece.chars() {
            if !line.is_empty() && width(&format!("{line}{c}"), size) > room {
                flush(&mut line, &mut lines);
            }
            line.push(c);
        }
    }
    flush(&mut line, &mut lines);
    lines
}

/// A text cut to `room`, with an ellipsis if anything is missing.
pub(super) fn shortened(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let rest = room - width("…", size);
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| width(&text[..*at], size) <= rest).last();
    format!("{}…", text[..end.unwrap_or(0)].trim_end())
}

fn flush(line: &mut String, lines: &mut Vec<String>) {
    let done = std::mem::take(line);
    if !done.trim().is_empty() {
        lines.push(done.trim().to_owned());
    }
}

/// Width of the widest part of a text that [`wrap`] would rather not break.
pub(super) fn widest_piece(text: &str, size: f64) -> f64 {
    pieces(text).iter().map(|piece| width(piece.trim_end(), size)).fold(0.0, f64::max)
}

/// The unbreakable parts of a text, spaces kept at their ends.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut letters) = (0, 0);
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        let number_begins = c.is_ascii_digit() && letters >= 3;
        if at > start && (" _-/,".contains(previous) && c != ' ' || number_begins) {
            pieces.push(&text[start..at]);
            start = at;
        }
        letters = if c.is_alphabetic() { letters + 1 } else { 0 };
        previous = c;
    }
    pieces.push(&text[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_the_signs_that_figures_use() {
        for c in "–−×≤≥µμ%±°σ·⁰¹²³⁴⁵⁶⁷⁸⁹⁻…".chars() {
            assert_ne!(FONT.glyph_id(c).0, 0, "`{c}` is not in the subset");
        }
    }

    #[test]
    fn widths_add_up() {
        let (one, two) = (width("0", 10.0), width("00", 10.0));
        assert!(one > 5.0 && one < 7.0, "{one}");
        assert!((two - 2.0 * one).abs() < 1e-9);
        assert_eq!(width("", 10.0), 0.0);
    }

    #[test]
    fn names_break_where_they_are_joined() {
        let room = width("attention_", 9.0) + 0.1;
        assert_eq!(wrap("attention_linear", 9.0, room), ["attention_", "linear"]);
        assert_eq!(wrap("Masked33.3", 9.0, width("Masked", 9.0) + 0.1), ["Masked", "33.3"]);
        assert_eq!(wrap("Masked2:4", 9.0, 500.0), ["Masked2:4"]);
        assert_eq!(wrap("a b", 9.0, width("a", 9.0) + 0.1), ["a", "b"]);
        assert!(wrap("", 9.0, 100.0).is_empty());
    }

    #[test]
    fn a_word_too_long_for_a_line_is_broken_anywhere() {
        let lines = wrap("incomprehensible", 9.0, 30.0);
        assert!(lines.len() > 1 && lines.iter().all(|line| width(line, 9.0) <= 30.0), "{lines:?}");
        assert_eq!(lines.concat(), "incomprehensible");
    }

    #[test]
    fn a_text_is_shortened_only_if_it_must() {
        let name = "magnitude, global";
        assert_eq!(shortened(name, 9.0, width(name, 9.0)), name);
        let short = shortened(name, 9.0, 60.0);
        assert!(short.ends_with('…') && name.starts_with(short.trim_end_matches('…')) && width(&short, 9.0) <= 60.0);
        assert_eq!(shortened(name, 9.0, 0.0), "…");
    }

    #[test]
    fn glyphs_stay_within_the_text_box() {
        let (mut right, mut top, mut bottom) = (0, 0, 0);
        rasterize("Ålpg(|", 100.0, |x, y, coverage| {
            if coverage > 0.0 {
                (right, top, bottom) = (right.max(x), top.min(y), bottom.max(y));
            }
        });
        assert!(f64::from(right) < width("Ålpg(|", 100.0));
        assert!(top >= -100 && bottom <= 25, "{top} {bottom}");
    }
}

//! PDF, made from the SVG of a figure.
//!
//! Owns the conversion: which font letters are taken from, and what images become. Knows no figures. Equal SVGs give equal
//! bytes: no fonts of the machine, no time, no names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use svg2pdf::usvg::{self, fontdb};
use svg2pdf::{ConversionOptions, PageOptions};

use super::display_list::{Rect, Shape};
use super::{DrawError, SVG_UNITS, font, raster};

/// Logical pixels to the inch.
const DPI: f32 = 96.0;

static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(font::FILE.to_vec());
    // Whatever a text asks for, there is one font.
    let name = fonts.faces().next().and_then(|face| Some(face.families.first()?.0.clone()));
    if let Some(name) = name {
        fonts.set_sans_serif_family(name);
    }
    Arc::new(fonts)
});

/// The document of an SVG.
///
/// # Errors
/// When it can't be converted.
pub(super) fn of(svg: &str) -> Result<Vec<u8>, DrawError> {
    let failed = |error: String| DrawError::Pdf { message: error };
    let options = usvg::Options { fontdb: Arc::clone(&FONTS), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let page = PageOptions { dpi: DPI };
    let pdf = svg2pdf::to_pdf(&tree, ConversionOptions::default(), page).map_err(|error| failed(error.to_string()))?;
    Ok(in_order(&pdf))
}

/// The document with the entries of its dictionaries of resources in order: svg2pdf writes them as a hash table has them.
/// They are lines of their own, so that nothing in the file changes its place but they.
fn in_order(pdf: &[u8]) -> Vec<u8> {
    // `  /XObject <<`, then lines like `    /xo1 10 0 R`.
    let opens = |line: &[u8]| line.trim_ascii_start().starts_with(b"/") && line.ends_with(b" <<\n");
    let is_entry = |line: &[u8]| line.starts_with(b" ") && line.ends_with(b" 0 R\n");
    let mut lines: Vec<&[u8]> = pdf.split_inclusive(|&byte| byte == b'\n').collect();
    let mut at = 0;
    while at < lines.len() {
        at += 1;
        if opens(lines[at - 1]) {
            let count = lines[at..].iter().take_while(|line| is_entry(line)).count();
            lines[at..at + count].sort_unstable();
            at += count;
        }
    }
    lines.concat()
}

/// An image as a path for each shade, of runs of pixels; nothing for other shapes. Reads like the image and stays sharp.
pub(super) fn image(shape: &Shape) -> Result<String, DrawError> {
    let Shape::Image { rect, width, shades } = shape else { return Ok(String::new()) };
    let mut paths: BTreeMap<u8, String> = BTreeMap::new();
    for run in runs(rect, (*width).max(1), shades) {
        let path = paths.entry(run.shade).or_default();
        let Run { left, top, right, bottom, .. } = run;
        let _ = write!(path, "M{left} {top}H{right}V{bottom}H{left}Z");
    }
    let grey = |shade: u8| shade * (255 / (raster::SHADES - 1));
    let path = |(shade, path): (u8, String)| {
        let grey = grey(shade);
        format!("<path fill=\"#{grey:02X}{grey:02X}{grey:02X}\" d=\"{path}\"/>\n")
    };
    Ok(paths.into_iter().map(path).collect())
}

/// Pixels of one shade beside each other, in units of the SVG.
struct Run {
    shade: u8,
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

fn runs<'a>(rect: &'a Rect, width: usize, shades: &'a [u8]) -> impl Iterator<Item = Run> + 'a {
    let height = shades.len().div_ceil(width).max(1);
    let unit = |length: f64| (length * SVG_UNITS).round() as i64;
    let x = move |column: usize| unit(rect.left + column as f64 * rect.width() / width as f64);
    let y = move |row: usize| unit(rect.top + row as f64 * rect.height() / height as f64);
    shades.chunks(width).enumerate().flat_map(move |(row, pixels)| {
        let mut start = 0;
        pixels.chunk_by(|a, b| a == b).map(move |same| {
            let run =
                Run { shade: same[0], left: x(start), top: y(row), right: x(start + same.len()), bottom: y(row + 1) };
            start += same.len();
            run
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_path_a_shade() {
        let rect = Rect { left: 0.0, top: 0.0, right: 3.0, bottom: 2.0 };
        let shape = Shape::Image { rect, width: 3, shades: vec![15, 15, 0, 0, 15, 15] };
        let paths = image(&shape).unwrap();
        assert_eq!(
            paths,
            "<path fill=\"#000000\" d=\"M20 0H30V10H20ZM0 10H10V20H0Z\"/>\n\
             <path fill=\"#FFFFFF\" d=\"M0 0H20V10H0ZM10 10H30V20H10Z\"/>\n"
        );
        assert_eq!(image(&Shape::line((0.0, 0.0), (1.0, 1.0), 1.0, (0, 0, 0))).unwrap(), "");
    }

    #[test]
    fn entries_of_resources_are_in_order_and_nothing_else_moves() {
        let pdf = b"1 0 obj\n<<\n  /XObject <<\n    /xo2 9 0 R\n    /xo1 10 0 R\n  >>\n  /B 2 0 R\n  /A 1 0 R\n>>\nstream\nb 0 R\n";
        let ordered = String::from_utf8(in_order(pdf)).unwrap();
        let expected = "1 0 obj\n<<\n  /XObject <<\n    /xo1 10 0 R\n    /xo2 9 0 R\n  >>\n  /B 2 0 R\n  /A 1 0 R\n>>\nstream\nb 0 R\n";
        assert_eq!(ordered, expected);
    }

    #[test]
    fn equal_figures_are_equal_documents() {
        let clip = |i: usize| {
            format!(
                "<clipPath id='c{i}'><circle cx='{i}' cy='5' r='4'/></clipPath>\
                 <g clip-path='url(#c{i})' opacity='0.5'><rect x='{i}' width='9' height='9'/><circle r='3'/></g>"
            )
        };
        let many: String = (0..24).map(clip).collect();
        let svg = format!("<svg xmlns='http://www.w3.org/2000/svg' width='40' height='10'>{many}</svg>");
        let first = of(&svg).unwrap();
        assert!(first.starts_with(b"%PDF"));
        assert!((0..4).all(|_| of(&svg).unwrap() == first));
    }

    #[test]
    fn what_is_no_svg_is_an_error() {
        assert!(matches!(of("<svg"), Err(DrawError::Pdf { .. })));
    }
}

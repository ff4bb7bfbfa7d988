//! Draws a [`Figure`] as SVG, PNG and PDF.
//!
//! Owns the output formats; the only module that knows `plotters`. A figure is laid out once, as a
//! list of shapes in logical pixels, and the list is replayed to a `plotters` backend, so that both
//! formats show the same. Equal figures give equal bytes.
//!
//! Glyphs of a PNG are set here and not by `plotters`, which drops the space on the left of each
//! glyph and puts the baseline elsewhere than in SVG.
//!
//! ```text
//! Figure ── layout ─┬─ panel ── bars | points | heat | raster ─┐          ┌─ SVGBackend ──── String
//!                   └─ legend ─────────────────────────────────┴─ Shapes ─┴─ BitMapBackend ─ smaller ─ PNG
//! ```

mod axis;
mod bars;
mod display_list;
mod font;
mod heat;
pub(in crate::report) mod image;
mod layout;
mod legend;
mod number;
mod panel;
mod pdf;
mod points;
mod raster;
mod style;

use std::fmt::Display;

use plotters::prelude::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontTransform, IntoFont, RGBAColor, ShapeStyle, TextStyle};
use thiserror::Error;

use super::escape;
use super::figure::Figure;
use display_list::{Anchor, Color, Point, Rect, Shape, Text};

/// Backends take integer positions; this many to a logical pixel keep lines of an SVG smooth.
const SVG_UNITS: f64 = 10.0;
/// Samples along each side of a PNG pixel. `plotters` hardly smooths edges by itself.
const SAMPLES: u32 = 3;
/// Limit of the samples of a PNG: 400 MB in memory.
const MOST_SAMPLES: f64 = 400e6 / 3.0;
/// Logical pixels in a metre, 96 to the inch.
const PIXELS_PER_METRE: f64 = 96.0 / 0.0254;

/// Why a figure could not be drawn.
#[derive(Debug, Error)]
pub enum DrawError {
    /// No panel has a value that its axes can show.
    #[error("the figure has no data")]
    NoData,
    /// The grid of panels has no columns.
    #[error("the figure has panels but 0 columns")]
    NoColumns,
    /// A bar series and the categories, or a row of a heat map and the columns, differ in number.
    #[error("panel `{panel}`: series `{series}` has {found} values for {expected} categories")]
    Values {
        /// The panel's name.
        panel: String,
        /// The series' name, or the row's.
        series: String,
        /// Number of categories or columns.
        expected: usize,
        /// Number of values.
        found: usize,
    },
    /// An axis range is empty, not finite, or not positive on a logarithmic axis.
    #[error("panel `{panel}`: axis `{axis}` cannot run from {lo} to {hi}")]
    Range {
        /// The panel's name.
        panel: String,
        /// The axis' label.
        axis: String,
        /// The lower end.
        lo: f64,
        /// The upper end.
        hi: f64,
    },
    /// The labels leave no room for the data.
    #[error("panel `{panel}` has no room for its data in a figure of {width}×{height} pixels")]
    TooSmall {
        /// The panel's name.
        panel: String,
        /// The figure's width in logical pixels.
        width: u32,
        /// The figure's height in logical pixels.
        height: u32,
    },
    /// The scale of a PNG is not positive, or the PNG would be empty or too large.
    #[error("a figure of {width}×{height} pixels cannot be drawn {scale} times as large")]
    PngScale {
        /// The figure's width in logical pixels.
        width: u32,
        /// The figure's height in logical pixels.
        height: u32,
        /// The scale.
        scale: f64,
    },
    /// The drawing backend failed.
    #[error("drawing failed: {message}")]
    Backend {
        /// The backend's message.
        message: String,
    },
    /// The PDF could not be written.
    #[error("the PDF could not be made: {message}")]
    Pdf {
        /// The converter's message.
        message: String,
    },
    /// The PNG could not be written.
    #[error("the PNG could not be encoded")]
    Encode(#[from] png::EncodingError),
}

impl DrawError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            DrawError::TooSmall { .. } => Some("make the figure larger or its labels shorter".to_owned()),
            DrawError::PngScale { .. } => Some("96 dpi is scale 1, 300 dpi is scale 3.125".to_owned()),
            _ => None,
        }
    }
}

/// The figure as SVG, with real text and a viewer's own choice among sans-serif fonts.
///
/// # Errors
/// See [`DrawError`].
pub fn svg(figure: &Figure) -> Result<String, DrawError> {
    svg_with(figure, svg_image)
}

/// The figure as PDF, of vectors, with the letters of the embedded font.
///
/// # Errors
/// See [`DrawError`].
pub fn pdf(figure: &Figure) -> Result<Vec<u8>, DrawError> {
    pdf::of(&svg_with(figure, pdf::image)?)
}

/// The figure as SVG, its images as `image` writes them.
fn svg_with(figure: &Figure, image: fn(&Shape) -> Result<String, DrawError>) -> Result<String, DrawError> {
    let shapes = layout::shapes(figure)?;
    let mut document = String::new();
    let size = (scaled(figure.width, SVG_UNITS), scaled(figure.height, SVG_UNITS));
    let mut backend = SVGBackend::with_string(&mut document, size);
    replay(&shapes, SVG_UNITS, false, &mut backend, svg_text)?;
    backend.present().map_err(backend_error)?;
    drop(backend);
    // The backend's root element has its units as size and no place for a title.
    let body = document.split_once('\n').map_or("", |(_, body)| body);
    // Images lie below everything else, so that they can stand in front of it.
    let images: Result<String, DrawError> = shapes.iter().map(image).collect();
    Ok(format!("{}{}{body}", svg_root(figure, size), images?))
}

/// The figure as PNG, `scale` pixels to the logical pixel: 3.125 for 300 dpi. The file says `note` of its source.
///
/// # Errors
/// See [`DrawError`].
pub fn png(figure: &Figure, scale: f64, note: &str) -> Result<Vec<u8>, DrawError> {
    let shapes = layout::shapes(figure)?;
    let (width, height) = (scaled(figure.width, scale), scaled(figure.height, scale));
    let samples = f64::from(width) * f64::from(height) * f64::from(SAMPLES * SAMPLES);
    if !(scale > 0.0 && (1.0..=MOST_SAMPLES).contains(&samples)) {
        return Err(DrawError::PngScale { width: figure.width, height: figure.height, scale });
    }
    let size = (width * SAMPLES, height * SAMPLES);
    let mut fine = vec![255; size.0 as usize * size.1 as usize * 3];
    let mut backend = BitMapBackend::with_buffer(&mut fine, size);
    replay(&shapes, scale * f64::from(SAMPLES), true, &mut backend, bitmap_text)?;
    backend.present().map_err(backend_error)?;
    drop(backend);
    encode(&averaged(&fine, width as usize), (width, height), scale, note)
}

fn scaled(length: u32, scale: f64) -> u32 {
    (f64::from(length) * scale).round() as u32
}

fn svg_root(figure: &Figure, (units_wide, units_high): (u32, u32)) -> String {
    let Figure { width, height, .. } = figure;
    let mut root = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {units_wide} {units_high}\" role=\"img\">\n"
    );
    for (tag, text) in [("title", &figure.title), ("desc", &figure.description)] {
        if !text.is_empty() {
            root.push_str(&format!("<{tag}>{}</{tag}>\n", escape::xml(text)));
        }
    }
    root.push_str("<rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>\n");
    root
}

/// An image as an element of its own; nothing for other shapes, which the backend draws.
fn svg_image(shape: &Shape) -> Result<String, DrawError> {
    let Shape::Image { rect, width, shades } = shape else { return Ok(String::new()) };
    let unit = |length: f64| (length * SVG_UNITS).round() as i64;
    let (x, y) = (unit(rect.left), unit(rect.top));
    Ok(format!(
        "<image x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
         image-rendering=\"pixelated\" href=\"data:image/png;base64,{}\"/>\n",
        unit(rect.right) - x,
        unit(rect.bottom) - y,
        image::base64(&image::grey(shades, *width)?),
    ))
}

/// The pixels of an image as rectangles.
fn image_boxes<'a>(rect: &'a Rect, width: usize, shades: &'a [u8]) -> impl Iterator<Item = (Rect, Color)> + 'a {
    let height = shades.len().div_ceil(width.max(1));
    let (wide, high) = (rect.width() / width as f64, rect.height() / height as f64);
    shades.iter().enumerate().map(move |(index, &shade)| {
        let (left, top) = (rect.left + (index % width) as f64 * wide, rect.top + (index / width) as f64 * high);
        let grey = shade * (255 / (raster::SHADES - 1));
        (Rect { left, top, right: left + wide, bottom: top + high }, (grey, grey, grey))
    })
}

/// Draws shapes at `scale` backend units to the logical pixel, images only where the backend has `pixels`.
fn replay<B: DrawingBackend>(
    shapes: &[Shape],
    scale: f64,
    pixels: bool,
    backend: &mut B,
    mut draw_text: impl FnMut(&Text, f64, &mut B) -> Result<(), DrawError>,
) -> Result<(), DrawError> {
    let unit = |(x, y): Point| ((x * scale).round() as i32, (y * scale).round() as i32);
    for shape in shapes {
        let drawn = match shape {
            Shape::Text(text) => {
                draw_text(text, scale, backend)?;
                Ok(())
            }
            Shape::Stroke { points, width, color } => {
                let style = ShapeStyle { stroke_width: (width * scale).round().max(1.0) as u32, ..filled(*color, 1.0) };
                backend.draw_path(points.iter().map(|p| unit(*p)), &style)
            }
            Shape::Fill { points, color, alpha } => {
                backend.fill_polygon(points.iter().map(|p| unit(*p)), &filled(*color, *alpha))
            }
            Shape::Box { rect, color, alpha } => {
                let (from, to) = (unit((rect.left, rect.top)), unit((rect.right, rect.bottom)));
                backend.draw_rect(from, to, &filled(*color, *alpha), true)
            }
            // SVG has them as elements of their own.
            Shape::Image { rect, width, shades } => {
                image_boxes(rect, *width, shades).filter(|_| pixels).try_for_each(|(rect, color)| {
                    let (from, to) = (unit((rect.left, rect.top)), unit((rect.right, rect.bottom)));
                    backend.draw_rect(from, to, &filled(color, 1.0), true)
                })
            }
            Shape::Disc { center, radius, color } => {
                backend.draw_circle(unit(*center), (radius * scale).round() as u32, &filled(*color, 1.0), true)
            }
        };
        drawn.map_err(backend_error)?;
    }
    Ok(())
}

fn rgba((red, green, blue): Color, alpha: f64) -> RGBAColor {
    RGBAColor(red, green, blue, alpha)
}

fn filled(color: Color, alpha: f64) -> ShapeStyle {
    ShapeStyle { color: rgba(color, alpha), filled: true, stroke_width: 1 }
}

fn backend_error(error: impl Display) -> DrawError {
    DrawError::Backend { message: error.to_string() }
}

fn svg_text(text: &Text, scale: f64, backend: &mut SVGBackend) -> Result<(), DrawError> {
    // What the backend makes of a font size and of the upper edge of a text.
    const SIZE_PER_EM: f64 = 1.24;
    const TOP_TO_BASELINE: f64 = 0.76;
    let up = TOP_TO_BASELINE * text.size;
    let (at, transform) = if text.upright {
        ((text.at.0 - up, text.at.1), FontTransform::Rotate270)
    } else {
        ((text.at.0, text.at.1 - up), FontTransform::None)
    };
    let h_pos = match text.anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::End => HPos::Right,
    };
    let style = TextStyle {
        font: (font::FAMILY, text.size * scale * SIZE_PER_EM).into_font().transform(transform),
        color: rgba(text.color, 1.0).to_backend_color(),
        pos: Pos::new(h_pos, VPos::Top),
    };
    let at = ((at.0 * scale).round() as i32, (at.1 * scale).round() as i32);
    backend.draw_text(&escape::line(&text.content), &style, at).map_err(backend_error)
}

fn bitmap_text(text: &Text, scale: f64, backend: &mut BitMapBackend) -> Result<(), DrawError> {
    let width = font::width(&text.content, text.size);
    let start = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -width / 2.0,
        Anchor::End => -width,
    };
    let (x, y) = if text.upright { (text.at.0, text.at.1 - start) } else { (text.at.0 + start, text.at.1) };
    let (x, y) = ((x * scale).round() as i32, (y * scale).round() as i32);
    let mut failure = Ok(());
    font::rasterize(&text.content, text.size * scale, |right, down, coverage| {
        let at = if text.upright { (x + down, y - right) } else { (x + right, y + down) };
        let color = rgba(text.color, f64::from(coverage)).to_backend_color();
        if let Err(error) = backend.draw_pixel(at, color) {
            failure = Err(backend_error(error));
        }
    });
    failure
}

/// The means of `SAMPLES × SAMPLES` blocks of an RGB image; `width` is that of the result.
fn averaged(fine: &[u8], width: usize) -> Vec<u8> {
    let samples = SAMPLES as usize;
    let row = width * samples * 3;
    let mut sums = vec![0u32; width * 3];
    let mut out = Vec::with_capacity(fine.len() / (samples * samples));
    for rows in fine.chunks_exact(row * samples) {
        sums.fill(0);
        for fine_row in rows.chunks_exact(row) {
            for (x, pixel) in fine_row.chunks_exact(3).enumerate() {
                for (channel, value) in pixel.iter().enumerate() {
                    sums[x / samples * 3 + channel] += u32::from(*value);
                }
            }
        }
        let area = SAMPLES * SAMPLES;
        out.extend(sums.iter().map(|sum| ((sum + area / 2) / area) as u8));
    }
    out
}

fn encode(pixels: &[u8], (width, height): (u32, u32), scale: f64, note: &str) -> Result<Vec<u8>, DrawError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // The resolution, which typesetting programs turn into the printed size.
    let density = (PIXELS_PER_METRE * scale).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: density, yppu: density, unit: png::Unit::Meter }));
    encoder.add_text_chunk("Source".into(), note.into())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;

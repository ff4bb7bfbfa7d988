//! Images inside an SVG: a PNG in shades of grey, as text.
//!
//! Owns the two encodings. Equal pixels give equal text.

use super::DrawError;

/// A PNG of half a byte a pixel, `width` to a row.
///
/// # Errors
/// When it can't be encoded.
pub(super) fn grey(shades: &[u8], width: usize) -> Result<Vec<u8>, DrawError> {
    let width = width.max(1);
    let rows = shades.chunks(width);
    let (wide, high) = (width as u32, rows.len() as u32);
    let half = |shade: Option<&u8>| shade.copied().unwrap_or(0) & 15;
    let packed: Vec<u8> =
        rows.flat_map(|row| row.chunks(2).map(|pair| half(pair.first()) << 4 | half(pair.get(1)))).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, wide, high);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Four);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&packed)?;
    writer.finish()?;
    Ok(bytes)
}

/// RFC 4648.
pub(in crate::report) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            // A byte fills one digit and a part of the next.
            let char = DIGITS[(bits >> (18 - 6 * digit) & 63) as usize];
            out.push(if digit <= three.len() { char::from(char) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4648, section 10.
    #[test]
    fn bytes_become_text() {
        let all = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(all, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn pixels_come_back() {
        let shades: Vec<u8> = (0..15).map(|i| i as u8).collect();
        let png = grey(&shades, 5).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (5, 3));
        assert_eq!(pixels, shades.iter().map(|shade| shade * 17).collect::<Vec<_>>());
    }
}

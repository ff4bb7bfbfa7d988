//! The model and the texts inside the program.
//!
//! `assets/tiny-opt/` is what `examples/train_tiny_opt/` writes.

/// Files of `builtin:tiny-opt`, by their names in a checkpoint folder.
pub const CONFIG: &[u8] = include_bytes!("../../assets/tiny-opt/config.json");
/// The tokenizer.
pub const TOKENIZER: &[u8] = include_bytes!("../../assets/tiny-opt/tokenizer.json");
/// The weights, float16.
pub static WEIGHTS: &[u8] = include_bytes!("../../assets/tiny-opt/model.safetensors");

/// A text inside the program.
pub fn text(name: &str) -> Option<&'static str> {
    match name {
        "sample-texts" => Some(include_str!("../../assets/texts/sample-texts.txt")),
        "heldout" => Some(include_str!("../../assets/tiny-opt/heldout.txt")),
        "calibration" => Some(include_str!("../../assets/tiny-opt/calibration.txt")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::BUILTIN_TEXTS;

    #[test]
    fn every_name_of_the_file_format_is_here() {
        assert!(BUILTIN_TEXTS.iter().all(|name| text(name).is_some_and(|text| !text.is_empty())));
        assert_eq!(text("sample-texts").map(|text| text.lines().count()), Some(15));
        assert!(WEIGHTS.len() <= 8 << 20);
    }
}

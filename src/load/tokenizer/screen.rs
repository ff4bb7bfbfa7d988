//! Looks at a `tokenizer.json` as plain JSON before the `tokenizers` library does: takes out what has no say in an
//! experiment, and refuses what would take more memory than a tokenizer does.

use super::unusable;
use crate::load::LoadError;
use serde_json::Value;

/// The most bytes that a normalizer may make of one. Published ones make 40 at most (three of a space, eleven of an
/// Arabic ligature); chained replacements could make 10^12.
const MOST: usize = 1024;

/// A `tokenizer.json` that the library may see.
pub(super) struct Screened {
    /// The file again.
    pub json: Vec<u8>,
    /// Bytes that its normalizer makes of one, at most.
    pub growth: usize,
}

/// Screens the content of the file called `file`.
///
/// # Errors
/// When it is no JSON, or its normalizer lies about a size or lets texts explode.
pub(super) fn screened(json: &[u8], file: &str) -> Result<Screened, LoadError> {
    let mut value: Value = serde_json::from_slice(json).map_err(|error| unusable(file, &error))?;
    let Some(parts) = value.as_object_mut() else { return Err(unusable(file, &"it is no JSON object")) };
    // Both are left over from whoever saved the file while they were on; a call says them, and ours wants neither.
    parts.remove("truncation");
    parts.remove("padding");
    // A random choice of merges, for training: ids would differ from call to call.
    if let Some(model) = parts.get_mut("model").and_then(Value::as_object_mut) {
        model.remove("dropout");
    }
    let mut growth = Growth::default();
    if let Some(normalizer) = parts.get("normalizer") {
        growth.of(normalizer).map_err(|message| unusable(file, &message))?;
    }
    let growth = growth.bytes();
    if growth > MOST {
        let message = format!("its normalizer may make {growth} bytes of one, more than the {MOST} that are allowed");
        return Err(unusable(file, &message));
    }
    let json = serde_json::to_vec(&value).map_err(|error| unusable(file, &error))?;
    Ok(Screened { json, growth })
}

/// What a normalizer makes of a byte, at most.
struct Growth {
    /// By replacements, which multiply.
    replaced: usize,
    /// Whether it writes characters in another of Unicode's forms.
    form: bool,
    /// Whether it makes letters small.
    lowercase: bool,
}

impl Default for Growth {
    fn default() -> Self {
        Self { replaced: 1, form: false, lowercase: false }
    }
}

impl Growth {
    fn bytes(&self) -> usize {
        // U+FDFA has three bytes, and 33 in the forms of compatibility; these are as good as final, as is a small
        // letter. Only a few letters take more bytes when they are small.
        let form = if self.form { 12 } else { 1 };
        let lowercase = if self.lowercase { 2 } else { 1 };
        self.replaced.saturating_mul(form * lowercase)
    }

    fn times(&mut self, factor: usize) {
        self.replaced = self.replaced.saturating_mul(factor.max(1));
    }

    /// Adds a normalizer, or a list of them. By its keys, not by its type, which older files do not have.
    fn of(&mut self, normalizer: &Value) -> Result<(), String> {
        match normalizer {
            Value::Array(list) => list.iter().try_for_each(|normalizer| self.of(normalizer))?,
            Value::Object(parts) => {
                let text = |key: &str| parts.get(key).and_then(Value::as_str);
                match text("type") {
                    Some("ByteLevel") => self.times(2),
                    Some("Lowercase") => self.lowercase = true,
                    Some("NFC" | "NFD" | "NFKC" | "NFKD" | "BertNormalizer" | "Bert") | None => self.form = true,
                    Some(_) => {}
                }
                if let Some(map) = text("precompiled_charsmap") {
                    self.times(charsmap(map)?);
                }
                if let Some(content) = text("content") {
                    self.times(replaced(parts.get("pattern"), content.len()));
                }
                if let Some(prepended) = text("prepend") {
                    self.times(prepended.len() + 1);
                }
                let lists = parts.values().filter(|part| part.is_array());
                for list in lists {
                    self.of(list)?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        Ok(())
    }
}

/// What a replacement by `content` bytes makes of a byte.
fn replaced(pattern: Option<&Value>, content: usize) -> usize {
    let literal = pattern.and_then(|pattern| pattern.get("String").or(Some(pattern))).and_then(Value::as_str);
    match literal {
        Some(literal) if !literal.is_empty() => content.div_ceil(literal.len()),
        // An expression may match where nothing is.
        Some(_) | None => content + 1,
    }
}

/// The longest replacement of SentencePiece's table, which is the size of a tree (4 bytes), the tree, and the
/// replacements after it, each with a zero byte at its end; all as Base64.
fn charsmap(text: &str) -> Result<usize, String> {
    let bytes = base64(text).ok_or("its `precompiled_charsmap` is no Base64")?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or("its `precompiled_charsmap` is empty")?;
    let size = u32::from_le_bytes(*size) as usize;
    let Some(replacements) = rest.get(size..) else {
        let there = rest.len();
        return Err(format!("its `precompiled_charsmap` says that {size} bytes follow, but there are {there}"));
    };
    Ok(replacements.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(1))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits {
        let digit = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn growth(normalizer: Value) -> Result<usize, String> {
        let file = json!({ "normalizer": normalizer }).to_string();
        screened(file.as_bytes(), "t").map(|screened| screened.growth).map_err(|error| error.to_string())
    }

    fn replace(pattern: Value, content: &str) -> Value {
        json!({ "type": "Replace", "pattern": pattern, "content": content })
    }

    #[test]
    fn what_belongs_to_a_call_or_to_training_is_taken_out() {
        let file = json!({
            "truncation": { "max_length": 40, "stride": 0 },
            "padding": { "strategy": { "Fixed": 1_000_000_000_000_u64 } },
            "model": { "type": "BPE", "dropout": 0.5, "vocab": { "b": 1, "a": 0 } },
        });
        let screened = screened(file.to_string().as_bytes(), "t").unwrap();
        assert_eq!(screened.json, br#"{"model":{"type":"BPE","vocab":{"b":1,"a":0}}}"#);
        assert_eq!(screened.growth, 1);
    }

    #[test]
    fn replacements_multiply() {
        assert_eq!(growth(Value::Null), Ok(1));
        assert_eq!(growth(replace(json!({ "String": " " }), "▁")), Ok(3));
        assert_eq!(growth(replace(json!({ "Regex": " {2,}" }), "▁")), Ok(4));
        assert_eq!(growth(replace(json!({ "String": "abcd" }), "x")), Ok(1));
        assert_eq!(growth(replace(json!({ "String": "" }), "x")), Ok(2));
        let llama = json!({ "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" }, replace(json!({ "String": " " }), "▁")] });
        assert_eq!(growth(llama), Ok(12));
        assert_eq!(growth(json!([{ "type": "NFKC" }, { "type": "Lowercase" }, { "type": "NFC" }])), Ok(24));
        let twice = |times| Value::Array(vec![replace(json!({ "String": "a" }), "aa"); times]);
        assert_eq!(growth(twice(10)), Ok(1024));
        for normalizer in [twice(11), twice(70), json!({ "type": "Sequence", "normalizers": twice(40) })] {
            assert!(growth(normalizer).unwrap_err().contains("more than the 1024 that are allowed"));
        }
    }

    #[test]
    fn a_table_of_characters_is_as_long_as_it_says() {
        // An empty tree, and `ab` and `c` as replacements; the same with a tree of 2^32 - 4 bytes; with nothing.
        let map = |text: &str| growth(json!({ "type": "Precompiled", "precompiled_charsmap": text }));
        assert_eq!(map("AAAAAGFiAGMA"), Ok(2));
        assert!(map("/P///2FiAGMA").unwrap_err().contains("4294967292 bytes follow, but there are 5"));
        assert!(map("BQAAAGFiAGM=").unwrap_err().contains("5 bytes follow, but there are 4"));
        assert!(map("AAA=").unwrap_err().contains("is empty"));
        assert!(map("!!!!").unwrap_err().contains("no Base64"));
        assert_eq!(base64("TWFuTWE="), Some(b"ManMa".to_vec()));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (text, reason) in
            [("[]", "no JSON object"), ("3", "no JSON object"), ("{\"version\":\"1.0\",", "EOF while parsing")]
        {
            let error = screened(text.as_bytes(), "t").err().unwrap().to_string();
            assert!(error.contains(reason) && error.contains("`t`"), "{error}");
        }
        let deep = "[".repeat(100_000);
        assert!(screened(deep.as_bytes(), "t").is_err());
    }
}

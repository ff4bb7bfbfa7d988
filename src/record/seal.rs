//! The digest in a cell's file, by which it is told whether its content is the one that was written.
//!
//! ```text
//!   Record ──sealed──> { .., "digest": SHA-256 of all other keys, white space aside }
//!                                      │
//!   bytes ──opened──>  as written?  ───┤ yes: the digest of the text without its white space is right: parsed at once
//!                                      └ no:  as a tree, key by key, which says what is wrong
//! ```
//! Owns the digest; the names that must follow from the content are store.rs's matter.

use super::cell::Record;
use super::error::{Mismatch, StoreError};
use super::sha256;
use crate::hex::hex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;

/// The key of a cell's file that holds the digest of all others.
const DIGEST: &str = "digest";
/// What stands in front of the digest at the end of a file, white space aside.
const BEFORE: &[u8] = b",\"digest\":\"";
/// What stands after it.
const AFTER: &[u8] = b"\"}";
/// Digits of a digest.
const DIGITS: usize = 64;

/// A record as it is written, with the digest of its content.
pub(super) fn sealed(record: &Record) -> io::Result<Value> {
    let mut value = serde_json::to_value(record)?;
    reseal(&mut value);
    Ok(value)
}

/// Gives a cell's content the digest that is right for it.
pub(super) fn reseal(value: &mut Value) {
    let digest = digest_of(value);
    if let Value::Object(keys) = value {
        keys.insert(DIGEST.into(), digest.into());
    }
}

/// The SHA-256 of a cell's content, whatever its white space; takes the digest out.
fn digest_of(value: &mut Value) -> String {
    if let Value::Object(keys) = value {
        keys.shift_remove(DIGEST);
    }
    sha256(value.to_string().as_bytes())
}

/// The record that the bytes of a cell's file hold.
///
/// # Errors
/// When the format or the digest is another, or it is no record.
pub(super) fn opened(bytes: &[u8], path: &Path) -> Result<Record, StoreError> {
    match as_written(bytes) {
        Some(record) => Ok(record),
        None => read_by_keys(bytes, path),
    }
}

/// The record of a file that is as this program writes it, in a fraction of the time and memory that a tree takes.
fn as_written(bytes: &[u8]) -> Option<Record> {
    let text = without_white_space(bytes);
    let content = text.len().checked_sub(BEFORE.len() + DIGITS + AFTER.len())?;
    let (content, end) = text.split_at(content);
    let digest = end.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    let mut hasher = Sha256::new();
    hasher.update(content);
    hasher.update(b"}");
    if hex(&hasher.finalize()).as_bytes() != digest {
        return None;
    }
    serde_json::from_slice::<Record>(&text).ok().filter(|record| record.format == Record::FORMAT)
}

/// JSON text without what stands between its values.
fn without_white_space(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(quote) = rest.iter().position(|&byte| byte == b'"') {
        text.extend(rest[..quote].iter().filter(|byte| !byte.is_ascii_whitespace()));
        let end = quote + 1 + string_length(&rest[quote + 1..]);
        text.extend_from_slice(&rest[quote..end]);
        rest = &rest[end..];
    }
    text.extend(rest.iter().filter(|byte| !byte.is_ascii_whitespace()));
    text
}

/// Bytes to the end of a string that has begun, its closing quote among them.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|&byte| byte == b'"' || byte == b'\\') {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        // What is escaped closes nothing.
        at = (at + 2).min(bytes.len());
    }
    bytes.len()
}

/// The record of a file of whatever spelling, or what is wrong with it.
fn read_by_keys(bytes: &[u8], path: &Path) -> Result<Record, StoreError> {
    let damaged = |source| StoreError::Format { path: path.into(), source };
    let foreign = |mismatch| StoreError::Foreign { path: path.into(), mismatch };
    let mut value: Value = serde_json::from_slice(bytes).map_err(damaged)?;
    // What is no cell at all is damaged rather than of another format.
    if let Some(found) = value.get("format").filter(|found| **found != Record::FORMAT) {
        return Err(foreign(Mismatch::Format { found: found.to_string() }));
    }
    let written = value.get(DIGEST).cloned();
    let digest = digest_of(&mut value);
    let record: Record = serde_json::from_value(value).map_err(damaged)?;
    if written == Some(digest.clone().into()) {
        Ok(Record { digest, ..record })
    } else {
        Err(foreign(Mismatch::Digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{CellId, Inputs, Task};
    use crate::record::{Failure, FailureKind, Program, Timings};
    use serde_json::json;

    /// A cell whose texts have all that a scanner can stumble over.
    fn record(message: &str) -> Record {
        let cell: Task = serde_json::from_value(json!({
            "kind": "model", "model": "m", "backend": "flex", "dtype": "f32", "prune": null, "seed": null, "variant": "dense",
        }))
        .unwrap();
        let inputs = Inputs::default().with("model", [("sha256", "\"}, \\".into())]);
        Record {
            format: Record::FORMAT,
            id: CellId::new(&cell, &inputs),
            cell,
            inputs,
            results: Vec::new(),
            failure: Some(Failure::new(FailureKind::Other, message)),
            timings: Timings { measure_seconds: 1e-7, load_seconds: 0.1 + 0.2, ..Timings::default() },
            program: Program::current(),
            finished: "2026-01-01T00:00:00Z".into(),
            digest: String::new(),
        }
    }

    #[test]
    fn what_was_written_is_read_without_a_tree_and_equals_what_the_tree_gives() {
        for message in ["", "a \"quote\" \\ and \\\\\" {\n\t} é \u{1}", "ends with \\"] {
            let value = sealed(&record(message)).unwrap();
            for bytes in [serde_json::to_vec_pretty(&value).unwrap(), value.to_string().into_bytes()] {
                let found = as_written(&bytes).expect("as written");
                assert_eq!(found, read_by_keys(&bytes, Path::new("a")).unwrap(), "{message}");
                assert_eq!(Record { digest: String::new(), ..found }, record(message));
            }
        }
    }

    #[test]
    fn another_spelling_of_the_same_is_the_same_and_another_number_is_not() {
        let text = serde_json::to_string_pretty(&sealed(&record("m")).unwrap()).unwrap();
        let spelled = text.replace("1e-7", "0.0000001");
        assert_ne!(text, spelled);
        assert!(as_written(spelled.as_bytes()).is_none());
        let (read, spelled) = [&text, &spelled].map(|text| opened(text.as_bytes(), Path::new("a")).unwrap()).into();
        assert_eq!(read, spelled);
        for (from, to) in [("1e-7", "2e-7"), ("\"m\"", "\"n\""), ("\"m\"", "\"m \"")] {
            let error = opened(text.replace(from, to).as_bytes(), Path::new("a")).unwrap_err();
            assert!(matches!(error, StoreError::Foreign { mismatch: Mismatch::Digest, .. }), "{error}");
        }
        let earlier = text.replace("\"format\": 2", "\"format\": 1");
        let error = opened(earlier.as_bytes(), Path::new("a")).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { mismatch: Mismatch::Format { .. }, .. }), "{error}");
    }

    #[test]
    fn a_file_that_breaks_off_anywhere_is_damaged() {
        let text = sealed(&record("a \"b\" \\ c")).unwrap().to_string();
        for end in 0..text.len() {
            let error = opened(&text.as_bytes()[..end], Path::new("a")).unwrap_err();
            assert!(matches!(error, StoreError::Format { .. }), "{end}");
        }
    }
}

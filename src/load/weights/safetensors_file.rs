//! The safetensors format: a header of JSON, then the tensors' bytes.
//!
//! ```text
//! | header length n: u64 | JSON: name → dtype, shape, [begin, end) | tensor | tensor | … |
//! 0                      8                                        8+n                   end of file
//! ```
//!
//! The header's parser and its rules (row-major tensors, back to back, without holes) are the `safetensors`
//! crate's. Only the outermost lengths are checked here, because `SafeTensors::read_metadata` (0.7) adds
//! them unchecked and doesn't say how much of a truncated file is missing.

use safetensors::tensor::Metadata;

use super::error::FileProblem;
use super::view::View;

const LENGTH_BYTES: usize = size_of::<u64>();

/// The `safetensors` crate's own limit on the header, in bytes.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of the safetensors file `bytes`, by name, in no particular order.
pub(super) fn tensors(bytes: &[u8]) -> Result<Vec<(String, View)>, FileProblem> {
    let (header, data) = split(bytes)?;
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|error| FileProblem::BadHeader(error.to_string()))?;
    if metadata.data_len() != data.len() {
        let before = (bytes.len() - data.len()) as u64;
        let expected = before.saturating_add(metadata.data_len() as u64);
        return Err(FileProblem::WrongLength { expected, actual: bytes.len() });
    }
    let start = bytes.len() - data.len();
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        // The header's parser has checked that offsets ascend and end at `data_len`.
        let (begin, end) = info.data_offsets;
        (name, View::contiguous(info.dtype, info.shape.clone(), start + begin..start + end))
    });
    Ok(tensors.collect())
}

/// Header and data.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), FileProblem> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(FileProblem::WrongLength { expected: LENGTH_BYTES as u64, actual: bytes.len() });
    };
    let header = u64::from_le_bytes(*length);
    let too_long = FileProblem::HeaderTooLong { header, file: bytes.len() };
    if header > MAX_HEADER_BYTES {
        return Err(too_long);
    }
    rest.split_at_checked(header as usize).ok_or(too_long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn finds_each_tensor_behind_the_header() {
        let header = r#"{"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
        let mut tensors = tensors(&file(header, 8)).unwrap();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let start = 8 + header.len();
        assert_eq!(tensors[0].1.storage, start..start + 4);
        assert_eq!(tensors[1].1.storage, start + 4..start + 8);
        assert_eq!(tensors[1].1.info.shape, [2]);
    }

    #[test]
    fn counts_missing_and_surplus_bytes() {
        let header = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
        for data in [15, 17] {
            let bytes = file(header, data);
            let Err(FileProblem::WrongLength { expected, actual }) = tensors(&bytes) else { panic!() };
            assert_eq!((expected, actual), (8 + header.len() as u64 + 16, bytes.len()));
        }
        let mut lying = file(header, 16);
        lying[3] = 1;
        assert!(matches!(tensors(&lying), Err(FileProblem::HeaderTooLong { .. })));
        lying[7] = 255;
        assert!(matches!(tensors(&lying), Err(FileProblem::HeaderTooLong { .. })));
        assert!(matches!(tensors(&lying[..7]), Err(FileProblem::WrongLength { .. })));
    }

    #[test]
    fn refuses_headers_that_contradict_themselves() {
        for header in [
            "",
            "{",
            "[]",
            r#"{"a":1}"#,
            r#"{"a":{"dtype":"F31","shape":[4],"data_offsets":[0,16]}}"#,
            r#"{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}"#,
            r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}"#,
            r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}"#,
        ] {
            assert!(matches!(tensors(&file(header, 16)), Err(FileProblem::BadHeader(_))), "{header}");
        }
    }

    #[test]
    fn survives_offsets_that_sum_to_the_largest_integer() {
        const PART: u64 = u64::MAX / 8;
        let mut entries: Vec<String> = (0..8)
            .map(|i| {
                format!(r#""{i}":{{"dtype":"U8","shape":[{PART}],"data_offsets":[{},{}]}}"#, i * PART, (i + 1) * PART)
            })
            .collect();
        entries.push(format!(r#""8":{{"dtype":"U8","shape":[7],"data_offsets":[{},{}]}}"#, 8 * PART, u64::MAX));
        let header = format!("{{{}}}", entries.join(","));
        let result = tensors(&file(&header, 0));
        assert!(matches!(result, Err(FileProblem::WrongLength { expected: u64::MAX, .. })), "{result:?}");
    }
}

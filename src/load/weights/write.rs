//! A safetensors file out: the header first, then one tensor after the other, so that no more than one is in memory.

use super::view::TensorInfo;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::io::{self, Write};

/// Bytes that the header is a multiple of, so that tensors are aligned.
const ALIGNMENT: usize = 8;

/// Writes a safetensors file of `tensors`, whose bytes `bytes` gives, asked for each in turn by its place.
///
/// As the format's own library does it, wider types come first, so that every tensor is aligned, and names are in
/// order among equals. The file says that its tensors are PyTorch's, which `transformers` wants to read.
///
/// # Errors
/// Those of `bytes` and of writing; bytes of another number than the tensor's shape and type have.
pub fn write_safetensors<'a, E: From<io::Error>>(
    out: &mut impl Write,
    tensors: &[(String, TensorInfo)],
    mut bytes: impl FnMut(usize) -> Result<Cow<'a, [u8]>, E>,
) -> Result<(), E> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by(|&a, &b| {
        let key = |index: usize| (std::cmp::Reverse(tensors[index].1.dtype.bitsize()), &tensors[index].0);
        key(a).cmp(&key(b))
    });
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut end = 0;
    for &index in &order {
        let (name, info) = &tensors[index];
        let start = end;
        end += length(info);
        header.insert(name.clone(), json!({ "dtype": info.dtype, "shape": info.shape, "data_offsets": [start, end] }));
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(ALIGNMENT) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for &index in &order {
        let (name, info) = &tensors[index];
        let bytes = bytes(index)?;
        if bytes.len() != length(info) {
            let problem = format!("tensor `{name}` of {} bytes has {}", length(info), bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem).into());
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Bytes of a tensor.
fn length(info: &TensorInfo) -> usize {
    info.shape.iter().product::<usize>() * info.dtype.bitsize() / 8
}

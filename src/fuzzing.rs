//! The parsers of bytes that nobody vouches for, each as a function that takes any bytes and must return: neither
//! panic nor hang nor take all memory. `fuzz/` calls them with bytes that a fuzzer makes up, a test with those of
//! `fuzz/corpus/`. Knows the parsers and nothing that happens afterwards.

use crate::record::{CellResult, KernelResult, Store};
use std::path::Path;

/// The text of an experiment file.
pub fn experiment(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match crate::config::parse(Path::new("e.toml"), text, &[]) {
        // What is accepted can be planned, so that it can be counted.
        Ok(experiment) => drop(experiment.warnings.to_string()),
        Err(found) => assert!(!found.to_string().is_empty(), "refused without a word"),
    }
}

/// A safetensors file, of which the header is what there is to get wrong.
pub fn safetensors(bytes: &[u8]) {
    let _ = crate::load::weights::describe(Path::new("model.safetensors"), bytes);
}

/// A file of `torch.save`: a zip archive or the legacy container, told by its first bytes.
pub fn torch_file(bytes: &[u8]) {
    let _ = crate::load::weights::describe(Path::new("pytorch_model.bin"), bytes);
}

/// A pickle without its container.
pub fn pickle(bytes: &[u8]) {
    let _ = crate::load::weights::describe_pickle(bytes);
}

/// A cell's file, as if its digest were right: whoever changes a file can write a new digest too.
pub fn cell(bytes: &[u8]) {
    let Ok(record) = Store::sealed_cell(bytes) else { return };
    let _ = (record.own_id(), record.parts_are_own(), record.existing());
    let _ = (KernelResult::of(&record), CellResult::of(record));
}

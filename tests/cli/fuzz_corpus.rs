//! The parsers that `fuzz/` feeds, on the inputs that it starts from and on those that once brought one down.

use crate::support::{ROOT, walk};
use sparsify_exp::fuzzing;
use std::path::Path;

/// A parser, by the name of its target.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 5] = [
    ("cell", fuzzing::cell),
    ("experiment", fuzzing::experiment),
    ("pickle", fuzzing::pickle),
    ("safetensors", fuzzing::safetensors),
    ("torch_file", fuzzing::torch_file),
];

#[test]
fn every_target_survives_its_corpus() {
    for (name, parse) in TARGETS {
        let files = walk(&Path::new(ROOT).join("fuzz/corpus").join(name));
        assert!(files.len() >= 2, "{name} has no corpus");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            parse(&bytes);
            // Cut short or with a bit changed, it is still only a wrong file.
            for at in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
                parse(&bytes[..at]);
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                parse(&changed);
            }
        }
    }
}

#[test]
fn every_target_is_one_of_cargo_fuzz() {
    let root = Path::new(ROOT).join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let mut sources: Vec<String> = walk(&root.join("fuzz_targets"))
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into())
        .collect();
    sources.sort();
    assert_eq!(sources, TARGETS.map(|(name, _)| name));
    for (name, _) in TARGETS {
        let source = std::fs::read_to_string(root.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("sparsify_exp::fuzzing::{name}(bytes)")), "{source}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{manifest}");
    }
}

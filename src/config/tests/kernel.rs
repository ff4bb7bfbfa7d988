//! `[[kernel]]` blocks, with and without a model.

use super::*;
use crate::config::experiment::{Format, KernelFormat};

const BLOCK: &str = "[[kernel]]\nshape = [8, 4]\ntokens = 1\nsparsity = 0.5\nformat = \"csr\"\n";

/// A file of kernels alone; lines of `more` start at line 2.
fn kernels(more: &str) -> Result<Experiment, Diagnostics> {
    given(&format!("name = \"t\"\n{more}"), &[])
}

/// All of `expected` must be in the only error of a block with a key changed; its lines start at 3.
#[track_caller]
fn one_mistake(from: &str, to: &str, expected: &[&str]) {
    assert!(BLOCK.contains(from), "nothing to change: {from}");
    let found = kernels(&BLOCK.replace(from, to)).expect_err("accepted");
    let text = found.to_string();
    assert_eq!(found.errors(), 1, "{text}");
    for part in expected {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

fn shapes(text: &str) -> Vec<[usize; 2]> {
    let experiment = kernels(&BLOCK.replace("[8, 4]", text)).unwrap_or_else(|found| panic!("{found}"));
    experiment.kernels[0].shapes.iter().map(|shape| shape.0).collect()
}

#[test]
fn a_block_needs_no_model() {
    let experiment = kernels(BLOCK).unwrap();
    assert!(experiment.models.is_empty() && experiment.prune.is_empty());
    let block = &experiment.kernels[0];
    assert_eq!((block.warmup, block.repeats), (10, 100));
    assert_eq!((&*block.dtypes, &*block.formats), (&[Dtype::F32][..], &[KernelFormat::Sparse(Format::Csr)][..]));
    assert_eq!((&*block.sparsities, &*block.tokens), (&[0.5][..], &[1][..]));
    assert_eq!(with(BLOCK).unwrap().models.len(), 1, "nor does it mind one");
}

#[test]
fn a_shape_is_a_pair_or_an_array_of_pairs() {
    assert_eq!(shapes("[8, 4]"), [[8, 4]]);
    assert_eq!(shapes("[[8, 4]]"), [[8, 4]]);
    assert_eq!(shapes("[[8, 4], [768, 3072]]"), [[8, 4], [768, 3072]]);
    let overridden = given(&format!("name = \"t\"\n{BLOCK}"), &["kernel.shape=[16, 2]", "kernel.0.tokens=[1, 8]"]);
    let block = overridden.unwrap().kernels.remove(0);
    assert_eq!((block.shapes[0].0, &*block.tokens), ([16, 2], &[1, 8][..]));
}

#[test]
fn mistakes_in_shapes_have_their_place() {
    let pair = "expected a pair `[out_features, in_features]`";
    one_mistake(
        "[8, 4]",
        "[[8, 4], 768]",
        &["wrong type of `kernel.shape[1]`", pair, "e.toml:3:18", "found an integer"],
    );
    one_mistake("[8, 4]", "[[8, 4], [1, 2, 3]]", &["`kernel.shape[1]` is no pair", "e.toml:3:18", "found 3 values"]);
    one_mistake("[8, 4]", "[[8, 4], [8, 0]]", &["`kernel.shape[1]` is out of range", "e.toml:3:22", "at least 1"]);
    one_mistake("[8, 4]", "[[8, 4], [8, \"4\"]]", &["wrong type of `kernel.shape[1]`", "without quotes: 4"]);
    one_mistake("[8, 4]", "[8]", &["`kernel.shape` is no pair", pair, "e.toml:3:9", "found 1 values"]);
    one_mistake("[8, 4]", "8", &["wrong type of `kernel.shape`", pair, "or an array of pairs, found an integer"]);
    one_mistake("[8, 4]", "[]", &["`kernel.shape` is empty"]);
    one_mistake("[8, 4]", "[1000000, 1000000]", &["`[1000000, 1000000]` is too large", "4294967295"]);
    let twice = kernels(&BLOCK.replace("[8, 4]", "[[8, 4], [8, 4]]")).unwrap();
    assert_eq!(twice.kernels[0].shapes.len(), 1);
    assert!(twice.warnings.to_string().contains("`kernel.shape` has `[8, 4]` twice"), "{}", twice.warnings);
}

#[test]
fn other_mistakes() {
    one_mistake("tokens = 1", "tokens = [1, 0]", &["`kernel.tokens` is out of range", "e.toml:4:14", "at least 1"]);
    one_mistake("tokens = 1", "tokens = 4000000000", &["too large for `kernel.shape` `[8, 4]`"]);
    one_mistake("sparsity = 0.5", "sparsity = [0.5, 50]", &["`kernel.sparsity`", "did you mean 0.5?"]);
    one_mistake("\"csr\"", "\"cst\"", &["unknown value `cst` of `kernel.format`", "did you mean `csr`?"]);
    one_mistake("\"csr\"", "\"blocks\"", &["unknown value `blocks`", "`bitmap`, `csr32`, `nm`, `auto`, `threshold`"]);
    one_mistake("tokens", "token", &["unknown key `kernel.token`", "a similar key exists: `tokens`"]);
    one_mistake("tokens = 1", "tokens = 1\nrepeats = 0", &["`kernel.repeats` is out of range", "at least 1"]);
    for key in ["shape = [8, 4]", "tokens = 1", "sparsity = 0.5", "format = \"csr\""] {
        let name = key.split(' ').next().unwrap();
        one_mistake(&format!("{key}\n"), "", &[&format!("missing key `kernel.{name}`"), "e.toml:2:1"]);
    }
}

#[test]
fn dense_needs_no_sparsity_and_does_not_use_one() {
    let dense = BLOCK.replace("csr", "dense");
    assert!(kernels(&dense.replace("sparsity = 0.5\n", "")).unwrap().warnings.is_empty());
    let warnings = kernels(&dense).unwrap().warnings.to_string();
    assert!(warnings.contains("`kernel.sparsity` has no effect on `dense`"), "{warnings}");
}

#[test]
fn a_backend_lacks_a_dtype() {
    let two = BLOCK.replace("format", "dtype = [\"f32\", \"bf16\"]\nformat");
    let text = errors_of(kernels(&format!("[device]\nbackend = [\"flex\", \"ndarray\"]\n{two}")));
    assert_eq!(text.matches("error:").count(), 1, "{text}");
    assert!(text.contains("`kernel.dtype` `bf16` is not available on `ndarray`"), "{text}");
    assert!(text.contains("e.toml:8:17") && text.contains("its kernels take `f32`"), "{text}");
    assert!(kernels(&format!("[device]\nbackend = \"flex\"\n{two}")).is_ok());
}

#[test]
fn threshold_is_for_a_gpu_and_few_tokens() {
    let block = BLOCK.replace("\"csr\"", "[\"csr\", \"threshold\"]");
    let on = |backend: &str, block: &str| kernels(&format!("[device]\nbackend = \"{backend}\"\n{block}"));
    let experiment = on("cuda", &block).unwrap();
    assert_eq!(experiment.kernels[0].formats, [KernelFormat::Sparse(Format::Csr), KernelFormat::Threshold]);
    assert!(on("auto", &block).is_ok(), "what `auto` becomes is not known yet");
    for backend in ["flex", "ndarray"] {
        let text = errors_of(on(backend, &block));
        assert_eq!(text.matches("error:").count(), 1, "{text}");
        for part in [&*format!("`kernel.format` `threshold` is not available on `{backend}`"), "e.toml:8:18"] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
    }
    let text = errors_of(on("cuda", &block.replace("tokens = 1", "tokens = [4, 5]")));
    assert_eq!(text.matches("error:").count(), 1, "{text}");
    for part in ["`kernel.format` `threshold` takes at most 4 tokens", "`kernel.tokens` is 5", "e.toml:6:14"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn a_format_of_the_cpu_is_refused_on_a_gpu() {
    let block = BLOCK.replace("\"csr\"", "[\"csr\", \"csr32\"]");
    let on = |backend: &str, block: &str| kernels(&format!("[device]\nbackend = {backend}\n{block}"));
    for backend in ["\"flex\"", "[\"ndarray\", \"flex\"]"] {
        let formats = on(backend, &block).unwrap().kernels[0].formats.clone();
        assert_eq!(formats, [KernelFormat::Sparse(Format::Csr), KernelFormat::Sparse(Format::Csr32)]);
    }
    assert!(on("\"auto\"", &block).is_ok(), "what `auto` becomes is not known yet");
    for backend in ["\"cuda\"", "[\"flex\", \"cuda\"]"] {
        let text = errors_of(on(backend, &block));
        assert_eq!(text.matches("error:").count(), 1, "{text}");
        for part in ["`kernel.format` `csr32` is not available on `cuda`", "e.toml:8:18", "`bitmap`"] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
    }
}

#[test]
fn what_is_about_a_model_needs_one() {
    let sections = "[data]\ncontext = 8\n[[prune]]\nmethod = \"random\"\nsparsity = 0.5\n[execute]\nvariants = [\"csr\"]\n\
                    [measure]\nmetrics = [\"structure\"]\n[[expect]]\nmetric = \"total\"\nvalue = 1\ntolerance = 0\n";
    let text = errors_of(kernels(&format!("{BLOCK}{sections}")));
    for section in ["[data]", "[[prune]]", "[execute]", "[measure]", "[[expect]]"] {
        assert!(text.contains(&format!("`{section}` needs a model")), "{section} in\n{text}");
    }
    assert_eq!(text.matches("there is no `[model]` section").count(), 5, "{text}");
    assert!(text.contains("e.toml:7:1"), "{text}");
}

#[test]
fn a_file_of_nothing_still_lacks_a_model() {
    for text in ["", "kernel = []\n", "[[prune]]\nmethod = \"random\"\nsparsity = 0.5\n"] {
        let text = errors_of(kernels(text));
        assert!(text.contains("missing key `model.source`") && text.contains("only `[[kernel]]` blocks"), "{text}");
    }
    // A block with a mistake is a block.
    one_mistake("[8, 4]", "7", &["wrong type of `kernel.shape`"]);
}

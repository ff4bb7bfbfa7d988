//! A user's kernel and files in a `[[kernel]]` block.

use super::*;
use crate::config::arena::ArenaLayout;
use crate::config::experiment::KernelFormat;

const BLOCK: &str = "[[kernel]]\nsource = \"mine.cu\"\nentry = \"mine\"\nlayout = \"csr\"\n\
    grid = [\"ceil_div(rows, 4)\", \"tokens\"]\nblock = 128\nshape = [8, 4]\ntokens = [1, 3]\nsparsity = 0.5\n";

fn kernels(more: &str) -> Result<Experiment, Diagnostics> {
    given(&format!("name = \"t\"\n{more}"), &[])
}

/// All of `expected` must be in the only error of a block with a part changed.
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

#[test]
fn a_kernel_needs_no_format_and_is_added_to_those_that_are_listed() {
    let block = kernels(BLOCK).unwrap().kernels.remove(0);
    assert_eq!(block.formats, [KernelFormat::Source]);
    let source = block.source.unwrap();
    assert_eq!((source.layout, source.entry.as_str(), source.path.written()), (ArenaLayout::Csr, "mine", "mine.cu"));
    assert_eq!(source.grid.each_ref().map(|size| size.written()), ["ceil_div(rows, 4)", "tokens", "1"]);
    assert_eq!(source.shared.written(), "0");
    let listed = |list: &str| kernels(&format!("{BLOCK}format = {list}\n")).unwrap().kernels.remove(0).formats;
    assert_eq!(listed("['dense', 'source']"), [KernelFormat::Dense, KernelFormat::Source]);
    assert_eq!(listed("'dense'"), [KernelFormat::Dense, KernelFormat::Source]);
}

#[test]
fn mistakes_have_their_place() {
    one_mistake("entry = \"mine\"\n", "", &["missing key `kernel.entry`"]);
    one_mistake("layout = \"csr\"\n", "", &["missing key `kernel.layout`"]);
    one_mistake("\"mine\"", "\"mine<4>\"", &["`mine<4>` is no name of a C function", "e.toml:4:9"]);
    one_mistake("\"csr\"", "\"coo\"", &["unknown value `coo` of `kernel.layout`", "`csr16`"]);
    one_mistake("block = 128\n", "", &["missing key `kernel.block`"]);
    one_mistake("block = 128", "block = 2048", &["`kernel.block` `2048` is 2048, expected 1 to 1024", "e.toml:7:9"]);
    one_mistake("block = 128", "block = [64, 32]", &["`kernel.block` has 2048 threads"]);
    one_mistake("block = 128", "block = [1, 1, 1, 1]", &["`kernel.block` has 4 values", "one to three"]);
    one_mistake(
        "block = 128",
        "block = -1",
        &["`kernel.block` is out of range", "an integer of at least 0 or an expression"],
    );
    one_mistake(
        "block = 128",
        "block = 1.5",
        &["wrong type of `kernel.block`", "an integer of at least 0 or an expression, or an array of", "found a float"],
    );
    one_mistake("\"tokens\"]", "\"token\"]", &["`kernel.grid` `token` is no size", "unknown name `token`", "ceil_div"]);
    one_mistake("\"tokens\"]", "\"tokens - 2\"]", &["`tokens - 2` has no value: it is negative", "1 tokens"]);
    one_mistake("\"tokens\"]", "\"tokens / 2\"]", &["`kernel.grid` `tokens / 2` is 0, expected 1 to"]);
    one_mistake("block = 128", "block = 128\nshared = \"cols * 1000000\"", &["`kernel.shared`", "is 4000000"]);
    one_mistake("source = \"mine.cu\"", "source = \"\"", &["`kernel.source` names no file"]);
    one_mistake("sparsity = 0.5\n", "", &["missing key `kernel.sparsity`"]);
}

#[test]
fn keys_of_a_kernel_need_its_source() {
    let found = kernels(&BLOCK.replace("source = \"mine.cu\"\n", "format = 'csr'\n")).unwrap_err().to_string();
    for key in ["entry", "layout", "grid", "block"] {
        assert!(found.contains(&format!("`kernel.{key}` needs `kernel.source`")), "{found}");
    }
    let block = "[[kernel]]\nshape = [8, 4]\ntokens = 1\nsparsity = 0.5\nformat = ";
    let found = kernels(&format!("{block}['csr', 'source']\n")).unwrap_err().to_string();
    assert!(found.contains("`kernel.format` `source` needs `kernel.source`"), "{found}");
}

#[test]
fn a_kernel_needs_a_gpu() {
    for backend in ["flex", "ndarray"] {
        let text = format!("name = \"t\"\n[device]\nbackend = \"{backend}\"\n{BLOCK}");
        let found = given(&text, &[]).unwrap_err().to_string();
        assert!(found.contains(&format!("`kernel.format` `source` is not available on `{backend}`")), "{found}");
    }
}

#[test]
fn files_say_what_keys_say_elsewhere() {
    let block =
        kernels("[[kernel]]\nweight = 'w.pt'\ninput = 'x.pt'\nformat = ['dense', 'csr']\n").unwrap().kernels.remove(0);
    assert!(block.shapes.is_empty() && block.tokens.is_empty() && block.sparsities.is_empty());
    assert_eq!(block.weight.unwrap().written(), "w.pt");
    assert_eq!(block.input.unwrap().written(), "x.pt");
    let error = |more: &str| kernels(&format!("[[kernel]]\nweight = 'w.pt'\n{more}")).unwrap_err().to_string();
    let found = error("tokens = 1\nformat = 'csr'\nsparsity = 0.5\n");
    assert!(found.contains("`kernel.sparsity` and `kernel.weight` exclude each other"), "{found}");
    let found = error("tokens = 1\nformat = 'csr'\nshape = [8, 4]\n");
    assert!(found.contains("`kernel.shape` and `kernel.weight` exclude each other"), "{found}");
    assert!(error("format = 'csr'\n").contains("missing key `kernel.tokens`"));
    assert!(error("tokens = 1\nformat = 'threshold'\n").contains("missing key `kernel.sparsity`"));
}

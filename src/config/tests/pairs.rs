//! What takes two of every four weights, and nothing else.

use super::*;

const BLOCK: &str = "[[kernel]]\nshape = [8, 4]\ntokens = 1\nsparsity = 0.5\nformat = \"csr\"\n";

#[test]
fn pairs_of_four_need_a_pattern_that_keeps_no_more() {
    let with_nm = |prune: &str| with(&format!("[execute]\nvariants = [\"masked\", \"nm\"]\n{prune}"));
    let block = |rest: &str| format!("[[prune]]\nmethod = \"magnitude\"\n{rest}\n");
    for fits in ["\"2:4\"", "[\"1:4\", \"2:8\", \"1:2\", \"1:3\"]"] {
        with_nm(&block(&format!("pattern = {fits}"))).unwrap_or_else(|found| panic!("{fits}: {found}"));
    }
    // What a checkpoint keeps is seen when it is packed.
    assert!(with_nm("[[prune]]\nmethod = \"given\"\n").is_ok());
    for (rest, pattern) in [
        ("sparsity = 0.5", "unstructured"),
        ("sparsity = [0.5, 0.9]\npattern = \"unstructured\"", "unstructured"),
        ("pattern = [\"2:4\", \"4:8\"]", "4:8"),
        ("pattern = \"3:4\"", "3:4"),
        ("pattern = \"2:3\"", "2:3"),
    ] {
        let text = errors_of(with_nm(&block(rest)));
        let title = format!("`execute.variants` `nm` does not fit `prune.pattern` `{pattern}`");
        assert_eq!(text.matches("error:").count(), 1, "{text}");
        for part in [&*title, "e.toml:5:23", "at most two of every four", "write `pattern = \"2:4\"`"] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
    }
    // Each block that does not fit is named.
    let two = block("pattern = \"2:4\"") + &block("sparsity = 0.5") + &block("pattern = \"4:8\"");
    assert_eq!(errors_of(with_nm(&two)).matches("does not fit").count(), 2);
    let text =
        errors_of(with(&format!("dtype = \"f32\"\n[execute]\nvariants = [\"nm\"]\n{}", block("pattern = \"2:4\""))));
    for part in ["`execute.variants` `nm` takes no `f32`", "`dtype = \"f16\"`"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn pairs_of_four_are_half_of_all_in_16_bits_on_a_gpu() {
    let block = BLOCK.replace("\"csr\"", "[\"csr\", \"nm\"]");
    let on =
        |backend: &str, block: &str| given(&format!("name = \"t\"\n[device]\nbackend = \"{backend}\"\n{block}"), &[]);
    let typed = |dtype: &str| block.replace("format", &format!("dtype = {dtype}\nformat"));
    for dtype in ["\"f16\"", "[\"bf16\", \"f16\"]"] {
        assert!(on("cuda", &typed(dtype)).is_ok() && on("auto", &typed(dtype)).is_ok(), "{dtype}");
    }
    for (text, parts) in [
        (on("cuda", &block), ["`kernel.format` `nm` takes no `f32`", "e.toml:8:18", "the default is `f32`"]),
        (
            on("cuda", &typed("[\"f16\", \"f32\"]")),
            ["`kernel.format` `nm` takes no `f32`", "e.toml:9:18", "`kernel.dtype`"],
        ),
        (on("flex", &typed("\"bf16\"")), ["`kernel.format` `nm` is not available on `flex`", "e.toml:9:18", "`csr32`"]),
        (
            on("cuda", &typed("\"f16\"").replace("= 0.5", "= [0.5, 0.7, 0.9]")),
            ["`kernel.format` `nm` takes no `kernel.sparsity` 0.7", "expected 0.5", "a `[[kernel]]` block of its own"],
        ),
    ] {
        let text = errors_of(text);
        assert_eq!(text.matches("error:").count(), 1, "{text}");
        parts.iter().for_each(|part| assert!(text.contains(part), "no `{part}` in\n{text}"));
    }
    // What a file leaves out is seen when it is read.
    let file = typed("\"f16\"").replace("shape = [8, 4]", "weight = \"w.pt\"").replace("sparsity = 0.5\n", "");
    assert!(on("cuda", &file).is_ok());
}

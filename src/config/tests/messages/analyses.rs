//! Bad `[[analysis]]`, `[[query]]` and `[[table]]` blocks.

use super::{Case, more, whole};

/// A block of a kind, on a file with two prune points.
fn block(kind: &str, rest: &str) -> Case {
    more(format!(
        "[[prune]]\nmethod = \"random\"\nsparsity = [0.5, 0.7]\n[[analysis]]\nid = \"a\"\nkind = \"{kind}\"\n{rest}\n"
    ))
}

/// A query of `summary`.
fn query(id: &str, rest: &str) -> Case {
    more(format!("[[query]]\nid = \"{id}\"\nsql = \"SELECT * FROM summary\"\n{rest}\n"))
}

pub(super) fn analyses() -> Vec<Case> {
    vec![
        block("structure", "[[analysis]]\nid = \"a\"\nkind = \"spy\""),
        block("structure", "[[analysis]]\nid = \"b c\"\nkind = \"spy\""),
        block("structure", "k = 4"),
        block("structure", "layers = \"last\""),
        block("structure", "nm = [[4, 2]]"),
        block("mask-similarity", "pairs = [[\"random-50\", \"magnitude-50\"]]"),
        block("mask-similarity", "sources = [{ sparsity = 0.5, name = \"x\" }]\npairs = [[\"x\", \"x\"]]"),
        block("spy", "order = \"size\""),
        block("spy", "order = \"cluster:b\""),
        block("spy", "pixels = 2000"),
        block("hamming-gradient", "candidates = { mode = \"all\", n = 3 }"),
        block("hamming-gradient", "reference = \"first\""),
        block("neighbours", "reference = 3\nreferences = 5"),
        block("neighbours", "references = 0"),
        block("neighbours", "references = \"many\""),
        block("clustering", "input = \"weights\"\nalgorithm = \"kmedoids\""),
        block("clustering", "neighbours = 0\nreferences = 5"),
        block("clustering", "neighbours = 1\nk = 1"),
        block("clustering", "neighbours = 8\nk = 16"),
        block("groups", "mode = \"partition\"\nsamples = 8"),
        block("activation-sparsity", "targets = 0.5\nthresholds = { q = 0.1 }"),
        block("activation-sparsity", "thresholds = {}"),
        block("activation-sparsity", "thresholds = { q = -0.1 }"),
    ]
}

pub(super) fn analysis_sources() -> Vec<Case> {
    let source = |table: &str| block("structure", &format!("sources = [{table}]"));
    vec![
        source("{ path = \"a\", name = \"x\" }, { path = \"b\", name = \"x\" }"),
        source("{ path = \"a\", pt = \"b\" }"),
        source("{ sparsity = 0.5, inputs = \"x.bin\" }"),
        source("{ path = \"a\", name = \" \" }"),
        source("{ sparsity = 0.9 }"),
        source("{ method = \"random\", name = \"x\" }"),
        whole("name = \"t\"\n[[analysis]]\nid = \"a\"\nkind = \"structure\"\n"),
        block("activation-sparsity", "sources = [{ path = \"a\" }]"),
        block("activation-sparsity", "sources = [{ pt = \"a\" }]"),
    ]
}

pub(super) fn queries() -> Vec<Case> {
    vec![
        more("[[query]]\nplot = \"bar\"\n"),
        more("[[query]]\nid = \"q\"\nsql = \" \"\n"),
        query("a b", ""),
        query("summary", ""),
        query("q", "[[query]]\nid = \"Q\"\nsql = \"SELECT 1\""),
        query("q", "x = \"setup\""),
        query("q", "plot = \"histogram\"\nx = \"sparsity\"\ny = \"nonzero\""),
    ]
}

/// A table of `summary`.
fn table(rest: &str) -> Case {
    more(format!("[[table]]\n{rest}\n"))
}

pub(super) fn tables() -> Vec<Case> {
    let main = |rest: &str| table(&format!("id = \"main\"\nrows = \"method\"\nvalue = \"top1_match\"\n{rest}"));
    vec![
        table(""),
        main("columns = [\"sparsty\", \"perplexity\"]"),
        main("columns = [\"sparsity\", \"sparsity_target\"]"),
        main("from = \"group\""),
        main("best = \"low\""),
        main("digits = 13"),
        main("where = { varient = \"masked\", seed = [true] }"),
        table("id = \"a b\"\nrows = \"method\"\nvalue = \"perplexity\""),
        table("id = \"groups\"\nrows = \"method\"\nvalue = \"kl\""),
        main("[[query]]\nid = \"Main\"\nsql = \"SELECT 1\""),
    ]
}

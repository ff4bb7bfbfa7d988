//! What must hold for any text.

use std::path::Path;

use proptest::prelude::*;

use super::{MINIMAL, given};
use crate::config::experiment::{Method, Scope};
use crate::config::parse;

/// Words that lead far into the checks.
fn token() -> impl Strategy<Value = String> {
    let words = [
        "name",
        "seed",
        "model",
        "source",
        "prune",
        "sparsity",
        "pattern",
        "scope",
        "skip",
        "exclude",
        "expect",
        "where",
        "metric",
        "value",
        "execute",
        "variants",
        "data",
        "context",
        "method",
        "=",
        " = ",
        ".",
        ",",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "\n",
        "\n",
        "\r\n",
        "\"",
        "'",
        "\"2:4\"",
        "damping",
        "budget",
        "owl_m",
        "\"owl\"",
        "\"sparsegpt\"",
        "\"given\"",
        "\"random\"",
        "kernel",
        "shape",
        "tokens",
        "format",
        "\"csr\"",
        "0.5",
        "50",
        "-1",
        "1e999",
        "inf",
        "true",
        "1979-05-27",
        "\u{feff}",
        "ä",
        "🦀",
        "\t",
        "\0",
        "#",
        "\"hf:a/b\"",
        "\"builtin:tiny-opt\"",
        "\"\"\"",
        "0x1F",
    ];
    prop::sample::select(words.to_vec()).prop_map(str::to_owned)
}

fn rendered(text: &str, arguments: &[String]) -> String {
    match parse(Path::new("e.toml"), text, arguments) {
        Ok(experiment) => experiment.warnings.to_string(),
        Err(found) => found.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics(text in any::<String>(), argument in any::<String>()) {
        rendered(&text, &[argument]);
    }

    #[test]
    fn no_sequence_of_tokens_panics(
        tokens in prop::collection::vec(token(), 0..60),
        argument in prop::collection::vec(token(), 0..8),
    ) {
        rendered(&tokens.concat(), &[argument.concat()]);
    }

    #[test]
    fn no_value_anywhere_panics(
        section in prop::sample::select(vec!["", "[model]", "[device]", "[data]", "[[prune]]", "[[kernel]]", "[execute]", "[[expect]]"]),
        entries in prop::collection::vec((token(), prop::collection::vec(token(), 1..4)), 0..6),
    ) {
        let mut text = format!("{section}\n");
        for (key, value) in entries {
            text.push_str(&format!("{key} = {}\n", value.concat()));
        }
        let first = rendered(&text, &[]);
        prop_assert_eq!(first, rendered(&text, &[]));
    }

    #[test]
    fn axes_keep_every_value(
        seeds in prop::collection::btree_set(0..i64::MAX as u64, 1..6),
        hundredths in prop::collection::btree_set(0u32..100, 1..6),
        // Those that allow every scope.
        methods in prop::sample::subsequence(&Method::ALL[..2], 1..=2),
        scopes in prop::sample::subsequence(Scope::ALL, 1..=3),
        blocks in 1usize..4,
    ) {
        let list = |names: Vec<&str>| format!("[\"{}\"]", names.join("\", \""));
        let sparsities: Vec<f64> = hundredths.iter().map(|&hundredth| f64::from(hundredth) / 100.0).collect();
        let block = format!(
            "[[prune]]\nmethod = {}\nscope = {}\nsparsity = {sparsities:?}\n",
            list(methods.iter().map(|word| word.name).collect()),
            list(scopes.iter().map(|word| word.name).collect()),
        );
        let text = format!("seed = {seeds:?}\n{MINIMAL}{}", block.repeat(blocks)).replace('{', "[").replace('}', "]");
        let experiment = given(&text, &[]).map_err(|found| TestCaseError::fail(found.to_string()))?;
        prop_assert_eq!(experiment.seeds, seeds.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(experiment.prune.len(), blocks);
        for block in &experiment.prune {
            prop_assert_eq!(&block.sparsities, &sparsities);
            prop_assert_eq!(block.points().len(), methods.len() * scopes.len() * sparsities.len());
        }
    }

    #[test]
    fn an_override_is_as_good_as_the_file(seed in 0u64..1000, sparsity in 0.0f64..1.0) {
        let written = given(&format!("seed = {seed}\n{MINIMAL}[[prune]]\nmethod = \"random\"\nsparsity = {sparsity:?}\n"), &[]);
        let overridden = given(
            &format!("{MINIMAL}[[prune]]\nmethod = \"random\"\nsparsity = 0.5\n"),
            &[&format!("seed={seed}"), &format!("prune.sparsity={sparsity:?}")],
        );
        let (written, mut overridden) = (written.unwrap(), overridden.unwrap());
        overridden.text.clone_from(&written.text);
        overridden.warnings = written.warnings.clone();
        // Only what was typed is remembered apart.
        overridden.origin = written.origin.clone();
        prop_assert_eq!(written, overridden);
    }
}

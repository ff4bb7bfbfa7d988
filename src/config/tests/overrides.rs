//! What `-s` lays over the file.

use super::*;

const BLOCKS: &str =
    "[[prune]]\nmethod = \"random\"\nsparsity = 0.1\n[[prune]]\nmethod = \"magnitude\"\nsparsity = 0.2\n";

#[test]
fn overrides_win() {
    let text = format!("{MINIMAL}{BLOCKS}");
    let overridden = |overrides: &[&str]| given(&text, overrides).unwrap_or_else(|found| panic!("{found}"));
    let sparsities = |experiment: &Experiment| -> Vec<Vec<f64>> {
        experiment.prune.iter().map(|block| block.sparsities.clone()).collect()
    };
    assert_eq!(sparsities(&overridden(&["prune.sparsity=[0.5,0.6]"])), [[0.5, 0.6], [0.5, 0.6]]);
    assert_eq!(sparsities(&overridden(&["prune.1.sparsity=0.5"])), [[0.1], [0.5]]);
    // The last one wins.
    assert_eq!(sparsities(&overridden(&["prune.1.sparsity=0.5", "prune.sparsity = 0.3"])), [[0.3], [0.3]]);
    let experiment =
        overridden(&["device.backend=flex", "data.context=128", "name=other", "data={perplexity_windows=2}"]);
    assert_eq!(experiment.backends, [BackendChoice::Flex]);
    assert_eq!((experiment.data.context, experiment.data.perplexity_windows), (None, 2));
    assert_eq!(experiment.name, "other");
    let block = overridden(&["prune=[{method='random',pattern='2:4'}]", "prune.pattern=1:4"]).prune;
    assert_eq!((block.len(), block[0].patterns[0].to_string().as_str()), (1, "1:4"));
    let repaired = given("name = \"t\"\nseed = \"x\"\n", &["seed=1", "model.source=builtin:tiny-opt"]).unwrap();
    assert_eq!(repaired.seeds, [1]);
}

#[track_caller]
fn override_error(text: &str, argument: &str, expected: &[&str]) {
    let found = given(text, &[argument]).expect_err("accepted");
    let shown = found.to_string();
    assert_eq!(found.errors(), 1, "{shown}");
    for part in expected.iter().chain([&"--> command line:1:", &format!("-s {argument}").as_str()]) {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
}

#[test]
fn wrong_overrides_show_the_argument() {
    let text = format!("{MINIMAL}{BLOCKS}");
    override_error(
        &text,
        "prune.sparsty=0.5",
        &["unknown path `prune.sparsty`", "did you mean `prune.sparsity`?", "1:10"],
    );
    override_error(&text, "sparsity=0.5", &["did you mean `prune.sparsity`?"]);
    override_error(&text, "seed.x=0.5", &["`seed` is a value, it has no keys"]);
    override_error(&text, "prune.2.sparsity=0.5", &["no `[[prune]]` block 2", "expected 0 to 1"]);
    override_error(&text, "prune.sparsity=50", &["did you mean 0.5?", "1:19"]);
    override_error(&text, "device.backend=fle", &["did you mean `flex`?"]);
    override_error(&text, "data.context=[12", &["not TOML"]);
    override_error(&text, "seed", &["expected `key=value`"]);
    override_error(&text, "seed=", &["expected a value"]);
    override_error(&text, "=1", &["expected a key"]);
    override_error(&text, "data={contxt=1}", &["unknown key `data.contxt`", "1:10"]);
    override_error(MINIMAL, "prune.sparsity=0.5", &["there is no `[[prune]]` block to override"]);
    override_error(MINIMAL, "model.dtype=f17", &["unknown value `f17`"]);
}

#[test]
fn an_override_against_the_file_shows_both() {
    let text = format!("{MINIMAL}[[prune]]\nmethod = \"random\"\npattern = \"2:4\"\n");
    override_error(&text, "prune.sparsity=0.6", &["contradicts", "::: dir/e.toml:6:11"]);
}

/// An experiment without what says how it came to be.
fn bare(mut experiment: Experiment) -> Experiment {
    (experiment.origin, experiment.text, experiment.warnings) = Default::default();
    experiment
}

#[test]
fn the_kept_text_gives_the_same_experiment_without_a_command_line() {
    let text = format!("# mine\n{MINIMAL}{BLOCKS}[data]\nagreement = \"file:a.txt\"\n");
    let plain = given(&text, &[]).unwrap();
    assert_eq!((plain.text.as_str(), plain.origin.set.len()), (text.as_str(), 0));
    for overrides in [
        &["prune.sparsity=[0.5,0.6]"][..],
        &["prune.1.sparsity=5e-1", "seed=[0, 0x10]", "device.backend=flex"],
        &["title='two\"quotes'", "data={perplexity_windows=2}", "prune.0.exclude=['lm_head', '*.fc1']"],
        &["kernel=[{shape=[[8,8]], sparsity=0.5, tokens=1, format='csr'}]"],
        &["title=\"\"\"a\nb = 1\"\"\""],
    ] {
        let with = given(&text, overrides).unwrap_or_else(|found| panic!("{found}"));
        let again = given(&with.text, &[]).unwrap_or_else(|found| panic!("{found}\n{}", with.text));
        assert_eq!(again.text, with.text);
        assert!(with.text.starts_with("# ") && with.text.contains(" -s '"), "{}", with.text);
        assert_eq!(with.origin.set, overrides);
        assert_eq!(bare(again), bare(with));
    }
}

//! The front end as a whole: text and overrides in, an experiment or messages out.

use std::path::Path;

use super::experiment::{
    BackendChoice, BosAt, Data, Dtype, Format, LatencySettings, Method, Metric, NmPattern, Owl, Propagate, Scope,
    SettingValue, Variant,
};
use super::joining::{Drawing, Joining};
use super::source::{ModelSource, TextSource};
use super::*;

mod arena;
mod extends;
mod kernel;
mod limits;
mod messages;
mod overrides;
mod pairs;
mod properties;
mod texts;

const MINIMAL: &str = "name = \"t\"\n[model]\nsource = \"builtin:tiny-opt\"\n";

fn given(text: &str, overrides: &[&str]) -> Result<Experiment, Diagnostics> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    parse(Path::new("dir/e.toml"), text, &overrides)
}

/// The minimal file and more text; lines of `more` start at line 4.
fn with(more: &str) -> Result<Experiment, Diagnostics> {
    given(&format!("{MINIMAL}{more}"), &[])
}

fn errors_of(result: Result<Experiment, Diagnostics>) -> String {
    result.map(|experiment| panic!("accepted: {experiment:?}")).unwrap_or_else(|found| found.to_string())
}

/// All of `expected` must be in the only error of the file.
#[track_caller]
fn one_error(more: &str, expected: &[&str]) {
    let found = with(more).expect_err("accepted");
    let text = found.to_string();
    assert_eq!(found.errors(), 1, "{text}");
    for part in expected {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

/// All of `expected` must be in the only warning of the file.
#[track_caller]
fn one_warning(more: &str, expected: &[&str]) -> Experiment {
    let experiment = with(more).unwrap_or_else(|found| panic!("{found}"));
    let text = experiment.warnings.to_string();
    assert_eq!(experiment.warnings.items().len(), 1, "{text}");
    for part in expected {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    experiment
}

#[test]
fn defaults() {
    let experiment = with("[[prune]]\nmethod = \"magnitude\"\nsparsity = 0.5\n").unwrap();
    assert_eq!(experiment.seeds, [0]);
    assert_eq!(experiment.models, [ModelSource::Builtin("tiny-opt".into())]);
    assert_eq!(experiment.dtype, None);
    assert_eq!(experiment.backends, [BackendChoice::Auto]);
    assert_eq!((experiment.device_index, experiment.threads), (0, 0));
    assert_eq!(experiment.data.agreement, TextSource::Builtin("sample-texts".into()));
    assert_eq!(experiment.data.perplexity, TextSource::Builtin("heldout".into()));
    assert_eq!((experiment.data.context, experiment.data.perplexity_windows), (None, 0));
    assert_eq!((experiment.data.perplexity_stride, experiment.data.perplexity_bos), (None, BosAt::Start));
    let [calibration] = &experiment.data.calibrations[..] else { panic!() };
    assert_eq!(calibration.text, TextSource::Builtin("calibration".into()));
    assert_eq!((calibration.samples, calibration.length), (128, None));
    assert_eq!(experiment.variants, [Variant::Dense, Variant::Masked, Variant::Sparse(Format::Csr)]);
    assert_eq!(experiment.metrics, [Metric::Structure, Metric::Agreement]);
    let block = &experiment.prune[0];
    assert_eq!(block.points(), [point(Method::Magnitude, Some(Scope::Global), NmPattern::Unstructured, 0.5)]);
    assert_eq!(block.patterns, [NmPattern::Unstructured]);
    assert_eq!(block.exclude, ["lm_head"]);
    let latency = LatencySettings { warmup: 3, repeats: 20, batch: vec![1], prompt: vec![128], generate: 32 };
    assert_eq!(experiment.latency, latency);
    assert!(experiment.expects.is_empty() && experiment.warnings.is_empty());
}

#[test]
fn everything_given() {
    let text = r#"
name = "all"
title = "All keys"
seed = [0, 1]
[model]
source = ["hf:facebook/opt-125m@main", "path:../m"]
dtype = "bf16"
[device]
backend = "cuda"
index = 1
threads = 4
[data]
agreement = "file:a.txt"
perplexity = "file:/b.txt"
context = 512
perplexity_windows = 3
perplexity_stride = 256
perplexity_bos = "windows"
calibration = "file:c.txt"
calibration_samples = 16
calibration_length = 256
[[prune]]
method = ["magnitude", "random"]
sparsity = [0, 0.5]
scope = ["layer", "row"]
exclude = ["lm_head", "*.fc1"]
skip = [{ method = "random", sparsity = 0, scope = "row", pattern = "unstructured" }]
[[prune]]
method = "magnitude"
pattern = ["2:4", "4:8"]
[execute]
variants = ["masked", "csr"]
warmup = 0
repeats = 5
[measure]
metrics = ["perplexity", "latency"]
batch = [1, 4]
prompt = 16
generate = 8
[[expect]]
where = { model = "path:../m", method = "magnitude", pattern = "2:4", seed = 1, dtype = "bf16" }
metric = "perplexity"
value = 39.3
tolerance = 1
source = "a table"
"#;
    let experiment = given(text, &[]).unwrap();
    assert_eq!(experiment.text, text);
    assert_eq!(experiment.models[1].to_string(), "path:../m");
    let ModelSource::Path(path) = &experiment.models[1] else { panic!() };
    assert_eq!(&**path, Path::new("dir/../m"));
    assert_eq!(experiment.dtype, Some(Dtype::Bf16));
    assert_eq!(experiment.data.context, Some(512));
    assert_eq!((experiment.data.perplexity_stride, experiment.data.perplexity_bos), (Some(256), BosAt::Windows));
    let [calibration] = &experiment.data.calibrations[..] else { panic!() };
    assert_eq!(calibration.text.to_string(), "file:c.txt");
    assert_eq!((calibration.samples, calibration.length), (16, Some(256)));
    assert_eq!(experiment.prune[0].points().len(), 8);
    assert_eq!(experiment.prune[0].skip.len(), 1);
    let fixed = |n, m| point(Method::Magnitude, None, NmPattern::NofM { n, m }, 0.5);
    assert_eq!(experiment.prune[1].points(), [fixed(2, 4), fixed(4, 8)]);
    let latency = LatencySettings { warmup: 0, repeats: 5, batch: vec![1, 4], prompt: vec![16], generate: 8 };
    assert_eq!(experiment.latency, latency);
    let expect = &experiment.expects[0];
    assert_eq!((expect.value, expect.tolerance), (39.3, 1.0));
    let shown = "model = path:../m, method = magnitude, pattern = 2:4, seed = 1, dtype = bf16";
    assert_eq!(expect.r#where.to_string(), shown);
}

fn point(method: Method, scope: Option<Scope>, pattern: NmPattern, sparsity: f64) -> experiment::Point {
    experiment::Point { method, scope, pattern, sparsity }
}

#[test]
fn every_error_in_one_go_with_its_place() {
    let text = "name = \"a/b\"\nsparsty = 1\n[model]\nsource = \"facebook/opt-125m\"\n\n[[prune]]\nmethod = \"magnitude\"\nsparsity = 0.5\n[[prune]]\nmethd = \"random\"\nsparsity = [0.5, \"0.7\", 50, true]\nscope = \"model\"\n[data]\ncontext = 1\n";
    let found = given(text, &["seed=-1", "device.bakend=cuda"]).unwrap_err();
    let shown = found.to_string();
    let places = [
        "e.toml:1:8",
        "e.toml:2:1",
        "e.toml:4:10",
        "e.toml:10:1",
        "e.toml:11:18",
        "e.toml:11:25",
        "e.toml:11:29",
        "e.toml:12:9",
        "e.toml:14:11",
        "command line:1:9",
        "command line:1:11",
    ];
    let mut rest = shown.as_str();
    for place in places {
        let at = rest.find(place).unwrap_or_else(|| panic!("no {place} (in order) in\n{shown}"));
        rest = &rest[at..];
    }
    // The misspelled `methd` is not missing as well.
    assert_eq!(found.errors(), places.len(), "{shown}");
}

#[test]
fn a_snippet_in_full() {
    let text = errors_of(with("[[prune]]\nmethod = \"random\"\nsparsity = [0.5, 50]\n"));
    let expected = "\
error: `prune.sparsity` is out of range
 --> dir/e.toml:6:18
  |
6 | sparsity = [0.5, 50]
  |                  ^^ expected a fraction, at least 0 and below 1
  |
  = help: a fraction: did you mean 0.5?";
    assert_eq!(text, expected);
}

#[test]
fn one_mistake_gives_one_message() {
    let block = "[[prune]]\nmethod = \"random\"\nsparsity = 0.5\n";
    let expect = "[[expect]]\nmetric = \"perplexity\"\nvalue = 1\ntolerance = 0\n";
    for text in [
        "[[prun]]\n[execute]\nvariants = [\"masked\"]\n".to_owned(),
        format!("{block}skip = [{{ method = \"magnitude\" }}]\nscope = \"model\"\n"),
        "[[prune]]\nmethod = [\"random\", \"x\"]\nsparsity = 0.5\nskip = [{ method = \"magnitude\" }]\n".to_owned(),
        format!("{block}skip = [{{ method = \"magnitude\" }}]\nexclude = [\"a[\"]\n"),
        format!("{block}[execute]\nvariants = [\"dense\", \"maskd\"]\n"),
        format!("{expect}[measure]\nmetrics = \"perplexty\"\n"),
        format!("{expect}[measure]\nmetrics = [\"structure\", \"perplexty\"]\n"),
    ] {
        let found = with(&text).expect_err("accepted");
        assert_eq!(found.items().len(), 1, "{found}");
    }
}

#[test]
fn unknown_keys() {
    one_error("[data]\ncontxt = 5\n", &["unknown key `data.contxt`", "`context`", "a similar key exists: `context`"]);
    one_error("context = 5\n", &["unknown key `model.context`", "`context` belongs in `[data]`"]);
    one_error("seed = 5\n", &["unknown key `model.seed`", "belongs at the top of the file"]);
    one_error("[[analyse]]\nid = 'x'\n", &["unknown key `analyse`", "expected one of `name`"]);
    one_error(
        "[[expect]]\nmetric = \"total\"\nvalue = 1\ntolerance = 0\nmethod = \"random\"\n",
        &["unknown key `expect.method`", "`method` belongs in `where`"],
    );
}

#[test]
fn a_misspelled_section_is_reported_once() {
    let text = errors_of(given("name = \"t\"\n[modle]\nsource = \"builtin:tiny-opt\"\n", &[]));
    assert_eq!(text.matches("error:").count(), 1, "{text}");
    assert!(text.contains("a similar key exists: `model`"), "{text}");
}

#[test]
fn wrong_types() {
    one_error("[device]\nindex = \"0\"\n", &["wrong type of `device.index`", "found a string", "without quotes: 0"]);
    one_error("[device]\nbackend = 1\n", &["`flex`, or an array of them, found an integer", "write it in quotes"]);
    one_error("[prune]\nmethod = \"random\"\n", &["expected an array of tables, found a table", "`[[prune]]`"]);
    one_error("[[device]]\n", &["expected a table, found an array", "`[device]`"]);
    one_error("[device]\nindex = -1\n", &["`device.index` is out of range", "at least 0"]);
    one_error("[device]\nindex = 99999999999999999999\n", &["at most 9223372036854775807"]);
    let list = "[[prune]]\nmethod = \"random\"\nsparsity = 0.5\nexclude = \"a\"\n";
    one_error(list, &["expected an array of strings, found a string", "write `[\"a\"]`"]);
    let text = errors_of(given("name = 1\n[model]\nsource = [\"builtin:tiny-opt\", 2]\n", &[]));
    assert_eq!(text.matches("found an integer").count(), 2, "{text}");
}

#[test]
fn unknown_words() {
    one_error("[device]\nbackend = \"cpu\"\n", &["unknown value `cpu` of `device.backend`", "`ndarray`"]);
    let block = "[[prune]]\nmethod = [\"random\", \"magnitud\"]\nsparsity = 0.5\n";
    one_error(block, &["unknown value `magnitud`", "e.toml:5:21", "did you mean `magnitude`?"]);
    one_error("dtype = \"fp16\"\n", &["unknown value `fp16` of `model.dtype`", "did you mean `f16`?"]);
}

#[test]
fn missing_keys() {
    let text = errors_of(given("", &[]));
    assert!(text.contains("missing key `name`") && text.contains("missing key `model.source`"), "{text}");
    assert!(text.contains("--> dir/e.toml"), "{text}");
    let text = errors_of(given("name = \"t\"\n[model]\n", &[]));
    assert!(text.contains("e.toml:2:1") && text.contains("`hf:ORG/NAME`"), "{text}");
    one_error("[[prune]]\nsparsity = 0.5\n", &["missing key `prune.method`", "e.toml:4:1"]);
    one_error("[[prune]]\nmethod = \"random\"\n", &["missing key `prune.sparsity`", "e.toml:4:1"]);
    one_error("[[expect]]\nmetric = \"total\"\nvalue = 1\n", &["missing key `expect.tolerance`"]);
}

#[test]
fn axes() {
    one_error("[device]\nbackend = []\n", &["`device.backend` is empty", "expected at least one value"]);
    let experiment = one_warning(
        "[device]\nbackend = [\"flex\", \"cuda\", \"flex\"]\n",
        &["warning: `device.backend` has `flex` twice", "e.toml:5:28", "first given here"],
    );
    assert_eq!(experiment.backends, [BackendChoice::Flex, BackendChoice::Cuda]);
}

#[test]
fn sparsities() {
    let block = |sparsity: &str| format!("[[prune]]\nmethod = \"random\"\nsparsity = {sparsity}\n");
    one_error(&block("33.3"), &["did you mean 0.333?"]);
    one_error(&block("1"), &["1 would remove every weight"]);
    one_error(&block("-0.1"), &["expected a fraction"]);
    one_error(&block("nan"), &["expected a finite number"]);
    one_error(&block("200"), &["expected a fraction"]);
    let zero = with(&block("-0.0")).unwrap().prune[0].sparsities[0];
    assert!(zero.is_sign_positive());
}

#[test]
fn patterns() {
    let block = |rest: &str| format!("[[prune]]\nmethod = \"random\"\n{rest}");
    let pattern = |rest: &str| with(&block(rest)).unwrap().prune.remove(0);
    assert_eq!(pattern("pattern = \"2:4\"\n").sparsities_for(NmPattern::NofM { n: 2, m: 4 }), [0.5]);
    assert_eq!(pattern("pattern = \"2:4\"\nsparsity = 0.5\n").points().len(), 1);
    assert_eq!(pattern("pattern = [\"unstructured\", \"2:4\"]\nsparsity = 0.5\nscope = \"row\"\n").points().len(), 2);
    assert_eq!(pattern("pattern = \"1:3\"\nsparsity = 0.66666666667\n").points().len(), 1);

    one_error(
        &block("pattern = \"2:4\"\nsparsity = 0.6\n"),
        &[
            "`prune.pattern` `2:4` contradicts `prune.sparsity` 0.6",
            "e.toml:7:12",
            "fixes the sparsity at 0.5",
            "leave `sparsity` out, or write `sparsity = 0.5`",
        ],
    );
    one_error(&block("pattern = [\"unstructured\", \"2:4\"]\nsparsity = [0.5, 0.6]\n"), &["block of its own"]);
    one_error(&block("pattern = \"24\"\n"), &["unknown pattern `24`", "`unstructured` or `N:M`"]);
    for bad in ["4:2", "0:4", "4:4", "2:65"] {
        one_error(&block(&format!("pattern = \"{bad}\"\n")), &["is out of range", "1 <= N < M <= 64"]);
    }
    let scoped = block("pattern = \"2:4\"\nscope = \"row\"\n");
    one_error(&scoped, &["`prune.scope` has no effect on an `N:M` pattern", "e.toml:7:9", "leave `scope` out"]);
}

#[test]
fn keys_of_single_methods() {
    let block = |method: &str, rest: &str| format!("[[prune]]\nmethod = {method}\n{rest}\n");
    let prune = |text: &str| with(text).unwrap_or_else(|found| panic!("{found}")).prune.remove(0);

    // Each method has its own default scope.
    let points = prune(&block("[\"magnitude\", \"wanda\", \"ria\"]", "sparsity = 0.5")).points();
    let scopes: Vec<_> = points.iter().map(|point| point.scope.unwrap()).collect();
    assert_eq!(scopes, [Scope::Global, Scope::Row, Scope::Layer]);
    one_error(
        &block("[\"magnitude\", \"wanda\"]", "sparsity = 0.5\nscope = \"layer\""),
        &[
            "`wanda` has no scope `layer`",
            "e.toml:7:9",
            "expected `row`",
            "give `wanda` a `[[prune]]` block of its own",
        ],
    );
    let alone = block("\"wanda\"", "sparsity = 0.5\nscope = \"global\"");
    one_error(&alone, &["`wanda` has no scope `global`", "leave `scope` out"]);

    // A key is for the methods that use it.
    let unused = block("[\"magnitude\", \"wanda\"]", "sparsity = 0.5\nalpha = 1");
    one_error(&unused, &["`prune.alpha` has no effect on `magnitude`, `wanda`", "e.toml:7:9", "it is for `ria`"]);
    one_error(&block("\"random\"", "sparsity = 0.5\npropagate = \"dense\""), &["`prune.propagate` has no effect"]);
    let used = prune(&block("[\"magnitude\", \"ria\"]", "sparsity = 0.5\nalpha = 0\npropagate = \"dense\""));
    assert_eq!((used.settings.get("alpha"), used.propagate), (Some(SettingValue::Real(0.0)), Propagate::Dense));
    one_error(&block("\"ria\"", "sparsity = 0.5\nalpha = -1"), &["`prune.alpha` is out of range", "at least 0"]);
    one_error(&block("\"admm\"", "sparsity = 0.5\ndamping = 0"), &["`prune.damping` is out of range", "above 0"]);
    one_error(&block("\"admm\"", "sparsity = 0.5\niterations = 0"), &["`prune.iterations` is out of range"]);
    one_error(&block("\"sparsegpt\"", "sparsity = 0.5\nblocksize = 0"), &["`prune.blocksize` is out of range"]);
    one_error(
        &block("\"wanda\"", "sparsity = 0.5\ndamping = 0.1"),
        &["`prune.damping` has no effect on `wanda`", "leave `damping` out: it is for `sparsegpt`, `admm`"],
    );
}

#[test]
fn given_weights_take_no_sparsity() {
    let block = |rest: &str| format!("[[prune]]\nmethod = \"given\"\n{rest}\n");
    let points = with(&block("")).unwrap().prune[0].points();
    assert_eq!(points, [point(Method::Given, None, NmPattern::Unstructured, 0.0)]);
    one_error(&block("sparsity = 0.5"), &["`prune.sparsity` has no effect on `given`", "leave `sparsity` out"]);
    one_error(&block("pattern = \"2:4\""), &["`prune.pattern` has no effect on `given`"]);
    // Beside a method that takes one, it keeps its one point.
    let both = "[[prune]]\nmethod = [\"given\", \"random\"]\nsparsity = [0.3, 0.5]\nscope = \"row\"\n";
    assert_eq!(with(both).unwrap().prune[0].points().len(), 3);
}

#[test]
fn budgets() {
    let block = |rest: &str| format!("[[prune]]\nmethod = \"wanda\"\n{rest}\n");
    let owl = |rest: &str| with(&block(rest)).unwrap_or_else(|found| panic!("{found}")).prune[0].owl;
    assert_eq!(owl("sparsity = 0.5"), None);
    assert_eq!(owl("sparsity = 0.5\nbudget = \"uniform\""), None);
    assert_eq!(owl("sparsity = 0.5\nbudget = \"owl\""), Some(Owl { m: 5.0, lambda: 0.08 }));
    assert_eq!(owl("sparsity = 0.5\nbudget = \"owl\"\nowl_m = 7\n"), Some(Owl { m: 7.0, lambda: 0.08 }));
    one_error(&block("sparsity = 0.5\nowl_m = 7"), &["`prune.owl_m` has no effect without `budget = \"owl\"`"]);
    one_error(&block("pattern = \"2:4\"\nbudget = \"owl\""), &["`prune.budget` has no effect on an `N:M` pattern"]);
    one_error(&block("sparsity = 0.5\nbudget = \"owl\"\nowl_lambda = 0"), &["`prune.owl_lambda` is out of range"]);
    one_error(
        "[[prune]]\nmethod = \"random\"\nsparsity = 0.5\nbudget = \"owl\"\n",
        &["`prune.budget` has no effect on `random`", "it is for `wanda`"],
    );
}

#[test]
fn globs_and_skips() {
    let block = |rest: &str| format!("[[prune]]\nmethod = \"random\"\nsparsity = 0.5\n{rest}\n");
    one_error(&block("exclude = [\"a[\"]"), &["no valid glob: `a[`", "e.toml:7:12", "unclosed character class"]);
    assert!(with(&block("exclude = []")).unwrap().prune[0].exclude.is_empty());
    one_error(&block("skip = [{}]"), &["`prune.skip` names no value"]);
    one_error(&block("skip = [{ sparsity = 50 }]"), &["`prune.skip.sparsity`", "did you mean 0.5?"]);
    one_warning(&block("skip = [{ method = \"magnitude\" }]"), &["`prune.skip` leaves nothing out", "e.toml:7:9"]);
}

#[test]
fn sources() {
    let source = |source: &str| errors_of(given(&format!("name = \"t\"\n[model]\nsource = \"{source}\"\n"), &[]));
    assert!(source("facebook/opt-125m").contains("did you mean `hf:facebook/opt-125m`?"));
    let text = source("s3:bucket");
    for form in ["builtin:NAME", "hf:ORG/NAME", "path:DIR", "synthetic:NAME"] {
        assert!(text.contains(form), "{text}");
    }
    assert!(source("synthetic:opt-126m").contains("did you mean `synthetic:opt-125m`?"));
    one_error(
        "[data]\nagreement = \"s3:a/b\"\n",
        &["unknown scheme `s3:` of text source", "`file:PATH`", "`hf:ORG/NAME/CONFIG/SPLIT`"],
    );
}

#[test]
fn an_existing_folder_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("checkpoint")).unwrap();
    let file = folder.path().join("e.toml");
    std::fs::write(&file, "name = \"t\"\n[model]\nsource = \"checkpoint\"\n").unwrap();
    let text = load(&file, &[]).unwrap_err().to_string();
    assert!(text.contains("did you mean `path:checkpoint`?"), "{text}");
}

#[test]
fn names() {
    let name = |name: &str| given(&format!("name = \"{name}\"\n[model]\nsource = \"builtin:tiny-opt\"\n"), &[]);
    assert_eq!(name("s1.a_B-2").unwrap().name, "s1.a_B-2");
    assert!(errors_of(name("a/b c")).contains("write `name = \"a-b-c\"`"));
    for bad in ["", ".", "..", "/", "ä"] {
        assert!(errors_of(name(bad)).contains("`name` can't be a folder's name"), "{bad}");
    }
    for kept in ["reference", "REFERENCE"] {
        let text = errors_of(name(kept));
        assert!(
            text.contains("e.toml:1:8")
                && text.contains(&format!("write another name, for example `name = \"{kept}-1\"`")),
            "{text}"
        );
    }
    assert!(name("references").is_ok() && name("reference-1").is_ok());
}

#[test]
fn variants_and_prune_blocks() {
    assert_eq!(with("").unwrap().variants, [Variant::Dense]);
    let text = errors_of(with("[execute]\nvariants = [\"dense\", \"masked\", \"csr\"]\n"));
    assert_eq!(text.matches("needs a pruned model").count(), 2, "{text}");
    assert!(text.contains("there is no `[[prune]]` block"), "{text}");
    let idle = "[execute]\nvariants = [\"dense\"]\n[[prune]]\nmethod = \"random\"\nsparsity = 0.5\n";
    one_warning(idle, &["`execute.variants` has no pruned variant", "[[prune]]", "e.toml:5:12"]);
}

#[test]
fn half_precision_needs_a_gpu() {
    let text = "dtype = \"f16\"\n[device]\nbackend = [\"cuda\", \"flex\"]\n";
    one_error(
        text,
        &["`model.dtype` `f16` is not available on `flex`", "the CPU backends compute in f32", "a CPU backend"],
    );
    assert!(with("dtype = \"f16\"\n").is_ok());
}

#[test]
fn expectations() {
    let block = |rest: &str| format!("[[expect]]\nvalue = 1\ntolerance = 0.1\n{rest}\n");
    one_error(
        &block("metric = \"perplexity\""),
        &[
            "`expect.metric` `perplexity` is not measured",
            "write `metrics = [\"structure\", \"agreement\", \"perplexity\"]`",
        ],
    );
    one_error(&block("metric = \"perplexty\""), &["unknown value `perplexty`", "did you mean `perplexity`?"]);
    one_error(&block("metric = \"total\"\nwhere = { backend = \"auto\" }"), &["can't be `auto`"]);
    one_error("[[expect]]\nvalue = 1\nmetric = \"total\"\ntolerance = -1\n", &["`expect.tolerance` is out of range"]);
}

#[test]
fn syntax_errors() {
    let text = errors_of(given("name = \"t\nseed = [0]\n\n[model]\nsource = = 3\n", &["x=1"]));
    assert!(text.contains("the file is not TOML") && text.contains("e.toml:1:"), "{text}");
    assert!(text.contains("e.toml:5:10"), "{text}");
    assert!(text.contains("unknown path `x`"), "{text}");
    one_error("source = \"builtin:tiny-opt\"\n", &["duplicate key", "e.toml:4:1"]);
}

#[test]
fn an_array_that_is_never_closed_does_not_fill_the_screen() {
    let found = with(&format!("x = [0\n{}", "y = 1\n".repeat(50))).unwrap_err();
    assert_eq!(found.errors(), MAX_SYNTAX_ERRORS);
}

#[test]
fn unreadable_files() {
    let folder = tempfile::tempdir().unwrap();
    let error = load(&folder.path().join("none.toml"), &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }) && error.hint().is_some());
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(load(&binary, &[]).unwrap_err().hint().unwrap().contains("UTF-8"));
}

#[test]
fn the_schema_has_a_description_for_every_key_and_closes_every_table() {
    fn walk(schema: &serde_json::Value, path: &str) {
        if let Some(properties) = schema["properties"].as_object() {
            assert_eq!(schema["additionalProperties"], false, "{path}");
            for (key, value) in properties {
                assert!(value["description"].is_string(), "{path}.{key}");
                walk(value, &format!("{path}.{key}"));
            }
        }
        assert!(schema["$ref"].is_null(), "{path} refers elsewhere, which the check can't follow");
        walk_items(schema, path);
    }
    fn walk_items(schema: &serde_json::Value, path: &str) {
        if schema["items"].is_object() {
            walk(&schema["items"], path);
        }
    }
    let schema = json_schema();
    walk(&schema, "");
    assert!(schema["$schema"].as_str().unwrap().contains("draft-07"));
    assert_eq!(schema["required"], serde_json::json!(["name"]));
    let one_of = ["model", "kernel", "analysis"].map(|key| serde_json::json!({ "required": [key] }));
    assert_eq!(schema["anyOf"], serde_json::json!(one_of));
    // TOML has no null, and one key is called so.
    assert!(!schema.to_string().replace("\"null\":", "").contains("\"null\""));
    let methods = &schema["properties"]["prune"]["items"]["properties"]["method"]["anyOf"];
    assert_eq!(methods[0]["oneOf"][0]["const"], "magnitude");
    assert_eq!(methods[1]["minItems"], 1);
}

#[test]
fn defaults_of_the_schema_are_the_defaults() {
    let schema = json_schema();
    let default = |path: &str| schema.pointer(&format!("/properties/{path}/default")).cloned().unwrap();
    let blocks =
        "[[prune]]\nmethod = \"random\"\nsparsity = 0.5\n[[kernel]]\nshape = [8, 8]\ntokens = 1\nformat = \"dense\"\n";
    let experiment = with(blocks).unwrap();
    let kernel = &experiment.kernels[0];
    let device = "device/properties";
    let data = "data/properties";
    let prune = "prune/items/properties";
    let block = &experiment.prune[0];
    let settings = |method: Method| method.settings(&block.settings);
    let number = |value: Option<SettingValue>| match value.unwrap() {
        SettingValue::Real(number) => serde_json::json!(number),
        SettingValue::Count(count) => serde_json::json!(count),
    };
    let pairs = [
        (default("seed"), serde_json::json!(experiment.seeds[0])),
        (default(&format!("{device}/backend")), serde_json::json!(experiment.backends[0])),
        (default(&format!("{device}/index")), serde_json::json!(experiment.device_index)),
        (default(&format!("{device}/threads")), serde_json::json!(experiment.threads)),
        (default(&format!("{data}/agreement")), serde_json::json!(experiment.data.agreement)),
        (default(&format!("{data}/perplexity")), serde_json::json!(experiment.data.perplexity)),
        (default(&format!("{data}/perplexity_windows")), serde_json::json!(experiment.data.perplexity_windows)),
        (default(&format!("{data}/perplexity_bos")), serde_json::json!(experiment.data.perplexity_bos)),
        (default(&format!("{data}/perplexity_drawing")), serde_json::json!(experiment.data.perplexity_drawing)),
        (default(&format!("{data}/calibration")), serde_json::json!(experiment.data.calibrations[0].text)),
        (default(&format!("{data}/calibration_samples")), serde_json::json!(experiment.data.calibrations[0].samples)),
        (default(&format!("{data}/calibration_bos")), serde_json::json!(experiment.data.calibration_bos)),
        (default(&format!("{prune}/pattern")), serde_json::json!(block.patterns[0])),
        (default(&format!("{prune}/exclude")), serde_json::json!(block.exclude)),
        (default(&format!("{prune}/propagate")), serde_json::json!(block.propagate)),
        (default(&format!("{prune}/alpha")), number(settings(Method::Ria).get("alpha"))),
        (default(&format!("{prune}/blocksize")), number(settings(Method::SparseGpt).get("blocksize"))),
        (default(&format!("{prune}/iterations")), number(settings(Method::Admm).get("iterations"))),
        (default(&format!("{prune}/owl_m")), serde_json::json!(Owl::default().m)),
        (default(&format!("{prune}/owl_lambda")), serde_json::json!(Owl::default().lambda)),
        (default("kernel/items/properties/dtype"), serde_json::json!(kernel.dtypes[0])),
        (default("kernel/items/properties/warmup"), serde_json::json!(kernel.warmup)),
        (default("kernel/items/properties/repeats"), serde_json::json!(kernel.repeats)),
        (default("execute/properties/variants"), serde_json::json!(experiment.variants)),
        (default("measure/properties/metrics"), serde_json::json!(experiment.metrics)),
        (default("execute/properties/warmup"), serde_json::json!(experiment.latency.warmup)),
        (default("execute/properties/repeats"), serde_json::json!(experiment.latency.repeats)),
        (default("measure/properties/batch"), serde_json::json!(experiment.latency.batch[0])),
        (default("measure/properties/prompt"), serde_json::json!(experiment.latency.prompt[0])),
        (default("measure/properties/generate"), serde_json::json!(experiment.latency.generate)),
    ];
    for (stated, real) in pairs {
        assert_eq!(stated, real);
    }
}

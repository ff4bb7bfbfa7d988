//! Every message about an experiment file, as it is shown: one snapshot for each group of bad files.
//!
//! A changed message fails the test, which prints old and new. To accept it, run the tests once more with
//! `INSTA_UPDATE=always` and commit `tests/snapshots/`.

use super::*;
use std::collections::BTreeSet;

mod analyses;

/// A bad file, and what `-s` lays over it.
struct Case {
    /// Where it lies, `dir` if it matters to none.
    folder: &'static str,
    text: String,
    overrides: &'static [&'static str],
}

/// The minimal file and more text.
fn more(text: impl AsRef<str>) -> Case {
    whole(format!("{MINIMAL}{}", text.as_ref()))
}

/// A whole file.
fn whole(text: impl Into<String>) -> Case {
    Case { folder: "dir", text: text.into(), overrides: &[] }
}

/// The minimal file with a `[[prune]]` block of random masks.
fn random(text: &str) -> Case {
    more(format!("[[prune]]\nmethod = \"random\"\n{text}\n"))
}

/// A file of one `[[kernel]]` block and no model.
fn kernel(shape: &str, tokens: &str, rest: &str) -> Case {
    whole(format!("name = \"t\"\n[[kernel]]\nshape = {shape}\ntokens = {tokens}\n{rest}\n"))
}

/// The minimal file with a `[[prune]]` block, and what `-s` lays over it.
fn over(overrides: &'static [&'static str]) -> Case {
    Case { overrides, ..random("sparsity = 0.5") }
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",\n")
}

/// The bad files, by what is wrong with them. A message of the same make belongs beside its like.
fn groups() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("syntax", syntax()),
        ("names_and_sources", names_and_sources()),
        ("keys_and_types", keys_and_types()),
        ("values", values()),
        ("pruning", pruning()),
        ("methods", methods()),
        ("references", references()),
        ("devices_and_variants", devices_and_variants()),
        ("data_and_measures", data_and_measures()),
        ("expectations", expectations()),
        ("kernels", kernels()),
        ("own_kernels", own_kernels()),
        ("analyses", analyses::analyses()),
        ("analysis_sources", analyses::analysis_sources()),
        ("queries", analyses::queries()),
        ("tasks", tasks()),
        ("tables", analyses::tables()),
        ("overrides", overrides()),
        ("extends", extends()),
        ("sizes", sizes()),
    ]
}

fn tasks() -> Vec<Case> {
    let tasks = |keys: &str| more(format!("[measure]\nmetrics = [\"tasks\"]\n[tasks]\n{keys}\n"));
    let expect = |keys: &str| tasks(&format!("names = \"rte\"\n[[expect]]\nvalue = 0.5\ntolerance = 0.1\n{keys}"));
    vec![
        more("[measure]\nmetrics = [\"tasks\"]\n"),
        more("[tasks]\nnames = \"boolq\"\n"),
        tasks("limit = 3"),
        tasks("names = [\"hellswag\", \"squad\"]"),
        tasks("names = [\"boolq\", \"mmlu\"]\nshots = 5"),
        tasks("names = \"rte\"\nbos = \"yes\""),
        expect("metric = \"acc\""),
        expect("metric = \"total\"\ntask = \"rte\""),
        expect("metric = \"acc\"\ntask = \"boolq\""),
        expect("metric = \"acc\"\ntask = \"hellswag\""),
        expect("metric = \"acc\"\ntask = \"mean\""),
        more(
            "[measure]\nmetrics = [\"tasks\"]\n[tasks]\nnames = \"gsm8k\"\n[[expect]]\nvalue = 1\ntolerance = 0.1\n\
             metric = \"acc\"\ntask = \"gsm8k\"\n",
        ),
    ]
}

fn syntax() -> Vec<Case> {
    vec![
        whole("name = \"t\nseed = [0]\n\n[model]\nsource = = 3\n"),
        more("source = \"builtin:tiny-opt\"\n"),
        more("[data\n"),
        random("sparsity = 50%"),
        random("sparsity = [0.5, 62.5 %] # 10 %"),
    ]
}

fn names_and_sources() -> Vec<Case> {
    let named = |name: &str| whole(MINIMAL.replace("\"t\"", &format!("\"{name}\"")));
    let source = |source: &str| whole(MINIMAL.replace("builtin:tiny-opt", source));
    vec![
        whole(""),
        whole("name = \"t\"\n[model]\n"),
        named("a/b c"),
        named("опыт"),
        named(".."),
        named(&"n".repeat(129)),
        named("Reference"),
        source("facebook/opt-125m"),
        source("s3:bucket"),
        source("synthetic:opt-126m"),
        source("hf:a/b/c"),
        more("[data]\nagreement = \"s3:a/b\"\n"),
        more("[data]\nperplexity = \"hf:a/b\"\n"),
        more("[data]\ncalibration = \"calibration\"\n"),
    ]
}

fn keys_and_types() -> Vec<Case> {
    vec![
        more("[data]\ncontxt = 5\n"),
        more("context = 5\n"),
        more("seed = 5\n"),
        whole("name = \"t\"\n[modle]\nsource = \"builtin:tiny-opt\"\n"),
        more("[[expect]]\nmetric = \"total\"\nvalue = 1\ntolerance = 0\nmethod = \"random\"\n"),
        more("[device]\nindex = \"0\"\n"),
        more("[device]\nbackend = 1\n"),
        more("[prune]\nmethod = \"random\"\n"),
        more("[[device]]\n"),
        more("[data]\ncalibration_bos = \"yes\"\n"),
        random("sparsity = 0.5\nexclude = \"a\""),
        whole("name = 1\n[model]\nsource = [\"builtin:tiny-opt\", 2026-01-01]\n"),
    ]
}

fn values() -> Vec<Case> {
    vec![
        random("sparsity = { from = 0.1, to = 0.95, step = 0.1 }"),
        random("sparsity = { from = 0.1, to = 0.9, step = -0.1 }"),
        random("sparsity = { from = 0.1, to = 0.9 }"),
        random("sparsity = { from = 0.1, to = 0.9, by = 0.1 }"),
        random("sparsity = { from = 0.1, to = \"0.9\", step = 0.1 }"),
        kernel("[8, 8]", "{ from = -1, to = 3, step = 1 }", "format = \"dense\""),
        more("[device]\nindex = -1\n"),
        more("[device]\nindex = 99999999999999999999\n"),
        more("[device]\nbackend = []\n"),
        more("[device]\nbackend = \"cpu\"\n"),
        more("[device]\nbackend = [\"flex\", \"cuda\", \"flex\"]\n"),
        more("dtype = \"fp16\"\n"),
        random("sparsity = nan"),
        random("sparsity = [0.5, 33.3]"),
        random("sparsity = 1"),
        random("sparsity = -0.1"),
    ]
}

fn pruning() -> Vec<Case> {
    vec![
        more("[[prune]]\nsparsity = 0.5\n"),
        random(""),
        random("pattern = \"24\""),
        random("pattern = \"4:2\""),
        random("pattern = \"2:4\"\nsparsity = 0.6"),
        random("pattern = [\"1:4\", \"2:4\"]\nsparsity = 0.5"),
        random("pattern = [\"unstructured\", \"2:4\"]\nsparsity = [0.5, 0.6]"),
        random("pattern = \"2:4\"\nscope = \"row\""),
        random("sparsity = 0.5\nexclude = [\"a[\"]"),
        random("sparsity = 0.5\nskip = [{}]"),
        random("sparsity = 0.5\nskip = [{ sparsity = 50 }]"),
        random("sparsity = 0.5\nskip = [{ pattern = \"3:2\" }]"),
        random("sparsity = 0.5\nskip = [{ method = \"magnitude\" }]"),
        more("[[prune]]\nmethod = [\"magnitude\", \"wanda\"]\nsparsity = 0.5\n"),
        more("[[prune]]\nmethod = \"magnitude\"\nsparsity = 0.5\n[[prune]]\nmethod = \"sparsegpt\"\nsparsity = 0.5\n"),
    ]
}

fn methods() -> Vec<Case> {
    let block = |methods: &str, rest: &str| more(format!("[[prune]]\nmethod = {methods}\n{rest}\n"));
    vec![
        block("[\"random\", \"magnitud\"]", "sparsity = 0.5"),
        block("[\"magnitude\", \"wanda\"]", "sparsity = 0.5\nscope = \"layer\""),
        block("\"wanda\"", "sparsity = 0.5\nscope = \"global\""),
        block("[\"magnitude\", \"wanda\"]", "sparsity = 0.5\nalpha = 1"),
        block("\"given\"", "sparsity = 0.5"),
        block("\"ria\"", "sparsity = 0.5\nalpha = -1"),
        block("\"admm\"", "sparsity = 0.5\ndamping = 0\niterations = 0"),
        block("\"wanda\"", "sparsity = 0.5\nowl_m = 7"),
        block("\"wanda\"", "sparsity = 0.5\nbudget = \"owl\"\nowl_lambda = 0"),
        block("\"wanda\"", "pattern = \"2:4\"\nbudget = \"owl\""),
    ]
}

fn references() -> Vec<Case> {
    vec![
        random("sparsity = 0.5\nreference = \"hf:a/b\""),
        more("[[prune]]\nmethod = \"given\"\nreference = \"facebook/opt-125m\"\n"),
    ]
}

fn devices_and_variants() -> Vec<Case> {
    let pruned = "[[prune]]\nmethod = \"random\"\nsparsity = 0.5\n";
    vec![
        more("dtype = \"f16\"\n[device]\nbackend = [\"cuda\", \"flex\"]\n"),
        more(format!("[device]\nbackend = \"cuda\"\n[execute]\nvariants = [\"csr32\"]\n{pruned}")),
        more(format!("[execute]\nvariants = [\"nm\"]\n{pruned}")),
        more("dtype = \"f32\"\n[execute]\nvariants = [\"nm\"]\n[[prune]]\nmethod = \"random\"\npattern = \"2:4\"\n"),
        more("[execute]\nvariants = [\"dense\", \"masked\", \"csr\"]\n"),
        more(format!("[execute]\nvariants = [\"dense\"]\n{pruned}")),
        more(format!("[execute]\nvariants = [\"dense\", \"maskd\"]\n{pruned}")),
        more("[device]\nworkers = 0\n"),
        more("[device]\nworkers = \"al\"\n"),
        more("[device]\nworkers = 1.5\n"),
    ]
}

fn data_and_measures() -> Vec<Case> {
    let timed = |rest: &str| more(format!("[measure]\nmetrics = \"latency\"\n{rest}\n"));
    vec![
        more("[data]\nperplexity_stride = 0\n"),
        more("[data]\ncontext = 8\nperplexity_stride = 9\n"),
        more("[data]\ncontext = 1\n"),
        more("[data]\nperplexity_bos = \"window\"\n"),
        more("[data]\nperplexity_join = \" \"\n"),
        more("[data]\nperplexity_drawing = \"gptq\"\n"),
        more(
            "[data]\nperplexity = \"hf:allenai/c4/en/validation\"\nperplexity_drawing = \"gptq\"\nperplexity_stride = 8\n\
             perplexity_bos = \"windows\"\nperplexity_join = \" \"\n",
        ),
        more("[data]\ncalibration = \"file:a.txt\"\ncalibration_documents = 3\n"),
        more("[data]\ncalibration_samples = 65537\n"),
        more("[data]\ncalibration_samples = [8, 65537, 65538]\n"),
        more("[data]\ncalibration_samples = { from = 1, to = 257, step = 1 }\n"),
        more(
            "[data]\ncalibration_samples = [8, 16]\n[[prune]]\nmethod = \"wanda\"\nsparsity = 0.5\n[[analysis]]\nid = \"s\"\n\
             kind = \"structure\"\nsources = [{ method = \"wanda\", sparsity = 0.5 }]\n",
        ),
        more("[measure]\nmetrics = \"latancy\"\nbatch = 2\n"),
        more("[measure]\nbatch = 2\ngenerate = 4\n[execute]\nrepeats = 2\n"),
        timed("batch = [1, 65537]"),
        timed("prompt = [0, 8]"),
        timed("batch = [2, 2]"),
    ]
}

fn expectations() -> Vec<Case> {
    let expect = |rest: &str| more(format!("[[expect]]\nvalue = 1\n{rest}\n"));
    vec![
        expect("metric = \"total\""),
        expect("tolerance = 0.1\nmetric = \"perplexity\""),
        expect("tolerance = 0.1\nmetric = \"perplexty\""),
        expect("tolerance = -1\nmetric = \"total\""),
        expect("tolerance = 0.1\nmetric = \"total\"\nwhere = { backend = \"auto\" }"),
        expect("tolerance = 0.1\nmetric = \"total\"\nwhere = { pattern = \"4:2\" }"),
    ]
}

fn kernels() -> Vec<Case> {
    let csr = "sparsity = 0.5\nformat = \"csr\"";
    let on = |backend: &str, tokens: &str, rest: &str| {
        let Case { text, .. } = kernel("[8, 4]", tokens, rest);
        whole(format!("{text}[device]\nbackend = \"{backend}\"\n"))
    };
    let about_models = "[data]\ncontext = 8\n[execute]\nvariants = [\"csr\"]\n[measure]\nmetrics = [\"structure\"]";
    vec![
        kernel("8", "1", csr),
        kernel("[8]", "1", csr),
        kernel("[[8, 4], [1, 2, 3]]", "1", csr),
        kernel("[[8, 4], [8, 0]]", "1", csr),
        kernel("[]", "1", csr),
        kernel("[1000000, 1000000]", "1", csr),
        kernel("[8, 4]", "4000000000", csr),
        kernel("[8, 4]", "[1, 0]", csr),
        kernel("[8, 4]", "1", "format = \"csr\""),
        kernel("[8, 4]", "1", "sparsity = 0.5\nformat = \"cst\""),
        kernel("[8, 4]", "1", "sparsity = 0.5\nformat = \"dense\""),
        kernel("[8, 4]", "1", &format!("{csr}\nrepeats = 0")),
        on("ndarray", "1", &format!("{csr}\ndtype = \"bf16\"")),
        on("flex", "1", "sparsity = 0.5\nformat = \"threshold\""),
        on("cuda", "[4, 5]", "sparsity = 0.5\nformat = \"threshold\""),
        on("cuda", "1", "sparsity = 0.5\nformat = \"nm\""),
        on("cuda", "1", "sparsity = [0.5, 0.7]\nformat = [\"csr\", \"nm\"]\ndtype = \"f16\""),
        kernel("[8, 4]", "1", &format!("{csr}\n{about_models}")),
    ]
}

fn own_kernels() -> Vec<Case> {
    let block = "name = \"t\"\n[[kernel]]\nsource = \"mine.cu\"\nentry = \"mine\"\nlayout = \"csr\"\ngrid = \"rows\"\n\
        block = 128\nshape = [8, 4]\ntokens = 1\nsparsity = 0.5\n";
    let with = |from: &str, to: &str| whole(block.replacen(from, to, 1));
    vec![
        with("source = \"mine.cu\"\n", "format = \"csr\"\n"),
        with("source = \"mine.cu\"", "source = \"\""),
        with("\"mine\"", "\"mine<4>\""),
        with("block = 128", "block = [1, 1, 1, 1]"),
        with("block = 128", "block = -1"),
        with("grid = \"rows\"", "grid = 0"),
        with("block = 128", "block = 1.5"),
        with("block = 128", "block = [64, 32]"),
        with("\"rows\"", "\"row\""),
        with("\"rows\"", "\"rows / 9\""),
        with("\"rows\"", "\"tokens - rows\""),
        with("layout = \"csr\"\n", ""),
        with("shape", "weight = \"w.pt\"\nshape"),
        kernel("[8, 4]", "1", "sparsity = 0.5\nformat = [\"csr\", \"source\"]"),
    ]
}

fn overrides() -> Vec<Case> {
    let bare = |overrides| Case { overrides, ..more("") };
    vec![
        over(&["seed"]),
        over(&["=1", "seed="]),
        over(&["prune.sparsty=0.5"]),
        over(&["sparsity=0.5"]),
        over(&["seed.x=0.5"]),
        over(&["prune.2.sparsity=0.5"]),
        over(&["prune.sparsity=50"]),
        over(&["device.backend=fle"]),
        over(&["data.context=[12"]),
        over(&["data={contxt=1}"]),
        over(&["prune.pattern=2:4", "prune.sparsity=0.6"]),
        bare(&["prune.sparsity=0.5"]),
        bare(&["kernel.0.tokens=1"]),
    ]
}

/// Beside the files of `tests/fixtures/extends`.
fn extends() -> Vec<Case> {
    let of = |base: &str| Case {
        folder: "tests/fixtures/extends",
        ..whole(format!("extends = {base}\nname = \"t\"\n[data]\ncontext = 1\n"))
    };
    vec![
        of("1"),
        of("\"../base.toml\""),
        of("\"e.toml\""),
        of("\"no-such.toml\""),
        of("\"broken.toml\""),
        of("\"chained.toml\""),
        of("\"misspelt.toml\""),
        Case { overrides: &["extends=base.toml"], ..of("\"base.toml\"") },
        Case { overrides: &["data.context=1.5"], ..of("\"base.toml\"") },
    ]
}

fn sizes() -> Vec<Case> {
    let fractions = |count: usize| list(count, |i| format!("{}", i as f64 / count as f64));
    let counted = |count| list(count, |i| (i + 1).to_string());
    let magnitude = |count| format!("[[prune]]\nmethod = \"magnitude\"\nsparsity = [{}]\n", fractions(count));
    let endless = format!("tokens = [{0}]\nsparsity = [{1}]\n", counted(90_000), fractions(90_000));
    let shapes = list(40_000, |i| format!("[{}, 1]", i + 1));
    vec![
        more(magnitude(60_000)),
        more(format!("{}{}", magnitude(40_000), magnitude(10_001))),
        whole(format!(
            "name = \"t\"\nseed = [{}]\n[[kernel]]\nshape = [{shapes}]\nformat = [\"csr\", \"bitmap\"]\n{endless}",
            counted(90_000)
        )),
        random(&format!("sparsity = 0.5\nskip = [{}]", list(1001, |i| format!("{{ sparsity = 0.{i} }}")))),
        random(&format!("sparsity = 0.5\nexclude = [{}]", list(257, |i| format!("\"layer{i}\"")))),
        more(format!("[measure]\nmetrics = \"latency\"\nbatch = [{}]\nprompt = [\n1, 2]\n", counted(501))),
    ]
}

fn checked(case: &Case) -> Diagnostics {
    let overrides: Vec<String> = case.overrides.iter().map(ToString::to_string).collect();
    match parse(&Path::new(case.folder).join("e.toml"), &case.text, &overrides) {
        Ok(experiment) => experiment.warnings,
        Err(found) => found,
    }
}

#[test]
fn every_message_is_shown_as_it_was() {
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
        description => "to accept changes: INSTA_UPDATE=always cargo test, then read the diff",
    }, {
        for (group, cases) in groups() {
            let shown: Vec<String> = cases.iter().map(|case| checked(case).to_string()).collect();
            assert!(shown.iter().all(|text| !text.is_empty()), "{group}: a file is right:\n{shown:#?}");
            insta::assert_snapshot!(format!("messages-{group}"), shown.join("\n\n----\n\n"));
        }
    });
}

/// Lines of `src/config` that make a message, without those of tests.
fn constructors() -> BTreeSet<(String, u32)> {
    fn files(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for path in files(&root.join("src/config")) {
        let name = path.strip_prefix(root).unwrap().display().to_string().replace('\\', "/");
        if name.contains("/tests") {
            continue;
        }
        for (number, line) in (1..).zip(std::fs::read_to_string(&path).unwrap().lines()) {
            let calls = ["Diagnostic::error(", "Diagnostic::warning("];
            if calls.iter().any(|call| line.contains(call)) {
                found.insert((name.clone(), number));
            }
        }
    }
    found
}

#[test]
fn a_snapshot_shows_every_message_that_the_source_makes() {
    let cases = groups().into_iter().flat_map(|(_, cases)| cases);
    let shown: BTreeSet<(String, u32)> = cases
        .flat_map(|case| checked(&case).items().iter().map(Diagnostic::made_at).collect::<Vec<_>>())
        .map(|(file, line)| (file.replace('\\', "/"), line))
        .collect();
    let all = constructors();
    assert!(all.len() > 40, "the source is elsewhere: {all:?}");
    let missing: Vec<_> = all.difference(&shown).collect();
    // What the grammar lets pass is what the raw structs take, so that no file brings this one about.
    let unreachable = missing.iter().filter(|(file, _)| file == "src/config/mod.rs").count();
    assert!(unreachable == 1 && missing.len() == 1, "of {} messages no group shows {missing:#?}", all.len());
    let unknown: Vec<_> = shown.difference(&all).collect();
    assert!(unknown.is_empty(), "made where nothing looks: {unknown:?}");
}

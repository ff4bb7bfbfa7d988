//! Mistakes and mishaps: what the program says, and which exit code it gives.

use crate::support::{Lab, Model, Outcome, ROOT, THREE_CELLS};

mod results;

const UNEXPECTED: i32 = 1;
const USAGE: i32 = 2;
const INPUT: i32 = 3;
const NOTHING: i32 = 4;
const FAILED: i32 = 100;

/// `run e.toml` of the tiny experiment with a change to its text.
fn run_with(from: &str, to: &str) -> Outcome {
    assert!(THREE_CELLS.contains(from), "nothing to change: {from}");
    Lab::tiny(&THREE_CELLS.replace(from, to)).run(["run", "e.toml"])
}

/// `run e.toml` on the tiny checkpoint, spoilt by `spoil`.
fn run_spoilt(spoil: impl FnOnce(&mut Model)) -> Outcome {
    let lab = Lab::tiny(THREE_CELLS);
    let mut model = Model::tiny();
    spoil(&mut model);
    model.save(&lab.path("model"));
    lab.run(["run", "e.toml"])
}

mod file {
    use super::*;

    #[test]
    fn a_missing_one() {
        let outcome = Lab::empty().run(["run", "nowhere.toml"]);
        outcome.exits(INPUT).prints_nothing();
        outcome.says(&[
            "error: failed to read the experiment file `nowhere.toml`: No such file",
            "hint: give the path of an experiment file",
        ]);
    }

    #[test]
    fn an_unknown_key() {
        let outcome = run_with("sparsity = 0.5", "sparsty = 0.5");
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&[
            "error: unknown key `prune.sparsty`",
            "--> e.toml:10:1",
            "^^^^^^^",
            "a similar key exists: `sparsity`",
        ]);
        assert!(!outcome.stderr.contains("missing"), "one mistake is one error:\n{}", outcome.stderr);
    }

    #[test]
    fn a_key_in_the_wrong_section() {
        let outcome = run_with("[measure]", "[measure]\nsparsity = 0.5");
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: unknown key `measure.sparsity`", "--> e.toml:7:1", "`sparsity` belongs in `[[prune]]`"]);
    }

    #[test]
    fn a_wrong_type() {
        let outcome = run_with("name = \"e\"", "name = \"e\"\nseed = \"x\"");
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&[
            "error: wrong type of `seed`",
            "--> e.toml:2:8",
            "expected an integer of at least 0",
            "found a string",
        ]);
    }

    #[test]
    fn a_percentage() {
        let outcome = run_with("sparsity = 0.5", "sparsity = 50");
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: `prune.sparsity` is out of range", "--> e.toml:10:12", "a fraction: did you mean 0.5?"]);
    }

    #[test]
    fn a_pattern_and_another_sparsity() {
        let outcome = run_with("sparsity = 0.5", "sparsity = 0.6\npattern = \"2:4\"");
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: `prune.pattern` `2:4` contradicts `prune.sparsity` 0.6", "leave `sparsity` out"]);
    }

    #[test]
    fn a_misspelt_word() {
        let outcome = run_with("\"magnitude\"", "\"magnitud\"");
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&[
            "error: unknown value `magnitud` of `prune.method`",
            "e.toml:9:10",
            "did you mean `magnitude`?",
        ]);
    }

    #[test]
    fn no_toml_at_all() {
        run_with("[model]", "[model").exits(USAGE).says(&["error: the file is not TOML", "--> e.toml:2:"]);
    }

    #[test]
    fn all_mistakes_are_said_at_once_and_in_order() {
        let lab = Lab::with(
            "name = \"e\"\nsed = 1\n[model]\nsource = \"builtin:tiny-op\"\n[[prune]]\nmethod = 7\nsparsity = [0.5, 50]\n",
        );
        for verb in ["run", "plan", "check"] {
            let outcome = lab.run([verb, "e.toml"]);
            outcome.exits(USAGE).prints_nothing();
            outcome.says(&["e.toml:2:1", "e.toml:4:10", "e.toml:6:10", "e.toml:7:18"]);
            assert_eq!(outcome.stderr.matches("error: ").count(), 4, "{}", outcome.stderr);
        }
        assert!(!lab.path("results").exists());
    }

    #[test]
    fn a_dtype_that_the_backend_lacks() {
        let outcome = run_with("[model]", "[device]\nbackend = \"flex\"\n[model]\ndtype = \"f16\"");
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: `model.dtype` `f16` is not available on `flex`", "--> e.toml:5:9", "expected `f32`"]);
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_dtype_that_the_backend_behind_auto_lacks() {
        let outcome = run_with("[model]", "[model]\ndtype = \"f16\"");
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: `flex` has no dtype `f16`", "hint: the CPU backends compute in f32"]);
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_format_that_the_backend_behind_auto_lacks() {
        let block = "[[kernel]]\nshape = [16, 8]\ntokens = 2\nsparsity = 0.5\nformat = \"threshold\"\n";
        let outcome = Lab::with(&format!("name = \"e\"\n{block}")).run(["run", "e.toml"]);
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: `flex` has no kernel for the format `threshold`", "a machine with a GPU"]);
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn pairs_of_four_where_auto_is_no_gpu() {
        let pattern = |rest: &str| THREE_CELLS.replace("sparsity = 0.5", rest) + "[execute]\nvariants = [\"nm\"]\n";
        let outcome = Lab::tiny(&pattern("pattern = \"2:4\"")).run(["run", "e.toml"]);
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: `flex` has no kernels for the variant `nm`", "a machine with a GPU"]);
        let block = "[[kernel]]\nshape = [16, 8]\ntokens = 2\nsparsity = 0.5\nformat = \"nm\"\ndtype = \"bf16\"\n";
        let outcome = Lab::with(&format!("name = \"e\"\n{block}")).run(["run", "e.toml"]);
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: `flex` has no kernel for the format `nm`"]);
    }

    #[test]
    fn a_variant_or_format_that_the_backend_lacks() {
        let device = "[device]\nbackend = [\"flex\", \"cuda\"]\n[model]";
        for variants in ["[\"csr32\"]", "[\"masked\", \"csr32\", \"csr\"]"] {
            let text = THREE_CELLS.replace("[model]", device) + &format!("[execute]\nvariants = {variants}\n");
            let outcome = Lab::tiny(&text).run(["run", "e.toml"]);
            outcome.exits(USAGE).prints_nothing();
            outcome.says(&[
                "error: `execute.variants` `csr32` is not available on `cuda`",
                "it has `dense`, `masked`, `csr`, `bitmap`, `nm`, `auto`",
            ]);
        }
        // The other way round: pairs of four are for a GPU.
        for backend in ["flex", "ndarray"] {
            let device = format!("[device]\nbackend = \"{backend}\"\n[model]");
            let pairs = "[execute]\nvariants = [\"nm\"]\n";
            let text = THREE_CELLS.replace("[model]", &device) + pairs;
            let outcome = Lab::tiny(&text).run(["run", "e.toml"]);
            outcome.exits(USAGE).prints_nothing();
            outcome.says(&[
                &format!("error: `execute.variants` `nm` is not available on `{backend}`"),
                "error: `execute.variants` `nm` does not fit `prune.pattern` `unstructured`",
            ]);
        }
        let block = "[[kernel]]\nshape = [16, 8]\ntokens = 2\nsparsity = 0.5\nformat = \"csr32\"\n";
        let text = format!("name = \"e\"\n[device]\nbackend = \"cuda\"\n{block}");
        let outcome = Lab::with(&text).run(["run", "e.toml"]);
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: `kernel.format` `csr32` is not available on `cuda`"]);
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn cuda_where_it_is_not_built_in() {
        let outcome = run_with("[model]", "[device]\nbackend = \"cuda\"\n[model]");
        outcome.exits(INPUT).prints_nothing();
        outcome
            .says(&["`backend = \"cuda\"`, but this program was built without the `cuda` feature", "--features cuda"]);
    }
}

mod command_line {
    use super::*;

    #[test]
    fn an_override_of_an_unknown_path() {
        let outcome = Lab::tiny(THREE_CELLS).run(["run", "e.toml", "-s", "prune.sparsty=0.6"]);
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&[
            "error: unknown path `prune.sparsty`",
            "--> command line:1:10",
            "-s prune.sparsty=0.6",
            "did you mean `prune.sparsity`?",
        ]);
    }

    #[test]
    fn an_override_of_a_wrong_value() {
        let outcome = Lab::tiny(THREE_CELLS).run(["run", "e.toml", "-s", "prune.sparsity=50"]);
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: `prune.sparsity` is out of range", "--> command line:1:19", "did you mean 0.5?"]);
    }

    #[test]
    fn a_selection_of_nothing() {
        let lab = Lab::tiny(THREE_CELLS);
        for verb in ["run", "plan"] {
            let outcome = lab.run([verb, "e.toml", "--only", "method=random"]);
            outcome.exits(NOTHING).prints_nothing().says(&["error: no cell is selected", "hint: ", "--only"]);
        }
        lab.run(["run", "e.toml", "--partition", "slice:9/9"]).exits(NOTHING);
        assert!(!lab.path("results").exists());
    }

    #[test]
    fn malformed_selections() {
        let lab = Lab::tiny(THREE_CELLS);
        let cases = [
            ("--only", "speed=1", "unknown column `speed`, expected one of setup, model, method,"),
            ("--only", "csr", "`csr` is no condition"),
            ("--only", "seed<x", "needs a number"),
            ("--partition", "1/2", "expected `slice:M/N`"),
            ("--partition", "slice:0/2", "expected `slice:M/N` with 1 <= M <= N"),
            ("--partition", "slice:3/2", "`slice:3/2` is no partition"),
            ("--rerun", "some", "possible values: failed, stale, all, none"),
            ("--limit", "x", "invalid digit"),
        ];
        for (flag, value, said) in cases {
            lab.run(["run", "e.toml", flag, value]).exits(USAGE).prints_nothing().says(&["error: ", flag, said]);
        }
    }

    #[test]
    fn an_unknown_verb() {
        Lab::empty().run(["rum", "e.toml"]).exits(USAGE).prints_nothing().says(&["error: ", "'rum'", "'run'"]);
        Lab::empty().run([]).exits(USAGE).prints_nothing().says(&["Usage: sparsify-exp"]);
    }
}

mod checkpoint {
    use super::*;

    #[test]
    fn a_missing_folder() {
        let outcome = run_with("path:model", "path:nowhere");
        outcome.exits(INPUT).prints_nothing();
        outcome.says(&[
            "error: no checkpoint folder `nowhere`",
            "hint: `path:` names a folder, relative to the experiment file",
        ]);
    }

    #[test]
    fn missing_files() {
        for (file, said) in [
            ("config.json", "`path:model` has no configuration: looked for config.json"),
            (
                "tokenizer.json",
                "`path:model` has no tokenizer: looked for tokenizer.json, or vocab.json and merges.txt",
            ),
            ("model.safetensors", "`path:model` has no weights: looked for model.safetensors"),
        ] {
            let lab = Lab::tiny(THREE_CELLS);
            std::fs::remove_file(lab.path("model").join(file)).unwrap();
            lab.run(["run", "e.toml"]).exits(INPUT).prints_nothing().says(&["error: ", said, "hint: "]);
        }
    }

    #[test]
    fn damaged_small_files() {
        for (file, said) in [
            ("config.json", "`model/config.json` is no valid JSON"),
            ("tokenizer.json", "`model/tokenizer.json` is no usable tokenizer"),
        ] {
            let lab = Lab::tiny(THREE_CELLS);
            lab.write(&format!("model/{file}"), "{\"a\":");
            lab.run(["run", "e.toml"]).exits(INPUT).prints_nothing().says(&["error: ", said, "hint: "]);
        }
    }

    #[test]
    fn an_unknown_architecture() {
        let outcome = run_spoilt(|model| model.config["model_type"] = "mamba".into());
        outcome.exits(INPUT).prints_nothing().says(&["error: `model/config.json`: ", "`mamba`"]);
        for known in ["opt", "gpt_neox", "llama", "gpt2", "qwen2", "mistral"] {
            assert!(outcome.stderr.contains(&format!("`{known}`")), "{known} is not listed:\n{}", outcome.stderr);
        }
    }

    #[test]
    fn a_configuration_without_a_size() {
        let outcome = run_spoilt(|model| drop(model.config.as_object_mut().unwrap().remove("ffn_dim")));
        outcome.exits(INPUT).prints_nothing();
        outcome.says(&["do not fit its config.json", "config.json leaves out `ffn_dim` (taken as 3072)"]);
    }

    #[test]
    fn truncated_safetensors() {
        let lab = Lab::tiny(THREE_CELLS);
        let path = lab.path("model/model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        for (length, said) in
            [(bytes.len() - 100, "where its header describes"), (50, "claims a safetensors header of"), (0, "is empty")]
        {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let outcome = lab.run(["run", "e.toml"]);
            outcome.exits(INPUT).prints_nothing();
            outcome.says(&["error: `model/model.safetensors` ", said, "hint: the download may be incomplete"]);
        }
    }

    #[test]
    fn tensors_that_are_missing_or_of_another_shape() {
        let outcome = run_spoilt(|model| {
            model.tensors.remove("model.decoder.layers.0.fc1.bias");
            let fc2 = model.tensors.get_mut("model.decoder.layers.0.fc2.weight").unwrap();
            fc2.0 = vec![16, 8];
        });
        outcome.exits(INPUT).prints_nothing();
        outcome.says(&["error: the weights of `path:model` do not fit its config.json", "hint: "]);
        outcome.says(&["`model.decoder.layers.0.fc1.bias` is missing"]);
        outcome.says(&["`model.decoder.layers.0.fc2.weight` is [16, 8], expected [8, 16]"]);
    }

    #[test]
    fn nan_and_infinity_in_weights() {
        for bad in [f32::NAN, f32::INFINITY] {
            let outcome = run_spoilt(|model| {
                let fc2 = model.tensors.get_mut("model.decoder.layers.0.fc2.weight").unwrap();
                (fc2.1[5], fc2.1[9]) = (bad, bad);
            });
            outcome.exits(INPUT).prints_nothing();
            outcome.says(&[
                "error: tensor `model.decoder.layers.0.fc2.weight` of `path:model`",
                "has 2 values that are NaN or infinite, the first at index 5",
                "hint: the checkpoint is damaged",
            ]);
        }
    }

    #[test]
    fn pickles() {
        let fixtures = std::path::Path::new(ROOT).join("tests/fixtures/pickle");
        let fixture = |name: &str| std::fs::read(fixtures.join(name)).unwrap();
        let zip = fixture("zip.bin");
        for (bytes, said) in [
            (fixture("forbidden.bin"), "`posix.system`, which is not allowed"),
            (fixture("module.bin"), "which is not allowed"),
            (fixture("list.bin"), "it is not a state dict"),
            (zip[..zip.len() / 2].to_vec(), "is a damaged or truncated zip archive"),
            (b"\x80\x02corrupt".to_vec(), "model/pytorch_model.bin` "),
            (zip, "do not fit its config.json"),
        ] {
            let lab = Lab::tiny(THREE_CELLS);
            std::fs::remove_file(lab.path("model/model.safetensors")).unwrap();
            lab.write("model/pytorch_model.bin", bytes);
            lab.run(["run", "e.toml"]).exits(INPUT).prints_nothing().says(&["error: ", said, "hint: "]);
        }
    }

    #[test]
    fn a_tokenizer_of_another_model() {
        let outcome = run_spoilt(|model| model.tokenizer["model"]["vocab"]["cat"] = 99.into());
        outcome.exits(INPUT).prints_nothing();
        outcome.says(&["the tokenizer of `path:model` gives token id 99, but the model's vocabulary has 12 entries"]);
    }
}

mod text {
    use super::*;

    #[test]
    fn a_missing_one() {
        let outcome = run_with("file:texts.txt", "file:nowhere.txt");
        outcome.exits(INPUT).prints_nothing().says(&["error: failed to read `nowhere.txt`: No such file", "hint: "]);
    }

    #[test]
    fn an_empty_one() {
        for content in ["", "\n  \n"] {
            let lab = Lab::tiny(THREE_CELLS);
            lab.write("texts.txt", content);
            let outcome = lab.run(["run", "e.toml"]);
            outcome.exits(INPUT).prints_nothing().says(&["error: `file:texts.txt` has no text in it", "hint: "]);
        }
    }

    #[test]
    fn one_that_is_not_utf8() {
        let lab = Lab::tiny(THREE_CELLS);
        lab.write("texts.txt", b"caf\xe9\n");
        let outcome = lab.run(["run", "e.toml"]);
        outcome.exits(INPUT).prints_nothing().says(&[
            "error: failed to read `texts.txt`: ",
            "UTF-8",
            "hint: ",
            "UTF-8",
        ]);
    }

    #[test]
    fn one_shorter_than_a_window() {
        let text = THREE_CELLS.replace("\"agreement\"]", "\"perplexity\"]");
        let lab = Lab::tiny(&text.replace("[data]", "[data]\nperplexity = \"file:texts.txt\""));
        let outcome = lab.run(["run", "e.toml"]);
        outcome.exits(INPUT).prints_nothing();
        outcome.says(&[
            "error: `file:texts.txt` has 9 tokens, fewer than one window of 16",
            "hint: set a smaller `data.context`",
        ]);
        lab.run(["plan", "e.toml", "-s", "data.context=9"]).exits(0);
        lab.run(["plan", "e.toml", "-s", "data.context=10"]).exits(INPUT);
    }

    #[test]
    fn a_context_longer_than_the_model() {
        let outcome = run_with("[data]", "[data]\ncontext = 17");
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&[
            "error: `data.context` is 17, but `path:model` has 16 positions",
            "hint: set `data.context` to 16 or less",
        ]);
    }
}

mod cells {
    use super::*;

    #[test]
    fn a_pattern_that_does_not_divide_a_layer_fails_its_cells_alone() {
        let lab = Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "pattern = [\"2:3\", \"2:4\"]"));
        let outcome = lab.run(["run", "e.toml"]);
        outcome.exits(FAILED).says(&[
            "Masked2:3",
            "failed: `model.decoder.layers.0.self_attn.k_proj` has 8 input features, which the pattern 2:3 does not divide",
            "5 cells measured, 0 cached, 2 failed: results/e",
        ]);
        let rows = lab.table("results/e/tables/summary.csv");
        let measured: Vec<_> = rows.iter().map(|row| (row["setup"].as_str(), !row["nonzero"].is_empty())).collect();
        let expected =
            [("Dense", true), ("Masked2:3", false), ("CSR2:3", false), ("Masked2:4", true), ("CSR2:4", true)];
        assert_eq!(measured, expected);
    }

    #[test]
    fn logits_that_are_not_finite_fail_the_cell() {
        let outcome = run_spoilt(|model| {
            for number in &mut model.tensors.get_mut("model.decoder.layers.0.fc2.weight").unwrap().1 {
                *number *= 3e38;
            }
        });
        outcome.exits(FAILED).says(&["Dense", "failed: the logits of token 0 contain NaN or infinity"]);
    }

    #[test]
    fn an_exclude_that_leaves_nothing_fails_the_cells() {
        let outcome = run_with("sparsity = 0.5", "sparsity = 0.5\nexclude = [\"*\"]");
        outcome.exits(FAILED).says(&["Masked50", "failed: `exclude` leaves no linear to prune: *"]);
    }
}

mod expectations {
    use super::*;

    fn expecting(condition: &str, value: f64) -> Lab {
        Lab::tiny(&format!(
            "{THREE_CELLS}[[expect]]\nwhere = {{ {condition} }}\nmetric = \"compute_ratio\"\nvalue = {value}\n\
             tolerance = 0.5\nsource = \"a paper\"\n"
        ))
    }

    #[test]
    fn about_no_cell() {
        let lab = expecting("method = \"random\"", 0.7);
        let outcome = lab.run(["run", "e.toml"]);
        outcome.exits(USAGE).prints_nothing();
        outcome.says(&["error: the `[[expect]]` with `method = random` is about no cell of this experiment", "hint: "]);
        assert!(!lab.path("results").exists());
    }

    #[test]
    fn met_and_missed() {
        for (value, code, verdict) in [(0.7, 0, "PASS"), (7.0, FAILED, "FAIL")] {
            let lab = expecting("variant = \"csr\"", value);
            let outcome = lab.run(["run", "e.toml"]);
            outcome.exits(code).prints(&["verdict", verdict]);
            let rows = lab.table("results/e/tables/expectations.csv");
            assert_eq!(rows.len(), 1);
            assert_eq!((rows[0]["verdict"].as_str(), rows[0]["source"].as_str()), (verdict, "a paper"));
            let [measured, difference] = ["measured", "difference"].map(|name| rows[0][name].parse::<f64>().unwrap());
            assert!((difference - (measured - value)).abs() < 1e-12 && measured < 1.0);
            assert_eq!(outcome.stderr.contains("1 expectation missed: see tables/expectations.csv"), code != 0);
            lab.run(["report", "results/e"]).exits(code);
        }
    }

    #[test]
    fn not_run() {
        let lab = expecting("variant = \"csr\"", 7.0);
        lab.run(["run", "e.toml", "--only", "variant=dense"]).exits(0);
        assert_eq!(lab.table("results/e/tables/expectations.csv")[0]["verdict"], "NOT RUN");
    }
}

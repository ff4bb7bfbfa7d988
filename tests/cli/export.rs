//! `export`: a pruned model as a checkpoint, and what keeps it from being one.

use crate::support::{Lab, THREE_CELLS};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the checkpoint has that Hugging Face's programs want to see beside the weights.
const TO: [&str; 4] = ["export", "e.toml", "--to", "out"];

/// Dtype, shape and bytes of every tensor.
fn tensors(lab: &Lab, file: &str) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(lab.path(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let of = |name: &str| {
        let tensor = file.tensor(name).unwrap();
        (name.to_owned(), (format!("{:?}", tensor.dtype()), tensor.shape().to_vec(), tensor.data().to_vec()))
    };
    file.names().into_iter().map(of).collect()
}

/// The perplexity of a checkpoint as it is, or of the masked cell of an experiment like [`THREE_CELLS`].
fn perplexity(lab: &Lab, experiment: &str, source: &str, variant: &str) -> String {
    let text = experiment
        .replace("path:model", &format!("path:{source}"))
        .replace("[data]", "[data]\ncontext = 4\nperplexity = \"file:texts.txt\"")
        .replace("\"agreement\"]", "\"perplexity\"]")
        .replace("name = \"e\"", &format!("name = \"p-{source}-{variant}\""));
    lab.write("p.toml", text);
    lab.run(["run", "p.toml", "--only", &format!("variant={variant}")]).exits(0);
    let rows = lab.table(&format!("results/p-{source}-{variant}/tables/summary.csv"));
    rows[0]["perplexity"].clone()
}

#[test]
fn a_dense_checkpoint_has_zeros_and_all_that_the_model_has() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.write("model/special_tokens_map.json", "{}");
    lab.write("model/training_args.bin", "none of the model's business");
    let outcome = lab.run(TO);
    outcome
        .exits(0)
        .prints_nothing()
        .says(&["path:model magnitude global Masked50 flex f32: 6 linears pruned", ": out"]);
    assert!(!lab.path("results").exists(), "an export is no run");
    let files = lab.files("out");
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["config.json", "model.safetensors", "sparsify_exp.json", "special_tokens_map.json", "tokenizer.json"]
    );
    for name in ["config.json", "special_tokens_map.json", "tokenizer.json"] {
        assert!(files[name] == lab.files("model")[name], "{name}");
    }
    let (before, after) = (tensors(&lab, "model/model.safetensors"), tensors(&lab, "out/model.safetensors"));
    assert!(before.keys().eq(after.keys()));
    let mut zeros = 0;
    for (name, (dtype, shape, bytes)) in &before {
        let (to_dtype, to_shape, to_bytes) = &after[name];
        assert_eq!((dtype, shape), (to_dtype, to_shape), "{name}");
        let numbers = bytes.chunks(4).zip(to_bytes.chunks(4));
        assert!(numbers.clone().all(|(from, to)| to == from || to == [0; 4]), "{name}");
        let gone = numbers.filter(|(from, to)| from != to).count();
        let linear = ["proj.weight", "fc1.weight", "fc2.weight"].iter().any(|part| name.ends_with(part));
        assert!(linear || gone == 0, "{name}");
        zeros += gone;
    }
    assert_eq!(zeros, (4 * 8 * 8 + 2 * 8 * 16) / 2);
    let origin: Value = serde_json::from_slice(&files["sparsify_exp.json"]).unwrap();
    assert_eq!((&origin["prune"]["method"], &origin["prune"]["sparsity"]), (&"magnitude".into(), &0.5.into()));
    assert_eq!((&origin["model"], &origin["format"]), (&"path:model".into(), &"dense".into()));
}

#[test]
fn what_is_exported_is_what_was_measured() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(TO).exits(0);
    lab.run(["export", "e.toml", "--to", "small", "--format", "sparse"]).exits(0);
    let measured = perplexity(&lab, THREE_CELLS, "model", "masked");
    assert!(measured != perplexity(&lab, THREE_CELLS, "model", "dense"));
    assert_eq!(perplexity(&lab, THREE_CELLS, "out", "dense"), measured);
    assert_eq!(perplexity(&lab, THREE_CELLS, "small", "dense"), measured);
}

#[test]
fn a_sparse_checkpoint_holds_what_the_dense_one_holds() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(TO).exits(0);
    let outcome = lab.run(["export", "e.toml", "--to", "small", "--format", "sparse"]);
    outcome.exits(0).prints_nothing().says(&["6 linears pruned", "instead of", "%"]);
    assert!(!lab.path("small/model.safetensors").exists(), "no other program takes it for a whole model");
    let (dense, sparse) = (tensors(&lab, "out/model.safetensors"), tensors(&lab, "small/model.sparse.safetensors"));
    let data = |tensors: &BTreeMap<String, (String, Vec<usize>, Vec<u8>)>| {
        tensors.values().map(|(_, _, bytes)| bytes.len()).sum::<usize>()
    };
    assert!(data(&sparse) < data(&dense));
    let (dtype, shape, bitmap) = &sparse["model.decoder.layers.0.fc1.weight.bitmap"];
    assert_eq!((dtype.as_str(), &shape[..], bitmap.len()), ("U8", &[16, 1][..], 16));
    let kept: u32 = bitmap.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(sparse["model.decoder.layers.0.fc1.weight.values"].1, [kept as usize]);
    assert_eq!(sparse["model.decoder.layers.0.fc1.weight.shape"].2, [16, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
    // Pruned again by the zeros that it has, the sparse checkpoint gives the dense one byte for byte.
    let given = THREE_CELLS.replace("path:model", "path:small").replace("\"magnitude\"\nsparsity = 0.5", "\"given\"");
    lab.write("given.toml", given);
    lab.run(["export", "given.toml", "--to", "again"]).exits(0);
    assert!(lab.files("again")["model.safetensors"] == lab.files("out")["model.safetensors"]);
}

#[test]
fn an_export_is_the_same_every_time() {
    let lab = Lab::tiny(THREE_CELLS);
    for format in ["dense", "sparse"] {
        let export = |to: &str| lab.run(["export", "e.toml", "--to", to, "--format", format]).exits(0).code;
        export(&format!("a-{format}"));
        export(&format!("b-{format}"));
        assert!(lab.files(&format!("a-{format}")) == lab.files(&format!("b-{format}")));
    }
}

#[test]
fn the_builtin_model_is_a_checkpoint_too() {
    let lab = Lab::with(
        &THREE_CELLS
            .replace("path:model", "builtin:tiny-opt")
            .replace("agreement = \"file:texts.txt\"", "context = 16"),
    );
    lab.run(["export", "e.toml", "--to", "out", "--format", "sparse"]).exits(0);
    let bytes = lab.files("out")["model.sparse.safetensors"].len();
    assert!(bytes < 5_000_000, "{bytes}");
    lab.write("e2.toml", lab.read("e.toml").replace("builtin:tiny-opt", "path:out"));
    lab.run(["run", "e2.toml", "--only", "variant=dense"]).exits(0);
}

#[test]
fn one_point_is_exported() {
    let lab = Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "sparsity = [0.25, 0.5]"));
    lab.run(TO).exits(2).prints_nothing().says(&[
        "error: 2 prune points are selected, and a checkpoint is of one:",
        "  path:model magnitude global Masked25 flex f32",
        "  path:model magnitude global Masked50 flex f32",
        "hint: narrow them down with `--only",
    ]);
    lab.run(["export", "e.toml", "--to", "out", "--only", "variant=dense"])
        .exits(4)
        .says(&["no prune point is selected"]);
    lab.run(["export", "e.toml", "--to", "out", "--only", "sparsity=0.9"]).exits(4).says(&["no cell is selected"]);
    assert!(!lab.path("out").exists());
    lab.run(["export", "e.toml", "--to", "out", "--only", "sparsity=0.25"]).exits(0);
    lab.run(["export", "e.toml", "--to", "other", "-s", "prune.sparsity=0.25"]).exits(0);
    assert!(lab.files("out")["model.safetensors"] == lab.files("other")["model.safetensors"]);
}

#[test]
fn nothing_is_overwritten_unasked() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(TO).exits(0);
    let before = lab.files("out");
    let other = ["export", "e.toml", "--to", "out", "-s", "prune.sparsity=0.25"];
    lab.run(other).exits(2).prints_nothing().says(&["error: `out` is there already", "hint: ", "`--overwrite`"]);
    assert!(lab.files("out") == before);
    lab.run(other.into_iter().chain(["--overwrite"])).exits(0);
    assert!(lab.files("out") != before);
    // What is no checkpoint is never replaced; an empty folder is nobody's.
    lab.write("notes/a.txt", "dear");
    lab.run(["export", "e.toml", "--to", "notes", "--overwrite"]).exits(2).says(&["`notes`", "is no checkpoint"]);
    lab.run(["export", "e.toml", "--to", "texts.txt", "--overwrite"])
        .exits(2)
        .says(&["`texts.txt`", "is no checkpoint"]);
    lab.run(["export", "e.toml", "--to", "model", "--overwrite"])
        .exits(2)
        .says(&["is the checkpoint that is to be pruned"]);
    lab.run(["export", "e.toml", "--to", "."]).exits(2).says(&["names no folder"]);
    std::fs::create_dir(lab.path("empty")).unwrap();
    lab.run(["export", "e.toml", "--to", "empty"]).exits(0);
    let hidden: Vec<String> = crate::support::list(&lab.path(""))
        .into_iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn only_an_export_is_overwritten_and_nothing_else_with_it() {
    let lab = Lab::tiny(THREE_CELLS);
    let overwrite = || lab.run(TO.into_iter().chain(["--overwrite"]));
    // A configuration, and a file of the name that exports have: neither makes a folder an export.
    for (name, text) in [("config.json", "{}"), ("sparsify_exp.json", "{}"), ("sparsify_exp.json", "[")] {
        lab.write(&format!("out/{name}"), text);
        lab.write("out/thesis.tex", "years of work");
        let before = lab.files("out");
        overwrite().exits(2).prints_nothing().says(&["error: `out` is there already and is no checkpoint", "hint: "]);
        assert!(lab.files("out") == before, "{name}");
        std::fs::remove_dir_all(lab.path("out")).unwrap();
    }
    lab.run(TO).exits(0);
    let origin: Value = serde_json::from_str(&lab.read("out/sparsify_exp.json")).unwrap();
    assert_eq!(
        origin["files"],
        serde_json::json!(["config.json", "model.safetensors", "sparsify_exp.json", "tokenizer.json"])
    );
    // A stranger's file; one that exports can have and this one has not; a folder.
    for (path, named) in [("thesis.tex", "thesis.tex"), ("merges.txt", "merges.txt"), ("runs/1.txt", "runs")] {
        lab.write(&format!("out/{path}"), "mine");
        let before = lab.files("out");
        overwrite().exits(2).prints_nothing().says(&[&format!("`out` holds what `export` did not write: `{named}`")]);
        assert!(lab.files("out") == before, "{named}");
        let path = lab.path(format!("out/{named}"));
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    // A list that was edited names nobody's files.
    let mut edited = origin.clone();
    edited["files"] =
        serde_json::json!(["thesis.tex", "../e.toml", "config.json", "model.safetensors", "tokenizer.json"]);
    lab.write("out/sparsify_exp.json", edited.to_string());
    lab.write("out/thesis.tex", "mine");
    overwrite().exits(2).says(&["did not write: `thesis.tex`"]);
    std::fs::remove_file(lab.path("out/thesis.tex")).unwrap();
    // Exports from before there was a list have what exports can have.
    let mut old = origin;
    old.as_object_mut().unwrap().remove("files");
    lab.write("out/sparsify_exp.json", old.to_string());
    overwrite().exits(0);
    // The other format leaves nothing of the first behind.
    lab.run(TO.into_iter().chain(["--format", "sparse", "--overwrite"])).exits(0);
    assert!(lab.path("out/model.sparse.safetensors").exists() && !lab.path("out/model.safetensors").exists());
    assert!(lab.path("e.toml").exists());
}

#[cfg(unix)]
#[test]
fn links_in_an_export_are_no_files_of_it() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(TO).exits(0);
    lab.write("mine.json", "{}");
    std::fs::remove_file(lab.path("out/tokenizer.json")).unwrap();
    std::os::unix::fs::symlink(lab.path("mine.json"), lab.path("out/tokenizer.json")).unwrap();
    lab.run(TO.into_iter().chain(["--overwrite"])).exits(2).says(&["did not write: `tokenizer.json`"]);
    // An export that fails half way leaves the one that is there.
    std::fs::remove_file(lab.path("out/tokenizer.json")).unwrap();
    let before = lab.files("out");
    let text = lab.read("e.toml").replace("sparsity = 0.5", "pattern = \"2:3\"");
    lab.write("uneven.toml", text);
    lab.run(["export", "uneven.toml", "--to", "out", "--overwrite"]).exits(100);
    assert!(lab.files("out") == before);
}

#[test]
fn what_cannot_be_exported() {
    let lab = Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "pattern = \"2:3\""));
    let uneven = lab.run(TO);
    uneven
        .exits(100)
        .says(&["error: pruning failed for path:model magnitude Masked2:3 flex f32: ", "2:3 does not divide"]);
    let lab =
        Lab::tiny(&THREE_CELLS.replace("path:model", "synthetic:opt-125m").replace("[data]", "[data]\ncontext = 8"));
    lab.run(TO).exits(2).says(&["`synthetic:opt-125m` has random weights that are in no file"]);
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["export", "e.toml", "--to", "texts.txt/out"])
        .exits(1)
        .says(&["failed to write `texts.txt/out`", "`--to DIR`"]);
    lab.run(["export", "e.toml"]).exits(2).says(&["--to"]);
    lab.run(["export", "nowhere.toml", "--to", "out"]).exits(3);
    assert!(!lab.path("out").exists());
}

#[test]
fn a_damaged_sparse_checkpoint_is_refused() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["export", "e.toml", "--to", "model2", "--format", "sparse"]).exits(0);
    let mut bytes = std::fs::read(lab.path("model2/model.sparse.safetensors")).unwrap();
    // The bitmaps are the only bytes, and come last.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    lab.write("model2/model.sparse.safetensors", bytes);
    lab.write("e2.toml", lab.read("e.toml").replace("path:model", "path:model2"));
    let outcome = lab.run(["run", "e2.toml", "--only", "variant=dense"]);
    outcome.exits(3).says(&["is not a matrix without its zeros: its bitmap has", "hint: the file is damaged"]);
}

#[test]
fn calibrated_points_are_exported() {
    let data = "[data]\ncalibration = \"file:texts.txt\"\ncalibration_samples = 4\ncalibration_length = 4";
    for (method, changes) in [("wanda", false), ("sparsegpt", true)] {
        let experiment = THREE_CELLS.replace("\"magnitude\"", &format!("\"{method}\"")).replace("[data]", data);
        let lab = Lab::tiny(&experiment);
        lab.run(TO).exits(0).says(&[method, "seed 0 Masked50 flex f32: 6 linears pruned"]);
        let name = "model.decoder.layers.0.fc2.weight";
        let (before, after) = (tensors(&lab, "model/model.safetensors"), tensors(&lab, "out/model.safetensors"));
        let pairs = || before[name].2.chunks(4).zip(after[name].2.chunks(4));
        let kept = pairs().filter(|(_, to)| *to != [0; 4]).count();
        assert!((60..=68).contains(&kept), "{method} keeps {kept} of 128");
        assert_eq!(pairs().any(|(from, to)| to != [0; 4] && from != to), changes, "{method}");
        // The checkpoint predicts what the masked model was measured to predict, updated weights and all.
        let measured = perplexity(&lab, &experiment, "model", "masked");
        assert_eq!(perplexity(&lab, THREE_CELLS, "out", "dense"), measured, "{method}");
    }
}

#[test]
fn updated_weights_are_rounded_to_the_checkpoints_dtype() {
    let fixture = format!("{}/tests/fixtures/families/opt-hub", crate::support::ROOT);
    let experiment = THREE_CELLS
        .replace("path:model", &format!("path:{fixture}"))
        .replace("\"magnitude\"", "\"sparsegpt\"")
        .replace("[data]", "[data]\ncontext = 8\ncalibration_samples = 2\ncalibration_length = 8");
    let lab = Lab::tiny(&experiment);
    lab.run(TO).exits(0).says(&["12 linears pruned", "updated weights are rounded to f16"]);
    let tensors = tensors(&lab, "out/model.safetensors");
    assert!(tensors.values().all(|(dtype, _, _)| dtype == "F16"));
}

#[test]
fn a_given_model_is_compared_with_its_reference() {
    for (method, sparsity) in [("magnitude", "0.5"), ("random", "0.75")] {
        let text = THREE_CELLS.replace("magnitude", method).replace("0.5", sparsity);
        let lab = Lab::tiny(&text);
        lab.run(["run", "e.toml"]).exits(0);
        lab.run(TO).exits(0);
        let given = text.replace("path:model", "path:out").replace("name = \"e\"", "name = \"given\"");
        let given = given.replace(&format!("\"{method}\"\nsparsity = {sparsity}"), "\"given\"");
        let compared = given.replace("name = \"given\"", "name = \"compared\"") + "reference = \"path:model\"\n";
        lab.write("given.toml", &given);
        lab.write("compared.toml", &compared);
        lab.run(["run", "given.toml"]).exits(0).says(&["3 cells measured"]);
        // The dense model is compared with itself, whatever the reference.
        lab.run(["run", "compared.toml"]).exits(0).says(&["2 cells measured, 1 cached"]);
        let numbers = |name: &str, variant: &str| {
            let rows = lab.table(&format!("results/{name}/tables/summary.csv"));
            let row = rows.into_iter().find(|row| row["variant"] == variant).unwrap();
            ["top1_match", "top5_overlap", "kl_nats", "compute_ratio"].map(|column| row[column].clone())
        };
        // The checkpoint that was pruned here says of itself what it said when it was pruned.
        for variant in ["masked", "csr"] {
            assert_eq!(numbers("compared", variant), numbers("e", variant), "{method} {variant}");
        }
        assert_eq!(numbers("given", "masked"), ["1", "1", "0", "1"]);
        assert_eq!(numbers("compared", "dense"), ["1", "1", "0", "1"]);
        let manifest: Value = serde_json::from_str(&lab.read("results/compared/manifest.json")).unwrap();
        let sources = manifest["inputs"].as_array().unwrap().iter().map(|input| input["source"].as_str().unwrap());
        assert!(sources.clone().any(|source| source == "path:model"), "{manifest}");
        // The reference decides: another one makes other cells, and one of other tokens is refused.
        lab.run(["plan", "compared.toml", "-s", "prune.reference=path:out"]).exits(0).says(&["2 to measure"]);
        let other = lab.run(["run", "compared.toml", "-s", "prune.reference=builtin:tiny-opt"]);
        other.exits(3).says(&["`path:out` can't be compared with its `prune.reference` `builtin:tiny-opt`"]);
        lab.run(["run", "compared.toml", "-s", "prune.reference=path:nowhere"]).exits(3).says(&["nowhere"]);
    }
}

//! `[[analysis]]` blocks from outside: masks and activations, of prune points and of folders of matrices.

use crate::schema::{conforms, schema_of};
use crate::support::Lab;
use std::io::{Cursor, Write};
use std::time::{Duration, Instant};

/// A matrix as `torch.save` writes it: a zip archive with a pickle and a storage of 32-bit floats.
fn pt(numbers: &[f32], shape: &[usize]) -> Vec<u8> {
    let mut strides = vec![1; shape.len()];
    (1..shape.len()).rev().for_each(|at| strides[at - 1] = strides[at] * shape[at]);
    archive(&pickle("torch._utils\n_rebuild_tensor_v2\n", numbers.len(), shape, &strides), numbers)
}

fn archive(pickle: &[u8], numbers: &[f32]) -> Vec<u8> {
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    for (name, content) in [("m/data.pkl", pickle), ("m/byteorder", b"little"), ("m/data/0", &bytes)] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A call of `name` with the arguments of a tensor of one storage.
fn pickle(name: &str, elements: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let int = |value: usize| [vec![b'J'], (value as i32).to_le_bytes().to_vec()].concat();
    let text = |text: &str| [vec![b'X'], (text.len() as u32).to_le_bytes().to_vec(), text.into()].concat();
    let tuple =
        |values: &[usize]| [vec![b'('], values.iter().flat_map(|&value| int(value)).collect(), vec![b't']].concat();
    let storage = [
        b"(".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        int(elements),
        b"tQ".to_vec(),
    ];
    let empty = b"ccollections\nOrderedDict\n)R".to_vec();
    let arguments = [storage.concat(), int(0), tuple(shape), tuple(strides), b"\x89".to_vec(), empty].concat();
    [b"\x80\x02c".to_vec(), name.into(), b"(".to_vec(), arguments, b"tR.".to_vec()].concat()
}

/// A matrix in which about every `nth` number is 0, in no order.
fn sparse(rows: usize, cols: usize, nth: usize) -> Vec<f32> {
    let gone = |at: usize| (((at as u32).wrapping_mul(2_654_435_761) >> 16) as usize).is_multiple_of(nth);
    (0..rows * cols).map(|at| if gone(at) { 0.0 } else { 0.5 + (at % 13) as f32 }).collect()
}

/// Two sources of one layer: `a` with the numbers of `sparse(.., 2)`, `b` of `sparse(.., 3)`.
fn folders() -> Lab {
    let lab = Lab::empty();
    for (folder, nth) in [("a", 2), ("b", 3)] {
        lab.write(&format!("{folder}/layer1-self_attn.q_proj.pt"), pt(&sparse(12, 20, nth), &[12, 20]));
        lab.write(&format!("{folder}/deep/layer1-mlp.down_proj-0-0-0.5.pt"), pt(&sparse(16, 10, nth), &[16, 10]));
    }
    lab
}

const BOTH: &str = "sources = [{ pt = 'a', method = 'wanda', sparsity = 0.4 }, { pt = 'b', name = 'bee' }]\n";

fn block(id: &str, kind: &str, more: &str) -> String {
    format!("[[analysis]]\nid = '{id}'\nkind = '{kind}'\n{BOTH}{more}\n")
}

/// All kinds that need no model.
fn all_kinds() -> String {
    [
        "name = 'e'\nseed = [0, 1]\n".to_owned(),
        block("structure", "structure", "column_block = 8\nhead_dim = 4"),
        block("similarity", "mask-similarity", "feature_axis = 'residual'"),
        block("gradient", "hamming-gradient", "reference = 3\ncandidates = { mode = 'nearest', n = 5 }"),
        block("near", "neighbours", "references = 4\nneighbours = 3\nmetric = 'kappa'"),
        block(
            "clusters",
            "clustering",
            "neighbours = 8\nreferences = 3\nk = [2, 3]\nn_init = 2\nnull = { repeats = 3 }\ntsne = {}",
        ),
        block("partition", "exhaustive-groups", "group_size = 4\ncdf = true"),
        block("knn", "groups", "samples = 5\ngroup_size = 3"),
        block("spy", "spy", "order = ['identity', 'cluster:clusters', 'groups:partition']\npixels = 8"),
        block("coherence", "block-coherence", "block = 4\norder = ['density', 'groups:partition']"),
        block("tree", "hierarchy", "cuts = [2, 5, 500]"),
    ]
    .concat()
}

#[test]
fn folders_of_matrices_give_every_table() {
    let lab = folders();
    lab.write("e.toml", all_kinds());
    lab.run(["check", "e.toml"]).exits(0);
    let run = lab.run(["run", "e.toml"]);
    run.exits(0).says(&["0 failed: results/e"]).prints(&["separation_mean", "verdict"]);
    let key = "analysis,source,model,method,scope,pattern,sparsity_target,seed,layer,role,module,feature_axis,";
    for table in [
        "matrices",
        "structure",
        "density_profile",
        "nm_conformance",
        "features",
        "mask_similarity",
        "mask_similarity_summary",
        "gradient",
        "gradient_summary",
        "neighbours",
        "clusters",
        "clustering",
        "clustering_summary",
        "cluster_pairs",
        "block_coherence",
        "block_coherence_summary",
        "groups",
        "group_members",
        "group_summary",
        "distance_cdf",
        "hierarchy",
    ] {
        let text = lab.read(format!("results/e/tables/{table}.csv"));
        assert!(text.starts_with(key) && text.lines().count() > 1, "{table}: {text:.200}");
    }
    // The pattern is known from the file; the sparsity from its name, else from the source.
    let rows = lab.table("results/e/tables/structure.csv");
    let shown = |row: &std::collections::BTreeMap<String, String>| {
        ["source", "method", "pattern", "sparsity_target", "role", "mask_source", "nnz"]
            .map(|key| row[key].clone())
            .join(" ")
    };
    let nnz = |rows, cols, nth| sparse(rows, cols, nth).iter().filter(|number| **number != 0.0).count();
    let expected = [
        format!("a wanda unstructured 0.4 q nonzero {}", nnz(12, 20, 2)),
        format!("bee  unstructured  q nonzero {}", nnz(12, 20, 3)),
        format!("a wanda unstructured 0.5 down nonzero {}", nnz(16, 10, 2)),
        format!("bee  unstructured 0.5 down nonzero {}", nnz(16, 10, 3)),
    ];
    assert_eq!(rows.iter().map(shown).collect::<Vec<_>>(), expected);
    let similar = lab.table("results/e/tables/mask_similarity.csv");
    let axes: Vec<&str> = similar.iter().map(|row| row["feature_axis"].as_str()).collect();
    assert_eq!(axes.iter().filter(|axis| **axis == "in").count(), 20);
    assert_eq!(axes.iter().filter(|axis| **axis == "out").count(), 16);
    // A partition has every feature once, and draws have a row for each seed.
    let members = lab.table("results/e/tables/group_members.csv");
    let of = |source: &str| {
        let mut features: Vec<usize> = members
            .iter()
            .filter(|row| row["analysis"] == "partition" && row["role"] == "q" && row["source"] == source)
            .map(|row| row["feature"].parse().unwrap())
            .collect();
        features.sort_unstable();
        features
    };
    assert_eq!(of("a"), (0..20).collect::<Vec<_>>());
    let clusters = lab.table("results/e/tables/clustering.csv");
    assert_eq!(clusters.len(), 2 * 2 * 2 * 3 * 2, "roles, seeds, sources, references, k");
    let references = |source: &str| -> Vec<String> {
        clusters.iter().filter(|row| row["source"] == source).map(|row| row["reference"].clone()).collect()
    };
    assert_eq!(references("a"), references("bee"), "sources are compared on the same references");
}

#[test]
fn finished_analyses_stay_and_the_report_needs_cells_alone() {
    let lab = folders();
    lab.write("e.toml", all_kinds());
    lab.run(["run", "e.toml"]).exits(0);
    let (cells, report) = (lab.files("results/e/cells"), lab.stable_report());
    let schema = schema_of("cell");
    lab.cells().iter().for_each(|(_, cell)| conforms(cell, &schema));
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured"]);
    assert!(cells == lab.files("results/e/cells"));
    for folder in ["results/e/tables", "results/e/plots", "a", "b"] {
        let _ = std::fs::remove_dir_all(lab.path(folder));
    }
    lab.run(["report", "results/e"]).exits(0);
    assert!(report == lab.stable_report());
}

#[test]
fn what_analyses_give_does_not_depend_on_threads_or_names() {
    let lab = folders();
    lab.write("e.toml", all_kinds());
    lab.run(["run", "e.toml", "-s", "device.threads=1"]).exits(0);
    let one = lab.stable_report();
    std::fs::remove_dir_all(lab.path("results")).unwrap();
    lab.run(["run", "e.toml", "-s", "device.threads=3"]).exits(0);
    assert!(one == lab.stable_report());
    // Another name of a source is another word in tables, and no other result.
    lab.write("e.toml", all_kinds().replace("name = 'bee'", "name = 'wasp'"));
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured"]);
    assert!(lab.read("results/e/tables/structure.csv").contains("wasp"));
}

/// A model whose masks are looked at, with everything that needs one.
const OF_A_MODEL: &str = r#"name = "e"
seed = [0, 1]
[model]
source = "path:model"
[data]
agreement = "file:texts.txt"
perplexity = "file:texts.txt"
calibration = "file:texts.txt"
context = 4
calibration_samples = 3
calibration_length = 4
[execute]
variants = ["masked"]
[[prune]]
method = ["magnitude", "wanda"]
scope = []
sparsity = 0.5
[[analysis]]
id = "structure"
kind = "structure"
[[analysis]]
id = "similarity"
kind = "mask-similarity"
[[analysis]]
id = "act"
kind = "activation-sparsity"
sources = [{ dense = true }, { method = "wanda" }]
targets = [0.0, 0.5]
batch = [1, 2]
"#;

fn model_lab() -> Lab {
    Lab::tiny(&OF_A_MODEL.replace("scope = []\n", ""))
}

#[test]
fn prune_points_of_the_file_are_analysed() {
    let lab = model_lab();
    lab.run(["run", "e.toml"]).exits(0).says(&[" 0 failed"]);
    let structure = lab.table("results/e/tables/structure.csv");
    // Magnitude once, Wanda for both seeds; six matrices each.
    let of = |method: &str| structure.iter().filter(|row| row["method"] == method).collect::<Vec<_>>();
    assert_eq!((of("magnitude").len(), of("wanda").len()), (6, 12));
    assert!(structure.iter().all(|row| row["mask_source"] == "explicit" && row["model"] == "path:model"));
    // Wanda takes half of every row.
    assert!(
        of("wanda").iter().all(|row| row["row_density_sd"].parse::<f64>().unwrap() == 0.0 && row["sparsity"] == "0.5")
    );
    assert_eq!(of("wanda")[0]["seed"], "0");
    let features = lab.table("results/e/tables/features.csv");
    assert!(features.iter().all(|row| row["wanda_score"].parse::<f64>().is_ok()), "a calibrated method is in the file");
    let act = lab.table("results/e/tables/activation_sparsity.csv");
    // Sources, seeds, matrices, targets, batches.
    assert_eq!(act.len(), 2 * 2 * 6 * 2 * 2);
    let at_zero = act.iter().filter(|row| row["target"] == "0");
    assert!(at_zero.clone().count() > 0 && at_zero.into_iter().all(|row| row["rel_output_error"] == "0"));
    let behaviour = lab.table("results/e/tables/activation_behaviour.csv");
    assert_eq!(behaviour.len(), 2 * 2 * 2);
    for row in &behaviour {
        let dense = row["target"] == "0";
        assert!(!dense || (row["top1_agreement"] == "1" && row["perplexity"] == row["perplexity_base"]), "{row:?}");
        assert!(dense || row["kl"].parse::<f64>().unwrap() > 0.0, "{row:?}");
    }
    // What another run of the same file needs is there.
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured"]);
    let only = lab.run(["plan", "e.toml", "--only", "kind=mask-similarity, role=q", "--output-format", "json"]);
    let selected = only.exits(0).json_lines().iter().filter(|line| line["selected"] == true).count();
    assert_eq!(selected, 2, "one for each seed");
}

#[test]
fn masks_of_a_checkpoint_are_those_of_its_point() {
    let lab = model_lab();
    lab.run(["export", "e.toml", "--only", "method=magnitude", "--to", "pruned"]).exits(0);
    lab.write(
        "f.toml",
        "name = 'f'\n[[analysis]]\nid = 's'\nkind = 'structure'\nsources = [{ path = 'pruned', method = 'magnitude' }]\n",
    );
    lab.run(["run", "f.toml"]).exits(0);
    lab.run(["run", "e.toml", "--only", "kind=structure"]).exits(0);
    let mine = lab.table("results/f/tables/structure.csv");
    let point = lab.table("results/e/tables/structure.csv");
    assert_eq!(mine.len(), 6);
    for row in &mine {
        let same = |other: &&std::collections::BTreeMap<String, String>| {
            other["method"] == "magnitude" && other["role"] == row["role"]
        };
        let other = point.iter().find(same).unwrap();
        assert_eq!(
            (&row["nnz"], &row["dead_cols"], &row["module"]),
            (&other["nnz"], &other["dead_cols"], &other["module"])
        );
    }
}

#[test]
fn a_killed_run_repeats_no_finished_analysis() {
    let lab = folders();
    let slow = all_kinds().replace("null = { repeats = 3 }", "null = { repeats = 400 }");
    lab.write("e.toml", slow);
    let mut child = lab.command(["run", "e.toml"]).spawn().unwrap();
    let start = Instant::now();
    let is_cell = |name: &str| name.ends_with(".json") && !name.starts_with('.');
    let done = || {
        let entries = std::fs::read_dir(lab.path("results/e/cells")).into_iter().flatten().flatten();
        entries.filter(|entry| is_cell(&entry.file_name().to_string_lossy())).count()
    };
    while done() < 3 && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = lab.files("results/e/cells");
    let finished = before.keys().filter(|name| is_cell(name)).count();
    assert!(finished >= 3);
    lab.run(["run", "e.toml"]).exits(0).says(&[&format!(" {finished} cached, 0 failed")]);
    let after = lab.files("results/e/cells");
    assert!(before.iter().filter(|(name, _)| is_cell(name)).all(|(name, bytes)| after[name] == *bytes));
}

#[test]
fn broken_and_hostile_matrices_are_refused() {
    let experiment = "name = 'e'\n[[analysis]]\nid = 's'\nkind = 'structure'\nsources = [{ pt = 'a' }]\n";
    let good = pt(&[1.0, 0.0, 2.0, 3.0], &[2, 2]);
    let calls = archive(b"\x80\x02cposix\nsystem\nX\x05\x00\x00\x00touch\x85R.", &[]);
    let other = archive(&pickle("builtins\neval\n", 4, &[2, 2], &[2, 1]), &[0.0; 4]);
    let cases: [(&str, &[u8], &str); 9] = [
        ("layer1-self_attn.q_proj.pt", &calls, "it names `posix.system`, which is not allowed"),
        ("layer1-self_attn.q_proj.pt", &other, "it names `builtins.eval`, which is not allowed"),
        ("layer1-self_attn.q_proj.pt", &good[..good.len() / 2], "damaged or truncated"),
        ("layer1-self_attn.q_proj.pt", &pt(&[1.0, 2.0], &[2]), "has the shape [2]"),
        ("layer1-self_attn.q_proj.pt", &pt(&[1.0, f32::NAN], &[1, 2]), "NaN or infinite"),
        ("layer1-self_attn.q_proj.pt", b"", "is empty"),
        ("q_proj.pt", &good, "says neither layer nor component"),
        ("layer1-mlp.up_proj-4-8-0.25.pt", &good, "4 of 8 weights are pruned, and that the sparsity is 0.25"),
        ("layer1-mlp.up_proj-8-4.pt", &good, "says that 8 of 4 weights are pruned"),
    ];
    for (name, bytes, message) in cases {
        let lab = Lab::with(experiment);
        lab.write(&format!("a/{name}"), bytes);
        let outcome = lab.run(["run", "e.toml"]);
        // A number that is not finite is found when the cell runs.
        let code = if message.starts_with("NaN") { 100 } else { 3 };
        outcome.exits(code).says(&[message]);
        assert!(!outcome.stderr.contains("panicked"));
    }
    // A dense one is read, and so is one whose storage is not in order.
    let lab = Lab::with(experiment);
    lab.write(
        "a/layer0-fc1.pt",
        archive(&pickle("torch._utils\n_rebuild_tensor_v2\n", 6, &[2, 3], &[1, 2]), &[1., 0., 0., 2., 3., 4.]),
    );
    lab.run(["run", "e.toml"]).exits(0);
    let profile = lab.table("results/e/tables/density_profile.csv");
    let rows: Vec<&str> = profile.iter().filter(|row| row["axis"] == "row").map(|row| row["count"].as_str()).collect();
    assert_eq!(rows, ["2", "2"]);
    assert_eq!(lab.table("results/e/tables/structure.csv")[0]["role"], "up");
}

#[test]
fn matrices_that_do_not_go_together_are_refused() {
    let good = |numbers: usize, shape: &[usize]| pt(&vec![1.0; numbers], shape);
    let lab = Lab::with("name = 'e'\n[[analysis]]\nid = 's'\nkind = 'structure'\nsources = [{ pt = 'a' }]\n");
    lab.write("a/layer1-self_attn.q_proj-2-4.pt", good(8, &[2, 4]));
    lab.write("a/x/layer1-self_attn.q_proj-4-8.pt", good(16, &[2, 8]));
    let outcome = lab.run(["run", "e.toml"]);
    outcome.exits(3).says(&["layer1-self_attn.q_proj-2-4.pt", "layer1-self_attn.q_proj-4-8.pt", "are `q` of layer 1"]);
    // Narrowed by its pattern, there is one.
    lab.write(
        "e.toml",
        "name = 'e'\n[[analysis]]\nid = 's'\nkind = 'structure'\nsources = [{ pt = 'a', pattern = '4:8' }]\n",
    );
    lab.run(["run", "e.toml"]).exits(0);
    assert_eq!(lab.table("results/e/tables/structure.csv")[0]["total"], "16");
    // Two components of one role, in one folder.
    lab.write("a/layer1-attn.q_proj-4-8.pt", good(16, &[2, 8]));
    lab.run(["run", "e.toml"]).exits(3).says(&["are `q` of layer 1"]);
    // Other shapes, too many clusters, groups and references.
    let lab = folders();
    lab.write("b/layer1-self_attn.q_proj.pt", good(24, &[12, 2]));
    for (kind, more, message) in [
        ("mask-similarity", "", "`self_attn.q_proj` of layer 1 is [12, 20] in `a` and [12, 2] in `bee`"),
        (
            "clustering",
            "k = 5\nneighbours = 0",
            "`k` is 5, too many for `self_attn.q_proj` of layer 1 of `bee`, which has 2 features",
        ),
        ("groups", "group_size = 11", "`group_size` is 11, too many for"),
        ("neighbours", "reference = 10", "there is no reference 10 in `mlp.down_proj`"),
    ] {
        lab.write("e.toml", format!("name = 'e'\n{}", block("x", kind, more)));
        lab.run(["plan", "e.toml"]).exits(2).says(&[message]);
    }
    lab.write("e.toml", format!("name = 'e'\n{}", block("x", "structure", "layers = 7")));
    lab.run(["plan", "e.toml"]).exits(2).says(&["`a` has no matrix of the layers and roles that it asks for"]);
}

#[test]
fn mistakes_in_the_file_are_named_with_their_place() {
    let cases = [
        (block("x", "structur", ""), "did you mean `structure`?"),
        (block("x", "structure", "order = 'density'"), "`analysis.order` has no effect on `structure`"),
        (block("x", "spy", "order = 'cluster:late'"), "there is no analysis `late` above"),
        (block("x", "spy", "order = 'densty'"), "unknown order `densty`"),
        (block("x", "clustering", "k = [4, 200]"), "`analysis.k` has 200 clusters of 128 features"),
        (block("x", "clustering", "algorithm = 'kmedoids'\ninput = 'weights'"), "`analysis.input` `weights` is for `kmeans`"),
        (block("x", "structure", "layers = '3-1'"), "`analysis.layers` has no layers `3-1`"),
        (block("x", "structure", "nm = [4, 2]"), "`analysis.nm` has `[4, 2]`"),
        (block("x", "mask-similarity", "pairs = [['a', 'be']]"), "did you mean `bee`?"),
        (block("x", "neighbours", "reference = ['random', 3]"), "names features, and others are to be drawn"),
        (block("x", "groups", "mode = 'partition'\nsamples = 3"), "`analysis.samples` has no effect on `mode = \"partition\"`"),
        (block("x", "activation-sparsity", ""), "no text runs through matrices of `pt`"),
        (block("x", "structure", "") + &block("x", "spy", ""), "two `[[analysis]]` blocks have the `id` `x`"),
        ("[[analysis]]\nid = 'x'\nkind = 'spy'\n".to_owned(), "`[[analysis]]` needs a model"),
        ("[[analysis]]\nid = 'x'\nkind = 'spy'\nsources = [{ pt = 'a', path = 'b' }]\n".to_owned(), "has both `path` and `pt`"),
        (
            "[[analysis]]\nid = 'x'\nkind = 'spy'\nsources = [{ method = 'wanda' }]\n[model]\nsource = 'builtin:tiny-opt'\n".to_owned(),
            "is no prune point of this file",
        ),
        ("[[analysis]]\nkind = 'spy'\nsources = [{ pt = 'a' }]\n".to_owned(), "missing key `analysis.id`"),
    ];
    for (text, message) in cases {
        let lab = Lab::with(&format!("name = 'e'\n{text}"));
        lab.run(["check", "e.toml"]).exits(2).says(&[message]);
    }
}

/// A file of the reference that NumPy and SciPy made; `tests/fixtures/analysis/README.md` says how.
fn reference(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(crate::support::ROOT).join("tests/fixtures/analysis").join(format!("{name}.gz"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file), &mut bytes).unwrap();
    bytes
}

/// Rows of a table by their key, in words.
type Keyed = std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>;

fn keyed(rows: impl IntoIterator<Item = std::collections::BTreeMap<String, String>>, key: &[&str]) -> Keyed {
    let name = |row: &std::collections::BTreeMap<String, String>| {
        key.iter().map(|key| row[*key].clone()).collect::<Vec<_>>().join(" ")
    };
    rows.into_iter().map(|row| (name(&row), row)).collect()
}

/// The numbers of the reference come out of the tables, every column of every row that its matrices have.
#[test]
fn tables_have_the_numbers_of_the_reference() {
    let lab = Lab::empty();
    let bytes = reference("matrices.safetensors");
    let matrices = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, tensor) in matrices.tensors() {
        let Some((source @ ("wanda" | "sgpt"), component)) = name.split_once('/') else { continue };
        let numbers: Vec<f32> = tensor.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        lab.write(&format!("{source}/layer1-{component}.pt"), pt(&numbers, tensor.shape()));
    }
    let sources = "sources = [{ pt = 'wanda' }, { pt = 'sgpt' }]\n";
    let of =
        |id: &str, kind: &str, more: &str| format!("[[analysis]]\nid = '{id}'\nkind = '{kind}'\n{sources}{more}\n");
    lab.write(
        "e.toml",
        [
            "name = 'e'\n".to_owned(),
            of("structure", "structure", "head_dim = 32\nnm = [[2, 4], [4, 8], [1, 4], [3, 16]]"),
            of("greedy", "groups", "mode = 'partition'"),
            of("coherence", "block-coherence", "block = [4, 8, 16]\norder = ['identity', 'density']"),
            of("similarity", "mask-similarity", ""),
            of("gradient", "hamming-gradient", "skip_constant = false"),
        ]
        .concat(),
    );
    lab.run(["run", "e.toml"]).exits(0);
    let mut compared = 0;
    for (table, ours, theirs, columns) in [
        (
            "nm_conformance",
            ["source", "module", "n", "m"].as_slice(),
            ["source", "component", "n", "m"].as_slice(),
            "conforming exact_fraction kept_histogram remainder_kept",
        ),
        (
            "block_coherence_summary",
            &["source", "module", "feature_axis", "order", "block"],
            &["source", "component", "feature_axis", "order", "block"],
            "coherence_mean null_mean lift skippable_fraction",
        ),
        (
            "groups",
            &["source", "module", "mode", "grouping", "group_index"],
            &["source", "component", "mode", "method", "group_index"],
            "seed_feature mean_pairwise_hamming all_zero_rows distinct_patterns pattern_entropy null_zero_rows",
        ),
        (
            "mask_similarity",
            &["source", "source_b", "module", "feature_axis", "feature"],
            &["source", "source_b", "component", "feature_axis", "feature"],
            "jaccard jaccard_chance hamming hamming_chance kappa cosine",
        ),
        (
            "gradient",
            &["source", "module", "rank"],
            &["source", "component", "rank"],
            "feature hamming_count expected kappa",
        ),
        (
            "structure",
            &["source", "module"],
            &["source", "component"],
            "nnz col_density_sd dead_cols full_rows flops_per_token_sparse",
        ),
    ] {
        let mine = keyed(lab.table(&format!("results/e/tables/{table}.csv")), ours);
        let wanted = csv::Reader::from_reader(&reference(&format!("expected/{table}.csv"))[..])
            .deserialize()
            .map(|row| row.unwrap())
            .collect::<Vec<std::collections::BTreeMap<String, String>>>();
        let plain = |row: &std::collections::BTreeMap<String, String>| {
            row.get("mask_source").is_none_or(|mask| mask == "nonzero")
                && row.get("candidates").is_none_or(|candidates| candidates == "all")
                && row.get("skip_constant").is_none_or(|skip| skip == "false")
        };
        let mut of_table = 0;
        for (key, row) in keyed(wanted.into_iter().filter(plain), theirs) {
            let Some(own) = mine.get(&key) else { continue };
            for column in columns.split(' ') {
                let (a, b) = (&row[column], &own[column]);
                let near = match (a.parse::<f64>(), b.parse::<f64>()) {
                    (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1e-3),
                    _ => a == b,
                };
                assert!(near, "{table} {key} {column}: {a}, not {b}");
                of_table += 1;
            }
        }
        assert!(of_table > 10, "{table}: {of_table} values compared");
        compared += of_table;
    }
    assert!(compared > 3000, "{compared} values compared");
}

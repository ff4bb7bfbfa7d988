//! stdout, tables and plots: what other programs read.

use crate::schema::{conforms, schema_of};
use crate::support::{Lab, THREE_CELLS};

/// The interface's key columns.
const KEY: &str = "cell,setup,model,method,scope,pattern,sparsity_target,seed,variant,backend,dtype";
const SUMMARY: &str = "nonzero,total,sparsity,size_mb,compute_ratio,top1_match,top5_overlap,kl_nats,perplexity,gate_max_abs,gate_max_logit,ties,linear_sparsity,bits_per_byte";

#[test]
fn json_goes_to_stdout_and_progress_to_stderr() {
    let lab = Lab::tiny(THREE_CELLS);
    let schema = schema_of("events");
    for cached in [false, true] {
        let outcome = lab.run(["run", "e.toml", "--output-format", "json"]);
        let events = outcome.exits(0).json_lines();
        events.iter().for_each(|event| conforms(event, &schema));
        assert_eq!(events.iter().filter(|event| event["event"] == "cell" && event["cached"] == cached).count(), 3);
        let done = events.last().unwrap();
        let (ran, kept) = if cached { (0, 3) } else { (3, 0) };
        assert_eq!((&done["ran"], &done["kept"], &done["failed"]), (&ran.into(), &kept.into(), &0.into()));
        assert_eq!(done["results"], "results/e");
        if !cached {
            outcome.says(&["[1/3] path:model Dense", "[2/3] path:model magnitude global Masked50", "[3/3]", "CSR50"]);
        }
        let announced = outcome.stderr.lines().filter(|line| line.starts_with('[')).count();
        assert_eq!(announced, ran, "{}", outcome.stderr);
        assert!(!outcome.stderr.contains('\u{1b}'), "no colours and no bars where nobody looks");
    }
}

#[test]
fn a_failed_cell_is_an_event_too() {
    let lab = Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "pattern = \"2:3\""));
    let events = lab.run(["run", "e.toml", "--output-format", "json"]).exits(100).json_lines();
    let schema = schema_of("events");
    events.iter().for_each(|event| conforms(event, &schema));
    let cells: Vec<_> = events.iter().filter(|event| event["event"] == "cell").collect();
    assert_eq!(cells[1]["failure"]["kind"], "pruning");
    assert!(cells[1]["measured"].is_null() && cells[0]["failure"].is_null());
    let done = events.last().unwrap();
    assert_eq!((&done["failed"], &done["failures"].as_array().unwrap().len()), (&2.into(), &2));
    assert_eq!(done["failures"][0]["message"], cells[1]["failure"]["message"]);
}

#[test]
fn the_table_goes_to_stdout_for_people() {
    let outcome = Lab::tiny(THREE_CELLS).run(["run", "e.toml"]);
    outcome.exits(0).prints(&[
        "top1_match",
        "method",
        "50 %",
        "dense",
        "magnitude",
        "size_mb",
        "csr",
        "masked takes what dense takes",
    ]);
    assert_eq!(outcome.stdout.lines().count(), 10, "a pivot of quality and one of sizes: {}", outcome.stdout);
}

#[test]
fn a_stand_in_is_called_one() {
    let note = "a stand-in, not a published model";
    let dense = ["run", "e.toml", "--only", "variant=dense"];
    let builtin = THREE_CELLS.replace("path:model", "builtin:tiny-opt").replace("[data]", "[data]\ncontext = 8");
    Lab::tiny(&builtin).run(dense).exits(0).says(&["builtin:tiny-opt", note]);
    assert!(!Lab::tiny(THREE_CELLS).run(dense).exits(0).stderr.contains(note));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let lab = Lab::tiny(THREE_CELLS);
    for args in
        [&["run", "e.toml", "--output-format", "json"][..], &["plan", "e.toml"], &["schema"], &["report", "results/e"]]
    {
        let mut child = lab.command(args.iter().copied()).spawn().unwrap();
        drop(child.stdout.take());
        lab.outcome(child.wait_with_output().unwrap()).exits(0);
    }
    assert_eq!(lab.cells().len(), 3);
    assert!(lab.path("results/e/tables/summary.csv").exists());
}

#[test]
fn tables_have_the_columns_of_the_interface() {
    let lab = Lab::tiny(&format!(
        "{THREE_CELLS}[[expect]]\nwhere = {{ variant = \"csr\" }}\nmetric = \"sparsity\"\nvalue = 0.3\ntolerance = 1\n"
    ));
    lab.run(["run", "e.toml"]).exits(0);
    let keyed = |columns: &str| format!("{KEY},{columns}");
    let spread: Vec<String> = SUMMARY.split(',').map(|name| format!("{name}_mean,{name}_sd")).collect();
    let unseeded = KEY.replace("cell,", "").replace("seed,", "");
    let tables = [
        ("summary", keyed(SUMMARY)),
        (
            "timings",
            keyed(
                "load_seconds,calibrate_seconds,prune_seconds,convert_seconds,measure_seconds,peak_rss_bytes,\
                 load_cells,calibrate_cells,prune_cells",
            ),
        ),
        ("layers", keyed("module_name,group,nonzero,total,sparsity,shape,flops_per_token,param_frac,bytes,format")),
        ("groups", keyed("group,nonzero,total,sparsity,flops_per_token,param_frac,bytes")),
        ("execution", keyed("tokens,kernel,linears")),
        ("spread", format!("{unseeded},seeds,{}", spread.join(","))),
        ("expectations", "where,metric,value,tolerance,measured,difference,verdict,source".into()),
    ];
    for (name, columns) in &tables {
        let csv = lab.read(format!("results/e/tables/{name}.csv"));
        assert_eq!(csv.lines().next().unwrap(), columns, "{name}.csv");
        let rows = csv.lines().count() - 1;
        let markdown = lab.read(format!("results/e/tables/{name}.md"));
        assert_eq!(markdown.lines().count(), rows + 2, "{name}.md");
        assert!(markdown.lines().all(|line| line.starts_with('|') && line.ends_with('|')), "{name}.md");
        let latex = lab.read(format!("results/e/tables/{name}.tex"));
        assert!(latex.contains("\\toprule") && latex.contains("\\bottomrule"), "{name}.tex");
        assert_eq!(latex.matches(" \\\\\n").count(), rows + 1, "{name}.tex");
    }
    let files = lab.files("results/e/tables");
    assert_eq!(files.len(), 3 * tables.len(), "{:?}", files.keys());
}

#[test]
fn missing_values_are_empty() {
    let lab = Lab::tiny(&THREE_CELLS.replace(", \"agreement\"", ""));
    lab.run(["run", "e.toml"]).exits(0);
    let rows = lab.table("results/e/tables/summary.csv");
    assert_eq!(rows.len(), 3);
    for row in &rows {
        for column in ["top1_match", "top5_overlap", "kl_nats", "perplexity", "seed"] {
            assert_eq!(row[column], "", "{column} of {}", row["setup"]);
        }
        assert_eq!(row["gate_max_abs"].is_empty(), row["variant"] != "csr", "{}", row["setup"]);
        assert_eq!(row["method"].is_empty(), row["variant"] == "dense", "{}", row["setup"]);
    }
    for row in lab.table("results/e/tables/spread.csv") {
        assert_eq!((row["seeds"].as_str(), row["nonzero_sd"].as_str()), ("1", ""));
        assert!(!row["nonzero_mean"].is_empty());
    }
}

#[test]
fn the_notebooks_csr_is_a_variant_with_its_own_bytes() {
    for sparsity in ["0.5", "0.25"] {
        let text = THREE_CELLS.replace("0.5", sparsity) + "[execute]\nvariants = [\"masked\", \"csr\", \"csr32\"]\n";
        let lab = Lab::tiny(&text);
        let label = if sparsity == "0.5" { "CSR32-50" } else { "CSR32-25" };
        lab.run(["run", "e.toml"]).exits(0).says(&[label]);
        let rows = lab.table("results/e/tables/summary.csv");
        let plain = rows.iter().find(|row| row["variant"] == "csr32").unwrap();
        assert_eq!(plain["setup"], label);
        assert!(!plain["gate_max_abs"].is_empty(), "a sparse variant has passed the gate");
        // Predictions are those of the masked model.
        let masked = rows.iter().find(|row| row["variant"] == "masked").unwrap();
        assert_eq!(plain["nonzero"], masked["nonzero"]);
        let (_, cell) = lab.cells().into_iter().find(|(_, cell)| cell["cell"]["variant"] == "csr32").unwrap();
        let layers = cell["results"][0]["result"]["structure"]["structure"]["layers"].as_array().unwrap();
        let plain: Vec<_> = layers.iter().filter(|layer| layer["format"] == "csr-32").collect();
        assert!(plain.len() > 3);
        for layer in plain {
            let (kept, rows) = (layer["flops_per_token"].as_u64().unwrap() / 2, layer["shape"][0].as_u64().unwrap());
            // A bias of four bytes a row stands beside the weight.
            assert_eq!(layer["bytes"].as_u64().unwrap(), 8 * kept + 4 * (rows + 1) + 4 * rows, "{layer}");
        }
        let groups = cell["results"].as_array().unwrap();
        let gate = groups.iter().find_map(|group| group["result"].get("gate")).unwrap();
        let kernels = gate["kernels"].as_array().unwrap();
        assert!(kernels.iter().all(|used| used["kernel"].as_str().unwrap().starts_with("csr32-")), "{kernels:?}");
    }
}

#[test]
fn numbers_are_those_of_the_model() {
    let lab = Lab::tiny(THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    let rows = lab.table("results/e/tables/summary.csv");
    let column = |name: &str| [0, 1, 2].map(|row| rows[row][name].parse::<f64>().unwrap());
    // Two embeddings, six linears with biases, three norms; the tied head counts once.
    let linears = 4 * 8 * 8 + 2 * 8 * 16;
    let total = 12 * 8 + 18 * 8 + linears + 4 * 8 + 16 + 8 + 3 * 16;
    let pruned = total - linears / 2;
    assert_eq!(column("total"), [total, total, total].map(f64::from));
    assert_eq!(column("nonzero"), [total, pruned, pruned].map(f64::from));
    let ratio = f64::from(pruned) / f64::from(total);
    assert_eq!(column("sparsity"), [0.0, 1.0 - ratio, 1.0 - ratio]);
    assert_eq!(column("compute_ratio"), [1.0, ratio, ratio]);
    assert_eq!(column("size_mb")[..2], [f64::from(4 * total) / f64::from(1 << 20); 2]);
    assert_eq!(["top1_match", "top5_overlap", "kl_nats"].map(|name| column(name)[0]), [1.0, 1.0, 0.0]);
    let gate = |name: &str| rows[2][name].parse::<f64>().unwrap();
    assert!(gate("gate_max_abs") <= 1e-4 * gate("gate_max_logit"));
    let layers = lab.table("results/e/tables/layers.csv");
    let head = layers.iter().find(|row| row["setup"] == "Masked50" && row["module_name"] == "lm_head").unwrap();
    assert_eq!((head["nonzero"].as_str(), head["shape"].as_str()), ("96", "(12, 8)"));
}

#[test]
fn globs_of_exclude_match_dots() {
    for (glob, kept) in [("*.fc?", ["fc1", "fc2"]), ("model.*_proj", ["k_proj", "out_proj"])] {
        let lab = Lab::tiny(&format!("{THREE_CELLS}exclude = [\"{glob}\", \"lm_head\"]\n"));
        lab.run(["run", "e.toml"]).exits(0);
        let layers = lab.table("results/e/tables/layers.csv");
        let masked = layers.iter().filter(|row| row["variant"] == "masked" && row["group"].ends_with("_linear"));
        for row in masked {
            let name = row["module_name"].rsplit('.').next().unwrap();
            assert!(row["sparsity"] == "0" || !kept.contains(&name), "{row:?}");
        }
        assert!(layers.iter().any(|row| row["variant"] == "masked" && row["sparsity"] != "0"), "something is pruned");
    }
}

#[test]
fn plots_come_with_what_they_draw() {
    let lab = Lab::tiny(&THREE_CELLS.replace("sparsity = 0.5", "sparsity = [0.25, 0.5]"));
    lab.run(["run", "e.toml"]).exits(0);
    let files = lab.files("results/e/plots");
    let names: Vec<&str> = files.keys().filter_map(|name| name.strip_suffix(".svg")).collect();
    assert_eq!(names, ["groups", "heatmap", "setups", "sweep"]);
    assert_eq!(files.len(), 4 * names.len(), "{:?}", files.keys());
    for name in names {
        assert!(files[&format!("{name}.svg")].starts_with(b"<svg"));
        assert!(files[&format!("{name}.png")].starts_with(b"\x89PNG\r\n\x1a\n"));
        assert!(files[&format!("{name}.csv")].iter().filter(|byte| **byte == b'\n').count() > 1);
    }
    // With one sparsity there is no curve: the earlier one goes; what somebody put there stays.
    lab.write("results/e/plots/mine.svg", "<svg/>");
    lab.write("results/e/plots/mine.png", "pixels");
    lab.write("results/e/plots/heatmap-mine.svg", &files["heatmap.svg"]);
    lab.write("e.toml", THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(0);
    let left = lab.files("results/e/plots");
    let left: Vec<&str> = left.keys().filter_map(|name| name.strip_suffix(".svg")).collect();
    assert_eq!(left, ["groups", "heatmap-mine", "heatmap", "mine", "setups"]);
}

#[test]
fn plots_of_several_methods_and_blocks() {
    let lab = Lab::with(
        "name = \"e\"\nseed = [0, 1]\n[model]\nsource = \"builtin:tiny-opt\"\n\
         [data]\ncontext = 16\nperplexity_windows = 2\n\
         [[prune]]\nmethod = [\"magnitude\", \"random\"]\npattern = [\"unstructured\", \"2:4\"]\nsparsity = 0.5\n\
         [[prune]]\nmethod = \"magnitude\"\nsparsity = 0.3\n\
         [execute]\nvariants = [\"dense\", \"masked\"]\n\
         [measure]\nmetrics = [\"structure\", \"perplexity\"]\n",
    );
    let run = lab.run(["run", "e.toml"]);
    run.exits(0);
    let files = lab.files("results/e/plots");
    let names: Vec<&str> = files.keys().filter_map(|name| name.strip_suffix(".svg")).collect();
    assert_eq!(names, ["groups", "heatmap", "layers", "perplexity", "setups", "sweep"]);
    let column = |name: &str, column: &str| {
        let rows = lab.table(&format!("results/e/plots/{name}.csv"));
        rows.into_iter().map(|row| row[column].clone()).collect::<std::collections::BTreeSet<_>>()
    };
    let series = column("perplexity", "series").into_iter().collect::<Vec<_>>();
    assert_eq!(series, ["dense", "magnitude", "random"]);
    assert_eq!(column("layers", "panel").into_iter().collect::<Vec<_>>(), ["30 %", "50 %"], "2:4 is even");
    assert_eq!(column("layers", "x").len(), 6, "a point a block");
    let kinds = column("heatmap", "series").into_iter().collect::<Vec<_>>();
    assert_eq!(kinds, ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"]);
    // The comparison of two methods that differ by less than their seeds do is called what it is.
    let rows = lab.table("results/e/tables/comparisons.csv");
    assert_eq!(rows.len(), 2, "one at 50 %, one at 2:4");
    let inconclusive = rows.iter().filter(|row| row["verdict"] == "inconclusive").count();
    assert_eq!(run.stderr.contains("comparisons of methods are inconclusive"), inconclusive > 0);
    // The same from the cells alone, byte for byte.
    for folder in ["results/e/tables", "results/e/plots"] {
        std::fs::remove_dir_all(lab.path(folder)).unwrap();
    }
    lab.run(["report", "results/e"]).exits(0);
    assert!(lab.files("results/e/plots") == files);
}

#[test]
fn bits_are_for_each_byte_of_the_scored_tokens() {
    // Scored tokens, and the bytes of the text that they stand for by the offsets of tokenizers 0.22 in Python.
    let cases = [("", 504.0, 1701.0), ("perplexity_stride = 32", 287.0, 964.0)];
    for (stride, tokens, bytes) in cases {
        let lab = Lab::with(&format!(
            "name = \"e\"\n[model]\nsource = \"builtin:tiny-opt\"\n\
             [data]\ncontext = 64\nperplexity_windows = 8\n{stride}\n\
             [measure]\nmetrics = [\"perplexity\", \"bits_per_byte\"]\n"
        ));
        lab.run(["run", "e.toml"]).exits(0);
        let row = &lab.table("results/e/tables/summary.csv")[0];
        let [perplexity, bits] = ["perplexity", "bits_per_byte"].map(|name| row[name].parse::<f64>().unwrap());
        assert!((tokens * perplexity.log2() / bits - bytes).abs() < 1e-6, "{perplexity} {bits}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let reports = ["1", "2"].map(|threads| {
        let lab = Lab::with(
            "name = \"e\"\n[model]\nsource = \"builtin:tiny-opt\"\n[data]\ncontext = 16\nperplexity_windows = 4\n\
             [[prune]]\nmethod = [\"magnitude\", \"random\"]\nsparsity = 0.5\n\
             [measure]\nmetrics = [\"structure\", \"agreement\", \"perplexity\"]\n",
        );
        lab.run(["run", "e.toml", "-s", &format!("device.threads={threads}")]).exits(0);
        lab.stable_report()
    });
    assert!(reports[0].keys().eq(reports[1].keys()));
    let differing: Vec<&String> = reports[0].keys().filter(|name| reports[0][*name] != reports[1][*name]).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn seeds_are_an_axis_of_what_is_random() {
    let seeds = THREE_CELLS.replace("name = \"e\"", "name = \"e\"\nseed = [0, 1, 2]");
    let lab = Lab::tiny(&seeds.replace("\"magnitude\"", "[\"magnitude\", \"random\"]"));
    lab.run(["run", "e.toml"]).exits(0);
    let spread = lab.table("results/e/tables/spread.csv");
    let seeds: Vec<_> =
        spread.iter().map(|row| (row["setup"].as_str(), row["method"].as_str(), row["seeds"].as_str())).collect();
    let expected = [
        ("Dense", "", "1"),
        ("Masked50", "magnitude", "1"),
        ("CSR50", "magnitude", "1"),
        ("Masked50", "random", "3"),
        ("CSR50", "random", "3"),
    ];
    assert_eq!(seeds, expected);
    let summary = lab.table("results/e/tables/summary.csv");
    let random = summary.iter().filter(|row| row["method"] == "random" && row["variant"] == "masked");
    let kl: Vec<f64> = random.map(|row| row["kl_nats"].parse().unwrap()).collect();
    assert_eq!(kl.len(), 3);
    let mean = kl.iter().sum::<f64>() / 3.0;
    let sd = (kl.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let compared = lab.table("results/e/tables/comparisons.csv");
    let kl = compared.iter().find(|row| row["metric"] == "kl_nats").unwrap();
    assert_eq!((kl["a"].as_str(), kl["b"].as_str(), kl["variant"].as_str()), ("magnitude", "random", "masked"));
    assert_eq!((kl["seeds_a"].as_str(), kl["sd_a"].as_str(), kl["seeds_b"].as_str()), ("1", "0", "3"));
    let value = |column: &str| kl[column].parse::<f64>().unwrap();
    assert_eq!((value("mean_b"), value("sd_b"), value("spread")), (mean, sd, sd));
    assert_eq!((kl["test"].as_str(), value("p") >= 0.0), ("welch", true));
    let verdict = if value("difference").abs() <= sd || value("p") >= 0.05 {
        "inconclusive"
    } else if value("difference") < 0.0 {
        "magnitude"
    } else {
        "random"
    };
    assert_eq!(kl["verdict"], verdict);
    let near = |column: &str, value: f64| (spread[3][column].parse::<f64>().unwrap() - value).abs() < 1e-12;
    assert!(sd > 0.0 && near("kl_nats_mean", mean) && near("kl_nats_sd", sd), "{kl:?} {:?}", spread[3]);
}

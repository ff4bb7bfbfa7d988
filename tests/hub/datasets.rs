//! Datasets of the hub as texts of an experiment, from `hf:` in the file to cells.

use crate::fake_hub::{COMMIT, Content, FakeHub, File, REPO, Request};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::basic::Compression as Codec;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

const WIKITEXT: &str = "wikitext-2-raw-v1/test-00000-of-00001.parquet";
const TRAIN: &str = "en/c4-train.00000-of-00002.json.gz";
/// A pruned model of the program's own, and what follows under `[data]`.
const EXPERIMENT: &str = "name = 'e'\n[model]\nsource = 'builtin:tiny-opt'\n[device]\nbackend = 'flex'\n[measure]\n\
     metrics = ['structure', 'perplexity']\n[[prune]]\nmethod = 'magnitude'\nsparsity = 0.5\n[data]\n";

/// Lines with headings and empty ones between, as WikiText has them.
fn lines() -> Vec<String> {
    let line = |row: usize| match row % 4 {
        0 => String::new(),
        1 => format!(" = Heading {row} = \n"),
        _ => format!(" The {row} rabbits of the garden went down the long hall , and Alice after them . \n"),
    };
    (0..200).map(line).collect()
}

fn parquet(column: &str, texts: &[String]) -> Vec<u8> {
    let schema = parse_message_type(&format!("message schema {{ OPTIONAL BYTE_ARRAY {column} (UTF8); }}")).unwrap();
    let properties = WriterProperties::builder().set_compression(Codec::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut writer_of_texts = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.as_str())).collect();
    writer_of_texts.typed::<ByteArrayType>().write_batch(&values, Some(&vec![1; texts.len()]), None).unwrap();
    writer_of_texts.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn json_gz(texts: &[String]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for text in texts {
        writeln!(encoder, "{}", serde_json::json!({ "text": text, "url": "https://example.org" })).unwrap();
    }
    encoder.finish().unwrap()
}

/// One document long enough for a window of 200 tokens among many that are not.
fn documents() -> Vec<String> {
    let mut documents: Vec<String> = (0..300).map(|row| format!("document {row} is short")).collect();
    documents[123] = lines().concat();
    documents
}

/// A hub with one repository that is like WikiText and C4 in one.
fn hub() -> FakeHub {
    FakeHub::with_files([
        ("README.md", File::small(b"# a dataset")),
        (WIKITEXT, File::large(&parquet("text", &lines()))),
        ("wikitext-2-raw-v1/train-00000-of-00001.parquet", File::large(&parquet("text", &lines()[..2]))),
        (TRAIN, File::large(&json_gz(&documents()))),
        ("en/c4-train.00001-of-00002.json.gz", File::large(&json_gz(&lines()))),
        ("en/c4-validation.00000-of-00001.json.gz", File::large(&json_gz(&lines()))),
        ("pairs/train.jsonl", File::small(b"{\"question\": \"x\", \"answer\": \"y\"}\n")),
        ("broken/train-00000-of-00001.parquet", File::large(b"PAR1 and nothing behind")),
        ("broken/test.json.gz", File::large(&json_gz(&documents())[..500])),
    ])
}

struct Lab {
    folder: TempDir,
    hub: FakeHub,
}

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Lab {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), hub: hub() }
    }

    /// Runs the program on the experiment with these lines under `[data]`.
    fn run(&self, verb: &str, data: &str, more: &[&str]) -> Said {
        fs::write(self.folder.path().join("e.toml"), format!("{EXPERIMENT}context = 64\n{data}\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sparsify-exp"));
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            command.env_remove(name);
        }
        command.args([verb, "e.toml"]).args(more).current_dir(self.folder.path());
        let output = command.env("HF_ENDPOINT", &self.hub.url).env("HF_HOME", self.folder.path().join("hf")).output();
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join(path)).unwrap()
    }

    /// The names of the planned cells and of their results.
    #[track_caller]
    fn ids(&self, data: &str, more: &[&str]) -> Vec<String> {
        let said = self.run("plan", data, &[&["--output-format", "json"], more].concat());
        assert_eq!(said.code, 0, "{}", said.stderr);
        let names = |line: &str| {
            let cell: Value = serde_json::from_str(line).unwrap();
            format!("{} {}", cell["id"].as_str().unwrap(), cell["parts"])
        };
        said.stdout.lines().map(names).collect()
    }
}

#[test]
fn perplexity_of_a_dataset_is_that_of_its_joined_documents() {
    let lab = Lab::new();
    // The connection breaks twice on the way.
    let broken = File { cut_after: Some(700), cuts: 2, ..lab.hub.content().files[WIKITEXT].clone() };
    lab.hub.content().files.insert(WIKITEXT.into(), broken);
    let dataset = format!("perplexity = 'hf:{REPO}/wikitext-2-raw-v1/test'");
    let first = lab.run("run", &dataset, &[]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.contains(&format!("downloading {WIKITEXT}")), "{}", first.stderr);
    assert!(!first.stderr.contains("warning"), "{}", first.stderr);
    let resumed = |request: &&Request| request.server == "other" && request.headers.contains_key("range");
    let ranges = lab.hub.log().iter().filter(resumed).count();
    assert_eq!(ranges, 2, "the broken transfer goes on");
    let manifest: Value = serde_json::from_str(&lab.read("results/e/manifest.json")).unwrap();
    let inputs = manifest["inputs"].as_array().unwrap();
    let input = inputs.iter().find(|input| input["file"] == WIKITEXT).unwrap();
    let file = parquet("text", &lines());
    let sha256: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((input["sha256"].as_str(), input["commit"].as_str()), (Some(&sha256[..]), Some(COMMIT)));
    assert_eq!(input["bytes"], file.len());
    assert!(lab.folder.path().join("hf/hub/datasets--org--tiny/snapshots").join(COMMIT).join(WIKITEXT).exists());
    let summary = lab.read("results/e/tables/summary.csv");

    // The same tokens make the same cells: nothing is measured anew, with network or without.
    let requests = lab.hub.log().len();
    fs::write(lab.folder.path().join("joined.txt"), lines().join("\n\n")).unwrap();
    for data in [&dataset[..], "perplexity = 'file:joined.txt'"] {
        let again = lab.run("run", data, &["--offline"]);
        assert_eq!(again.code, 0, "{}", again.stderr);
        assert!(again.stderr.contains("0 cells measured, 3 cached"), "{}", again.stderr);
    }
    assert_eq!(lab.read("results/e/tables/summary.csv"), summary);
    assert_eq!(lab.hub.log().len(), requests, "an offline run asked the hub");
    // Of few windows, few documents are tokenised, and the windows are the same.
    let few = "\nperplexity_windows = 3";
    assert_eq!(lab.ids(&(dataset.clone() + few), &[]), lab.ids(&format!("perplexity = 'file:joined.txt'{few}"), &[]));
    assert_ne!(lab.ids(&(dataset.clone() + few), &[]), lab.ids(&dataset, &[]));
}

#[test]
fn calibration_windows_come_from_documents_that_are_long_enough() {
    let lab = Lab::new();
    let more = ["-s", "prune.method='wanda'", "-s", "seed=[0, 7]"];
    let keys = "calibration_samples = 9\ncalibration_length = 200";
    let ids = |source: &str| lab.ids(&format!("calibration = '{source}'\n{keys}"), &more);
    let dataset = ids(&format!("hf:{REPO}/en/train"));
    assert_eq!(lab.hub.count("GET", "c4-train.00001"), 0, "of several files only the first is read");
    // The only long document, as a plain text, gives the same windows: the starts are a stream of their own.
    fs::write(lab.folder.path().join("long.txt"), &documents()[123]).unwrap();
    assert_eq!(ids("file:long.txt"), dataset);
    assert_eq!(ids(&format!("hf:{REPO}@{COMMIT}/en/train")), dataset);
    let other = ids("builtin:calibration");
    // The dense cells do not calibrate.
    assert_eq!(other[0], dataset[0]);
    assert!(other[1..].iter().all(|id| !dataset.contains(id)));
    assert_eq!(lab.ids(&format!("calibration = 'file:long.txt'\n{keys}"), &[]), lab.ids("", &[]), "nor does magnitude");

    // No document has that many tokens: they are one text then.
    fs::write(lab.folder.path().join("joined.txt"), lines().join("\n\n")).unwrap();
    let short = ids(&format!("hf:{REPO}/en/validation"));
    assert_eq!(short, ids("file:joined.txt"));
    let said = lab.run("plan", &format!("calibration = 'hf:{REPO}/wikitext-2-raw-v1/train'\n{keys}"), &more);
    assert_eq!(said.code, 3);
    assert!(said.stderr.contains("fewer than a calibration window of 200"), "{}", said.stderr);
}

#[test]
fn a_text_in_several_files_is_read_from_the_first_with_a_warning() {
    let lab = Lab::new();
    let said = lab.run("plan", &format!("perplexity = 'hf:{REPO}/en/train'"), &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let expected = format!("`hf:{REPO}/en/train` is 2 files; only the first, `{TRAIN}`, is read");
    assert!(said.stderr.contains(&expected), "{}", said.stderr);
}

#[test]
fn what_is_wrong_with_a_dataset_is_said() {
    let lab = Lab::new();
    for (source, parts) in [
        ("org/none/default/train", &["dataset `org/none` is not on the hub"][..]),
        (
            "org/tiny/wikitext-2-v1/test",
            &["no configuration `wikitext-2-v1`", "`broken`, `en`, `pairs`, `wikitext-2-raw-v1`"],
        ),
        ("org/tiny/en/tran", &["has no split `tran`: it has `train`, `validation`", "did you mean `train`?"]),
        ("org/tiny/pairs/train", &["has no column `text`, and several of texts: `question`, `answer`"]),
        ("org/tiny/broken/train", &["is no readable parquet file", "delete `"]),
        ("org/tiny/broken/test", &["is no readable gzip file", "delete `"]),
    ] {
        let said = lab.run("plan", &format!("perplexity = 'hf:{source}'"), &[]);
        assert_eq!(said.code, 3, "{source}: {}", said.stderr);
        for part in parts {
            assert!(said.stderr.contains(part), "{source}: no `{part}` in {}", said.stderr);
        }
    }
}

#[test]
fn without_network_only_the_right_file_will_do() {
    let lab = Lab::new();
    let data = format!("perplexity = 'hf:{REPO}/en/train'");
    let said = lab.run("plan", &data, &["--offline"]);
    assert_eq!(said.code, 3);
    assert!(said.stderr.contains("dataset `org/tiny` at revision `main` is not in the cache"), "{}", said.stderr);
    // The second file of the split is there, as another program may have left it. It is not the first.
    let root = lab.folder.path().join("hf/hub/datasets--org--tiny");
    let second = root.join("snapshots").join(COMMIT).join("en/c4-train.00001-of-00002.json.gz");
    fs::create_dir_all(second.parent().unwrap()).unwrap();
    fs::write(&second, json_gz(&lines())).unwrap();
    fs::create_dir_all(root.join("refs")).unwrap();
    fs::write(root.join("refs/main"), COMMIT).unwrap();
    let said = lab.run("plan", &data, &["--offline"]);
    assert_eq!(said.code, 3);
    assert!(said.stderr.contains(&format!("`{TRAIN}` of dataset `org/tiny` is not in the cache")), "{}", said.stderr);
    let said = lab.run("plan", &format!("perplexity = 'hf:{REPO}/en/test'"), &["--offline"]);
    assert!(said.stderr.contains("the cache has `train`"), "{}", said.stderr);
    assert!(said.stderr.contains("run once with network"), "{}", said.stderr);
    assert!(lab.hub.log().is_empty());
    // The hub is not there, and the cache has the file.
    assert_eq!(lab.run("plan", &data, &[]).code, 0);
    *lab.hub.content() = Content { status: Some(404), ..Content::default() };
    let said = lab.run("plan", &data, &["--offline"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn a_revision_may_have_slashes() {
    let lab = Lab::new();
    let ids = |revision: &str| lab.ids(&format!("perplexity = 'hf:{REPO}{revision}/wikitext-2-raw-v1/test'"), &[]);
    let plain = ids("");
    assert_eq!(ids("@refs/pr/1"), plain);
    assert_eq!(ids(&format!("@{COMMIT}")), plain);
    let said = lab.run("plan", &format!("perplexity = 'hf:{REPO}@refs/pr/2/wikitext-2-raw-v1/test'"), &[]);
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains("has no revision `refs/pr/2`"), "{}", said.stderr);
}

#[test]
fn documents_are_joined_as_the_keys_say() {
    let lab = Lab::new();
    let source = format!("hf:{REPO}/wikitext-2-raw-v1/test");
    for (name, joined) in
        [("spaces", lines().join(" ")), ("few", lines()[..60].join("\n\n")), ("none", lines().concat())]
    {
        fs::write(lab.folder.path().join(format!("{name}.txt")), joined).unwrap();
    }
    let ids = |data: &str| lab.ids(data, &[]);
    let file = |name: &str| ids(&format!("perplexity = 'file:{name}.txt'"));
    let dataset = |keys: &str| ids(&format!("perplexity = '{source}'\n{keys}"));
    assert_eq!(dataset("perplexity_join = ' '"), file("spaces"));
    assert_eq!(dataset("perplexity_join = ''"), file("none"));
    assert_eq!(dataset("perplexity_documents = 60"), file("few"));
    assert_eq!(dataset("perplexity_documents = 0"), dataset("perplexity_join = \"\\n\\n\""));
    assert_eq!(dataset("perplexity_documents = 1000"), dataset(""));
    let all = [dataset(""), file("spaces"), file("few"), file("none")];
    assert!((1..4).all(|a| all[..a].iter().all(|before| *before != all[a])), "{all:?}");

    // Calibration that finds no document long enough takes them as one text; or looks at the first ones only.
    let more = ["-s", "prune.method='wanda'"];
    let keys = "calibration_samples = 9\ncalibration_length = 200";
    let ids = |source: &str, key: &str| lab.ids(&format!("calibration = '{source}'\n{keys}\n{key}"), &more);
    let dataset = format!("hf:{REPO}/en/validation");
    assert_eq!(ids(&dataset, "calibration_join = ' '"), ids("file:spaces.txt", ""));
    assert_eq!(ids(&dataset, "calibration_documents = 60"), ids("file:few.txt", ""));
    let train = format!("hf:{REPO}/en/train");
    assert_eq!(ids(&train, "calibration_documents = 124"), ids(&train, ""));
    fs::write(lab.folder.path().join("first.txt"), documents()[..123].join("\n\n")).unwrap();
    assert_eq!(ids(&train, "calibration_documents = 123"), ids("file:first.txt", ""));
}

#[test]
fn windows_are_drawn_from_long_documents() {
    let lab = Lab::new();
    // The only long document, wherever it lies, is drawn.
    let train = format!("perplexity = 'hf:{REPO}/en/train'\nperplexity_drawing = 'gptq'");
    let ids = |keys: &str| lab.ids(&format!("{train}\n{keys}"), &[]);
    let all = [ids(""), ids("perplexity_windows = 5"), lab.ids(&train.replace("gptq", "in_order"), &[])];
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2], "{all:?}");
    assert_eq!(ids("perplexity_windows = 256"), all[0]);
    assert_eq!(ids("perplexity_windows = 0"), all[0]);
    // Numbers are drawn below how many documents there are, so that their number has a say.
    assert_ne!(ids("perplexity_documents = 124"), all[0]);
    let said = lab.run("plan", &format!("{train}\nperplexity_documents = 123"), &[]);
    assert!(
        said.code == 3 && said.stderr.contains("has more than 64 tokens, the length of a window"),
        "{}",
        said.stderr
    );
    let said = lab.run("run", &format!("{train}\nperplexity_windows = 4"), &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let manifest = lab.read("results/e/manifest.json");
    assert!(manifest.contains("c4-train.00000-of-00002.json.gz"), "{manifest}");
}

#[test]
fn rows_without_a_text_are_counted_and_said() {
    let lab = Lab::new();
    let row = |text: &str| serde_json::json!({ "url": "u", "text": text }).to_string();
    let texts: Vec<String> = lines().into_iter().filter(|line| !line.is_empty()).collect();
    let mut rows = vec!["{\"text\": null, \"url\": \"v\"}".to_owned(), "{\"url\": \"w\"}".to_owned()];
    rows.extend(texts.iter().map(|text| row(text)));
    rows.push("{\"url\": \"x\", \"text\": NaN}".to_owned());
    let array = format!("\u{feff}[{}]", rows.join(",\n"));
    lab.hub.content().files.insert("rows/train.jsonl".into(), File::small(rows.join("\n").as_bytes()));
    lab.hub.content().files.insert("array/train.json".into(), File::small(array.as_bytes()));
    fs::write(lab.folder.path().join("joined.txt"), texts.join("\n\n")).unwrap();
    let expected = lab.ids("perplexity = 'file:joined.txt'", &[]);
    for name in ["rows", "array"] {
        let source = format!("hf:{REPO}/{name}/train");
        let said = lab.run("plan", &format!("perplexity = '{source}'"), &[]);
        let warning = format!("`{source}` has 3 rows without a text, which are not read");
        assert!(said.code == 0 && said.stderr.contains(&warning), "{}", said.stderr);
        assert_eq!(lab.ids(&format!("perplexity = '{source}'"), &[]), expected, "{name}");
        let more = ["-s", "prune.method='wanda'"];
        let said = lab.run("plan", &format!("calibration = '{source}'\ncalibration_length = 200"), &more);
        assert!(said.code == 0 && said.stderr.contains(&warning), "{}", said.stderr);
    }
}

#[test]
fn formats_that_are_not_read_have_their_next_step() {
    let lab = Lab::new();
    for (file, ending) in [("data/train.jsonl.zst", ".jsonl.zst"), ("train.csv", ".csv")] {
        lab.hub.content().files = [("README.md", File::small(b"x")), (file, File::small(b"y"))]
            .map(|(name, file)| (name.to_owned(), file))
            .into();
        let said = lab.run("plan", &format!("perplexity = 'hf:{REPO}/default/train'"), &[]);
        assert_eq!(said.code, 3, "{}", said.stderr);
        for part in [&format!("it has `{ending}`")[..], "@refs/convert/parquet/CONFIG/SPLIT", "file:PATH"] {
            assert!(said.stderr.contains(part), "no `{part}` in {}", said.stderr);
        }
        assert!(!said.stderr.contains("no configuration"), "{}", said.stderr);
    }
}

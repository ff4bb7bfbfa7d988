//! `fetch`, and runs that must not open a socket after it.

use crate::fake_hub::{COMMIT, Content, FakeHub, File, REPO};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// What kills a process that asks for a socket: a seccomp filter set by Perl, which every Debian has, for x86-64 Linux.
/// `socket` has the number 41 there, `prctl` 157; the filter is three instructions and two answers.
const NO_SOCKETS: &str = r#"
my @filter = ([0x20, 0, 0, 0], [0x15, 0, 1, 41], [0x06, 0, 0, 0x80000000], [0x06, 0, 0, 0x7fff0000]);
my $filter = join "", map { pack("SCCL", @$_) } @filter;
my $program = pack("Sx6P", scalar @filter, $filter);
syscall(157, 38, 1, 0, 0, 0) == 0 or exit 99;
syscall(157, 22, 2, $program, 0, 0) == 0 or exit 99;
exec @ARGV or exit 99;
"#;

struct Lab {
    folder: TempDir,
    hub: FakeHub,
}

impl Lab {
    /// A model and a text, as two repositories of one name.
    fn new() -> Self {
        let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/opt-hub");
        let read = |name: &str| fs::read(checkpoint.join(name)).unwrap();
        let small = |name: &'static str| (name, File::small(&read(name)));
        let rows: Vec<String> =
            (0..200).map(|row| format!("{{\"text\": \"row {row} of a text about the old garden\"}}\n")).collect();
        let hub = FakeHub::with_files([
            small("config.json"),
            small("vocab.json"),
            small("merges.txt"),
            small("tokenizer_config.json"),
            ("pytorch_model.bin", File::large(&read("pytorch_model.bin"))),
            ("texts/train.jsonl", File::large(rows.concat().as_bytes())),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "name = 'e'\n[model]\nsource = 'hf:{REPO}'\n[device]\nbackend = 'flex'\n[data]\ncontext = 16\n\
             perplexity = 'hf:{REPO}/texts/train'\nperplexity_windows = 4\n[measure]\n\
             metrics = ['structure', 'perplexity']\n[[prune]]\nmethod = 'magnitude'\nsparsity = 0.5\n"
        );
        fs::write(folder.path().join("e.toml"), text).unwrap();
        Self { folder, hub }
    }

    fn settle(&self, mut command: Command) -> Output {
        for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.hub.url).env("HF_HOME", self.folder.path().join("hf"));
        command.env("HOME", self.folder.path()).current_dir(self.folder.path()).output().unwrap()
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sparsify-exp"));
        command.args(args);
        self.settle(command)
    }

    /// The program, killed if it asks for a socket; none where this machine can't do that.
    fn without_sockets(&self, args: &[&str]) -> Option<Output> {
        let wrapped = |args: &[&str]| {
            let mut command = Command::new("perl");
            command.args(["-e", NO_SOCKETS]).args(args);
            command
        };
        let able = cfg!(all(target_os = "linux", target_arch = "x86_64"));
        if !able || !wrapped(&["true"]).status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: processes can't be kept from opening sockets here");
            return None;
        }
        Some(self.settle(wrapped(&[&[env!("CARGO_BIN_EXE_sparsify-exp")], args].concat())))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn exits(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
}

/// The files that are listed, after what is told of downloads.
fn files(output: &Output) -> Vec<Value> {
    let lines = String::from_utf8_lossy(&output.stdout);
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("sha256").is_some()).collect()
}

#[test]
fn what_was_fetched_is_enough_and_no_socket_is_opened_after_it() {
    let lab = Lab::new();
    // Before: what is missing, where it was looked for, and the line that brings it.
    let missing = lab.run(&["run", "e.toml", "--offline"]);
    exits(&missing, 3);
    let cache = lab.folder.path().join("hf/hub").display().to_string();
    for part in ["`org/tiny` at revision `main` is not in the cache", &cache, "`sparsify-exp fetch e.toml`"] {
        assert!(said(&missing).contains(part), "{}", said(&missing));
    }
    let fetched = lab.run(&["fetch", "e.toml", "--output-format", "json"]);
    exits(&fetched, 0);
    let files = files(&fetched);
    let mut names: Vec<&str> = files.iter().map(|file| file["file"].as_str().unwrap()).collect();
    names.sort_unstable();
    let expected =
        ["config.json", "merges.txt", "pytorch_model.bin", "texts/train.jsonl", "tokenizer_config.json", "vocab.json"];
    assert_eq!(names, expected);
    let of = |name: &str| lab.hub.content().files[name].clone();
    for file in &files {
        let on_hub = of(file["file"].as_str().unwrap());
        assert_eq!((file["commit"].as_str(), file["bytes"].as_u64()), (Some(COMMIT), Some(on_hub.bytes.len() as u64)));
        if on_hub.large {
            assert_eq!(file["sha256"].as_str(), Some(on_hub.etag().as_str()));
        }
    }
    let home = lab.folder.path().join("hf").display().to_string();
    for part in ["6 files, ", &format!("HF_HOME={home} sparsify-exp run e.toml --offline")] {
        assert!(said(&fetched).contains(part), "{}", said(&fetched));
    }
    let requests = lab.hub.log().len();
    for workers in ["1", "2"] {
        let set = format!("device.workers={workers}");
        let args = ["run", "e.toml", "--offline", "--rerun", "all", "-s", &set];
        let Some(offline) = lab.without_sockets(&args) else { return };
        exits(&offline, 0);
        assert!(said(&offline).contains("3 cells measured"), "{}", said(&offline));
    }
    assert_eq!(lab.hub.log().len(), requests);
    // The filter is one: who asks the hub does not live.
    let online = lab.without_sockets(&["fetch", "e.toml"]).unwrap();
    assert_eq!(online.status.code(), None, "{}", said(&online));
}

#[test]
fn fetching_again_downloads_nothing_but_what_is_damaged() {
    let lab = Lab::new();
    exits(&lab.run(&["fetch", "e.toml"]), 0);
    let sent = || lab.hub.count("GET", "/resolve/") + lab.hub.count("GET", "/cdn/");
    let before = sent();
    let again = lab.run(&["fetch", "e.toml"]);
    exits(&again, 0);
    assert_eq!(sent(), before);
    // Of a large file, named by its sha256, and of a small one, named by git's sha1, some bytes change.
    for (name, folder) in [("pytorch_model.bin", "models--org--tiny"), ("config.json", "models--org--tiny")] {
        let path = lab.folder.path().join("hf/hub").join(folder).join("snapshots").join(COMMIT).join(name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(fs::canonicalize(&path).unwrap(), &bad).unwrap();
        let before = lab.hub.count("GET", name);
        let mended = lab.run(&["fetch", "e.toml"]);
        exits(&mended, 0);
        assert_eq!(fs::read(&path).unwrap(), good, "{name}");
        assert!(lab.hub.count("GET", name) > before, "{name}");
        assert!(said(&mended).contains(&format!("downloading {name}")), "{}", said(&mended));
    }
}

#[test]
fn a_fetch_that_breaks_off_goes_on_where_it_stopped() {
    let lab = Lab::new();
    let whole = lab.hub.content().files["pytorch_model.bin"].bytes.len();
    {
        let mut content = lab.hub.content();
        let file = content.files.get_mut("pytorch_model.bin").unwrap();
        (file.cut_after, file.cuts) = (Some(whole / 2), 1);
    }
    exits(&lab.run(&["fetch", "e.toml"]), 0);
    let resumed = lab.hub.log().into_iter().filter(|request| request.headers.contains_key("range")).count();
    assert!(resumed >= 1);
    // What is not on the hub is named.
    *lab.hub.content() = Content { status: Some(404), ..Content::default() };
    let gone = lab.run(&["fetch", "e.toml", "-s", "model.source=\"hf:org/other\""]);
    exits(&gone, 3);
    assert!(said(&gone).contains("`org/other` is not on the hub"), "{}", said(&gone));
}

#[test]
fn what_is_on_no_hub_needs_no_network() {
    let lab = Lab::new();
    for (source, part) in [("builtin:tiny-opt", "nothing to download"), ("synthetic:opt-125m", "nothing to download")] {
        let model = format!("model.source=\"{source}\"");
        let output = lab.run(&["fetch", "e.toml", "-s", &model, "-s", "data.perplexity=\"builtin:heldout\""]);
        exits(&output, 0);
        assert!(said(&output).contains(part) && output.stdout.is_empty(), "{}", said(&output));
    }
    assert!(lab.hub.log().is_empty());
    let model = "model.source=\"path:model\"";
    let output = lab.run(&["fetch", "e.toml", "-s", model, "-s", "data.perplexity=\"builtin:heldout\""]);
    exits(&output, 0);
    assert!(said(&output).contains("`path:model` is of this machine"), "{}", said(&output));
}

#[test]
fn a_reference_is_fetched_too() {
    let lab = Lab::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/opt-hub");
    let local = lab.folder.path().join("local");
    fs::create_dir(&local).unwrap();
    for entry in fs::read_dir(fixture).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), local.join(entry.file_name())).unwrap();
    }
    let text = format!(
        "name = 'g'\n[model]\nsource = 'path:local'\n[device]\nbackend = 'flex'\n[data]\ncontext = 16\n\
         [[prune]]\nmethod = 'given'\nreference = 'hf:{REPO}'\n"
    );
    fs::write(lab.folder.path().join("g.toml"), text).unwrap();
    let missing = lab.run(&["run", "g.toml", "--offline"]);
    exits(&missing, 3);
    for part in ["`org/tiny` at revision `main` is not in the cache", "`sparsify-exp fetch g.toml`"] {
        assert!(said(&missing).contains(part), "{}", said(&missing));
    }
    // What is set may name other models: the line that is said has it too.
    let set = ["-s", "data.context=8", "-s", "title=\"of two\""];
    let missing = lab.run(&[&["run", "g.toml", "--offline"], &set[..]].concat());
    let typed = "g.toml -s data.context=8 -s 'title=\"of two\"'";
    assert!(said(&missing).contains(&format!("`sparsify-exp fetch {typed}`")), "{}", said(&missing));
    let fetched = lab.run(&["fetch", "g.toml", "--output-format", "json"]);
    exits(&fetched, 0);
    assert!(files(&fetched).iter().any(|file| file["file"] == "pytorch_model.bin"), "{:?}", files(&fetched));
    if let Some(run) = lab.without_sockets(&["run", "g.toml", "--offline"]) {
        exits(&run, 0);
    }
}

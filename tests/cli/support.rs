//! A folder for a test, the program run in it, and a checkpoint small enough for milliseconds.

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Three cells of the checkpoint of [`Model::tiny`]: dense, masked and CSR.
pub const THREE_CELLS: &str = r#"name = "e"
[model]
source = "path:model"
[data]
agreement = "file:texts.txt"
[measure]
metrics = ["structure", "agreement"]
[[prune]]
method = "magnitude"
sparsity = 0.5
"#;

/// A folder that the program is run in.
pub struct Lab(TempDir);

impl Lab {
    /// An empty folder.
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with an experiment, `e.toml`.
    pub fn with(experiment: &str) -> Self {
        let lab = Self::empty();
        lab.write("e.toml", experiment);
        lab
    }

    /// A folder with an experiment, a checkpoint `model` and a text `texts.txt`.
    pub fn tiny(experiment: &str) -> Self {
        let lab = Self::with(experiment);
        Model::tiny().save(&lab.path("model"));
        lab.write("texts.txt", "the cat sat on the mat\na dog ran\n");
        lab
    }

    /// A path in the folder.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(relative)
    }

    /// Writes a file.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// A file's text.
    #[track_caller]
    pub fn read(&self, relative: impl AsRef<Path>) -> String {
        let path = self.path(relative);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A table's rows, by column name.
    #[track_caller]
    pub fn table(&self, relative: &str) -> Vec<BTreeMap<String, String>> {
        let mut reader = csv::Reader::from_path(self.path(relative)).unwrap();
        reader.deserialize().map(|row| row.unwrap()).collect()
    }

    /// The program, to be run here without network.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(program());
        command.args(args);
        self.settle(&mut command);
        command
    }

    /// Makes any command run here, without network, colours or settings of the user.
    pub fn settle(&self, command: &mut Command) {
        command.current_dir(self.0.path()).env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hub"));
        command.env_remove("HF_HUB_CACHE").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }

    /// Runs the program to its end.
    pub fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Outcome {
        self.outcome(self.command(args).output().unwrap())
    }

    /// What a finished process said, the folder called `LAB`.
    pub fn outcome(&self, output: Output) -> Outcome {
        let folder = self.0.path().display().to_string();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&folder, "LAB");
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Every file below a folder with its bytes, by path.
    pub fn files(&self, relative: &str) -> BTreeMap<String, Vec<u8>> {
        let root = self.path(relative);
        let name = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
        walk(&root).into_iter().map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
    }

    /// The tables and plots of experiment `e` that every run must make alike: all but the timings.
    pub fn stable_report(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files("results/e/tables");
        files.retain(|name, _| !name.starts_with("timings."));
        files.extend(self.files("results/e/plots"));
        files
    }

    /// Names and contents of the cells of experiment `e`; a file that is no JSON fails the test.
    #[track_caller]
    pub fn cells(&self) -> BTreeMap<String, Value> {
        self.cells_but("")
    }

    /// Writes a cell as the program would have: with the digest of its content.
    pub fn write_cell(&self, id: &str, mut cell: Value) {
        cell.as_object_mut().unwrap().shift_remove("digest");
        cell["digest"] = sha256(cell.to_string().as_bytes()).into();
        self.write(&format!("results/e/cells/{id}.json"), cell.to_string());
    }

    /// The cells without one that is known to be damaged.
    #[track_caller]
    pub fn cells_but(&self, damaged: &str) -> BTreeMap<String, Value> {
        let mut cells = BTreeMap::new();
        for path in list(&self.path("results/e/cells")) {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.extension().is_some_and(|extension| extension == "json") && name != damaged {
                let text = std::fs::read_to_string(&path).unwrap();
                let cell = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", path.display()));
                cells.insert(name, cell);
            }
        }
        cells
    }
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The program.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_sparsify-exp")
}

/// What a finished process said.
#[derive(Debug)]
pub struct Outcome {
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Requires an exit code.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "exit code; stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Requires parts of stderr, in this order.
    #[track_caller]
    pub fn says(&self, parts: &[&str]) -> &Self {
        in_order(&self.stderr, parts, "stderr");
        self
    }

    /// Requires parts of stdout, in this order.
    #[track_caller]
    pub fn prints(&self, parts: &[&str]) -> &Self {
        in_order(&self.stdout, parts, "stdout");
        self
    }

    /// Requires an empty stdout.
    #[track_caller]
    pub fn prints_nothing(&self) -> &Self {
        assert_eq!(self.stdout, "");
        self
    }

    /// The lines of stdout, as JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

#[track_caller]
fn in_order(text: &str, parts: &[&str], what: &str) {
    let mut rest = text;
    for part in parts {
        let Some(at) = rest.find(part) else { panic!("{what} lacks `{part}` (in this order); it is:\n{text}") };
        rest = &rest[at + part.len()..];
    }
}

/// Every file below a folder, sorted; none where there is no folder.
pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in list(folder) {
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

/// The entries of a folder, sorted; none where there is no folder.
pub fn list(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A checkpoint to be written, or spoilt first.
pub struct Model {
    pub config: Value,
    pub tokenizer: Value,
    /// Shape and numbers of every tensor.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Model {
    const WORDS: [&str; 12] = ["<unk>", "the", "cat", "sat", "on", "mat", "a", "dog", "ran", "b", "c", "d"];
    const HIDDEN: usize = 8;
    const FFN: usize = 16;
    const POSITIONS: usize = 16;

    /// One OPT block of width 8 with fixed numbers, and a tokenizer of twelve words.
    pub fn tiny() -> Self {
        let (hidden, ffn) = (Self::HIDDEN, Self::FFN);
        let config = json!({
            "model_type": "opt", "vocab_size": Self::WORDS.len(), "hidden_size": hidden, "ffn_dim": ffn,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": Self::POSITIONS,
            "activation_function": "relu", "do_layer_norm_before": true, "torch_dtype": "float32",
        });
        let vocab: BTreeMap<&str, usize> = Self::WORDS.iter().enumerate().map(|(id, word)| (*word, id)).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
        });
        let mut model = Self { config, tokenizer, tensors: BTreeMap::new() };
        let block = "model.decoder.layers.0";
        model.random("model.decoder.embed_tokens.weight", &[Self::WORDS.len(), hidden]);
        model.random("model.decoder.embed_positions.weight", &[Self::POSITIONS + 2, hidden]);
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            model.random(&format!("{block}.self_attn.{name}.weight"), &[hidden, hidden]);
            model.random(&format!("{block}.self_attn.{name}.bias"), &[hidden]);
        }
        for (name, shape) in [("fc1", [ffn, hidden]), ("fc2", [hidden, ffn])] {
            model.random(&format!("{block}.{name}.weight"), &shape);
            model.random(&format!("{block}.{name}.bias"), &shape[..1]);
        }
        for norm in [
            "model.decoder.final_layer_norm",
            &format!("{block}.self_attn_layer_norm"),
            &format!("{block}.final_layer_norm"),
        ] {
            model.random(&format!("{norm}.weight"), &[hidden]);
            model.random(&format!("{norm}.bias"), &[hidden]);
        }
        model
    }

    /// A checkpoint of `tests/fixtures/golden`.
    pub fn golden(name: &str) -> Self {
        let folder = Path::new(ROOT).join("tests/fixtures/golden").join(name).join("model");
        let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
        let json = |file: &str| serde_json::from_slice(&read(file)).unwrap();
        let bytes = read("model.safetensors");
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |data: &[u8]| data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let tensors = file.tensors().into_iter().map(|(name, t)| (name, (t.shape().to_vec(), numbers(t.data()))));
        Self { config: json("config.json"), tokenizer: json("tokenizer.json"), tensors: tensors.collect() }
    }

    /// A tensor of numbers between -1 and 1, none of them 0, the same at every call.
    fn random(&mut self, name: &str, shape: &[usize]) {
        let mut state = name.bytes().fold(1u32, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 + 0.5) / (1 << 23) as f32 - 1.0
        };
        let numbers = (0..shape.iter().product()).map(|_| number()).collect();
        self.tensors.insert(name.into(), (shape.to_vec(), numbers));
    }

    /// Writes the checkpoint folder.
    pub fn save(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.join(name), bytes).unwrap();
        write("config.json", self.config.to_string().into_bytes());
        write("tokenizer.json", self.tokenizer.to_string().into_bytes());
        write("model.safetensors", self.safetensors());
    }

    /// The file of its tensors.
    pub fn safetensors(&self) -> Vec<u8> {
        let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, numbers))| (name, shape, numbers.iter().flat_map(|n| n.to_le_bytes()).collect()))
            .collect();
        let views = bytes
            .iter()
            .map(|(name, shape, data)| (name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), data).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }
}

//! Folders of checkpoints with what transformers computes from them: a table of what agrees.
//!
//! Each folder has `model/`, `nb1.json`, `linears.json`, `argmax.safetensors`, `logits.safetensors` and `greedy.json`.
//! Not in the repository: `SPARSIFY_FAMILIES=DIR cargo test --release --test numerics -- --ignored every_folder`. With the
//! feature `cuda` and `SPARSIFY_FAMILIES_CUDA=1` on a GPU.

use crate::checkpoint;
use crate::kin::greedy;
use burn::backend::{Flex, NdArray};
use burn::tensor::DType;
use safetensors::SafeTensors;
use serde_json::Value;
use sparsify_exp::execute::SparseBackend;
use sparsify_exp::load::Checkpoint;
use sparsify_exp::measure::all_logits;
use sparsify_exp::model::{Alibi, Architecture, Decoder, Part, Positions, Projections};
use std::path::Path;
use std::sync::Arc;

/// A file's tensors, of 32 bits each.
struct Tensors(Vec<u8>);

impl Tensors {
    fn words(&self, name: &str) -> Vec<u32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        tensor.data().chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.words(name).into_iter().map(f32::from_bits).collect()
    }
}

/// What differs most.
#[derive(Default)]
struct Found {
    logits: f32,
    logsumexp: f64,
    arg_max: usize,
    positions: usize,
}

impl Found {
    /// Compares logits `[tokens, vocabulary]` with the reference's.
    fn compare(&mut self, logits: &[f32], vocabulary: usize, [best, margin, sum]: [&[f32]; 3]) {
        for (place, row) in logits.chunks(vocabulary).enumerate() {
            let exact = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            self.logsumexp = self.logsumexp.max((exact - f64::from(sum[place])).abs());
            let largest = (0..vocabulary).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            self.arg_max += usize::from(margin[place] > 1e-3 && largest != best[place].to_bits() as usize);
            self.positions += 1;
        }
    }

    fn logits(&mut self, found: &[f32], expected: &[f32]) {
        self.logits = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(self.logits, f32::max);
    }
}

fn folder<B: SparseBackend>(path: &Path) -> Result<String, String> {
    let read = |name: &str| std::fs::read(path.join(name)).unwrap();
    let json = |name: &str| serde_json::from_slice::<Value>(&read(name)).unwrap();
    let (notebook, linears) = (json("nb1.json"), json("linears.json"));
    let (logits, argmax) = (Tensors(read("logits.safetensors")), Tensors(read("argmax.safetensors")));
    let (_, checkpoint) = checkpoint(&path.join("model"));
    let prune = &notebook["rows"][1]["prune"];
    let threshold = prune["threshold"].as_f64().unwrap() as f32;
    let attention = notebook["attention"].as_str().unwrap_or_default();
    let mut found = Found::default();
    let mut kept = 0u64;
    for (setup, mask) in [("dense", None), ("masked50", Some(threshold))] {
        let mut decoder = decoder::<B>(&checkpoint, attention, mask, &mut kept);
        let vocabulary = decoder.architecture().vocabulary;
        let rows: Vec<Vec<u32>> = texts(&notebook);
        let all = all_logits(&mut decoder, &rows).unwrap();
        let width = rows.iter().map(Vec::len).max().unwrap();
        let floats = |name: String| argmax.numbers(&name);
        let table = ["argmax", "margin", "logsumexp"].map(|what| floats(format!("{setup}.{what}")));
        let (at, wanted) = (logits.words("positions"), logits.numbers(setup));
        let mut first = 0;
        for (text, row) in rows.iter().enumerate() {
            let of_text = &all[first * vocabulary..(first + row.len()) * vocabulary];
            found.compare(of_text, vocabulary, table.each_ref().map(|t| &t[text * width..]));
            for place in (0..2).filter(|_| text < 5) {
                let position = at[2 * text + place] as usize;
                let wanted = &wanted[(2 * text + place) * vocabulary..][..vocabulary];
                found.logits(&of_text[position * vocabulary..][..vocabulary], wanted);
            }
            first += row.len();
        }
        let long = ids(&notebook["long_ids"]);
        let all = all_logits(&mut decoder, &[long]).unwrap();
        let table = ["argmax", "margin", "logsumexp"].map(|what| floats(format!("long.{setup}.{what}")));
        found.compare(&all, vocabulary, table.each_ref().map(|t| &t[..]));
        let wanted = logits.numbers(&format!("long.{setup}"));
        for (place, &position) in logits.words("long.positions").iter().enumerate() {
            let wanted = &wanted[place * vocabulary..][..vocabulary];
            found.logits(&all[position as usize * vocabulary..][..vocabulary], wanted);
        }
    }
    let mut dense = decoder::<B>(&checkpoint, attention, None, &mut 0);
    let prompts = json("greedy.json");
    let same = |prompt: &&Value| {
        let wanted = ids(&prompt["new_ids"]);
        greedy(&mut dense, &ids(&prompt["prompt_ids"]), wanted.len()) == wanted
    };
    let prompts = prompts.as_array().unwrap();
    let equal = prompts.iter().filter(same).count();
    let names = names_of(&checkpoint, &linears);
    let counts = kept == prune["kept"].as_u64().unwrap();
    let line = format!(
        "logits {:.1e} | logsumexp {:.1e} | arg-max {} of {} | greedy {equal} of {} | linears {} | kept {}",
        found.logits,
        found.logsumexp,
        found.positions - found.arg_max,
        found.positions,
        prompts.len(),
        if names { "equal" } else { "DIFFER" },
        if counts { "equal" } else { "DIFFER" },
    );
    let good = found.logits < 1e-4 && found.logsumexp < 1e-4 && found.arg_max == 0 && equal == prompts.len();
    if good && names && counts { Ok(line) } else { Err(line) }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The texts without padding.
fn texts(notebook: &Value) -> Vec<Vec<u32>> {
    let rows = notebook["input_ids"].as_array().unwrap().iter().zip(notebook["attention_mask"].as_array().unwrap());
    let kept = |(row, mask): (&Value, &Value)| {
        ids(row).into_iter().zip(ids(mask)).filter(|(_, mask)| *mask == 1).map(|(id, _)| id).collect()
    };
    rows.map(kept).collect()
}

/// The `eager` attention of transformers 5.24 adds Falcon's linear biases twice, by its mask and beside it; `sdpa`, which
/// `from_pretrained` takes unless it is told otherwise, adds them once, and so do we. For an archive that was made with
/// `eager` scores are scaled by twice as much and queries halved, which leaves all but the biases as it was.
fn adds_twice(architecture: &Architecture, attention: &str) -> bool {
    attention == "eager" && architecture.positions == Positions::Alibi(Alibi::RoundedAndScaled)
}

/// Halves the queries of a fused projection's weight or bias.
fn halve_queries(architecture: &Architecture, module: usize, numbers: &mut [f32]) {
    if !architecture.blocks.iter().any(|block| block.projections == Projections::PerHead(module)) {
        return;
    }
    let shape = architecture.attention;
    let group = shape.heads / shape.kv_heads;
    let row = numbers.len() / architecture.modules[module].shape[0];
    for (head, rows) in numbers.chunks_mut(shape.head_dim * row).enumerate() {
        if head % (group + 2) < group {
            rows.iter_mut().for_each(|number| *number /= 2.0);
        }
    }
}

/// The network, with weights up to a threshold set to 0 in what is pruned; `kept` counts the others.
fn decoder<B: SparseBackend>(
    checkpoint: &Checkpoint,
    attention: &str,
    threshold: Option<f32>,
    kept: &mut u64,
) -> Decoder<B> {
    let twice = adds_twice(checkpoint.architecture(), attention);
    let mut architecture = Architecture::clone(checkpoint.architecture());
    if twice {
        architecture.attention.scale *= 2.0;
    }
    let linears: Vec<usize> = architecture.linears().map(|(index, _)| index).collect();
    let read = |module: usize, part: Part| {
        let mut numbers = checkpoint.read(module, part)?;
        let pruned = linears.contains(&module) && module != architecture.head && part == Part::Weight;
        if let Some(threshold) = threshold.filter(|_| pruned) {
            for number in numbers.to_mut() {
                *number = if number.abs() <= threshold { 0.0 } else { *number };
                *kept += u64::from(*number != 0.0);
            }
        }
        if twice {
            halve_queries(&architecture, module, numbers.to_mut());
        }
        Ok::<_, sparsify_exp::load::LoadError>(numbers)
    };
    Decoder::load(Arc::new(architecture.clone()), DType::F32, &Default::default(), read).unwrap()
}

/// Whether the linears that are pruned have the names and shapes of the reference's.
fn names_of(checkpoint: &Checkpoint, linears: &Value) -> bool {
    let architecture = checkpoint.architecture();
    let stored = checkpoint.stored();
    let mut found: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, module) in architecture.linears().filter(|(index, _)| *index != architecture.head) {
        let tensor = stored.iter().find(|tensor| tensor.module == index && tensor.part == Part::Weight).unwrap();
        found.push((tensor.name.trim_end_matches(".weight").to_owned(), module.shape.clone()));
    }
    let wanted = linears.as_array().unwrap().iter().map(|linear| {
        let shape = linear["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        (linear["name"].as_str().unwrap().to_owned(), shape)
    });
    let mut wanted: Vec<(String, Vec<usize>)> = wanted.collect();
    found.sort();
    wanted.sort();
    found == wanted
}

type Run = fn(&Path) -> Result<String, String>;

fn backends() -> Vec<(&'static str, Run)> {
    #[cfg(feature = "cuda")]
    if std::env::var_os("SPARSIFY_FAMILIES_CUDA").is_some() {
        return vec![("cuda", folder::<sparsify_exp::execute::Cuda>)];
    }
    vec![("flex", folder::<Flex>), ("ndarray", folder::<NdArray<f32>>)]
}

#[test]
#[ignore = "needs an archive of checkpoints: set SPARSIFY_FAMILIES"]
fn every_folder_of_the_archive() {
    let root = std::env::var("SPARSIFY_FAMILIES").expect("SPARSIFY_FAMILIES names the folder");
    let mut folders: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.join("nb1.json").exists());
    folders.sort();
    let mut bad = 0;
    for path in &folders {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for (backend, run) in backends() {
            let result = std::panic::catch_unwind(|| run(path));
            let line = match result {
                Ok(Ok(line)) => line,
                Ok(Err(line)) => {
                    bad += 1;
                    format!("BAD {line}")
                }
                Err(_) => {
                    bad += 1;
                    "BAD: it panicked".into()
                }
            };
            println!("{name:<20} {backend:<8} {line}");
        }
    }
    assert!(!folders.is_empty() && bad == 0, "{bad} rows differ");
}

//! How fast a decoder of Llama-2-7B's shape generates: told, not judged, and quicker to run than the experiment, since a
//! block's weights are packed once and copied for the others.
//!
//! `cargo test --release --features cuda --test cuda -- --ignored --nocapture speed`; LAYERS, BATCH, SPARSITY (as
//! `0,0.5,0.9`; 0 is dense) and FORMAT (`csr`, `bitmap`) change what is run.

use burn::tensor::{DType, Tensor};
use sparsify_exp::execute::{Cuda, Format, SparseWeight, cuda_device};
use sparsify_exp::measure::{Workload, latency};
use sparsify_exp::model::{Decoder, LinearWeight, Part, architecture, published};
use sparsify_exp::sparse::Pattern;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

fn given(name: &str, or: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| or.into())
}

/// Numbers about as large as a network's.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.06
    };
    (0..count).map(|_| next()).collect()
}

#[test]
#[ignore = "needs a GPU with 30 GB"]
fn speed_of_generating() {
    let device = cuda_device(0);
    let mut config = published("llama-2-7b").unwrap();
    config["num_hidden_layers"] = given("LAYERS", "32").parse::<usize>().unwrap().into();
    let architecture = Arc::new(architecture(&config).unwrap());
    let start = Instant::now();
    let all = numbers(32000 * 4096);
    let modules = architecture.clone();
    let mut decoder = Decoder::<Cuda>::load(architecture.clone(), DType::F16, &device, |module, part| {
        // A launch, at which what was uploaded is let go on the host.
        drop(Tensor::<Cuda, 1>::zeros([8], (&device, DType::F32)) + 1.0);
        let module = &modules.modules[module];
        let count = if part == Part::Weight { module.weights() } else { module.biases() };
        Ok::<_, ()>(Cow::Borrowed(&all[..count]))
    })
    .unwrap();
    println!("loaded in {:.1} s", start.elapsed().as_secs_f64());
    let dense_weights = decoder.clone();
    let format = if given("FORMAT", "csr") == "bitmap" { Format::Bitmap } else { Format::Csr };
    let batch: usize = given("BATCH", "1").parse().unwrap();
    for sparsity in given("SPARSITY", "0,0.5,0.7,0.9").split(',') {
        let sparsity: f64 = sparsity.parse().unwrap();
        let mut packed: HashMap<String, SparseWeight<Cuda>> = HashMap::new();
        decoder = dense_weights.clone();
        for (module, described) in architecture.linears() {
            if sparsity == 0.0 || module == architecture.head {
                continue;
            }
            let role = described.name.rsplit('.').next().unwrap().to_owned();
            let [rows, cols] = [described.shape[0], described.shape[1]];
            let weight = match packed.get(&role) {
                Some(weight) => weight.copied(),
                None => {
                    let pattern = Pattern::random(rows, cols, sparsity, packed.len() as u64);
                    let weights = &all[..rows * cols];
                    let new = SparseWeight::new(format, weights, &pattern, None, DType::F16, batch, &device).unwrap();
                    packed.insert(role, new.clone());
                    new
                }
            };
            decoder.set_weight(module, LinearWeight::Sparse(weight));
        }
        drop(packed);
        let workload = Workload { batch, prompt: 128, generate: 64, warmup: 1, repeats: 3 };
        let latency = latency(&mut decoder, &workload, |_, _| ()).unwrap();
        let spread = latency.decode.spread();
        println!(
            "{format:?} {sparsity} batch {batch}: {:.3} ms a token (min {:.3}, p95 {:.3}), {:.1} tokens/s, prefill {:.1} ms",
            spread.median * 1e3,
            spread.min * 1e3,
            spread.p95 * 1e3,
            batch as f64 / spread.median,
            latency.prefill.spread().median * 1e3
        );
    }
}

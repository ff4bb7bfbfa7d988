//! How fast a decoder of Llama-2-7B's shape generates, and products of its matrices: told, not judged, and quicker to run
//! than the experiments, since a block's weights are packed once and copied for the others.
//!
//! `cargo test --release --features cuda --test cuda -- --ignored --nocapture speed`; LAYERS, BATCH, SPARSITY (as
//! `0,0.5,0.9`; 0 is dense) and FORMAT (`csr`, `bitmap`) change what is generated, STAGES tells each launch's time too, SHAPES (`11008x4096`), TOKENS and
//! SPARSITY which products are timed: behind a hold on the stream, and as a CUDA graph.

use burn::tensor::{DType, Tensor, TensorData};
use sparsify_exp::execute::decode::{DecodeOps, Places, Span};
use sparsify_exp::execute::{Cuda, Format, PackFor, SparseWeight, cuda_device};
use sparsify_exp::measure::{Profile, Workload, latency, profile, quantile, time_calls};
use sparsify_exp::model::{Batch, Decoder, DenseWeight, KvCache, Linear, LinearWeight, Part, architecture, published};
use sparsify_exp::sparse::Pattern;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

fn given(name: &str, or: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| or.into())
}

/// In the layout that is fastest for so many tokens.
fn for_use(tokens: usize) -> PackFor {
    PackFor { tokens, mixes: true }
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
                    let new = SparseWeight::new(format, weights, &pattern, None, DType::F16, for_use(batch), &device)
                        .unwrap();
                    packed.insert(role, new.clone());
                    new
                }
            };
            decoder.set_weight(module, LinearWeight::Sparse(weight));
        }
        drop(packed);
        println!("repeated: {}", is_repeated(&mut decoder, batch));
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
        if std::env::var_os("STAGES").is_some() {
            tell(&profile(&mut decoder, &workload).unwrap());
        }
    }
}

/// The launches of a token, what they add up to, and the token as a whole.
fn tell(profile: &Profile) {
    let micro = |seconds: &[f64]| quantile(seconds, 0.5) * 1e6;
    for step in &profile.steps {
        let calls = step.calls as f64 / step.seconds.len() as f64;
        let time = micro(&step.seconds);
        println!("  {:9.1} us  {calls:4} x {:7.2}  {} {}", time, time / calls, step.stage, step.kernel);
    }
    let all: f64 = profile.steps.iter().map(|step| micro(&step.seconds)).sum();
    let whole = micro(&profile.whole_seconds);
    println!("  {all:9.1} us by the {}'s clock; {whole:.1} us a token as a whole", profile.clock.name());
}

/// Whether the tokens after the second come from a graph.
fn is_repeated(decoder: &mut Decoder<Cuda>, batch: usize) -> bool {
    let mut cache = KvCache::new(decoder.architecture(), batch, 16);
    let prompts = vec![[1u32, 2, 3]; batch];
    decoder.extend(&Batch::new(prompts.iter().map(|prompt| &prompt[..])), &mut cache).unwrap();
    for token in 4..7 {
        decoder.next(&vec![token; batch], &mut cache).unwrap();
    }
    cache.is_repeated()
}

/// Products of a graph: what launching and reading the end costs is shared by them.
const GRAPH_CALLS: usize = 60;

/// Microseconds of a product behind a hold, and in a graph if there can be one.
fn product(copies: &[Linear<Cuda>], tokens: usize, cols: usize) -> (f64, Option<f64>) {
    let device = cuda_device(0);
    let data = TensorData::new(numbers(tokens * cols), [tokens, cols]).convert_dtype(DType::F16);
    let x = Tensor::<Cuda, 2>::from_data(data, (&device, DType::F16));
    let call = |copy: usize| copies[copy % copies.len()].forward(x.clone());
    let times = time_calls::<Cuda>(&device, copies.len(), call, 5, 15).unwrap();
    let places = Places::<Cuda>::new(&vec![0; tokens], vec![Span { past: 0, new: 1, capacity: 4 }; tokens], 1, &device);
    let work = || (1..GRAPH_CALLS).fold(call(0), |_, copy| call(copy));
    let recorded = Cuda::record(&device, &places, work);
    let in_graph = recorded.map(|recorded| {
        let mut seconds = Vec::new();
        for _ in 0..18 {
            let start = Instant::now();
            recorded.replay().unwrap();
            seconds.push(start.elapsed().as_secs_f64() / GRAPH_CALLS as f64);
        }
        quantile(&seconds[3..], 0.5) * 1e6
    });
    (quantile(&times.seconds, 0.5) * 1e6, in_graph)
}

#[test]
#[ignore = "needs a GPU"]
fn speed_of_products() {
    let device = cuda_device(0);
    let sparsities = given("SPARSITY", "0.5,0.7,0.9");
    for shape in given("SHAPES", "11008x4096,4096x4096,4096x11008").split(',') {
        let [rows, cols]: [usize; 2] =
            shape.split('x').map(|n| n.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap();
        let all = numbers(rows * cols);
        let count = (200 << 20) / (rows * cols * 2) + 2;
        let linear = |weight| Linear { weight, bias: None };
        let new = || LinearWeight::Dense(DenseWeight::new(all[..].into(), [rows, cols], DType::F16, &device));
        let dense: Vec<_> = (0..count).map(|_| linear(new())).collect();
        let mut packed: HashMap<(String, bool), SparseWeight<Cuda>> = HashMap::new();
        for tokens in given("TOKENS", "1,16,64,256").split(',').map(|tokens| tokens.parse::<usize>().unwrap()) {
            let (hold, graph) = product(&dense, tokens, cols);
            println!(
                "{shape} {tokens} tokens, dense {}: {hold:.1} us, in a graph {graph:.1?}",
                dense[0].weight.kernel(tokens)
            );
            let pairs = Pattern::random_two_of_four(rows, cols, 1);
            let pairs =
                SparseWeight::new(Format::Nm, &all, &pairs, None, DType::F16, for_use(tokens), &device).unwrap();
            let pairs: Vec<_> = (0..2 * count).map(|_| linear(LinearWeight::Sparse(pairs.copied()))).collect();
            let (fast, in_graph) = product(&pairs, tokens, cols);
            let kernel = pairs[0].weight.kernel(tokens);
            println!("  2:4 {kernel}: {fast:.1} us ({:.2}), in a graph {in_graph:.1?}", hold / fast);
            drop(pairs);
            for sparsity in sparsities.split(',') {
                let format = if tokens <= 4 { Format::Csr } else { Format::Bitmap };
                let weight = packed.entry((sparsity.to_owned(), tokens > 16)).or_insert_with(|| {
                    let pattern = Pattern::random(rows, cols, sparsity.parse().unwrap(), 1);
                    SparseWeight::new(format, &all, &pattern, None, DType::F16, for_use(tokens), &device).unwrap()
                });
                if tokens > 4 && tokens <= 16 {
                    let pattern = Pattern::random(rows, cols, sparsity.parse().unwrap(), 1);
                    *weight =
                        SparseWeight::new(format, &all, &pattern, None, DType::F16, for_use(tokens), &device).unwrap();
                }
                let weights: Vec<_> = (0..5 * count).map(|_| linear(LinearWeight::Sparse(weight.copied()))).collect();
                let (fast, in_graph) = product(&weights, tokens, cols);
                println!(
                    "  {sparsity} {}: {fast:.1} us ({:.2}), in a graph {in_graph:.1?}",
                    weights[0].weight.kernel(tokens),
                    hold / fast
                );
            }
        }
    }
}

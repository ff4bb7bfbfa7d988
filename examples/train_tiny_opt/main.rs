//! Trains a small OPT language model on a folder of texts and writes it as a Hugging Face folder.
//!
//! ```sh
//! cargo run --release --features train,cuda --example train_tiny_opt -- TEXTS_DIR --hold-out FILE.txt --out DIR
//! ```
//!
//! Trains on the GPU when it is built with `cuda` and one answers, else on the CPU. Progress goes to stderr. The
//! folder gets `config.json`, `model.safetensors` (f16), `tokenizer.json`, `tokenizer_config.json`, `heldout.txt` and
//! `calibration.txt`; the weights are those of the evaluation with the lowest held-out perplexity.

#![recursion_limit = "256"]

mod checkpoint;
mod data;
mod model;

use std::f64::consts::PI;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::grad_clipping::GradientClippingConfig;
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{AdamW, AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use clap::Parser;

use data::{Batch, EvalBatch, Sampler, Texts};
use model::{Opt, OptConfig};

/// Any failure, as a sentence for the terminal.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Train a small OPT language model on a folder of texts
#[derive(Parser, Debug)]
struct Args {
    /// Folder of `.txt` files
    texts: PathBuf,
    /// File name of the text to evaluate on; it isn't trained on
    #[arg(long, value_name = "FILE")]
    hold_out: String,
    /// Folder to write; made if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Optimiser steps
    #[arg(long, default_value_t = 4000)]
    steps: usize,
    /// Steps between two evaluations
    #[arg(long, default_value_t = 100)]
    eval_every: usize,
    /// Seed of the initial weights, the windows and dropout
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Windows per step
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Highest learning rate, reached after the warm-up
    #[arg(long, default_value_t = 1.5e-3)]
    learning_rate: f64,
    /// Steps over which the learning rate rises from zero
    #[arg(long, default_value_t = 200)]
    warm_up: usize,
    /// Decoupled weight decay of the matrices
    #[arg(long, default_value_t = 0.1)]
    weight_decay: f32,
    /// Dropout of embeddings and of what each sublayer adds
    #[arg(long, default_value_t = 0.1)]
    dropout: f64,
    /// Vocabulary size
    #[arg(long, default_value_t = 4096)]
    vocab: usize,
    /// Width of the residual stream
    #[arg(long, default_value_t = 192)]
    hidden: usize,
    /// Decoder layers
    #[arg(long, default_value_t = 6)]
    layers: usize,
    /// Attention heads
    #[arg(long, default_value_t = 6)]
    heads: usize,
    /// Inner width of the MLP
    #[arg(long, default_value_t = 768)]
    ffn: usize,
    /// Window length in tokens, which is also the model's longest input
    #[arg(long, default_value_t = 512)]
    positions: usize,
}

impl Args {
    /// Refuses sizes that no model or batch can have.
    fn check(&self) -> Result<()> {
        let sizes = [
            ("steps", self.steps),
            ("eval-every", self.eval_every),
            ("batch", self.batch),
            ("hidden", self.hidden),
            ("layers", self.layers),
            ("heads", self.heads),
            ("ffn", self.ffn),
            ("positions", self.positions),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("`--{name}` must be at least 1").into());
        }
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(format!("`--heads {}` does not divide `--hidden {}`", self.heads, self.hidden).into());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(format!("`--dropout {}` is not in [0, 1)", self.dropout).into());
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    args.check()?;
    std::fs::create_dir_all(&args.out).map_err(|e| format!("cannot make `{}`: {e}", args.out.display()))?;
    let corpus = prepare(args)?;
    #[cfg(feature = "cuda")]
    if cuda::available() {
        return train::<Autodiff<cuda::Cuda>>(args, corpus);
    }
    train::<Autodiff<Flex>>(args, corpus)
}

/// The tokens to learn from and those to be judged by.
struct Corpus {
    sampler: Sampler,
    held_out: Vec<EvalBatch>,
    vocab_size: usize,
}

/// Reads the texts, trains the tokenizer, and writes every file that doesn't depend on the weights.
fn prepare(args: &Args) -> Result<Corpus> {
    let texts = Texts::read(&args.texts, &args.hold_out)?;
    let out = |name: &str| args.out.join(name);
    write(&out("heldout.txt"), texts.held_out.as_bytes())?;
    write(&out("calibration.txt"), texts.calibration(50, 2000).as_bytes())?;
    let tokenizer = data::train_tokenizer(&texts.train, args.vocab)?;
    // Few texts have fewer merges than asked for.
    let vocab_size = tokenizer.get_vocab_size(true);
    write(&out("tokenizer.json"), tokenizer.to_string(false)?.as_bytes())?;
    write_json(&out("tokenizer_config.json"), &data::tokenizer_config(args.positions))?;
    write_json(&out("config.json"), &checkpoint::config_json(&model_config(args, vocab_size)))?;

    let mut tokens = Vec::new();
    for text in &texts.train {
        tokens.extend(data::encode(&tokenizer, text)?);
    }
    let held_out = data::encode(&tokenizer, &texts.held_out)?;
    eprintln!("{} training tokens, {} held out, vocabulary {}", tokens.len(), held_out.len(), vocab_size);
    Ok(Corpus {
        sampler: Sampler::new(tokens, args.positions, args.seed)?,
        held_out: data::eval_batches(&held_out, args.positions, args.batch),
        vocab_size,
    })
}

fn model_config(args: &Args, vocab_size: usize) -> OptConfig {
    OptConfig {
        vocab_size,
        hidden_size: args.hidden,
        num_hidden_layers: args.layers,
        num_attention_heads: args.heads,
        ffn_dim: args.ffn,
        max_position_embeddings: args.positions,
        dropout: args.dropout,
    }
}

fn train<B: AutodiffBackend>(args: &Args, mut corpus: Corpus) -> Result<()> {
    let device = B::Device::default();
    B::seed(&device, args.seed);
    let mut model: Opt<B> = model_config(args, corpus.vocab_size).init(&device);
    let mut optimizer = AdamWGroups::new(args, &model);
    eprintln!("{} parameters on {}", model.num_params(), B::name(&device));

    let clock = Instant::now();
    let mut best = f64::INFINITY;
    let mut loss_sum = Tensor::<B::InnerBackend, 1>::zeros([1], &device);
    for step in 1..=args.steps {
        let (inputs, targets) = upload::<B>(&corpus.sampler.batch(args.batch), &device);
        let loss = model.token_nll(inputs, targets).mean();
        loss_sum = loss_sum + loss.clone().inner();
        model = optimizer.step(learning_rate(args, step), model, loss.backward());
        if step % args.eval_every == 0 || step == args.steps {
            let since = (step - 1) % args.eval_every + 1;
            let train_loss = scalars(loss_sum)[0] / since as f64;
            loss_sum = Tensor::zeros([1], &device);
            let perplexity = perplexity(&model.valid(), &corpus.held_out, &device);
            let mark = if perplexity < best { " *" } else { "" };
            let seconds = clock.elapsed().as_secs_f64();
            eprintln!("step {step:5}  loss {train_loss:.4}  held-out perplexity {perplexity:.3}{mark}  {seconds:.1} s");
            if perplexity < best {
                best = perplexity;
                checkpoint::save(&model.valid(), &args.out)?;
            }
        }
    }
    if best.is_infinite() {
        return Err("held-out perplexity was never finite; lower `--learning-rate` or hold out a longer text".into());
    }
    eprintln!("best held-out perplexity {best:.3}, written to `{}`", args.out.display());
    Ok(())
}

/// Linear warm-up, then half a cosine down to zero.
fn learning_rate(args: &Args, step: usize) -> f64 {
    let (step, warm_up, steps) = (step as f64, args.warm_up as f64, args.steps as f64);
    let decay = 0.5 * (1.0 + (PI * (step - warm_up).max(0.0) / (steps - warm_up).max(1.0)).cos());
    args.learning_rate * (step / warm_up.max(1.0)).min(1.0) * decay
}

/// Exponential of the mean negative log-likelihood over all scored positions.
fn perplexity<B: Backend>(model: &Opt<B>, batches: &[EvalBatch], device: &B::Device) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for EvalBatch { batch, scored } in batches {
        let (inputs, targets) = upload::<B>(batch, device);
        let nll = scalars(model.token_nll(inputs, targets));
        for range in scored {
            sum += nll[range.clone()].iter().sum::<f64>();
            count += range.len();
        }
    }
    (sum / count as f64).exp()
}

fn upload<B: Backend>(batch: &Batch, device: &B::Device) -> (Tensor<B, 2, Int>, Tensor<B, 2, Int>) {
    let tensor = |ids: &[i32]| {
        let shape = [batch.rows, ids.len() / batch.rows];
        Tensor::from_data(TensorData::new(ids.to_vec(), shape), device)
    };
    (tensor(&batch.inputs), tensor(&batch.targets))
}

fn scalars<B: Backend>(tensor: Tensor<B, 1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// AdamW in two groups: only matrices decay; biases and LayerNorms keep their scale.
struct AdamWGroups<B: AutodiffBackend> {
    matrices: OptimizerAdaptor<AdamW, Opt<B>, B>,
    vectors: OptimizerAdaptor<AdamW, Opt<B>, B>,
    matrix_ids: Vec<ParamId>,
}

impl<B: AutodiffBackend> AdamWGroups<B> {
    fn new(args: &Args, model: &Opt<B>) -> Self {
        let config = AdamWConfig::new()
            .with_beta_2(0.98)
            .with_epsilon(1e-8)
            .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)));
        let mut ids = MatrixIds(Vec::new());
        model.visit(&mut ids);
        Self {
            matrices: config.clone().with_weight_decay(args.weight_decay).init(),
            vectors: config.with_weight_decay(0.0).init(),
            matrix_ids: ids.0,
        }
    }

    fn step(&mut self, learning_rate: f64, model: Opt<B>, mut grads: B::Gradients) -> Opt<B> {
        let matrices = GradientsParams::from_params(&mut grads, &model, &self.matrix_ids);
        let vectors = GradientsParams::from_grads(grads, &model);
        let model = self.matrices.step(learning_rate, model, matrices);
        self.vectors.step(learning_rate, model, vectors)
    }
}

struct MatrixIds(Vec<ParamId>);

impl<B: Backend> ModuleVisitor<B> for MatrixIds {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if D > 1 {
            self.0.push(param.id);
        }
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    /// Without kernel fusion, which costs more than it saves at this size.
    pub type Cuda = burn_cubecl::CubeBackend<cubecl::cuda::CudaRuntime, f32, i32, u8>;

    /// Whether the driver and the run-time compiler can be loaded and at least one GPU answers.
    pub fn available() -> bool {
        // SAFETY: both only try to open a shared library of NVIDIA's, whose initialisers have no preconditions.
        let libraries = unsafe { cudarc::driver::sys::is_culib_present() && cudarc::nvrtc::sys::is_culib_present() };
        libraries && cudarc::driver::CudaContext::device_count().unwrap_or(0) > 0
    }
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read `{}`: {e}", path.display()).into())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|e| format!("cannot write `{}`: {e}", path.display()).into())
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    write(path, (serde_json::to_string_pretty(value)? + "\n").as_bytes())
}

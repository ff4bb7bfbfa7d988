//! The dense model on a device: loaded once, shared by all cells of a model and backend.

use super::error::CellError;
use super::memory::lean;
use super::pruned::Calibrated;
use crate::config::experiment::Dtype;
use crate::execute::SparseBackend;
use crate::load::{Checkpoint, LoadError, ModelFiles, Tokens};
use crate::measure::{ForwardError, Stored, all_logits};
use crate::model::{Decoder, DenseWeight, LinearWeight, Numbers, Part};
use crate::plan::PrunePoint;
use crate::record::Failure;
use crate::run::backend::{burn_dtype, bytes_per_number};
use burn::tensor::DType;
use half::{bf16, f16};
use rayon::prelude::*;
use std::borrow::Cow;
use std::time::Instant;

/// Numbers that a task counts.
const CHUNK: usize = 1 << 16;

/// The dense model on a device, and what is known of it.
pub(in crate::run) struct Session<B: SparseBackend> {
    /// The dense model; variants are clones that share its tensors but for the linears they replace.
    pub decoder: Decoder<B>,
    /// What the dense model stores, module by module.
    pub stored: Vec<Stored>,
    /// The texts as the model sees them.
    pub tokens: Tokens,
    /// How long loading took.
    pub load_seconds: f64,
    reference: Option<Vec<f32>>,
    /// Other models that points are compared with.
    others: Vec<Other>,
    checkpoint: Checkpoint,
    dtype: DType,
    /// Whether what the files have in 16 bits is so in memory, too.
    as_stored: bool,
    cell_dtype: Dtype,
    /// Whether dense weights go while variants have others in their place.
    lean: bool,
    /// Linears whose dense weights have gone.
    absent: Vec<usize>,
    /// Calibrated points whose cells have not run yet.
    waiting: Vec<Waiting>,
}

/// What becomes of weights that a checkpoint has in 16 bits, where the host computes in f32. No number but those of
/// memory and time depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) enum Keep {
    /// They stay so, and are widened as they are used.
    AsStored,
    /// They are widened at once: what is timed is what the cell's dtype says.
    Widened,
}

/// A model that points are compared with in place of the dense one.
struct Other {
    files: ModelFiles,
    known: Option<Known>,
}

/// What is compared with.
struct Known {
    logits: Vec<f32>,
    nonzero: u64,
}

/// A calibrated point, or why there is none.
struct Waiting {
    point: PrunePoint,
    seed: Option<u64>,
    result: Result<Calibrated, Failure>,
}

impl<B: SparseBackend> Session<B> {
    /// Reads the model, checks its numbers, counts its zeros and moves it to the device.
    ///
    /// # Errors
    /// When a tensor can't be used.
    pub fn load(
        checkpoint: Checkpoint,
        tokens: Tokens,
        dtype: Dtype,
        keep: Keep,
        device: &B::Device,
    ) -> Result<Self, LoadError> {
        let start = Instant::now();
        let architecture = checkpoint.architecture().clone();
        let number = bytes_per_number(dtype);
        let mut stored: Vec<Stored> = architecture
            .modules
            .iter()
            .map(|module| Stored {
                nonzero: 0,
                nonzero_bias: 0,
                weight_bytes: module.weights() as u64 * number,
                entries: None,
                format: "dense".into(),
            })
            .collect();
        let as_stored = keep == Keep::AsStored && B::ON_HOST && dtype == Dtype::F32;
        let mut behind = None;
        let decoder = Decoder::load(architecture.clone(), burn_dtype(dtype), device, |module, part| {
            // The tensor before this one is on the device by now: its file pages need not stay.
            if let Some((module, part)) = behind.replace((module, part)) {
                checkpoint.release(module, part);
            }
            let numbers = read(&checkpoint, module, part, as_stored)?;
            let count = match &numbers {
                Numbers::Wide(numbers) => nonzero_as(numbers, dtype),
                Numbers::Halves(halves) => halves.nonzero(),
            };
            match part {
                Part::Weight => stored[module].nonzero = count,
                Part::Bias => stored[module].nonzero_bias = count,
            }
            Ok::<_, LoadError>(numbers)
        })?;
        for (index, module) in architecture.modules.iter().enumerate() {
            if let Some(owner) = module.tied_to {
                stored[index].nonzero = stored[owner].nonzero;
            }
        }
        let load_seconds = start.elapsed().as_secs_f64();
        // A device has memory of its own.
        let lean = B::ON_HOST && lean(checkpoint.files(), &architecture);
        let (cell_dtype, dtype) = (dtype, burn_dtype(dtype));
        let (reference, others, absent, waiting) = (None, Vec::new(), Vec::new(), Vec::new());
        Ok(Self {
            decoder,
            stored,
            tokens,
            load_seconds,
            reference,
            others,
            checkpoint,
            dtype,
            cell_dtype,
            as_stored,
            lean,
            absent,
            waiting,
        })
    }

    /// Lets a linear's dense weight go, now that a variant has another in its place, so that the memory does not
    /// hold both models; [`Session::restore`] brings it back. Small models and devices keep it.
    pub fn let_go(&mut self, module: usize) {
        if self.lean {
            let nothing = DenseWeight::new(Cow::Borrowed(&[]), [0, 0], self.dtype, self.decoder.device());
            self.decoder.set_weight(module, LinearWeight::Dense(nothing));
            self.absent.push(module);
        }
    }

    /// Reads the dense weights that were let go: no cell begins without them.
    ///
    /// # Errors
    /// When a file can't be read any more.
    pub fn restore(&mut self) -> Result<(), LoadError> {
        while let Some(&module) = self.absent.last() {
            let shape = &self.checkpoint.architecture().modules[module].shape;
            let shape = [shape[0], shape[1]];
            let numbers = read(&self.checkpoint, module, Part::Weight, self.as_stored)?;
            let weight = DenseWeight::of(numbers, shape, self.dtype, self.decoder.device());
            self.checkpoint.release(module, Part::Weight);
            self.decoder.set_weight(module, LinearWeight::Dense(weight));
            self.absent.pop();
        }
        Ok(())
    }

    /// Whether a linear's weights are best looked at one after the other: all at once would be a second model.
    pub fn one_by_one(&self) -> bool {
        !B::ON_HOST || self.as_stored
    }

    /// Non-zero parameters of the dense model, each counted once.
    pub fn dense_nonzero(&self) -> u64 {
        let modules = self.decoder.architecture().modules.iter().zip(&self.stored);
        modules.map(|(m, s)| s.nonzero_bias + if m.tied_to.is_none() { s.nonzero } else { 0 }).sum()
    }

    /// A linear's weight in the dense model.
    ///
    /// # Panics
    /// When the module is no linear, or its weight was let go.
    pub fn dense(&self, module: usize) -> &DenseWeight<B> {
        assert!(!self.absent.contains(&module), "a cell begins with all dense weights");
        match &self.decoder.linear(module).weight {
            LinearWeight::Dense(weight) => weight,
            LinearWeight::Sparse(_) => unreachable!("a session's model is dense"),
        }
    }

    /// The dense model's logits on the agreement texts, computed at first use.
    ///
    /// # Errors
    /// When a text does not fit the model, or a logit is not finite.
    pub fn reference(&mut self) -> Result<&[f32], ForwardError> {
        if self.reference.is_none() {
            self.reference = Some(all_logits(&mut self.decoder, &self.tokens.agreement)?);
        }
        Ok(self.reference.as_deref().unwrap_or_default())
    }

    /// Makes models known that points are compared with.
    pub fn compare_with(&mut self, references: &[ModelFiles]) {
        self.others = references.iter().map(|files| Other { files: files.clone(), known: None }).collect();
    }

    /// What a point is compared with: the logits on the agreement texts, computed at first use, of the model that it names,
    /// or of the dense one.
    ///
    /// # Errors
    /// As [`Session::reference`]; when the other model can't be read.
    pub fn compared(&mut self, with: Option<&str>) -> Result<&[f32], CellError> {
        match with {
            None => Ok(self.reference()?),
            Some(source) => Ok(&self.other(source)?.logits),
        }
    }

    /// Non-zero parameters of what a point is compared with, each counted once.
    ///
    /// # Errors
    /// When the other model can't be read.
    pub fn compared_nonzero(&mut self, with: Option<&str>) -> Result<u64, CellError> {
        match with {
            None => Ok(self.dense_nonzero()),
            Some(source) => Ok(self.other(source)?.nonzero),
        }
    }

    /// Another model, loaded beside this one for as long as it takes.
    fn other(&mut self, source: &str) -> Result<&Known, CellError> {
        let place = self.others.iter().position(|other| other.files.source == source);
        let Some(place) = place else { unreachable!("every reference of a plan is prepared") };
        if self.others[place].known.is_none() {
            let checkpoint = Checkpoint::open(self.others[place].files.clone())?;
            let (tokens, device) = (self.tokens.clone(), self.decoder.device());
            let mut other = Self::load(checkpoint, tokens, self.cell_dtype, Keep::AsStored, device)?;
            let nonzero = other.dense_nonzero();
            let logits = other.reference()?.to_vec();
            drop(other);
            B::memory_cleanup(self.decoder.device());
            self.others[place].known = Some(Known { logits, nonzero });
        }
        match &self.others[place].known {
            Some(known) => Ok(known),
            None => unreachable!("it was made above"),
        }
    }

    /// Keeps what calibration made of a point until its cells run.
    pub fn keep(&mut self, point: &PrunePoint, seed: Option<u64>, result: Result<Calibrated, Failure>) {
        self.forget(point, seed);
        self.waiting.push(Waiting { point: point.clone(), seed, result });
    }

    /// Whether there is a result of a point.
    pub fn has(&self, point: &PrunePoint, seed: Option<u64>) -> bool {
        self.place(point, seed).is_some()
    }

    /// Takes what calibration made of a point, if it is there; a failure stays until it is forgotten.
    pub fn take(&mut self, point: &PrunePoint, seed: Option<u64>) -> Option<Result<Calibrated, Failure>> {
        let place = self.place(point, seed)?;
        match &self.waiting[place].result {
            Ok(_) => Some(self.waiting.swap_remove(place).result),
            Err(failure) => Some(Err(failure.clone())),
        }
    }

    /// Forgets what calibration made of a point.
    pub fn forget(&mut self, point: &PrunePoint, seed: Option<u64>) {
        if let Some(place) = self.place(point, seed) {
            self.waiting.swap_remove(place);
        }
    }

    fn place(&self, point: &PrunePoint, seed: Option<u64>) -> Option<usize> {
        self.waiting.iter().position(|waiting| (&waiting.point, waiting.seed) == (point, seed))
    }

    /// Forgets the dense model's logits: the device failed meanwhile, and they may be anything.
    pub fn forget_reference(&mut self) {
        self.reference = None;
    }
}

fn read(checkpoint: &Checkpoint, module: usize, part: Part, as_stored: bool) -> Result<Numbers<'_>, LoadError> {
    match as_stored {
        true => checkpoint.read_as_stored(module, part),
        false => checkpoint.read(module, part).map(Into::into),
    }
}

/// Numbers other than zero, once they are of a dtype: the smallest of 16 bits are rounded to it.
pub(super) fn nonzero_as(numbers: &[f32], dtype: Dtype) -> u64 {
    // Half of the smallest number rounds to the even neighbour, which is zero.
    let zero = match dtype {
        Dtype::F32 => return nonzero(numbers),
        Dtype::F16 => f16::from_bits(1).to_f32() / 2.0,
        Dtype::Bf16 => bf16::from_bits(1).to_f32() / 2.0,
    };
    numbers.par_chunks(CHUNK).map(|chunk| chunk.iter().filter(|number| number.abs() > zero).count() as u64).sum()
}

/// Numbers other than zero.
pub(super) fn nonzero(numbers: &[f32]) -> u64 {
    numbers.par_chunks(CHUNK).map(|chunk| chunk.iter().filter(|&&number| number != 0.0).count() as u64).sum()
}

#[cfg(test)]
mod kept;
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::Loader;
    use burn::backend::Flex;
    use std::ops::ControlFlow;
    use std::path::Path;
    use std::sync::Arc;

    /// A model without texts, for the tests of this folder.
    pub(in super::super) fn session(model: &str) -> Session<Flex> {
        session_with(model, Keep::AsStored)
    }

    pub(in super::super) fn session_with(model: &str, keep: Keep) -> Session<Flex> {
        let text = format!("name = 'test'\n[model]\nsource = \"{model}\"\n");
        let experiment = crate::config::parse(Path::new("test.toml"), &text, &[]).unwrap();
        let loader = Loader::new(true, Arc::new(|_: &str, _, _| ControlFlow::Continue(())));
        let checkpoint = Checkpoint::open(loader.find(&experiment.models[0]).unwrap()).unwrap();
        let tokens = Tokens { agreement: vec![vec![1, 2, 3]], perplexity: None, context: 64, calibration: Vec::new() };
        Session::load(checkpoint, tokens, Dtype::F32, keep, &Default::default()).unwrap()
    }

    /// The source of a checkpoint in `tests/fixtures`.
    pub(in super::super) fn fixture(name: &str) -> String {
        format!("path:{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn weights_that_were_let_go_come_back() {
        let mut session = session(&fixture("golden/tiny-llama/model"));
        assert!(!session.lean);
        session.lean = true;
        let logits = session.reference().unwrap().to_vec();
        let modules: Vec<usize> = session.decoder.architecture().linears().map(|(index, _)| index).take(9).collect();
        let before: Vec<Vec<f32>> =
            modules.iter().map(|&module| session.dense(module).host().unwrap().to_vec()).collect();
        modules.iter().for_each(|&module| session.let_go(module));
        let weight = |session: &Session<Flex>| match &session.decoder.linear(modules[0]).weight {
            LinearWeight::Dense(weight) => weight.host().unwrap().len(),
            LinearWeight::Sparse(_) => unreachable!(),
        };
        assert_eq!(weight(&session), 0);
        session.restore().unwrap();
        assert!(
            modules
                .iter()
                .zip(&before)
                .all(|(&module, before)| session.dense(module).host().unwrap()[..] == before[..])
        );
        session.forget_reference();
        assert!(session.reference().unwrap() == logits);
        session.lean = false;
        session.let_go(modules[0]);
        assert_eq!(weight(&session), before[0].len());
    }

    #[test]
    fn what_rounds_to_zero_is_counted_as_zero() {
        let numbers = [0.0, -0.0, 1.0, -1e-3, 1e-7, 6e-8, 2.99e-8, -2.97e-8, 2.0f32.powi(-25), 1e-45, 9e-41, 4e-41];
        let rounded = |dtype| match dtype {
            Dtype::F32 => numbers.to_vec(),
            Dtype::F16 => numbers.iter().map(|&number| f16::from_f32(number).to_f32()).collect(),
            Dtype::Bf16 => numbers.iter().map(|&number| bf16::from_f32(number).to_f32()).collect(),
        };
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            assert_eq!(nonzero_as(&numbers, dtype), nonzero(&rounded(dtype)), "{dtype:?}");
        }
    }
}

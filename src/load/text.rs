//! The texts of an experiment as token ids, and the digests that name them.

use super::calibration::{Calibration, of_document};
use super::{LoadError, builtin, tokenizer};
use crate::config::experiment::Data;
use crate::config::source::TextSource;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use tokenizers::Tokenizer;

/// The most tokens of a window unless the experiment says otherwise.
const DEFAULT_CONTEXT: usize = 2048;

/// The texts of an experiment.
#[derive(Clone, Debug)]
pub struct Texts {
    agreement: Text,
    perplexity: Option<Text>,
    calibration: Option<Text>,
    data: Data,
    seeds: Vec<u64>,
}

/// Which texts an experiment needs beside those of the agreement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The text that perplexity is measured on.
    pub perplexity: bool,
    /// The seeds that draw calibration windows; none where nothing is calibrated.
    pub calibration: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Text {
    name: String,
    content: Cow<'static, str>,
}

/// The texts as one model sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// One sequence a line of the agreement text, cut at the context.
    pub agreement: Vec<Vec<u32>>,
    /// Windows of exactly `context` tokens.
    pub perplexity: Option<Vec<Vec<u32>>>,
    /// Tokens of a window.
    pub context: usize,
    /// The calibration windows of each seed that draws some.
    pub calibration: Vec<Calibration>,
}

impl Texts {
    /// Reads the texts that are wanted.
    ///
    /// # Errors
    /// When a file can't be read or has nothing in it.
    pub fn read(data: &Data, wanted: &Wanted) -> Result<Self, LoadError> {
        let agreement = Text::read(&data.agreement)?;
        let perplexity = wanted.perplexity.then(|| Text::read(&data.perplexity)).transpose()?;
        let seeds = wanted.calibration.clone();
        let calibration = (!seeds.is_empty()).then(|| Text::read(&data.calibration)).transpose()?;
        Ok(Self { agreement, perplexity, calibration, data: data.clone(), seeds })
    }

    /// Name and SHA-256 of each text.
    pub fn digests(&self) -> Vec<(String, String)> {
        let texts = std::iter::once(&self.agreement).chain(&self.perplexity).chain(&self.calibration);
        texts.map(|text| (text.name.clone(), hex(&Sha256::digest(text.content.as_bytes())))).collect()
    }

    /// Token ids for a model of `positions` positions and a vocabulary of `vocabulary` entries.
    ///
    /// # Errors
    /// When the context is longer than the model, a text shorter than a window, or the tokenizer
    /// another model's.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        model: &str,
        positions: usize,
        vocabulary: usize,
    ) -> Result<Tokens, LoadError> {
        if let Some(context) = self.data.context.filter(|&context| context > positions) {
            return Err(LoadError::Context { model: model.into(), context, positions });
        }
        let context = self.data.context.unwrap_or(positions.min(DEFAULT_CONTEXT));
        let agreement = self.agreement_tokens(tokenizer, context)?;
        let perplexity = self.perplexity.as_ref().map(|text| self.windows(text, tokenizer, context)).transpose()?;
        let calibration = self.calibrations(tokenizer, model, positions, context)?;
        let drawn = calibration.iter().flat_map(|calibration| &calibration.windows);
        let unknown = |id: &&u32| **id as usize >= vocabulary;
        if let Some(&id) = agreement.iter().chain(perplexity.iter().flatten()).chain(drawn).flatten().find(unknown) {
            return Err(LoadError::Vocabulary { model: model.into(), id, vocabulary });
        }
        Ok(Tokens { agreement, perplexity, context, calibration })
    }

    fn agreement_tokens(&self, tokenizer: &Tokenizer, context: usize) -> Result<Vec<Vec<u32>>, LoadError> {
        let lines = self.agreement.content.lines().filter(|line| !line.trim().is_empty());
        let encode = |line| {
            let mut ids = tokenizer::encode(tokenizer, line, &self.agreement.name)?;
            ids.truncate(context);
            Ok(ids)
        };
        lines.map(encode).filter(|ids| !matches!(ids, Ok(ids) if ids.is_empty())).collect()
    }

    /// The text tokenised once, cut into windows; a last partial window is dropped.
    fn windows(&self, text: &Text, tokenizer: &Tokenizer, context: usize) -> Result<Vec<Vec<u32>>, LoadError> {
        let ids = tokenizer::encode(tokenizer, &text.content, &text.name)?;
        let limit = if self.data.perplexity_windows == 0 { usize::MAX } else { self.data.perplexity_windows };
        let windows: Vec<Vec<u32>> = ids.chunks_exact(context).take(limit).map(<[u32]>::to_vec).collect();
        if windows.is_empty() {
            return Err(LoadError::ShortText { text: text.name.clone(), tokens: ids.len(), context });
        }
        Ok(windows)
    }

    /// The windows of every seed; none where nothing is calibrated.
    fn calibrations(
        &self,
        tokenizer: &Tokenizer,
        model: &str,
        positions: usize,
        context: usize,
    ) -> Result<Vec<Calibration>, LoadError> {
        let Some(text) = &self.calibration else { return Ok(Vec::new()) };
        let length = self.data.calibration_length.unwrap_or(context);
        if length > positions {
            return Err(LoadError::CalibrationLength { model: model.into(), length, positions });
        }
        let ids = tokenizer::encode(tokenizer, &text.content, &text.name)?;
        if ids.len() < length {
            return Err(LoadError::ShortCalibration { text: text.name.clone(), tokens: ids.len(), length });
        }
        let samples = self.data.calibration_samples;
        Ok(self.seeds.iter().map(|&seed| of_document(&ids, seed, samples, length)).collect())
    }
}

impl Text {
    fn read(source: &TextSource) -> Result<Self, LoadError> {
        let name = source.to_string();
        let content: Cow<'static, str> = match source {
            TextSource::Builtin(builtin) => builtin::text(builtin).unwrap_or_default().into(),
            TextSource::File(path) => {
                let read = std::fs::read_to_string(path);
                read.map_err(|source| LoadError::Read { path: path.to_path_buf(), source })?.into()
            }
        };
        if content.trim().is_empty() {
            return Err(LoadError::EmptyText { text: name });
        }
        Ok(Self { name, content })
    }
}

impl Tokens {
    /// The digest of the agreement sequences.
    pub fn agreement_digest(&self) -> String {
        digest(&self.agreement)
    }

    /// The digest of the perplexity windows.
    pub fn perplexity_digest(&self) -> Option<String> {
        self.perplexity.as_deref().map(digest)
    }

    /// The calibration windows that a seed draws.
    pub fn calibration_of(&self, seed: u64) -> Option<&[Vec<u32>]> {
        let of_seed = self.calibration.iter().find(|calibration| calibration.seed == seed)?;
        Some(&of_seed.windows)
    }

    /// The digest of the calibration windows that a seed draws.
    pub fn calibration_digest(&self, seed: u64) -> Option<String> {
        self.calibration_of(seed).map(digest)
    }
}

/// SHA-256 of sequences, each with its length in front.
fn digest(sequences: &[Vec<u32>]) -> String {
    let mut hasher = Sha256::new();
    for sequence in sequences {
        hasher.update((sequence.len() as u64).to_le_bytes());
        for id in sequence {
            hasher.update(id.to_le_bytes());
        }
    }
    hex(&hasher.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The texts of an experiment as token ids, and the digests that name them.

use super::calibration::{Calibration, Documents, of_document, of_documents};
use super::dataset::{self, Shard, SplitName};
use super::windows::{Cut, Windows};
use super::{LoadError, Loader, builtin, tokenizer};
use crate::config::experiment::{BosAt, Data};
use crate::config::source::TextSource;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeSet;
use tokenizers::Tokenizer;

/// The most tokens of a window unless the experiment says otherwise.
const DEFAULT_CONTEXT: usize = 2048;
/// What stands between the documents of a dataset where they are one text, as the field has it.
const BETWEEN: &str = "\n\n";

/// The texts of an experiment.
#[derive(Clone, Debug)]
pub struct Texts {
    agreement: Text,
    perplexity: Option<Text>,
    calibration: Option<Text>,
    data: Data,
    seeds: Vec<u64>,
    warnings: Vec<String>,
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
    input: TextInput,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// A text that is one document.
    Whole(Cow<'static, str>),
    /// All documents of a dataset's file.
    Documents(Vec<String>),
    /// A dataset's file whose documents are read when they are needed.
    Shard(Shard),
}

/// What a text was read from, as the manifest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextInput {
    /// The source, as the experiment file spells it.
    pub source: String,
    /// The file's path in the repository, for a dataset of the hub.
    pub file: Option<String>,
    /// SHA-256 of the text or file.
    pub sha256: String,
    /// The file's size, for a dataset of the hub.
    pub bytes: Option<u64>,
    /// The commit, for a dataset of the hub.
    pub commit: Option<String>,
}

/// The texts as one model sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// One sequence a line of the agreement text, cut at the context.
    pub agreement: Vec<Vec<u32>>,
    /// Windows of exactly `context` tokens.
    pub perplexity: Option<Windows>,
    /// Tokens of a window.
    pub context: usize,
    /// The calibration windows of each seed that draws some.
    pub calibration: Vec<Calibration>,
}

impl Texts {
    /// Reads the texts that are wanted, and downloads them where needed.
    ///
    /// # Errors
    /// When a file or dataset can't be read or has nothing in it.
    pub fn read(data: &Data, wanted: &Wanted, loader: &Loader) -> Result<Self, LoadError> {
        let mut warnings = Vec::new();
        let mut open = |source: &TextSource| Text::open(source, loader, &mut warnings);
        let agreement = open(&data.agreement)?;
        let perplexity = wanted.perplexity.then(|| open(&data.perplexity)).transpose()?;
        let seeds = wanted.calibration.clone();
        let calibration = (!seeds.is_empty()).then(|| open(&data.calibration)).transpose()?;
        let agreement = agreement.with_documents(&mut warnings)?;
        let perplexity = perplexity.map(|text| text.with_documents(&mut warnings)).transpose()?;
        warnings.dedup();
        Ok(Self { agreement, perplexity, calibration, data: data.clone(), seeds, warnings })
    }

    /// What the texts were read from, each once.
    pub fn inputs(&self) -> Vec<TextInput> {
        let mut inputs: Vec<TextInput> = Vec::new();
        for text in std::iter::once(&self.agreement).chain(&self.perplexity).chain(&self.calibration) {
            if !inputs.contains(&text.input) {
                inputs.push(text.input.clone());
            }
        }
        inputs
    }

    /// What to tell the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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
        let windows = |text| self.windows(text, tokenizer, model, context);
        let perplexity = self.perplexity.as_ref().map(windows).transpose()?;
        let calibration = self.calibrations(tokenizer, model, positions, context)?;
        let drawn = calibration.iter().flat_map(|calibration| &calibration.windows);
        let unknown = |id: &&u32| **id as usize >= vocabulary;
        let windows = perplexity.iter().flat_map(|windows| &windows.tokens);
        if let Some(&id) = agreement.iter().chain(windows).chain(drawn).flatten().find(unknown) {
            return Err(LoadError::Vocabulary { model: model.into(), id, vocabulary });
        }
        Ok(Tokens { agreement, perplexity, context, calibration })
    }

    fn agreement_tokens(&self, tokenizer: &Tokenizer, context: usize) -> Result<Vec<Vec<u32>>, LoadError> {
        let texts = self.agreement.texts().into_iter().filter(|text| !text.trim().is_empty());
        let encode = |text| {
            let mut ids = self.agreement.encode(tokenizer, text)?;
            ids.truncate(context);
            Ok(ids)
        };
        texts.map(encode).filter(|ids| !matches!(ids, Ok(ids) if ids.is_empty())).collect()
    }

    /// The text tokenised once, cut into windows; a last partial window is dropped.
    fn windows(&self, text: &Text, tokenizer: &Tokenizer, model: &str, context: usize) -> Result<Windows, LoadError> {
        let Data { perplexity_windows: windows, perplexity_stride: stride, perplexity_bos, .. } = self.data;
        let front = match perplexity_bos {
            BosAt::Start => Vec::new(),
            BosAt::Windows => tokenizer::front(tokenizer, model)?,
        };
        if perplexity_bos == BosAt::Windows && front.is_empty() {
            return Err(LoadError::NoBos { model: model.into() });
        }
        let limit = if windows == 0 { usize::MAX } else { windows };
        let cut = Cut { context, stride, front, limit };
        let most = cut.body();
        if let Some(stride) = stride.filter(|&stride| stride > most) {
            return Err(LoadError::Stride { stride, most });
        }
        let needed = cut.tokens().saturating_add(cut.front.len());
        let ids = text.tokens(tokenizer, needed)?;
        let ids = ids.strip_prefix(&cut.front[..]).unwrap_or(&ids);
        let windows = cut.windows(ids);
        if windows.tokens.is_empty() {
            return Err(LoadError::ShortText { text: text.input.source.clone(), tokens: ids.len(), context });
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
        let samples = self.data.calibration_samples;
        if let Content::Shard(shard) = &text.content {
            let documents = ShardTokens { shard, text, tokenizer };
            if let Some(drawn) = of_documents(&documents, &self.seeds, samples, length)? {
                return Ok(drawn);
            }
        }
        let ids = text.tokens(tokenizer, usize::MAX)?;
        if ids.len() < length {
            let text = text.input.source.clone();
            return Err(LoadError::ShortCalibration { text, tokens: ids.len(), length });
        }
        Ok(self.seeds.iter().map(|&seed| of_document(&ids, seed, samples, length)).collect())
    }
}

impl Text {
    fn open(source: &TextSource, loader: &Loader, warnings: &mut Vec<String>) -> Result<Self, LoadError> {
        let content: Cow<'static, str> = match source {
            TextSource::Builtin(builtin) => builtin::text(builtin).unwrap_or_default().into(),
            TextSource::File(path) => {
                let read = std::fs::read_to_string(path);
                read.map_err(|source| LoadError::Read { path: path.to_path_buf(), source })?.into()
            }
            TextSource::Hub { repo, revision, config, split } => {
                let name = SplitName { repo, revision: revision.as_deref(), config, split };
                let mut shard = dataset::find(&loader.hub()?, name)?;
                warnings.append(&mut shard.warnings);
                return Ok(Self::of_shard(source.to_string(), shard));
            }
        };
        let sha256 = hex(&Sha256::digest(content.as_bytes()));
        let input = TextInput { source: source.to_string(), file: None, sha256, bytes: None, commit: None };
        Self { input, content: Content::Whole(content) }.not_empty()
    }

    fn of_shard(source: String, shard: Shard) -> Self {
        let input = TextInput {
            source,
            file: Some(shard.input.name.clone()),
            sha256: shard.input.sha256.clone(),
            bytes: Some(shard.input.bytes),
            commit: Some(shard.commit.clone()),
        };
        Self { input, content: Content::Shard(shard) }
    }

    /// With all documents of a dataset's file read.
    fn with_documents(self, warnings: &mut Vec<String>) -> Result<Self, LoadError> {
        let Content::Shard(shard) = &self.content else { return Ok(self) };
        if shard.files > 1 {
            let Self { input: TextInput { source, .. }, .. } = &self;
            warnings
                .push(format!("`{source}` is {} files; only the first, `{}`, is read", shard.files, shard.input.name));
        }
        let documents = dataset::documents(&shard.path, |_| true)?.into_iter().map(|(_, text)| text);
        Self { content: Content::Documents(documents.collect()), ..self }.not_empty()
    }

    fn not_empty(self) -> Result<Self, LoadError> {
        let blank = |text: &str| text.trim().is_empty();
        let empty = match &self.content {
            Content::Whole(text) => blank(text),
            Content::Documents(texts) => texts.iter().all(|text| blank(text)),
            Content::Shard(_) => false,
        };
        if empty { Err(LoadError::EmptyText { text: self.input.source }) } else { Ok(self) }
    }

    /// The texts for a comparison: lines, or documents.
    fn texts(&self) -> Vec<&str> {
        match &self.content {
            Content::Whole(text) => text.lines().collect(),
            Content::Documents(texts) => texts.iter().map(String::as_str).collect(),
            Content::Shard(_) => Vec::new(),
        }
    }

    /// The whole as one text, tokenised once. Of a dataset only as many documents as `needed` tokens take with
    /// plenty to spare: the end of a text has no say in how its beginning is cut.
    fn tokens(&self, tokenizer: &Tokenizer, needed: usize) -> Result<Vec<u32>, LoadError> {
        /// More bytes than tokens of natural text have.
        const BYTES: usize = 16;
        let read;
        let documents = match &self.content {
            Content::Whole(text) => return self.encode(tokenizer, text),
            Content::Documents(documents) => documents,
            Content::Shard(shard) => {
                let documents = dataset::documents(&shard.path, |_| true)?;
                read = documents.into_iter().map(|(_, text)| text).collect();
                &read
            }
        };
        let mut bytes = needed.saturating_mul(BYTES);
        loop {
            let mut left = bytes;
            let count = documents.iter().take_while(|text| {
                let more = left > 0;
                left = left.saturating_sub(text.len());
                more
            });
            let count = count.count();
            let ids = self.encode(tokenizer, &documents[..count].join(BETWEEN))?;
            if count == documents.len() || ids.len() / 2 > needed {
                return Ok(ids);
            }
            bytes = bytes.saturating_mul(2);
        }
    }

    fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, LoadError> {
        tokenizer::encode(tokenizer, text, &self.input.source)
    }
}

/// The documents of a dataset's file as a model sees them.
struct ShardTokens<'a> {
    shard: &'a Shard,
    text: &'a Text,
    tokenizer: &'a Tokenizer,
}

impl Documents for ShardTokens<'_> {
    fn sizes(&self) -> Result<Vec<usize>, LoadError> {
        Ok(dataset::sizes(&self.shard.path)?)
    }

    fn tokens(&self, indices: &BTreeSet<usize>) -> Result<Vec<(usize, Vec<u32>)>, LoadError> {
        let documents = dataset::documents(&self.shard.path, |index| indices.contains(&index))?;
        let encode = |(index, text): &(usize, String)| Ok((*index, self.text.encode(self.tokenizer, text)?));
        documents.par_iter().map(encode).collect()
    }
}

impl Tokens {
    /// The digest of the agreement sequences.
    pub fn agreement_digest(&self) -> String {
        digest(&self.agreement)
    }

    /// The digest of the perplexity windows.
    pub fn perplexity_digest(&self) -> Option<String> {
        let Windows { tokens, overlap } = self.perplexity.as_ref()?;
        let tokens = digest(tokens);
        // All but the first token of every window is scored: the tokens say it all.
        if *overlap <= 1 {
            return Some(tokens);
        }
        Some(hex(&Sha256::digest(format!("{tokens} overlap {overlap}"))))
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

//! The texts of an experiment as token ids, and the digests that name them.

use super::calibration::{Calibration, Documents, of_document, of_documents};
use super::dataset::{self, Shard, SplitName};
use super::tokenizer::{Encoded, Tokenizer, is_pointer};
use super::windows::{Cut, Windows};
use super::{LoadError, Loader, builtin, drawn};
use crate::config::experiment::{self, BosAt, CalibrationChoice, Data, Drawing, Joining};
use crate::config::source::TextSource;
use crate::hex::hex;
use crate::input;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most tokens of a window unless the experiment says otherwise.
const DEFAULT_CONTEXT: usize = 2048;

/// How long sequences of a model may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// What the model was made for.
    pub positions: usize,
    /// The most that is run.
    pub longest: usize,
}

impl From<usize> for Reach {
    fn from(positions: usize) -> Self {
        Self { positions, longest: positions }
    }
}

/// The texts of an experiment.
#[derive(Clone, Debug)]
pub struct Texts {
    agreement: Text,
    perplexity: Option<Text>,
    calibrations: Vec<Calibrating>,
    data: Data,
    seeds: Vec<u64>,
    warnings: Vec<String>,
}

/// A calibration and its text, which others may share.
#[derive(Clone, Debug)]
struct Calibrating {
    of: experiment::Calibration,
    text: Arc<Text>,
    /// Rows of the text without any among those that calibration has looked at, at most.
    missing: Arc<AtomicUsize>,
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
    joining: Joining,
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
    /// The calibration windows, of each calibration and seed that draws some.
    pub calibration: Vec<(CalibrationChoice, Vec<Calibration>)>,
}

impl Texts {
    /// Reads the texts that are wanted, and downloads them where needed.
    ///
    /// # Errors
    /// When a file or dataset can't be read or has nothing in it.
    pub fn read(data: &Data, wanted: &Wanted, loader: &Loader) -> Result<Self, LoadError> {
        let mut warnings = Vec::new();
        let mut open = |source: &TextSource, joining: &Joining| Text::open(source, joining, loader, &mut warnings);
        // Its texts are not joined, so that all of them count.
        let agreement = open(&data.agreement, &Joining { join: String::new(), documents: 0 })?;
        let perplexity = || open(&data.perplexity, &data.perplexity_joining);
        let perplexity = wanted.perplexity.then(perplexity).transpose()?;
        let seeds = wanted.calibration.clone();
        let mut calibrations: Vec<Calibrating> = Vec::new();
        for of in data.calibrations.iter().filter(|_| !seeds.is_empty()).cloned() {
            let known = calibrations.iter().find(|known| known.of.text == of.text);
            let (text, missing) = match known {
                Some(known) => (known.text.clone(), known.missing.clone()),
                None => (Arc::new(open(&of.text, &of.joining)?), Arc::default()),
            };
            calibrations.push(Calibrating { of, text, missing });
        }
        let agreement = agreement.with_documents(&mut warnings)?;
        let perplexity = perplexity.map(|text| text.with_documents(&mut warnings)).transpose()?;
        let mut said = HashSet::new();
        warnings.retain(|warning| said.insert(warning.clone()));
        Ok(Self { agreement, perplexity, calibrations, data: data.clone(), seeds, warnings })
    }

    /// What the texts were read from, each once.
    pub fn inputs(&self) -> Vec<TextInput> {
        let mut inputs: Vec<TextInput> = Vec::new();
        let of_calibrations = self.calibrations.iter().map(|calibrating| &*calibrating.text);
        for text in std::iter::once(&self.agreement).chain(&self.perplexity).chain(of_calibrations) {
            if !inputs.contains(&text.input) {
                inputs.push(text.input.clone());
            }
        }
        inputs
    }

    /// What to tell the user, once the texts are read and encoded.
    pub fn warnings(&self) -> Vec<String> {
        let mut said = HashSet::new();
        let of_calibration = self
            .calibrations
            .iter()
            .filter_map(|calibrating| rows_without(calibrating.missing.load(Ordering::Relaxed), &calibrating.text));
        self.warnings.iter().cloned().chain(of_calibration.filter(|text| said.insert(text.clone()))).collect()
    }

    /// Token ids for a model that reaches so far and a vocabulary of `vocabulary` entries.
    ///
    /// # Errors
    /// When the context is longer than the model, a text shorter than a window, or the tokenizer
    /// another model's.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        model: &str,
        reach: impl Into<Reach>,
        vocabulary: usize,
    ) -> Result<Tokens, LoadError> {
        let Reach { positions: usual, longest: positions } = reach.into();
        if let Some(context) = self.data.context.filter(|&context| context > positions) {
            return Err(LoadError::Context { model: model.into(), context, positions });
        }
        let context = self.data.context.unwrap_or(usual.min(DEFAULT_CONTEXT));
        let agreement = self.agreement_tokens(tokenizer, model, context)?;
        let windows = |text| self.windows(text, tokenizer, model, context);
        let perplexity = self.perplexity.as_ref().map(windows).transpose()?;
        let calibration = self.calibrations(tokenizer, model, positions, context)?;
        let drawn = calibration.iter().flat_map(|(_, seeds)| seeds).flat_map(|calibration| &calibration.windows);
        let unknown = |id: &&u32| **id as usize >= vocabulary;
        let windows = perplexity.iter().flat_map(|windows| &windows.tokens);
        if let Some(&id) = agreement.iter().chain(windows).chain(drawn).flatten().find(unknown) {
            return Err(LoadError::Vocabulary { model: model.into(), id, vocabulary });
        }
        Ok(Tokens { agreement, perplexity, context, calibration })
    }

    /// The texts of the comparison, each from its start up to the context.
    ///
    /// # Errors
    /// When there are none, or the tokenizer can't be used.
    pub fn agreement_tokens(
        &self,
        tokenizer: &Tokenizer,
        model: &str,
        context: usize,
    ) -> Result<Vec<Vec<u32>>, LoadError> {
        let texts = self.agreement.texts().into_iter().filter(|text| !text.trim().is_empty());
        let mut sequences = Vec::new();
        for text in texts {
            if let Some(mut ids) = tokenizer.encode_some(text)? {
                ids.truncate(context);
                sequences.push(ids);
            }
        }
        if sequences.is_empty() {
            return Err(LoadError::NoTokens { model: model.into(), text: self.agreement.input.source.clone() });
        }
        Ok(sequences)
    }

    /// The text tokenised once, cut into windows; a last partial window is dropped.
    fn windows(&self, text: &Text, tokenizer: &Tokenizer, model: &str, context: usize) -> Result<Windows, LoadError> {
        let Data { perplexity_windows: windows, perplexity_stride: stride, perplexity_bos, .. } = self.data;
        if let (Drawing::Gptq, Content::Documents(documents)) = (self.data.perplexity_drawing, &text.content) {
            let drawn = drawn::windows(documents, tokenizer, windows, context)?;
            let none = || LoadError::ShortDocuments { text: text.input.source.clone(), context };
            return if drawn.tokens.is_empty() { Err(none()) } else { Ok(drawn) };
        }
        let front = match perplexity_bos {
            BosAt::Start => Vec::new(),
            BosAt::Windows => special_front(tokenizer, model, "data.perplexity_bos")?,
        };
        let limit = if windows == 0 { usize::MAX } else { windows };
        let cut = Cut { context, stride, front, limit };
        let most = cut.body();
        if let Some(stride) = stride.filter(|&stride| stride > most) {
            return Err(LoadError::Stride { stride, most });
        }
        let needed = cut.tokens().saturating_add(cut.front.len());
        let (Encoded { ids, ends }, _) = text.tokens(tokenizer, needed)?;
        let ids = ids.strip_prefix(&cut.front[..]).unwrap_or(&ids);
        let windows = cut.windows(ids, &ends[ends.len() - ids.len()..]);
        if windows.tokens.is_empty() {
            return Err(LoadError::ShortText { text: text.input.source.clone(), tokens: ids.len(), context });
        }
        Ok(windows)
    }

    /// The windows of every calibration; none where nothing is calibrated.
    fn calibrations(
        &self,
        tokenizer: &Tokenizer,
        model: &str,
        positions: usize,
        context: usize,
    ) -> Result<Vec<(CalibrationChoice, Vec<Calibration>)>, LoadError> {
        let drawn = |calibrating: &Calibrating| {
            Ok((calibrating.of.choice(), self.drawn(calibrating, tokenizer, model, positions, context)?))
        };
        self.calibrations.iter().map(drawn).collect()
    }

    /// The windows that every seed draws.
    fn drawn(
        &self,
        Calibrating { of, text, missing: without }: &Calibrating,
        tokenizer: &Tokenizer,
        model: &str,
        positions: usize,
        context: usize,
    ) -> Result<Vec<Calibration>, LoadError> {
        let length = of.length.unwrap_or(context);
        if length > positions {
            return Err(LoadError::CalibrationLength { model: model.into(), length, positions });
        }
        let front = match self.data.calibration_bos {
            false => Vec::new(),
            true => special_front(tokenizer, model, "data.calibration_bos")?,
        };
        let samples = of.samples;
        // Tokens of the text in a window.
        let body = length.saturating_sub(front.len()).max(1);
        let finished = |drawn: Vec<Calibration>| drawn.into_iter().map(|drawn| drawn.behind(&front)).collect();
        if let Content::Shard(shard) = &text.content {
            let documents = ShardTokens { shard, text, tokenizer, front: &front, missing: without };
            if let Some(drawn) = of_documents(&documents, &self.seeds, samples, body)? {
                return Ok(finished(drawn));
            }
        }
        let (Encoded { ids, .. }, missing) = text.tokens(tokenizer, usize::MAX)?;
        without.fetch_max(missing, Ordering::Relaxed);
        let ids = ids.strip_prefix(&front[..]).unwrap_or(&ids);
        if ids.len() < body {
            let text = text.input.source.clone();
            return Err(LoadError::ShortCalibration { text, tokens: ids.len(), length });
        }
        Ok(finished(self.seeds.iter().map(|&seed| of_document(ids, seed, samples, body)).collect()))
    }
}

/// The special tokens in front of a text, which the key `key` wants in front of windows.
fn special_front(tokenizer: &Tokenizer, model: &str, key: &'static str) -> Result<Vec<u32>, LoadError> {
    let front = tokenizer.front()?;
    if front.is_empty() { Err(LoadError::NoBos { model: model.into(), key }) } else { Ok(front) }
}

/// A warning about rows that were passed over.
fn rows_without(missing: usize, text: &Text) -> Option<String> {
    let rows = if missing == 1 { "row" } else { "rows" };
    let source = &text.input.source;
    (missing > 0).then(|| {
        format!(
            "`{source}` has {missing} {rows} without a text, which {} not read",
            if missing == 1 { "is" } else { "are" }
        )
    })
}

impl Text {
    fn open(
        source: &TextSource,
        joining: &Joining,
        loader: &Loader,
        warnings: &mut Vec<String>,
    ) -> Result<Self, LoadError> {
        let (content, sha256): (Cow<'static, str>, _) = match source {
            TextSource::Builtin(builtin) => {
                let text = builtin::text(builtin).unwrap_or_default();
                (text.into(), Sha256::digest(text))
            }
            TextSource::File(path) => {
                let text = read_text(path)?;
                if text.starts_with('\u{feff}') {
                    warnings.push(format!(
                        "`{source}` begins with a byte order mark, which is read as part of the text, as Python does; \
                         save it as UTF-8 without one"
                    ));
                }
                let sha256 = Sha256::digest(&text);
                (universal_newlines(text).into(), sha256)
            }
            TextSource::Hub { repo, revision, config, split } => {
                let name = SplitName { repo, revision: revision.as_deref(), config, split };
                let mut shard = dataset::find(&loader.hub()?, name)?;
                warnings.append(&mut shard.warnings);
                return Ok(Self::of_shard(source.to_string(), shard, joining.clone()));
            }
        };
        let sha256 = hex(&sha256);
        let input = TextInput { source: source.to_string(), file: None, sha256, bytes: None, commit: None };
        Self { input, content: Content::Whole(content), joining: joining.clone() }.not_empty()
    }

    fn of_shard(source: String, shard: Shard, joining: Joining) -> Self {
        let input = TextInput {
            source,
            file: Some(shard.input.name.clone()),
            sha256: shard.input.sha256.clone(),
            bytes: Some(shard.input.bytes),
            commit: Some(shard.commit.clone()),
        };
        Self { input, content: Content::Shard(shard), joining }
    }

    /// With all documents of a dataset's file read.
    fn with_documents(self, warnings: &mut Vec<String>) -> Result<Self, LoadError> {
        let Content::Shard(shard) = &self.content else { return Ok(self) };
        if shard.files > 1 {
            let Self { input: TextInput { source, .. }, .. } = &self;
            warnings
                .push(format!("`{source}` is {} files; only the first, `{}`, is read", shard.files, shard.input.name));
        }
        let documents = dataset::documents(&shard.path, self.most(), |_| true)?;
        warnings.extend(rows_without(documents.missing, &self));
        let texts = documents.texts.into_iter().map(|(_, text)| text).collect();
        Self { content: Content::Documents(texts), ..self }.not_empty()
    }

    /// Rows of a dataset that are read.
    fn most(&self) -> usize {
        if self.joining.documents == 0 { usize::MAX } else { self.joining.documents }
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
    /// plenty to spare: the end of a text has no say in how its beginning is cut. With the number of rows that have
    /// no text.
    fn tokens(&self, tokenizer: &Tokenizer, needed: usize) -> Result<(Encoded, usize), LoadError> {
        /// More bytes than tokens of natural text have.
        const BYTES: usize = 16;
        let read;
        let mut missing = 0;
        let documents = match &self.content {
            Content::Whole(text) => return Ok((tokenizer.encode_with_ends(text)?, 0)),
            Content::Documents(documents) => documents,
            Content::Shard(shard) => {
                let documents = dataset::documents(&shard.path, self.most(), |_| true)?;
                missing = documents.missing;
                read = documents.texts.into_iter().map(|(_, text)| text).collect();
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
            let encoded = tokenizer.encode_with_ends(&documents[..count].join(&self.joining.join))?;
            if count == documents.len() || encoded.ids.len() / 2 > needed {
                return Ok((encoded, missing));
            }
            bytes = bytes.saturating_mul(2);
        }
    }
}

/// A text as Python's text mode reads it: UTF-8, whose line ends `\r\n` and `\r` are `\n`.
fn read_text(path: &Path) -> Result<String, LoadError> {
    let read = |source| LoadError::Read { path: path.to_path_buf(), source };
    let text = input::read_to_string(path, input::LARGE).map_err(read)?;
    if is_pointer(text.as_bytes()) { Err(LoadError::Pointer { path: path.into() }) } else { Ok(text) }
}

fn universal_newlines(text: String) -> String {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

/// The documents of a dataset's file as a model sees them.
struct ShardTokens<'a> {
    shard: &'a Shard,
    text: &'a Text,
    tokenizer: &'a Tokenizer,
    /// What documents lose at their start, since every window gets it.
    front: &'a [u32],
    missing: &'a AtomicUsize,
}

impl Documents for ShardTokens<'_> {
    fn sizes(&self) -> Result<Vec<usize>, LoadError> {
        Ok(dataset::sizes(&self.shard.path, self.text.most())?)
    }

    fn tokens(&self, indices: &BTreeSet<usize>) -> Result<Vec<(usize, Vec<u32>)>, LoadError> {
        let most = indices.last().map_or(0, |last| last + 1);
        let documents = dataset::documents(&self.shard.path, most, |index| indices.contains(&index))?;
        self.missing.fetch_max(documents.missing, Ordering::Relaxed);
        let encode = |(index, text): &(usize, String)| {
            let ids = self.tokenizer.encode(text)?;
            Ok((*index, ids.strip_prefix(self.front).map(<[u32]>::to_vec).unwrap_or(ids)))
        };
        documents.texts.par_iter().map(encode).collect()
    }
}

impl Tokens {
    /// The digest of the agreement sequences.
    pub fn agreement_digest(&self) -> String {
        digest(&self.agreement)
    }

    /// The digest of the perplexity windows.
    pub fn perplexity_digest(&self) -> Option<String> {
        // How many bytes the tokens stand for decides no likelihood.
        let Windows { tokens, overlap, bytes: _ } = self.perplexity.as_ref()?;
        let tokens = digest(tokens);
        // All but the first token of every window is scored: the tokens say it all.
        if *overlap <= 1 {
            return Some(tokens);
        }
        Some(hex(&Sha256::digest(format!("{tokens} overlap {overlap}"))))
    }

    /// The calibration windows that a seed draws: of a choice among several calibrations, or of the only one.
    pub fn calibration_of(&self, choice: Option<&CalibrationChoice>, seed: u64) -> Option<&[Vec<u32>]> {
        let mut calibrations = self.calibration.iter();
        let (_, seeds) = calibrations.find(|(of, _)| choice.is_none_or(|choice| choice == of))?;
        Some(&seeds.iter().find(|calibration| calibration.seed == seed)?.windows)
    }

    /// The digest of these windows.
    pub fn calibration_digest(&self, choice: Option<&CalibrationChoice>, seed: u64) -> Option<String> {
        self.calibration_of(choice, seed).map(digest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_pythons() {
        for (text, read) in [
            ("a\r\nb\rc\n", "a\nb\nc\n"),
            ("a\n\rb", "a\n\nb"),
            ("\r\r\n\n", "\n\n\n"),
            ("a", "a"),
            ("\u{feff}a\r", "\u{feff}a\n"),
        ] {
            assert_eq!(universal_newlines(text.into()), read, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_a_regular_file_and_no_pointer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.txt");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n").unwrap();
        assert!(matches!(read_text(&path), Err(LoadError::Pointer { .. })));
        std::fs::write(&path, "git-lfs is a program").unwrap();
        assert_eq!(read_text(&path).unwrap(), "git-lfs is a program");
        for path in [folder.path(), Path::new("/dev/zero")] {
            assert!(matches!(read_text(path), Err(LoadError::Read { .. })), "{}", path.display());
        }
    }
}

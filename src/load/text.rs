//! The texts of an experiment as token ids, and the digests that name them.

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
    context: Option<usize>,
    windows: usize,
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
}

impl Texts {
    /// Reads the texts; the perplexity text only where perplexity is measured.
    ///
    /// # Errors
    /// When a file can't be read or has nothing in it.
    pub fn read(data: &Data, perplexity: bool) -> Result<Self, LoadError> {
        let agreement = Text::read(&data.agreement)?;
        let perplexity = perplexity.then(|| Text::read(&data.perplexity)).transpose()?;
        Ok(Self { agreement, perplexity, context: data.context, windows: data.perplexity_windows })
    }

    /// Name and SHA-256 of each text.
    pub fn digests(&self) -> Vec<(String, String)> {
        let texts = std::iter::once(&self.agreement).chain(&self.perplexity);
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
        if let Some(context) = self.context.filter(|&context| context > positions) {
            return Err(LoadError::Context { model: model.into(), context, positions });
        }
        let context = self.context.unwrap_or(positions.min(DEFAULT_CONTEXT));
        let agreement = self.agreement_tokens(tokenizer, context)?;
        let perplexity = self.perplexity.as_ref().map(|text| self.windows(text, tokenizer, context)).transpose()?;
        let known = |id: &&u32| **id as usize >= vocabulary;
        if let Some(&id) = agreement.iter().chain(perplexity.iter().flatten()).flatten().find(known) {
            return Err(LoadError::Vocabulary { model: model.into(), id, vocabulary });
        }
        Ok(Tokens { agreement, perplexity, context })
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
        let limit = if self.windows == 0 { usize::MAX } else { self.windows };
        let windows: Vec<Vec<u32>> = ids.chunks_exact(context).take(limit).map(<[u32]>::to_vec).collect();
        if windows.is_empty() {
            return Err(LoadError::ShortText { text: text.name.clone(), tokens: ids.len(), context });
        }
        Ok(windows)
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

//! The tokenizer of a checkpoint: `tokenizer.json`, or `vocab.json` and `merges.txt`.
//!
//! ```text
//!   tokenizer.json ──screen.rs──> JSON that can't ask for much ──┐
//!                                                                ├──tokenizers──> Tokenizer ──> token ids
//!   vocab.json, merges.txt, tokenizer_config.json ──classes.rs───┘
//! ```
//!
//! The `tokenizers` library is for files that it has written: of others it may panic, or take all memory. Whatever
//! could do the latter is seen before, since nobody can catch it; panics are caught, in building and in encoding.
//! What belongs to a call and not to a tokenizer (truncation, padding) or to training (dropout) is off.

mod classes;
mod screen;

use super::LoadError;
use crate::{input, panics};
use classes::Special;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Bytes of memory that the library takes for a byte of text, at most: the text, its copy in pieces, and for every
/// byte of both where it came from (16 bytes).
const MEMORY: usize = 64;
/// Less memory than this is there.
const PLENTY: usize = 1 << 30;
/// Bytes that are normalised at a time to see what becomes of them.
const PIECE: usize = 1 << 16;

/// Where a tokenizer comes from.
#[derive(Clone, Debug)]
pub enum TokenizerFiles {
    /// The whole of it in one file inside the program.
    Static(&'static [u8]),
    /// `tokenizer.json`.
    Json {
        /// The file.
        path: PathBuf,
        /// What the files beside it call the tokens that begin and end a text.
        named: Named,
    },
    /// Byte-level BPE in two files, with what other files say of it.
    VocabMerges {
        /// `vocab.json`
        vocab: PathBuf,
        /// `merges.txt`
        merges: PathBuf,
        /// What `tokenizer_config.json` and the files of special tokens say.
        special: Box<Special>,
    },
}

/// Finds a file of a checkpoint by its name.
type Find<'a> = dyn Fn(&str) -> Result<Option<PathBuf>, LoadError> + 'a;

/// Files of tokenizers that are not read, each with what it is.
const OTHERS: [(&str, &str); 4] = [
    ("tokenizer.model", "SentencePiece"),
    ("spiece.model", "SentencePiece"),
    ("tekken.json", "Mistral's tekken"),
    ("vocab.txt", "WordPiece"),
];

impl TokenizerFiles {
    /// What is looked for.
    pub const NAMES: &'static str = "tokenizer.json, or vocab.json and merges.txt";

    /// The files of the model `model`, by names, if it has any; `config` is its `config.json`.
    ///
    /// # Errors
    /// When there is only a tokenizer of another kind, or the files around it can't be read.
    pub fn find(find: &Find<'_>, config: &Value, model: &str) -> Result<Option<Self>, LoadError> {
        if let Some(path) = find("tokenizer.json")? {
            return Ok(Some(Self::Json { path, named: Named::read(find) }));
        }
        if let (Some(vocab), Some(merges)) = (find("vocab.json")?, find("merges.txt")?) {
            let special = Special::read(find, config)?;
            return Ok(Some(Self::VocabMerges { vocab, merges, special: Box::new(special) }));
        }
        for (file, kind) in OTHERS {
            if find(file)?.is_some() {
                return Err(LoadError::OtherTokenizer { model: model.into(), file, kind });
            }
        }
        Ok(None)
    }

    /// Builds the tokenizer.
    ///
    /// # Errors
    /// When a file is missing, malformed, or asks for more than a tokenizer needs.
    pub fn open(&self) -> Result<Tokenizer, LoadError> {
        let (file, json) = match self {
            Self::Static(bytes) => ("tokenizer.json".into(), bytes.to_vec()),
            Self::Json { path, .. } => (path.display().to_string(), read(path)?),
            Self::VocabMerges { vocab, merges, special } => {
                let file = vocab.display().to_string();
                let (vocab, merges) = (read_text(vocab)?, read_text(merges)?);
                let inner = built(&file, || classes::byte_level(&vocab, &merges, special, &file))?;
                // NFC, where there is anything, makes three bytes of one at most.
                return Ok(Tokenizer::new(inner?, 3, file, &special.named()));
            }
        };
        let screened = screen::screened(&json, &file)?;
        drop(json);
        let inner = built(&file, || tokenizers::Tokenizer::from_bytes(&screened.json))?;
        let inner = inner.map_err(|error| unusable(&file, &error))?;
        let named = match self {
            Self::Json { named, .. } => named.clone(),
            Self::Static(_) | Self::VocabMerges { .. } => Named::default(),
        };
        Ok(Tokenizer::new(inner, screened.growth, file, &named))
    }
}

/// What a tokenizer calls the tokens that begin and end a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub(super) bos: Option<String>,
    pub(super) eos: Option<String>,
}

impl Named {
    /// As `tokenizer_config.json` or `special_tokens_map.json` has them. What can't be read there names nothing: only
    /// tasks ask for these, and say that they miss them.
    fn read(find: &Find<'_>) -> Self {
        let mut named = Self::default();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let config = find(name).ok().flatten().and_then(|path| read_json(&path).ok()).unwrap_or_default();
            let token = |key: &str| {
                let value = config.get(key)?;
                value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
            };
            named.bos = named.bos.or_else(|| token("bos_token"));
            named.eos = named.eos.or_else(|| token("eos_token"));
            if named.bos.is_some() && named.eos.is_some() {
                break;
            }
        }
        named
    }
}

/// The token that stands for an empty text before another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Whether it is called BOS; EOS stands in for it where there is none.
    pub is_bos: bool,
}

/// Something of the library that may panic.
fn built<T>(file: &str, build: impl FnOnce() -> T) -> Result<T, LoadError> {
    panics::caught(build).map_err(|panic| unusable(file, &format!("the tokenizers library stops at it: {panic}")))
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let bytes = input::read(path, input::SMALL).map_err(|source| LoadError::Read { path: path.into(), source })?;
    if is_pointer(&bytes) { Err(LoadError::Pointer { path: path.into() }) } else { Ok(bytes) }
}

fn read_text(path: &Path) -> Result<String, LoadError> {
    let text = String::from_utf8(read(path)?);
    text.map_err(|error| unusable(&path.display().to_string(), &error.utf8_error()))
}

/// A JSON file beside the tokenizer.
fn read_json(path: &Path) -> Result<Value, LoadError> {
    let error = |source| LoadError::Json { file: path.display().to_string(), source };
    serde_json::from_slice(&read(path)?).map_err(error)
}

/// Whether a file is what Git leaves where Git-LFS has not fetched the real one.
pub(super) fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

fn unusable(file: &str, message: &impl ToString) -> LoadError {
    LoadError::Tokenizer { file: file.into(), message: message.to_string() }
}

/// A text's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    /// Their ids.
    pub ids: Vec<u32>,
    /// The byte of the text at which each ends.
    pub ends: Vec<usize>,
}

/// A tokenizer that is asked for token ids, and where they end in the text.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Bytes that a byte of text becomes before it is cut, at most.
    growth: usize,
    /// The file that it is from, for messages.
    file: String,
    prefix: Option<Prefix>,
    eos: Option<u32>,
}

impl Tokenizer {
    fn new(inner: tokenizers::Tokenizer, growth: usize, file: String, named: &Named) -> Self {
        let prefix = |text: &Option<String>, is_bos| {
            let text = text.clone()?;
            Some(Prefix { id: inner.token_to_id(&text)?, text, is_bos })
        };
        let prefix = prefix(&named.bos, true).or_else(|| prefix(&named.eos, false));
        let eos = named.eos.as_ref().and_then(|text| inner.token_to_id(text));
        let mut tokenizer = Self { inner, growth, file, prefix, eos };
        if tokenizer.prefix.is_none() {
            // Whatever it puts in front of a text by itself is as good as a name.
            let front = tokenizer.front().ok().and_then(|front| front.first().copied());
            let token = front.and_then(|id| Some((id, tokenizer.inner.id_to_token(id)?)));
            tokenizer.prefix = token.map(|(id, text)| Prefix { id, text, is_bos: true });
        }
        tokenizer
    }

    /// The token that stands for an empty text before another: BOS, or EOS where none is named.
    pub fn prefix(&self) -> Option<&Prefix> {
        self.prefix.as_ref()
    }

    /// The token that ends a text, if it has a name.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Token ids of a text without special tokens around it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, LoadError> {
        self.affordable(text)?;
        let encoding = built(&self.file, || self.inner.encode_fast(text, false))?;
        Ok(encoding.map_err(|error| unusable(&self.file, &error))?.get_ids().to_vec())
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// When the library fails at it.
    pub fn decode(&self, ids: &[u32]) -> Result<String, LoadError> {
        let text = built(&self.file, || self.inner.decode(ids, true))?;
        text.map_err(|error| unusable(&self.file, &error))
    }

    /// Token ids of a text with the model's special tokens at its start only.
    ///
    /// # Errors
    /// When the library fails at it, or there is not enough memory for it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, LoadError> {
        let encoding = self.encoding(text)?;
        // A text of nothing but special tokens keeps them.
        Ok(without_end(&encoding).unwrap_or_else(|| encoding.get_ids().to_vec()))
    }

    /// The same, with the byte of the text at which each token ends; a token that stands for no text ends where the one
    /// before it does.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(super) fn encode_with_ends(&self, text: &str) -> Result<Encoded, LoadError> {
        self.affordable(text)?;
        let encoding = built(&self.file, || self.inner.encode(text, true))?;
        let encoding = encoding.map_err(|error| unusable(&self.file, &error))?;
        let ids = without_end(&encoding).unwrap_or_else(|| encoding.get_ids().to_vec());
        let ends = encoding.get_offsets().iter().take(ids.len()).scan(0, |last, &(_, end)| {
            *last = end.max(*last);
            Some(*last)
        });
        Ok(Encoded { ends: ends.collect(), ids })
    }

    /// The same, but nothing for a text of which no token is made.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(super) fn encode_some(&self, text: &str) -> Result<Option<Vec<u32>>, LoadError> {
        Ok(without_end(&self.encoding(text)?))
    }

    /// The special tokens that it puts in front of a text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn front(&self) -> Result<Vec<u32>, LoadError> {
        let encoding = self.encoding("a")?;
        let ids = encoding.get_ids().iter().zip(encoding.get_special_tokens_mask());
        Ok(ids.take_while(|&(_, &special)| special == 1).map(|(&id, _)| id).collect())
    }

    fn encoding(&self, text: &str) -> Result<tokenizers::Encoding, LoadError> {
        self.affordable(text)?;
        let encoding = built(&self.file, || self.inner.encode_fast(text, true))?;
        encoding.map_err(|error| unusable(&self.file, &error))
    }

    /// Asks the system for the memory that a long text takes, since the library ends the program if there is none.
    fn affordable(&self, text: &str) -> Result<(), LoadError> {
        let memory = |bytes: usize| bytes.saturating_mul(MEMORY);
        if memory(text.len().saturating_mul(self.growth)) <= PLENTY {
            return Ok(());
        }
        let bytes = self.normalised(text)?;
        let needed = memory(bytes);
        if needed <= PLENTY || Vec::<u8>::new().try_reserve_exact(needed).is_ok() {
            return Ok(());
        }
        Err(LoadError::TextMemory { file: self.file.clone(), bytes, needed })
    }

    /// How long a text is once it is normalised, piece by piece: about, where a rule looks over the edge of a piece.
    fn normalised(&self, text: &str) -> Result<usize, LoadError> {
        use tokenizers::Normalizer;
        let Some(normalizer) = self.inner.get_normalizer() else { return Ok(text.len()) };
        let (mut rest, mut bytes) = (text, 0);
        while !rest.is_empty() {
            let end = (0..=PIECE.min(rest.len())).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
            let (piece, behind) = rest.split_at(end);
            let mut piece = tokenizers::NormalizedString::from(piece);
            built(&self.file, || normalizer.normalize(&mut piece))?.map_err(|error| unusable(&self.file, &error))?;
            bytes += piece.get().len();
            rest = behind;
        }
        Ok(bytes)
    }
}

/// Token ids without the special tokens after a text; none where there are only special ones.
fn without_end(encoding: &tokenizers::Encoding) -> Option<Vec<u32>> {
    let last = encoding.get_special_tokens_mask().iter().rposition(|&special| special == 0)?;
    Some(encoding.get_ids()[..=last].to_vec())
}

#[cfg(test)]
mod tests;

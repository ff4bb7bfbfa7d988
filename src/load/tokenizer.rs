//! The tokenizer of a checkpoint: `tokenizer.json`, or `vocab.json` and `merges.txt` as GPT-2 and OPT have them.

use super::LoadError;
use serde_json::Value;
use std::path::PathBuf;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// Where a tokenizer comes from.
#[derive(Clone, Debug)]
pub enum TokenizerFiles {
    /// The whole of it in one file inside the program.
    Static(&'static [u8]),
    /// `tokenizer.json`.
    Json(PathBuf),
    /// Byte-level BPE in two files; special tokens as `tokenizer_config.json` says.
    VocabMerges {
        /// `vocab.json`
        vocab: PathBuf,
        /// `merges.txt`
        merges: PathBuf,
        /// The content of `tokenizer_config.json`, or null.
        config: Value,
        /// OPT puts its first token in front, unless the configuration says otherwise.
        opt: bool,
    },
}

impl TokenizerFiles {
    /// Builds the tokenizer.
    ///
    /// # Errors
    /// When a file is missing or malformed.
    pub fn open(&self) -> Result<Tokenizer, LoadError> {
        match self {
            Self::Static(bytes) => Tokenizer::from_bytes(bytes).map_err(|error| unusable("tokenizer.json", &error)),
            Self::Json(path) => {
                let bytes = std::fs::read(path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
                Tokenizer::from_bytes(bytes).map_err(|error| unusable(&path.display().to_string(), &error))
            }
            Self::VocabMerges { vocab, merges, config, opt } => byte_level(vocab, merges, config, *opt),
        }
    }
}

fn unusable(file: &str, message: &impl ToString) -> LoadError {
    LoadError::Tokenizer { file: file.into(), message: message.to_string() }
}

fn byte_level(vocab: &PathBuf, merges: &PathBuf, config: &Value, opt: bool) -> Result<Tokenizer, LoadError> {
    let name = vocab.display().to_string();
    for path in [vocab, merges] {
        // The library's own message for a missing file does not name it.
        std::fs::metadata(path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
    }
    let model = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy());
    let mut tokenizer = Tokenizer::new(model.build().map_err(|error| unusable(&name, &error))?);
    let prefix_space = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let special = ["bos_token", "eos_token", "unk_token", "pad_token"].map(|key| special_token(config, key));
    let tokens: Vec<AddedToken> = special.iter().flatten().map(|text| AddedToken::from(text.clone(), true)).collect();
    tokenizer.add_special_tokens(&tokens);
    let add_bos = config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(opt);
    if add_bos {
        let bos = special[0].clone().unwrap_or_else(|| "</s>".into());
        let id = tokenizer.token_to_id(&bos).ok_or_else(|| unusable(&name, &format!("no token `{bos}`")))?;
        let template = TemplateProcessing::builder()
            .try_single(format!("{bos} $A"))
            .map_err(|error| unusable(&name, &error))?
            .special_tokens(vec![(bos, id)])
            .build()
            .map_err(|error| unusable(&name, &error))?;
        tokenizer.with_post_processor(Some(template));
    }
    Ok(tokenizer)
}

/// A special token, written as a string or as an object with its content.
fn special_token(config: &Value, key: &str) -> Option<String> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str)).map(Into::into)
}

/// Token ids of a text with the model's special tokens at its start only.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str, name: &str) -> Result<Vec<u32>, LoadError> {
    let encoding = tokenizer.encode_fast(text, true).map_err(|error| unusable(name, &error))?;
    let behind = encoding.get_special_tokens_mask().iter().rev().take_while(|&&special| special == 1).count();
    let ids = encoding.get_ids();
    // A text of nothing but special tokens keeps them.
    Ok(if behind == ids.len() { ids.to_vec() } else { ids[..ids.len() - behind].to_vec() })
}

/// The special tokens that the tokenizer puts in front of a text.
pub(super) fn front(tokenizer: &Tokenizer, name: &str) -> Result<Vec<u32>, LoadError> {
    let encoding = tokenizer.encode_fast("a", true).map_err(|error| unusable(name, &error))?;
    let ids = encoding.get_ids().iter().zip(encoding.get_special_tokens_mask());
    Ok(ids.take_while(|&(_, &special)| special == 1).map(|(&id, _)| id).collect())
}

//! Tokenizers that are `vocab.json` and `merges.txt`: byte-level BPE, of which models have several kinds. Which one
//! it is stands in `tokenizer_config.json` or follows from the model; as `transformers` 5.24 has it.
//!
//! ```text
//!   kind                 before the split   split                                         default special tokens
//!   GPT2Tokenizer        -                  GPT-2's                                       <|endoftext|>
//!   GPTNeoXTokenizer     NFC                GPT-2's                                       <|endoftext|>, <|padding|>
//!   Qwen2Tokenizer       NFC                digits one by one, line ends with what is     <|endoftext|>, no BOS
//!                                           in front of them
//! ```

use super::{Find, Named, read_json, unusable};
use crate::load::LoadError;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

/// How Qwen2 cuts a text into words: contractions, letters with a sign in front, single digits, signs, line ends,
/// and white space.
const QWEN2_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const END: &str = "<|endoftext|>";

/// A kind of byte-level BPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Gpt2,
    GptNeoX,
    Qwen2,
}

/// The kinds by the names that `tokenizer_class` has, of which there is a second one with `Fast` at its end.
const CLASSES: [(&str, Class); 3] =
    [("GPT2Tokenizer", Class::Gpt2), ("GPTNeoXTokenizer", Class::GptNeoX), ("Qwen2Tokenizer", Class::Qwen2)];

/// Special tokens that have a name, in the order in which those that are new get their ids.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl Class {
    /// The kind of a model's tokenizer.
    fn of(config: &Value, model: &Value, file: &str) -> Result<Self, LoadError> {
        let model_type = model.get("model_type").and_then(Value::as_str);
        let stated = config.get("tokenizer_class").and_then(Value::as_str);
        let known = |name: &str| CLASSES.iter().find(|(class, _)| *class == name.trim_end_matches("Fast"));
        let class = match (stated, model_type) {
            (Some(name), _) => known(name).map(|(_, class)| *class),
            (None, Some("gpt2" | "opt")) => Some(Self::Gpt2),
            (None, Some("gpt_neox")) => Some(Self::GptNeoX),
            (None, Some("qwen2")) => Some(Self::Qwen2),
            (None, _) => None,
        };
        let unknown = || LoadError::TokenizerClass {
            file: file.into(),
            class: stated.map(Into::into),
            known: CLASSES.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        let class = class.ok_or_else(unknown)?;
        // Many repositories of Qwen2's family state a class that is not theirs.
        Ok(if model_type == Some("qwen2") { Self::Qwen2 } else { class })
    }

    /// What a named special token is where nothing is said.
    fn default(self, name: &str) -> Option<&'static str> {
        match (self, name) {
            (Self::Gpt2 | Self::GptNeoX, "bos_token" | "eos_token" | "unk_token") => Some(END),
            (Self::GptNeoX, "pad_token") => Some("<|padding|>"),
            (Self::Qwen2, "eos_token" | "unk_token" | "pad_token") => Some(END),
            (Self::Gpt2 | Self::GptNeoX | Self::Qwen2, _) => None,
        }
    }
}

/// What the files beside `vocab.json` say.
#[derive(Clone, Debug)]
pub struct Special {
    class: Class,
    prefix_space: bool,
    /// Tokens beside the vocabulary, by id.
    added: BTreeMap<u32, AddedToken>,
    /// Special tokens, in the order in which those that are new get their ids.
    special: Vec<AddedToken>,
    /// The token in front of a text, where one is put.
    front: Option<String>,
    named: Named,
}

impl Special {
    /// Reads `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, as far as they are there.
    pub(super) fn read(find: &Find<'_>, model: &Value) -> Result<Self, LoadError> {
        let file = |name: &str| -> Result<(String, Value), LoadError> {
            match find(name)? {
                Some(path) => Ok((path.display().to_string(), read_json(&path)?)),
                None => Ok((name.to_owned(), Value::Null)),
            }
        };
        let (name, config) = file("tokenizer_config.json")?;
        let class = Class::of(&config, model, &name)?;
        let mut keys = config.as_object().cloned().unwrap_or_default();
        let added = match keys.get("added_tokens_decoder") {
            Some(tokens) => decoder(tokens, &name)?,
            // Only where the tokens are not in one place yet.
            None => {
                let map = file("special_tokens_map.json")?.1;
                keys.extend(map.as_object().cloned().unwrap_or_default());
                let (name, tokens) = file("added_tokens.json")?;
                encoder(&tokens, &special_texts(class, &keys), &name)?
            }
        };
        let flag = |key: &str| keys.get(key).and_then(Value::as_bool) == Some(true);
        let front = if flag("add_bos_token") { named(class, &keys, "bos_token") } else { None };
        let prefix_space = flag("add_prefix_space");
        let text = |name: &str| named(class, &keys, name).map(|token| token.content);
        let own = Named { bos: text("bos_token"), eos: text("eos_token") };
        let front = front.map(|token| token.content);
        Ok(Self { class, prefix_space, added, special: special(class, &keys), front, named: own })
    }
}

impl Special {
    /// What the tokens that begin and end a text are called.
    pub(super) fn named(&self) -> Named {
        self.named.clone()
    }
}

/// A token, written as a text or as an object with its content and how it is found.
fn token(value: &Value, special: bool) -> Option<AddedToken> {
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let content = value.as_str().or_else(|| value.get("content")?.as_str())?;
    let special = flag("special").unwrap_or(special);
    let token = AddedToken::from(content, special)
        .normalized(flag("normalized").unwrap_or(!special))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .single_word(flag("single_word").unwrap_or(false));
    Some(token)
}

/// A named special token, which `null` switches off.
fn named(class: Class, keys: &Map<String, Value>, name: &str) -> Option<AddedToken> {
    match keys.get(name) {
        Some(value) => token(value, true),
        None => class.default(name).map(|text| AddedToken::from(text, true)),
    }
}

/// All special tokens: those with a name, those that only some models have a name for, and those without one.
fn special(class: Class, keys: &Map<String, Value>) -> Vec<AddedToken> {
    let own = keys.iter().filter(|(key, value)| {
        key.ends_with("_token") && !NAMED.contains(&key.as_str()) && (value.is_string() || value.is_object())
    });
    let lists = ["extra_special_tokens", "additional_special_tokens"].map(|key| keys.get(key));
    // The newer name counts where both are there.
    let list = lists.into_iter().flatten().find(|list| !list.is_null());
    let of_list: Vec<&Value> = match list {
        Some(Value::Array(list)) => list.iter().collect(),
        Some(Value::Object(list)) => list.values().collect(),
        Some(_) | None => Vec::new(),
    };
    let named = NAMED.iter().filter_map(|name| named(class, keys, name));
    let others = own.map(|(_, value)| value).chain(of_list).filter_map(|value| token(value, true));
    named.chain(others).map(|token| token.special(true)).collect()
}

fn special_texts(class: Class, keys: &Map<String, Value>) -> Vec<String> {
    special(class, keys).into_iter().map(|token| token.content).collect()
}

/// `added_tokens_decoder`: `{ "151643": { "content": "<|endoftext|>", … } }`.
fn decoder(tokens: &Value, file: &str) -> Result<BTreeMap<u32, AddedToken>, LoadError> {
    let bad = || unusable(file, &"its `added_tokens_decoder` is no object of ids and tokens");
    let entry = |(id, value): (&String, &Value)| Some((id.parse().ok()?, token(value, false)?));
    let tokens = tokens.as_object().ok_or_else(bad)?;
    tokens.iter().map(|item| entry(item).ok_or_else(bad)).collect()
}

/// `added_tokens.json`: `{ "<|im_start|>": 151644 }`; nothing where there is no such file.
fn encoder(tokens: &Value, special: &[String], file: &str) -> Result<BTreeMap<u32, AddedToken>, LoadError> {
    let bad = || unusable(file, &"it is no object of tokens and ids");
    let entry = |(text, id): (&String, &Value)| {
        let id = u32::try_from(id.as_u64()?).ok()?;
        Some((id, AddedToken::from(text.as_str(), special.contains(text))))
    };
    match tokens {
        Value::Null => Ok(BTreeMap::new()),
        tokens => tokens.as_object().ok_or_else(bad)?.iter().map(|item| entry(item).ok_or_else(bad)).collect(),
    }
}

/// Builds the tokenizer of a vocabulary and its merges, which are the texts of the two files.
pub(super) fn byte_level(vocab: &str, merges: &str, special: &Special, file: &str) -> Result<Tokenizer, LoadError> {
    let vocab: HashMap<String, u32> =
        serde_json::from_str(vocab).map_err(|source| LoadError::Json { file: file.into(), source })?;
    let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let pair = |line: &str| {
        let (left, right) = line.split_once(' ').filter(|(_, right)| !right.contains(' '))?;
        Some((left.to_owned(), right.to_owned()))
    };
    let bad = |line: &str| unusable(file, &format!("`{}` of merges.txt is no pair of tokens", line.escape_debug()));
    let merges = lines.map(|line| pair(line).ok_or_else(|| bad(line))).collect::<Result<Vec<_>, _>>()?;
    let error = |error: tokenizers::Error| unusable(file, &error);
    let model = BPE::builder().vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges);
    let mut tokenizer = Tokenizer::new(model.build().map_err(error)?);
    match special.class {
        Class::Gpt2 | Class::GptNeoX => {
            tokenizer.with_pre_tokenizer(Some(ByteLevel::new(special.prefix_space, true, true)));
        }
        Class::Qwen2 => {
            let words = SplitPattern::Regex(QWEN2_WORDS.into());
            let words = Split::new(words, SplitDelimiterBehavior::Isolated, false).map_err(error)?;
            let bytes = ByteLevel::new(special.prefix_space, true, false);
            tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()])));
        }
    }
    match special.class {
        Class::Gpt2 => {}
        Class::GptNeoX | Class::Qwen2 => drop(tokenizer.with_normalizer(Some(NFC))),
    }
    tokenizer.with_decoder(Some(ByteLevel::default()));
    add(&mut tokenizer, special, file)?;
    if let Some(front) = &special.front {
        let id = tokenizer.token_to_id(front).ok_or_else(|| unusable(file, &format!("it has no token `{front}`")))?;
        let template = TemplateProcessing::builder()
            .try_single(format!("{front} $A"))
            .map_err(|e| unusable(file, &e))?
            .special_tokens(vec![(front.clone(), id)])
            .build()
            .map_err(|error| unusable(file, &error))?;
        tokenizer.with_post_processor(Some(template));
    }
    Ok(tokenizer)
}

/// Registers the tokens beside the vocabulary, which must get the ids that the files state.
fn add(tokenizer: &mut Tokenizer, special: &Special, file: &str) -> Result<(), LoadError> {
    let new = |token: &&AddedToken| !special.added.values().any(|added| added.content == token.content);
    let tokens: Vec<AddedToken> = special.added.values().chain(special.special.iter().filter(new)).cloned().collect();
    for token in tokens {
        match token.special {
            true => tokenizer.add_special_tokens(&[token]),
            false => tokenizer.add_tokens(&[token]),
        };
    }
    for (id, token) in &special.added {
        let given = tokenizer.token_to_id(&token.content);
        if given != Some(*id) {
            let given = given.map_or("none".to_owned(), |id| id.to_string());
            let text = &token.content;
            let message =
                format!("the added token `{text}` has id {id} in its files, but {given} after the vocabulary");
            return Err(unusable(file, &message));
        }
    }
    Ok(())
}

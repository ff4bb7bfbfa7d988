//! Texts and tokens: reads a folder, trains the byte-level BPE tokenizer, draws training windows, cuts the held-out
//! text into evaluation windows and samples calibration passages. Knows nothing about the model.

use std::ops::Range;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use crate::{Result, read_text};

/// Special tokens in the order of their ids.
const SPECIAL_TOKENS: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];

/// `</s>`: OPT puts it before every text, and ends one with it.
pub const BOS: u32 = 2;
/// `<pad>`.
pub const PAD: u32 = 1;

/// What the program reads: the texts to learn from and the one to be judged by.
pub struct Texts {
    /// Training texts, in the order of their file names.
    pub train: Vec<String>,
    /// The held-out text.
    pub held_out: String,
}

impl Texts {
    /// Reads every `.txt` file of `dir`; `held_out` is the file name (not the path) of the held-out text.
    pub fn read(dir: &Path, held_out: &str) -> Result<Self> {
        let entries = std::fs::read_dir(dir).map_err(|e| format!("cannot list `{}`: {e}", dir.display()))?;
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == "txt"));
        paths.sort();
        let Some(index) = paths.iter().position(|path| path.file_name() == Some(held_out.as_ref())) else {
            return Err(format!("no `{held_out}` in `{}`; name one of its `.txt` files", dir.display()).into());
        };
        let held_out = strip_boilerplate(&read_text(&paths.remove(index))?);
        let train = paths.iter().map(|path| Ok(strip_boilerplate(&read_text(path)?))).collect::<Result<Vec<_>>>()?;
        if train.is_empty() {
            return Err(format!("`{}` holds no other `.txt` file to train on", dir.display()).into());
        }
        Ok(Self { train, held_out })
    }

    /// About `count * bytes` bytes of training text: whole-line passages from the heads of `count` equal slices of it.
    pub fn calibration(&self, count: usize, bytes: usize) -> String {
        let all = self.train.join("\n\n");
        let stride = all.len() / count;
        let passages = (0..count).map(|i| {
            let start = next_line(&all, i * stride);
            all[start..next_line(&all, start + bytes)].trim_matches('\n')
        });
        passages.collect::<Vec<_>>().join("\n\n") + "\n"
    }
}

/// First start of a line at or after byte `from`.
fn next_line(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let found = bytes.iter().skip(from.saturating_sub(1)).position(|&byte| byte == b'\n');
    match (from, found) {
        (0, _) => 0,
        (_, Some(offset)) => from + offset,
        (_, None) => bytes.len(),
    }
}

/// Drops what Project Gutenberg puts around a text, and carriage returns.
fn strip_boilerplate(text: &str) -> String {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let marker = |line: &str, word: &str| line.starts_with("***") && line.contains(word) && line.contains("GUTENBERG");
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().position(|line| marker(line, "START OF")).map_or(0, |i| i + 1);
    let end = lines.iter().position(|line| marker(line, "END OF")).unwrap_or(lines.len());
    lines.get(start..end).unwrap_or_default().join("\n").trim().to_owned() + "\n"
}

/// Trains a byte-level BPE vocabulary of `vocab_size` tokens, special tokens and the 256 bytes included.
pub fn train_tokenizer(texts: &[String], vocab_size: usize) -> Result<Tokenizer> {
    let byte_level = ByteLevel::default().add_prefix_space(false);
    let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
        .vocab_size(vocab_size)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)).to_vec())
        .build()
        .into();
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
    tokenizer.train(&mut trainer, texts.iter())?;
    let template = TemplateProcessing::builder()
        .try_single("</s> $A")?
        .try_pair("</s> $A </s> $B")?
        .special_tokens(vec![("</s>", BOS)])
        .build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

/// `tokenizer_config.json`, what Hugging Face's `AutoTokenizer` reads beside `tokenizer.json`.
pub fn tokenizer_config(max_length: usize) -> serde_json::Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "bos_token": "</s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": false,
    })
}

/// Token ids of one text after its leading `</s>`.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    Ok(tokenizer.encode_fast(text, true)?.get_ids().to_vec())
}

/// One batch, row-major `[rows, length]`; `targets` are `inputs` moved one token to the left.
pub struct Batch {
    /// Input ids.
    pub inputs: Vec<i32>,
    /// Ids to predict.
    pub targets: Vec<i32>,
    /// Number of sequences.
    pub rows: usize,
}

/// Draws training windows at random places of the training tokens.
pub struct Sampler {
    tokens: Vec<u32>,
    length: usize,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// `tokens`: all training texts, one after the other.
    pub fn new(tokens: Vec<u32>, length: usize, seed: u64) -> Result<Self> {
        if tokens.len() <= length {
            return Err(format!("{} training tokens are too few for windows of {length}", tokens.len()).into());
        }
        Ok(Self { tokens, length, rng: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// A batch of `rows` windows.
    pub fn batch(&mut self, rows: usize) -> Batch {
        let mut batch = Batch { inputs: Vec::new(), targets: Vec::new(), rows };
        for row in 0..rows {
            let start = (self.rng.next_u64() % (self.tokens.len() - self.length) as u64) as usize;
            let mut window = self.tokens[start..=start + self.length].to_vec();
            // A prompt is `</s>` and then the middle of something: every second window looks like one.
            if row % 2 == 0 {
                window[0] = BOS;
            }
            batch.push(&window);
        }
        batch
    }
}

impl Batch {
    fn push(&mut self, window: &[u32]) {
        let ids = window.iter().map(|&id| id as i32);
        self.inputs.extend(ids.clone().take(window.len() - 1));
        self.targets.extend(ids.skip(1));
    }
}

/// Non-overlapping windows of a text for evaluation, each scored on its own: of `n` tokens the last `n - 1`.
pub struct EvalBatch {
    /// `length` tokens a row; the last target of each row and all that follow a text's end are padding.
    pub batch: Batch,
    /// Positions of the flattened batch that count.
    pub scored: Vec<Range<usize>>,
}

/// Cuts `tokens` into windows of `length` and groups them `rows` at a time; the last group is filled with padding,
/// so that all batches have one shape.
pub fn eval_batches(tokens: &[u32], length: usize, rows: usize) -> Vec<EvalBatch> {
    let windows: Vec<&[u32]> = tokens.chunks(length).collect();
    let groups = windows.chunks(rows).map(|group| {
        let mut batch = Batch { inputs: Vec::new(), targets: Vec::new(), rows };
        for row in 0..rows {
            let mut window = group.get(row).map_or(vec![], |window| window.to_vec());
            window.resize(length + 1, PAD);
            batch.push(&window);
        }
        let scored = group.iter().enumerate().map(|(row, window)| row * length..row * length + window.len() - 1);
        EvalBatch { batch, scored: scored.collect() }
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boilerplate_and_carriage_returns_go() {
        let text = "Header\r\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\r\n\r\nBody.\r\n\
                    *** END OF THE PROJECT GUTENBERG EBOOK X ***\r\n";
        assert_eq!(strip_boilerplate(text), "Body.\n");
        assert_eq!(strip_boilerplate("*** Body.\nEND OF it"), "*** Body.\nEND OF it\n");
    }

    #[test]
    fn next_line_finds_line_starts() {
        assert_eq!([0, 1, 3, 4, 6, 99].map(|from| next_line("ab\ncd\n", from)), [0, 3, 3, 6, 6, 6]);
    }

    #[test]
    fn calibration_is_whole_lines_from_all_over() {
        let train = vec!["one one\ntwo two\n".to_owned(), "three é\nfour\n".to_owned()];
        let passages = Texts { train, held_out: String::new() }.calibration(2, 3);
        assert_eq!(passages, "one one\n\nthree é\n");
    }

    #[test]
    fn eval_batches_score_every_token_but_the_first_of_a_window() {
        let batches = eval_batches(&[2, 10, 11, 12, 13, 14, 15, 16], 3, 2);
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0].batch.inputs, [2, 10, 11, 12, 13, 14]);
        assert_eq!(batches[0].scored, [0..2, 3..5]);
        assert_eq!(batches[1].batch.targets, [16, 1, 1, 1, 1, 1]);
        assert!(matches!(batches[1].scored[..], [Range { start: 0, end: 1 }]));
    }

    #[test]
    fn tokenizer_starts_texts_and_gives_them_back() {
        let tokenizer = train_tokenizer(&["the cat sat on the mat, the cat sat".to_owned()], 264).unwrap();
        let ids = encode(&tokenizer, "the hat é").unwrap();
        assert_eq!(ids[0], BOS);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "the hat é");
        assert_eq!(tokenizer.token_to_id("<pad>"), Some(PAD));
        assert_eq!(tokenizer.get_vocab_size(true), 264);
    }

    #[test]
    fn targets_follow_inputs() {
        let batch = Sampler::new((100..140).collect(), 8, 0).unwrap().batch(4);
        for row in 0..4 {
            let (inputs, targets) = (&batch.inputs[row * 8..][..8], &batch.targets[row * 8..][..8]);
            assert_eq!(inputs[1..], targets[..7]);
            assert_eq!(inputs[0] == BOS as i32, row % 2 == 0);
        }
    }
}

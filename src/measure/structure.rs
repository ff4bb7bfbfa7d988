//! How large a model is, module by module: parameters, operations, bytes.

use crate::model::{Architecture, Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a variant stores for one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Weights other than zero.
    pub nonzero: u64,
    /// Biases other than zero.
    pub nonzero_bias: u64,
    /// Bytes of the weight in its format, without the bias.
    pub weight_bytes: u64,
    /// Entries that a sparse kernel works on; none for a dense one.
    pub entries: Option<u64>,
    /// The format's name.
    pub format: String,
}

/// A row of `layers.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerRow {
    /// The Hugging Face name.
    #[serde(with = "shared")]
    #[schemars(with = "String")]
    pub module_name: Arc<str>,
    /// The module's group.
    #[serde(with = "shared")]
    #[schemars(with = "String")]
    pub group: Arc<str>,
    /// Parameters other than zero, bias included.
    pub nonzero: u64,
    /// Parameters, bias included.
    pub total: u64,
    /// The weight's shape, where it has two dimensions.
    pub shape: Option<[usize; 2]>,
    /// 2 · out · in for a dense linear, 2 · entries for a sparse one, else 0; of an expert times the share of tokens
    /// that pass it on average.
    pub flops_per_token: u64,
    /// Bytes stored, bias included.
    pub bytes: u64,
    /// How the weight is stored.
    #[serde(with = "shared")]
    #[schemars(with = "String")]
    pub format: Arc<str>,
    /// Whether another row counts the same weight: such a row is left out of totals.
    pub tied: bool,
}

/// Words that the rows of all cells have in common: those of a file that a thread has met before are kept once.
mod shared {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::cell::RefCell;
    use std::collections::HashSet;
    use std::sync::Arc;

    /// More words than models have modules; a file of others may have any.
    const MOST: usize = 100_000;

    thread_local! {
        static WORDS: RefCell<HashSet<Arc<str>>> = RefCell::new(HashSet::new());
    }

    pub fn serialize<S: Serializer>(word: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(WORDS.with_borrow_mut(|words| match words.get(word.as_str()) {
            Some(known) => known.clone(),
            None => {
                let word: Arc<str> = word.into();
                if words.len() < MOST {
                    words.insert(word.clone());
                }
                word
            }
        }))
    }
}

/// How large a model is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Structure {
    /// Parameters other than zero, each counted once.
    pub nonzero: u64,
    /// Parameters, each counted once.
    pub total: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// One row a module, in the model's order.
    pub layers: Vec<LayerRow>,
}

impl Structure {
    /// 1 − nonzero / total
    pub fn sparsity(&self) -> f64 {
        1.0 - self.nonzero as f64 / self.total as f64
    }
}

/// Adds a model up; `stored` has one entry a module, `bytes_per_number` is the dtype's.
pub fn structure(architecture: &Architecture, stored: &[Stored], bytes_per_number: u64) -> Structure {
    let rows = architecture.modules.iter().zip(stored).map(|(module, stored)| {
        let weights = module.weights() as u64;
        let flops = match (module.kind, stored.entries) {
            // A token passes some of the experts: each is used by so many of all tokens on average.
            (Kind::Linear | Kind::Router, entries) => {
                2 * entries.unwrap_or(weights) * module.used[0] as u64 / module.used[1] as u64
            }
            (Kind::Embedding | Kind::Norm, _) => 0,
        };
        LayerRow {
            module_name: module.name.as_str().into(),
            group: module.group.name().into(),
            nonzero: stored.nonzero + stored.nonzero_bias,
            total: weights + module.biases() as u64,
            shape: match module.shape[..] {
                [rows, cols] => Some([rows, cols]),
                _ => None,
            },
            flops_per_token: flops,
            bytes: stored.weight_bytes + module.biases() as u64 * bytes_per_number,
            format: stored.format.as_str().into(),
            tied: module.tied_to.is_some(),
        }
    });
    let layers: Vec<LayerRow> = rows.collect();
    let mut sums = Structure { nonzero: 0, total: 0, bytes: 0, layers };
    for ((module, stored), row) in architecture.modules.iter().zip(stored).zip(&sums.layers) {
        // Of a head that shares its weight, a bias is its own.
        let biases = module.biases() as u64;
        let own = match row.tied {
            true => [stored.nonzero_bias, biases, biases * bytes_per_number],
            false => [row.nonzero, row.total, row.bytes],
        };
        sums.nonzero += own[0];
        sums.total += own[1];
        sums.bytes += own[2];
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Phi's head has a bias; `sum(p.numel() for p in model.parameters())` of transformers 5.24 counts it once more than
    /// the table: `PhiConfig(hidden_size=8, intermediate_size=20, vocab_size=512, num_attention_heads=2,
    /// num_hidden_layers=1)` has 9372 parameters, 5276 of them where `tie_word_embeddings` is true.
    #[test]
    fn the_bias_of_a_tied_head_counts() {
        for (tied, parameters) in [(true, 5276), (false, 9372)] {
            let config = serde_json::json!({
                "model_type": "phi", "vocab_size": 512, "hidden_size": 8, "intermediate_size": 20,
                "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
                "tie_word_embeddings": tied,
            });
            let architecture = crate::model::architecture(&config).unwrap();
            let stored = |module: &crate::model::Module| Stored {
                nonzero: module.weights() as u64,
                nonzero_bias: module.biases() as u64,
                weight_bytes: 4 * module.weights() as u64,
                entries: None,
                format: "dense".into(),
            };
            let stored: Vec<Stored> = architecture.modules.iter().map(stored).collect();
            let found = structure(&architecture, &stored, 4);
            assert_eq!((found.nonzero, found.total, found.bytes), (parameters, parameters, 4 * parameters));
            assert_eq!(architecture.parameters() as u64, parameters);
        }
    }
}

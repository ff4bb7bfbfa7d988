//! Writes a model as a Hugging Face folder: `config.json` and `model.safetensors` in f16, under OPT's tensor names.

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use half::f16;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

use crate::data::{BOS, PAD};
use crate::model::{INIT_STD, Opt, OptConfig};
use crate::{Result, write};

/// `config.json` as `OPTConfig` reads it.
pub fn config_json(config: &OptConfig) -> Value {
    json!({
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "torch_dtype": "float16",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "word_embed_proj_dim": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "ffn_dim": config.ffn_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "activation_function": "relu",
        "do_layer_norm_before": true,
        "enable_bias": true,
        "layer_norm_elementwise_affine": true,
        "tie_word_embeddings": true,
        "dropout": config.dropout,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "init_std": INIT_STD,
        "use_cache": true,
        "bos_token_id": BOS,
        "eos_token_id": BOS,
        "pad_token_id": PAD,
    })
}

/// Writes `model.safetensors` into `dir`.
pub fn save<B: Backend>(model: &Opt<B>, dir: &Path) -> Result<()> {
    let mut collector = Collector { path: vec!["model".into(), "decoder".into()], tensors: Vec::new() };
    model.visit(&mut collector);
    let views = collector
        .tensors
        .iter()
        .map(|tensor| Ok((tensor.name.as_str(), TensorView::new(Dtype::F16, tensor.shape.clone(), &tensor.bytes)?)));
    // Older readers refuse a file that doesn't name its framework.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata))?;
    write(&dir.join("model.safetensors"), &bytes)
}

struct NamedTensor {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Follows the model's fields down to its parameters; the path of fields is the tensor's name.
struct Collector {
    path: Vec<String>,
    tensors: Vec<NamedTensor>,
}

impl<B: Backend> ModuleVisitor<B> for Collector {
    fn enter_module(&mut self, name: &str, _container: &str) {
        // Burn and PyTorch name a LayerNorm's parameters differently.
        self.path.push(match name {
            "gamma" => "weight".to_owned(),
            "beta" => "bias".to_owned(),
            other => other.to_owned(),
        });
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let data: TensorData = param.val().into_data();
        let values = data.iter::<f32>();
        self.tensors.push(NamedTensor {
            name: self.path.join("."),
            shape: data.shape.to_vec(),
            bytes: values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        });
    }
}

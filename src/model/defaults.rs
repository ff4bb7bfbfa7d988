//! What a configuration may leave out: the value that the library of the checkpoints takes, and how large sizes may be.
//! Families that came later have their keys in their own files.
//!
//! Source of every value: the configuration classes of transformers 5.24 (`LlamaConfig` and its kin), which wrote
//! these files and reads them so. Knows no file and no network.

/// What a key is where a configuration leaves it out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Absent {
    /// A positive whole number.
    Size(usize),
    /// What another key says.
    As(&'static str),
    /// Four times what another key says.
    FourTimes(&'static str),
    /// A number.
    Number(f64),
    /// A truth value.
    Flag(bool),
    /// A string.
    Text(&'static str),
}

/// A key of a family's configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Its name.
    pub name: &'static str,
    /// A second name that the library takes for it.
    pub other: Option<&'static str>,
    /// What it is where it is left out.
    pub absent: Absent,
    /// What it is where it is `null`, if that is something else.
    pub null: Option<Absent>,
}

use Absent::{As, Flag, FourTimes, Number, Size, Text};

pub(super) const fn key(name: &'static str, absent: Absent) -> Key {
    Key { name, other: None, absent, null: None }
}

pub(super) const fn named(name: &'static str, other: &'static str, absent: Absent) -> Key {
    Key { other: Some(other), ..key(name, absent) }
}

pub(super) const GPT2: &[Key] = &[
    key("vocab_size", Size(50_257)),
    named("n_positions", "max_position_embeddings", Size(1024)),
    named("n_embd", "hidden_size", Size(768)),
    named("n_layer", "num_hidden_layers", Size(12)),
    named("n_head", "num_attention_heads", Size(12)),
    key("n_inner", FourTimes("n_embd")),
    key("activation_function", Text("gelu_new")),
    key("layer_norm_epsilon", Number(1e-5)),
    key("scale_attn_weights", Flag(true)),
    key("scale_attn_by_inverse_layer_idx", Flag(false)),
    key("tie_word_embeddings", Flag(true)),
];

pub(super) const GPT_NEOX: &[Key] = &[
    key("vocab_size", Size(50_432)),
    key("hidden_size", Size(6144)),
    key("num_hidden_layers", Size(44)),
    key("num_attention_heads", Size(64)),
    key("intermediate_size", Size(24_576)),
    key("hidden_act", Text("gelu")),
    key("max_position_embeddings", Size(2048)),
    key("layer_norm_eps", Number(1e-5)),
    key("use_parallel_residual", Flag(true)),
    key("attention_bias", Flag(true)),
    key("tie_word_embeddings", Flag(false)),
    key("rotary_pct", Number(0.25)),
    key("rotary_emb_base", Number(10_000.0)),
];

pub(super) const LLAMA: &[Key] = &[
    key("vocab_size", Size(32_000)),
    key("hidden_size", Size(4096)),
    key("intermediate_size", Size(11_008)),
    key("num_hidden_layers", Size(32)),
    key("num_attention_heads", Size(32)),
    key("num_key_value_heads", As("num_attention_heads")),
    key("hidden_act", Text("silu")),
    key("max_position_embeddings", Size(2048)),
    key("rms_norm_eps", Number(1e-6)),
    key("attention_bias", Flag(false)),
    key("mlp_bias", Flag(false)),
    key("tie_word_embeddings", Flag(false)),
    key("rope_theta", Number(10_000.0)),
];

pub(super) const MISTRAL: &[Key] = &[
    key("vocab_size", Size(32_000)),
    key("hidden_size", Size(4096)),
    key("intermediate_size", Size(14_336)),
    key("num_hidden_layers", Size(32)),
    key("num_attention_heads", Size(32)),
    Key { null: Some(As("num_attention_heads")), ..key("num_key_value_heads", Size(8)) },
    key("hidden_act", Text("silu")),
    key("max_position_embeddings", Size(131_072)),
    key("rms_norm_eps", Number(1e-6)),
    // `null` means none, which its reader sees to.
    key("sliding_window", Size(4096)),
    key("tie_word_embeddings", Flag(false)),
    key("rope_theta", Number(10_000.0)),
];

pub(super) const OPT: &[Key] = &[
    key("vocab_size", Size(50_272)),
    key("hidden_size", Size(768)),
    key("num_hidden_layers", Size(12)),
    key("num_attention_heads", Size(12)),
    key("ffn_dim", Size(3072)),
    key("max_position_embeddings", Size(2048)),
    key("word_embed_proj_dim", As("hidden_size")),
    key("activation_function", Text("relu")),
    key("do_layer_norm_before", Flag(true)),
    key("_remove_final_layer_norm", Flag(false)),
    key("layer_norm_elementwise_affine", Flag(true)),
    key("enable_bias", Flag(true)),
    key("tie_word_embeddings", Flag(true)),
];

pub(super) const QWEN2: &[Key] = &[
    key("vocab_size", Size(151_936)),
    key("hidden_size", Size(4096)),
    key("intermediate_size", Size(22_016)),
    key("num_hidden_layers", Size(32)),
    key("num_attention_heads", Size(32)),
    Key { null: Some(As("num_attention_heads")), ..key("num_key_value_heads", Size(32)) },
    key("hidden_act", Text("silu")),
    key("max_position_embeddings", Size(32_768)),
    key("rms_norm_eps", Number(1e-6)),
    key("use_sliding_window", Flag(false)),
    key("max_window_layers", Size(28)),
    key("tie_word_embeddings", Flag(false)),
    key("rope_theta", Number(10_000.0)),
];

/// The largest sizes that are believed, many times those of any published model: a configuration must not make us
/// reserve memory that no checkpoint could fill.
pub(super) const LIMITS: &[(&str, usize)] = &[
    ("hidden_size", 1 << 20),
    ("n_embd", 1 << 20),
    ("word_embed_proj_dim", 1 << 20),
    ("intermediate_size", 1 << 22),
    ("ffn_dim", 1 << 22),
    ("n_inner", 1 << 22),
    ("num_hidden_layers", 10_000),
    ("n_layer", 10_000),
    ("num_attention_heads", 1 << 14),
    ("num_key_value_heads", 1 << 14),
    ("n_head", 1 << 14),
    ("head_dim", 1 << 14),
    ("vocab_size", 1 << 24),
    ("max_position_embeddings", 1 << 28),
    ("n_positions", 1 << 28),
    ("sliding_window", 1 << 28),
    ("seq_length", 1 << 28),
    ("num_kv_heads", 1 << 14),
    ("ffn_hidden_size", 1 << 22),
    ("moe_intermediate_size", 1 << 22),
    ("num_local_experts", 1 << 12),
    ("num_experts", 1 << 12),
    ("num_experts_per_tok", 1 << 12),
];

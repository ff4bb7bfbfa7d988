//! What can be measured, and the columns of `summary.csv` that show it.
//!
//! ```text
//!   Metric        a group of numbers, a word of `metrics`       reads  Reads: what it runs on
//!   MetricColumn  a number of a cell, a column of the summary   of     the metric that measures it
//! ```
//! Where a cell has a column's number is `record`'s business, how it comes to be `measure`'s.

use crate::keyword::{UnknownKeyword, keywords};

keywords! {
    /// A group of numbers that is measured together.
    Metric "metric" {
        Structure "structure" "non-zero weights, sparsity and stored bytes, per layer and in total",
        Agreement "agreement" "how often and how closely the predictions are the dense model's",
        Perplexity "perplexity" "exp of the mean negative log-likelihood of a text",
        BitsPerByte "bits_per_byte" "negative log-likelihood of a text for each byte of it, which compares models that split a text differently",
        Tasks "tasks" "zero-shot tasks: how often the right choice is the likeliest, item by item",
        Latency "latency" "time of a prompt and of every token generated after it, with a KV cache",
    }
}

/// What a metric runs on, which decides its numbers beside the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// The weights alone.
    Weights,
    /// The texts of `data.agreement`.
    AgreementTexts,
    /// The windows of `data.perplexity`.
    PerplexityText,
    /// These windows, and how many bytes of the text they are.
    PerplexityBytes,
    /// The items of `[tasks]`.
    Tasks,
    /// Prompts of its own, and the clock.
    Clock,
}

impl Reads {
    /// Whether one pass over the windows of `data.perplexity` gives it.
    pub const fn perplexity_text(self) -> bool {
        match self {
            Self::PerplexityText | Self::PerplexityBytes => true,
            Self::Weights | Self::AgreementTexts | Self::Tasks | Self::Clock => false,
        }
    }
}

impl Metric {
    /// What it runs on.
    pub const fn reads(self) -> Reads {
        match self {
            Self::Structure => Reads::Weights,
            Self::Agreement => Reads::AgreementTexts,
            Self::Perplexity => Reads::PerplexityText,
            Self::BitsPerByte => Reads::PerplexityBytes,
            Self::Tasks => Reads::Tasks,
            Self::Latency => Reads::Clock,
        }
    }
}

keywords! {
    /// A number of a cell, as `summary.csv` has it.
    MetricColumn "column" {
        Nonzero "nonzero" "parameters other than zero of the whole model",
        Total "total" "parameters of the whole model, each counted once",
        Sparsity "sparsity" "share of zeros among all parameters of the model: 1 - nonzero / total",
        SizeMb "size_mb" "stored bytes of the whole model, in MiB",
        ComputeRatio "compute_ratio" "nonzero over the dense model's nonzero",
        Top1Match "top1_match" "share of positions whose most likely token is the dense model's",
        Top5Overlap "top5_overlap" "mean share of common tokens among the five most likely",
        KlNats "kl_nats" "mean divergence from the dense model's predictions, in nats",
        Perplexity "perplexity" "exp of the mean negative log-likelihood of the text",
        GateMaxAbs "gate_max_abs" "largest difference between the logits of this variant and of the masked one",
        GateMaxLogit "gate_max_logit" "largest absolute logit of the masked variant",
        Ties "ties" "weights that went or stayed only by the order of equal scores",
        LinearSparsity "linear_sparsity" "share of zeros among the weights that were to be pruned",
        BitsPerByte "bits_per_byte" "negative log-likelihood of the text in bits, for each byte that its scored tokens stand for",
    }
}

impl MetricColumn {
    /// The metric that measures it; none for what a run says about itself.
    pub const fn metric(self) -> Option<Metric> {
        match self {
            Self::Nonzero | Self::Total | Self::Sparsity | Self::LinearSparsity | Self::SizeMb | Self::ComputeRatio => {
                Some(Metric::Structure)
            }
            Self::Top1Match | Self::Top5Overlap | Self::KlNats => Some(Metric::Agreement),
            Self::Perplexity => Some(Metric::Perplexity),
            Self::BitsPerByte => Some(Metric::BitsPerByte),
            Self::GateMaxAbs | Self::GateMaxLogit | Self::Ties => None,
        }
    }
}

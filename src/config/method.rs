//! The pruning methods as the experiment file knows them: their words, which keys and scopes each takes,
//! and the values of the keys that it leaves out.
//!
//! What a method computes is none of this module's business.

use crate::config::experiment::Scope;
use crate::config::keyword::{UnknownKeyword, keywords};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

keywords! {
    /// How the weights that go are chosen.
    Method "method" {
        Magnitude "magnitude" "the weights with the smallest absolute value go",
        Random "random" "weights chosen at random go; the baseline of every other method",
        Wanda "wanda" "the smallest products of a weight and the norm of its input go, the same share of every row",
        Ria "ria" "wanda with every weight taken relative to the sums of its row and its column",
        SparseGpt "sparsegpt" "the weights that cost least go, column by column, and the columns after them make up for it",
        Admm "admm" "the best weights for a pattern that becomes sparser step by step",
        Given "given" "the weights that are 0 in the checkpoint are pruned: a model that was pruned elsewhere",
    }
}

impl Method {
    /// Whether it looks at the inputs of the layers, as a calibration text makes them.
    pub const fn calibrates(self) -> bool {
        matches!(self, Self::Wanda | Self::Ria | Self::SparseGpt | Self::Admm)
    }

    /// Whether its result depends on the seed: on what it draws, or on the calibration windows that are drawn.
    pub const fn uses_seed(self) -> bool {
        match self {
            Self::Random | Self::Wanda | Self::Ria | Self::SparseGpt | Self::Admm => true,
            Self::Magnitude | Self::Given => false,
        }
    }

    /// Within what its scores can be compared, the default first.
    pub const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Magnitude | Self::Random => &[Scope::Global, Scope::Layer, Scope::Row],
            Self::Wanda => &[Scope::Row],
            Self::Ria => &[Scope::Layer, Scope::Row],
            Self::SparseGpt | Self::Admm => &[Scope::Layer],
            Self::Given => &[],
        }
    }

    /// The keys of a `[[prune]]` block that it uses, beside `method`, `exclude` and `skip`.
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Magnitude | Self::Random => &["sparsity", "scope", "pattern"],
            Self::Wanda => &["sparsity", "scope", "pattern", "budget", "propagate"],
            Self::Ria => &["sparsity", "scope", "pattern", "budget", "propagate", "alpha"],
            Self::SparseGpt => &["sparsity", "scope", "pattern", "budget", "propagate", "damping", "blocksize"],
            Self::Admm => &["sparsity", "scope", "pattern", "budget", "propagate", "damping", "iterations"],
            Self::Given => &[],
        }
    }

    /// Whether it uses a key.
    pub fn uses(self, key: &str) -> bool {
        self.keys().contains(&key)
    }

    /// The method's own settings: those of `given` that it uses, with defaults for those left out.
    pub fn settings(self, given: &MethodSettings) -> MethodSettings {
        let (damping, blocksize) = (given.damping, given.blocksize.unwrap_or(128));
        let (iterations, alpha) = (given.iterations.unwrap_or(20), given.alpha.unwrap_or(0.5));
        MethodSettings {
            damping: self.uses("damping").then(|| damping.unwrap_or(self.default_damping())),
            blocksize: self.uses("blocksize").then_some(blocksize),
            iterations: self.uses("iterations").then_some(iterations),
            alpha: self.uses("alpha").then_some(alpha),
        }
    }

    /// What is added to the diagonal of a Hessian unless the file says otherwise, as a share of its mean.
    const fn default_damping(self) -> f64 {
        match self {
            Self::Admm => 0.1,
            _ => 0.01,
        }
    }
}

/// Settings of single methods. In a block, what the file gives; of a point, what its method uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MethodSettings {
    /// What is added to the diagonal of the Hessian, as a share of the diagonal's mean.
    pub damping: Option<f64>,
    /// Columns pruned between two updates of all columns after them.
    pub blocksize: Option<usize>,
    /// Updates of the weights.
    pub iterations: Option<usize>,
    /// The exponent of the inputs' norms.
    pub alpha: Option<f64>,
}

keywords! {
    /// How the sparsity is spread over the blocks of the model.
    Budget "budget" {
        Uniform "uniform" "every block gets the same sparsity",
        Owl "owl" "blocks with more outliers among their scores get less of it, the mean over blocks is kept",
    }
}

keywords! {
    /// Which inputs of a block calibration looks at.
    Propagate "propagate" {
        Pruned "pruned" "what the pruned blocks before it give, as the methods' papers do",
        Dense "dense" "what the dense model gives; one pass serves every method, sparsity and pattern",
    }
}

/// The parameters of `budget = "owl"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Owl {
    /// A score is an outlier when it is larger than the block's mean by this factor.
    pub m: f64,
    /// Half the largest difference between the sparsities of two blocks.
    pub lambda: f64,
}

impl Default for Owl {
    fn default() -> Self {
        Self { m: 5.0, lambda: 0.08 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_takes_a_scope_when_it_compares_scores() {
        for method in Method::ALL.iter().map(|word| word.value) {
            assert_eq!(method.uses("scope"), !method.scopes().is_empty(), "{method}");
            assert_eq!(method.uses("propagate"), method.calibrates(), "{method}");
            assert_eq!(method.uses("budget"), method.calibrates(), "{method}");
        }
    }

    #[test]
    fn a_point_has_the_settings_that_its_method_uses() {
        let given = MethodSettings { damping: Some(0.5), alpha: Some(1.0), ..Default::default() };
        assert_eq!(Method::Wanda.settings(&given), MethodSettings::default());
        assert_eq!(Method::Ria.settings(&given), MethodSettings { alpha: Some(1.0), ..Default::default() });
        assert_eq!(Method::Ria.settings(&MethodSettings::default()).alpha, Some(0.5));
        let damping = |method: Method, given: &MethodSettings| method.settings(given).damping;
        assert_eq!(damping(Method::SparseGpt, &MethodSettings::default()), Some(0.01));
        assert_eq!(damping(Method::Admm, &MethodSettings::default()), Some(0.1));
        assert_eq!(damping(Method::Admm, &given), Some(0.5));
    }
}

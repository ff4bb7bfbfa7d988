//! What a method says of itself: its word, its scopes, the keys of its own, what it looks at, and its rule.
//!
//! ```text
//!   MethodEntry ─┬─ name, help          the word of the experiment file
//!                ├─ scopes              within what its scores can be compared
//!                ├─ settings: Setting   name, help, default, least ──> schema, checks, cells, docs
//!                ├─ seeded, inputs      what its result depends on
//!                └─ rule                how it decides
//!   MethodSettings                      values of such keys: in a block those given, of a point those used
//! ```

use super::{Decided, GramStatistics, Layer, Method, PruneError, Remaining, Request, Scope};
use std::fmt;

/// A pruning method.
pub struct MethodEntry {
    /// The word of the experiment file.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Within what its scores can be compared, the default first; none where it chooses nothing.
    pub scopes: &'static [Scope],
    /// The keys that are its own.
    pub settings: &'static [Setting],
    /// Whether its result depends on the seed: on what it draws, or on the calibration windows that are drawn.
    pub seeded: bool,
    /// Whether its result depends on the weights.
    pub reads_weights: bool,
    /// What it has to know about the inputs of a layer.
    pub inputs: Needs,
    pub(super) rule: Rule,
}

/// What a method has to know about the inputs of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing: [`prune`](super::prune()) and [`decide`](super::decide) are for it.
    Nothing,
    /// The norm of every input feature: [`prune_calibrated`](super::prune_calibrated) is for it, and for what needs
    /// more.
    Norms,
    /// The products of all pairs of input features.
    Gram,
}

/// Decides from the weights of layers; the number is the place of the first of them.
pub(super) type WeightRule = fn(&[Layer<'_>], usize, &Request) -> Result<Decided, PruneError>;
/// Decides from a layer's weights and inputs.
pub(super) type InputRule = fn(&Layer<'_>, &GramStatistics, &Request) -> Result<Remaining, PruneError>;

/// How a method decides.
pub(super) enum Rule {
    Weights(WeightRule),
    Calibrated(InputRule),
}

impl MethodEntry {
    pub(super) const fn weights(
        name: &'static str,
        help: &'static str,
        scopes: &'static [Scope],
        rule: WeightRule,
    ) -> Self {
        let (inputs, rule) = (Needs::Nothing, Rule::Weights(rule));
        Self { name, help, scopes, settings: &[], seeded: false, reads_weights: true, inputs, rule }
    }

    pub(super) const fn calibrated(
        name: &'static str,
        help: &'static str,
        scopes: &'static [Scope],
        inputs: Needs,
        rule: InputRule,
    ) -> Self {
        let rule = Rule::Calibrated(rule);
        Self { name, help, scopes, settings: &[], seeded: true, reads_weights: true, inputs, rule }
    }
}

/// The value of a key of a method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SettingValue {
    /// Any number.
    Real(f64),
    /// A count.
    Count(usize),
}

/// The least value of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Least {
    /// Larger than this.
    Above(f64),
    /// This or larger.
    At(f64),
}

/// A key of the methods that list it. Methods may share one, with the same range and defaults of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// The key of a `[[prune]]` block.
    pub name: &'static str,
    /// What it means: the end of a sentence, `for METHOD: ...`.
    pub help: &'static str,
    /// Its value where the file leaves it out; a count where it takes counts.
    pub default: SettingValue,
    /// The least value that it takes.
    pub least: Least,
}

impl Setting {
    pub(super) const fn real(name: &'static str, help: &'static str, default: f64, least: Least) -> Self {
        Self { name, help, default: SettingValue::Real(default), least }
    }

    /// At least 1.
    pub(super) const fn count(name: &'static str, help: &'static str, default: usize) -> Self {
        Self { name, help, default: SettingValue::Count(default), least: Least::At(1.0) }
    }

    /// Whether it takes a value.
    pub fn takes(&self, value: SettingValue) -> bool {
        match (self.least, value.as_f64()) {
            (Least::Above(bound), value) => value > bound,
            (Least::At(bound), value) => value >= bound,
        }
    }
}

impl SettingValue {
    /// As a number, whatever it counts.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Real(number) => number,
            Self::Count(count) => count as f64,
        }
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real(number) => number.fmt(f),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// The most keys that a block can give.
const MOST: usize = 8;

/// Values of keys of methods, by name. In a block, what the file gives; of a point, what its method uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MethodSettings([Option<(&'static str, SettingValue)>; MOST]);

impl MethodSettings {
    /// With one more, or another value of one.
    #[must_use]
    pub fn with(mut self, setting: &Setting, value: SettingValue) -> Self {
        let place = self.0.iter().position(|given| given.is_none_or(|(name, _)| name == setting.name));
        if let Some(place) = place {
            self.0[place] = Some((setting.name, value));
        }
        self
    }

    /// Values of keys by their names, for tests.
    #[cfg(test)]
    pub(crate) fn given(values: &[(&str, SettingValue)]) -> Self {
        let all = settings();
        values.iter().fold(Self::default(), |given, (name, value)| {
            given.with(all.iter().find(|(setting, _)| setting.name == *name).unwrap().0, *value)
        })
    }

    /// The values, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, SettingValue)> + '_ {
        self.0.iter().copied().flatten()
    }

    /// The value of a key, if it is given.
    pub fn get(&self, name: &str) -> Option<SettingValue> {
        self.iter().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// The value of a key, or its default.
    pub(super) fn real(&self, setting: &Setting) -> f64 {
        self.get(setting.name).unwrap_or(setting.default).as_f64()
    }

    /// The value of a key that counts, or its default.
    pub(super) fn count(&self, setting: &Setting) -> usize {
        match self.get(setting.name).unwrap_or(setting.default) {
            SettingValue::Count(count) => count,
            SettingValue::Real(number) => number as usize,
        }
    }
}

impl Method {
    /// Whether it looks at the inputs of the layers, as a calibration text makes them.
    pub fn calibrates(self) -> bool {
        self.entry().inputs != Needs::Nothing
    }

    /// Whether its result depends on the seed.
    pub fn uses_seed(self) -> bool {
        self.entry().seeded
    }

    /// Within what its scores can be compared, the default first.
    pub fn scopes(self) -> &'static [Scope] {
        self.entry().scopes
    }

    /// Whether it uses a key of a `[[prune]]` block, beside `method`, `exclude` and `skip`.
    pub fn uses(self, key: &str) -> bool {
        match key {
            "sparsity" | "scope" | "pattern" => !self.scopes().is_empty(),
            "budget" | "propagate" => self.calibrates(),
            "reference" => self == Self::Given,
            own => self.entry().settings.iter().any(|setting| setting.name == own),
        }
    }

    /// The method's own settings: those of `given` that it uses, with defaults for those left out.
    pub fn settings(self, given: &MethodSettings) -> MethodSettings {
        let settings = self.entry().settings.iter();
        settings.fold(MethodSettings::default(), |all, setting| {
            all.with(setting, given.get(setting.name).unwrap_or(setting.default))
        })
    }
}

/// The keys of all methods, each once, with the methods that use it and the default of each.
pub fn settings() -> Vec<(&'static Setting, Vec<(Method, SettingValue)>)> {
    let mut all: Vec<(&'static Setting, Vec<(Method, SettingValue)>)> = Vec::new();
    for method in Method::ALL.iter().map(|word| word.value) {
        for setting in method.entry().settings {
            match all.iter_mut().find(|(known, _)| known.name == setting.name) {
                Some((_, users)) => users.push((method, setting.default)),
                None => all.push((setting, vec![(method, setting.default)])),
            }
        }
    }
    all
}

/// Declares the closed list of methods: the word of each, and the file that it is in.
macro_rules! methods {
    ($($method:ident $module:ident,)+) => {
        /// How the weights that go are chosen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Method {
            $(#[doc = concat!("See `prune/", stringify!($module), ".rs`.")] $method,)+
        }

        impl Method {
            /// Every method, in the order of documentation.
            pub const ALL: &[Keyword<Self>] = &[
                $(Keyword { value: Self::$method, name: $module::METHOD.name, help: $module::METHOD.help },)+
            ];

            /// What it says of itself.
            pub const fn entry(self) -> &'static MethodEntry {
                match self { $(Self::$method => &$module::METHOD,)+ }
            }

            /// The file's spelling.
            pub const fn name(self) -> &'static str {
                self.entry().name
            }
        }

        crate::keyword::spelled!(Method "method");
    };
}
pub(super) use methods;

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
    fn methods_that_share_a_key_agree_on_it_and_all_keys_fit_into_a_block() {
        assert!(settings().len() <= MOST);
        for (setting, users) in settings() {
            assert!(users.iter().all(|(_, default)| setting.takes(*default)), "{}", setting.name);
            for (method, _) in users {
                let own = method.entry().settings.iter().find(|own| own.name == setting.name).unwrap();
                assert_eq!((own.least, own.help), (setting.least, setting.help), "{method}: {}", setting.name);
            }
        }
    }

    #[test]
    fn a_point_has_the_settings_that_its_method_uses() {
        let given = MethodSettings::given(&[("damping", SettingValue::Real(0.5)), ("alpha", SettingValue::Real(1.0))]);
        let none = MethodSettings::default();
        assert_eq!(Method::Wanda.settings(&given), none);
        assert_eq!(Method::Ria.settings(&given).iter().collect::<Vec<_>>(), [("alpha", SettingValue::Real(1.0))]);
        assert_eq!(Method::Ria.settings(&none).get("alpha"), Some(SettingValue::Real(0.5)));
        let damping = |method: Method, given: &MethodSettings| method.settings(given).get("damping");
        assert_eq!(damping(Method::SparseGpt, &none), Some(SettingValue::Real(0.01)));
        assert_eq!(damping(Method::Admm, &none), Some(SettingValue::Real(0.1)));
        assert_eq!(damping(Method::Admm, &given), Some(SettingValue::Real(0.5)));
        let twice = MethodSettings::given(&[("alpha", SettingValue::Real(1.0)), ("alpha", SettingValue::Real(2.0))]);
        assert_eq!((twice.get("alpha"), twice.iter().count()), (Some(SettingValue::Real(2.0)), 1));
    }
}

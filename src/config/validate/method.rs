//! The keys of a `[[prune]]` block that belong to single methods.

use super::{Validator, value};
use crate::config::axis::{At, Axis};
use crate::config::experiment::{Budget, Method, MethodSettings, NmPattern, Owl, Propagate, Scope};
use crate::config::raw::RawPrune;
use crate::diagnostic::{Diagnostic, Span};
use crate::keyword::{backticked, one_of};
use crate::prune::Least;

/// What the keys say.
pub(super) struct RawSettings {
    pub settings: MethodSettings,
    pub owl: Option<Owl>,
    pub propagate: Propagate,
}

impl Validator<'_> {
    /// A key that none of the block's methods uses says something that will not happen.
    pub(super) fn keys_against_methods(&mut self, raw: &RawPrune, methods: &[At<Method>]) {
        for (key, span) in given_keys(raw) {
            if methods.iter().any(|method| method.value.uses(key)) {
                continue;
            }
            let users: Vec<&str> =
                Method::ALL.iter().filter(|word| word.value.uses(key)).map(|word| word.name).collect();
            let names: Vec<&str> = methods.iter().map(|method| method.value.name()).collect();
            self.report(
                Diagnostic::error(format!("`prune.{key}` has no effect on {}", backticked(&names)))
                    .at(span, "not used")
                    .context(methods[0].span.clone(), "the block's methods")
                    .help(format!("leave `{key}` out: it is for {}", backticked(&users))),
            );
        }
    }

    /// A scope that one of the block's methods does not know.
    pub(super) fn scopes_against_methods(&mut self, scopes: &[At<Scope>], methods: &[At<Method>]) {
        for scope in scopes {
            for method in methods.iter().filter(|method| method.value.uses("scope")) {
                let allowed = method.value.scopes();
                if allowed.contains(&scope.value) {
                    continue;
                }
                let names: Vec<&str> = allowed.iter().map(|scope| scope.name()).collect();
                let alone = match methods.len() {
                    1 => "leave `scope` out for the default".to_owned(),
                    _ => format!("give `{}` a `[[prune]]` block of its own", method.value),
                };
                self.report(
                    Diagnostic::error(format!("`{}` has no scope `{}`", method.value, scope.value))
                        .at(scope.span.clone(), one_of(&names))
                        .context(method.span.clone(), "the method")
                        .help(alone),
                );
            }
        }
    }

    /// The values of the methods' own keys.
    pub(super) fn method_settings(&mut self, raw: RawPrune, patterns: &[At<NmPattern>]) -> RawSettings {
        let owl = self.owl(&raw, patterns);
        let mut settings = MethodSettings::default();
        for (setting, At { value, span }) in &raw.settings {
            if setting.takes(*value) {
                settings = settings.with(setting, *value);
                continue;
            }
            let expected = match setting.least {
                Least::Above(bound) => format!("above {bound}"),
                Least::At(bound) => format!("at least {bound}"),
            };
            self.out_of_range(&format!("prune.{}", setting.name), span, &expected);
        }
        RawSettings { settings, owl, propagate: value(raw.propagate).unwrap_or(Propagate::Pruned) }
    }

    fn owl(&mut self, raw: &RawPrune, patterns: &[At<NmPattern>]) -> Option<Owl> {
        let budget = raw.budget.as_ref().filter(|budget| budget.value == Budget::Owl);
        let keys = [("owl_m", &raw.owl_m), ("owl_lambda", &raw.owl_lambda)];
        if budget.is_none() {
            for (key, at) in keys.into_iter().filter_map(|(key, at)| Some((key, at.as_ref()?))) {
                self.report(
                    Diagnostic::error(format!("`prune.{key}` has no effect without `budget = \"owl\"`"))
                        .at(at.span.clone(), "not used")
                        .help(format!("add `budget = \"owl\"`, or leave `{key}` out")),
                );
            }
        }
        let m = self.positive("prune.owl_m", raw.owl_m.clone());
        let lambda = self.positive("prune.owl_lambda", raw.owl_lambda.clone());
        let budget = budget?;
        if let Some(pattern) = patterns.first().filter(|_| patterns.iter().all(|at| at.value.sparsity().is_some())) {
            self.report(
                Diagnostic::error("`prune.budget` has no effect on an `N:M` pattern")
                    .at(budget.span.clone(), "not used")
                    .context(pattern.span.clone(), "fixes the sparsity of every block")
                    .help("leave `budget` out"),
            );
        }
        let default = Owl::default();
        Some(Owl { m: m.unwrap_or(default.m), lambda: lambda.unwrap_or(default.lambda) })
    }

    /// A number above 0.
    fn positive(&mut self, path: &str, key: Option<At<f64>>) -> Option<f64> {
        let At { value, span } = key?;
        if value > 0.0 {
            return Some(value);
        }
        self.out_of_range(path, &span, "above 0");
        None
    }

    fn out_of_range(&mut self, path: &str, span: &Span, expected: &str) {
        let diagnostic = Diagnostic::error(format!("`{path}` is out of range"));
        self.report(diagnostic.at(span.clone(), format!("expected a number {expected}")));
    }
}

/// The keys of a block that not every method uses, where they are given. `owl_m` and `owl_lambda` go
/// with `budget`.
fn given_keys(raw: &RawPrune) -> impl Iterator<Item = (&'static str, Span)> + '_ {
    fn one<T>(key: &Option<At<T>>) -> Option<Span> {
        key.as_ref().map(|at| at.span.clone())
    }
    fn axis<T>(key: &Option<Axis<T>>) -> Option<Span> {
        key.as_ref().map(|axis| axis.span.clone())
    }
    let keys = [
        ("sparsity", axis(&raw.sparsity)),
        ("scope", axis(&raw.scope)),
        ("pattern", axis(&raw.pattern)),
        ("budget", one(&raw.budget)),
        ("propagate", one(&raw.propagate)),
        ("reference", one(&raw.reference)),
    ];
    let own = raw.settings.iter().map(|(setting, at)| (setting.name, at.span.clone()));
    keys.into_iter().filter_map(|(key, span)| Some((key, span?))).chain(own)
}

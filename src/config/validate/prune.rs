//! The rules of `[[prune]]` blocks.

use super::count::{MAX_CELLS, MAX_GLOBS, MAX_SKIPS};
use super::method::RawSettings;
use super::{Validator, values};
use crate::config::axis::{At, Axis};
use crate::config::experiment::{Conditions, Method, NmPattern, Point, PruneBlock, Scope, same_sparsity};
use crate::config::raw::{RawPrune, RawSkip};
use crate::config::source::ModelSource;
use crate::diagnostic::{Diagnostic, Span};

/// Module names that stay dense unless the file says otherwise.
const DEFAULT_EXCLUDE: &[&str] = &["lm_head"];

impl Validator<'_> {
    pub(super) fn prune_blocks(&mut self, blocks: Vec<At<RawPrune>>) -> Vec<PruneBlock> {
        self.magnitude_among_others(&blocks);
        let block = |(index, block): (usize, At<RawPrune>)| self.prune_block(index, block);
        blocks.into_iter().enumerate().map(block).collect()
    }

    /// Magnitude competes globally by default, as in the notebooks; the papers of methods that calibrate, which all work
    /// layer by layer, compare with magnitude within a layer.
    fn magnitude_among_others(&mut self, blocks: &[At<RawPrune>]) {
        let methods = |block: &'_ At<RawPrune>| {
            block.value.method.iter().flat_map(|axis| axis.values.clone()).collect::<Vec<_>>()
        };
        let Some(other) = blocks.iter().flat_map(methods).find(|at| at.value.calibrates()) else { return };
        for block in blocks.iter().filter(|block| block.value.scope.is_none()) {
            let patterns = block.value.pattern.as_ref().map(|axis| &axis.values);
            let free = patterns.is_none_or(|all| all.iter().any(|at| at.value == NmPattern::Unstructured.to_string()));
            let all = methods(block);
            let Some(magnitude) = all.iter().find(|at| at.value == Method::Magnitude).filter(|_| free) else {
                continue;
            };
            let own = if all.len() > 1 { "give `magnitude` a `[[prune]]` block of its own with" } else { "write" };
            self.report(
                Diagnostic::warning("`magnitude` competes over the whole model here, since `scope` is missing")
                    .at(magnitude.span.clone(), "`scope` is `global` by default")
                    .context(other.span.clone(), format!("`{}` works layer by layer", other.value))
                    .help(format!(
                        "the papers of Wanda and SparseGPT compare with magnitude within each layer: {own} `scope = \"layer\"`, \
                         or `scope = \"global\"` if that is meant"
                    )),
            );
        }
    }

    fn prune_block(&mut self, index: usize, block: At<RawPrune>) -> PruneBlock {
        let At { value: mut raw, span: header } = block;
        let exact = |key: &str| format!("prune.{index}.{key}");
        let before = self.found.errors();
        if raw.method.is_none() {
            let help = "write `method = \"magnitude\"`; `sparsify-exp list methods` names them all";
            self.missing("prune.method", &exact("method"), Some(header.clone()), help);
        }
        let methods = self.axis("prune.method", raw.method.take(), &[]);
        // Nothing is known of a method that is misspelled.
        if !methods.is_empty() && !self.was_removed(&exact("method")) {
            self.keys_against_methods(&raw, &methods);
        }
        let bad_pattern = self.was_removed(&exact("pattern"));
        let patterns = self.patterns(raw.pattern.take());
        let sparsities = self.sparsities(raw.sparsity.as_ref());
        if let Some(patterns) = patterns.as_deref().filter(|_| !bad_pattern) {
            let takes_none = |at: &At<Method>| !at.value.uses("sparsity");
            let taken = methods.is_empty() || !methods.iter().all(takes_none);
            if taken && raw.sparsity.is_none() && patterns.iter().any(|at| at.value.sparsity().is_none()) {
                let help = "write for example `sparsity = 0.5`; only an `N:M` pattern fixes it";
                self.missing("prune.sparsity", &exact("sparsity"), Some(header), help);
            }
            self.pattern_against_sparsities(patterns, &sparsities);
            self.pattern_against_scope(patterns, raw.scope.as_ref());
        }
        let scopes = self.axis("prune.scope", raw.scope.take(), &[]);
        self.scopes_against_methods(&scopes, &methods);
        let exclude = self.exclude(raw.exclude.take());
        let skips = self.skips(raw.skip.take().unwrap_or_default());
        let patterns = patterns.unwrap_or_default();
        let reference = raw.reference.take().and_then(|at| self.reference(&at));
        let RawSettings { settings, owl, propagate } = self.method_settings(raw, &patterns);
        let block = PruneBlock {
            methods: values(methods),
            scopes: values(scopes),
            patterns: values(patterns),
            sparsities: values(sparsities),
            exclude,
            skip: skips.iter().map(|at| at.value.clone()).collect(),
            settings,
            owl,
            propagate,
            reference,
        };
        let prefix = exact("");
        let removed = self.removed.range(prefix.clone()..).next().is_some_and(|path| path.starts_with(&prefix));
        if self.found.errors() == before && !removed && block.size().is_some_and(|points| points <= MAX_CELLS) {
            self.idle_skips(&block, &skips);
        }
        block
    }

    fn reference(&mut self, At { value: text, span }: &At<String>) -> Option<ModelSource> {
        match text.parse::<ModelSource>() {
            Ok(source) => Some(source.relative_to(self.folder)),
            Err(error) => {
                self.bad_source("prune.reference", &error, text, span.clone());
                None
            }
        }
    }

    /// The patterns, or nothing if one is wrong: then nothing is known about the block.
    fn patterns(&mut self, axis: Option<Axis<String>>) -> Option<Vec<At<NmPattern>>> {
        let Some(axis) = axis else {
            return Some(vec![At { value: NmPattern::Unstructured, span: 0..0 }]);
        };
        let all: Vec<_> = axis.values.iter().map(|at| self.pattern("prune.pattern", at)).collect();
        let patterns = all.into_iter().collect::<Option<Vec<_>>>()?;
        Some(self.unique("prune.pattern", patterns))
    }

    fn sparsities(&mut self, axis: Option<&Axis<f64>>) -> Vec<At<f64>> {
        let given = axis.map(|axis| axis.values.as_slice()).unwrap_or_default();
        let valid = given.iter().filter_map(|at| self.sparsity("prune.sparsity", at)).collect();
        self.unique("prune.sparsity", valid)
    }

    /// An `N:M` pattern fixes the sparsity; any other one contradicts it.
    fn pattern_against_sparsities(&mut self, patterns: &[At<NmPattern>], given: &[At<f64>]) {
        let alone = patterns.iter().all(|at| at.value.sparsity().is_some());
        for pattern in patterns {
            let Some(fixed) = pattern.value.sparsity().filter(|_| !self.found.is_full()) else {
                continue;
            };
            let name = pattern.value;
            for sparsity in given.iter().filter(|at| !same_sparsity(at.value, fixed)) {
                let help = match (alone, patterns.len()) {
                    (true, 1) => format!("leave `sparsity` out, or write `sparsity = {fixed}`"),
                    (true, _) => "leave `sparsity` out: each pattern fixes its own".to_owned(),
                    (false, _) => format!("give `{name}` a `[[prune]]` block of its own"),
                };
                self.report(
                    Diagnostic::error(format!(
                        "`prune.pattern` `{name}` contradicts `prune.sparsity` {}",
                        sparsity.value
                    ))
                    .at(sparsity.span.clone(), format!("expected {fixed}"))
                    .context(pattern.span.clone(), format!("{}, which fixes the sparsity at {fixed}", name.in_words()))
                    .help(help),
                );
            }
        }
    }

    /// Weights of an `N:M` pattern compete within their group of M, whatever the scope.
    fn pattern_against_scope(&mut self, patterns: &[At<NmPattern>], scope: Option<&Axis<Scope>>) {
        let fixed = |at: &At<NmPattern>| at.value.sparsity().is_some();
        let (Some(scope), Some(pattern)) = (scope, patterns.first()) else {
            return;
        };
        if patterns.iter().all(fixed) {
            self.report(
                Diagnostic::error("`prune.scope` has no effect on an `N:M` pattern")
                    .at(scope.span.clone(), "not used")
                    .context(pattern.span.clone(), "weights compete within their group of M")
                    .help("leave `scope` out"),
            );
        }
    }

    fn exclude(&mut self, globs: Option<Vec<At<String>>>) -> Vec<String> {
        let Some(globs) = globs else {
            return DEFAULT_EXCLUDE.iter().map(|glob| (*glob).to_owned()).collect();
        };
        if !self.few_enough("prune.exclude", "globs", MAX_GLOBS, &globs) {
            return Vec::new();
        }
        for At { value: glob, span } in &globs {
            if let Err(error) = globset::Glob::new(glob) {
                self.report(
                    Diagnostic::error(format!("`prune.exclude` has no valid glob: `{glob}`"))
                        .at(span.clone(), error.kind().to_string())
                        .help("a glob is a module name with `*`, `?`, `[abc]` or `{a,b}` in it"),
                );
            }
        }
        values(self.unique("prune.exclude", globs))
    }

    fn skips(&mut self, raw: Vec<At<RawSkip>>) -> Vec<At<Conditions>> {
        if !self.few_enough("prune.skip", "entries", MAX_SKIPS, &raw) {
            return Vec::new();
        }
        raw.into_iter().filter_map(|at| self.skip(at.value, at.span)).collect()
    }

    fn skip(&mut self, raw: RawSkip, span: Span) -> Option<At<Conditions>> {
        let sparsity = raw.sparsity.as_ref().is_none_or(|at| self.sparsity("prune.skip.sparsity", at).is_some());
        let pattern = raw.pattern.as_ref().is_none_or(|at| self.pattern("prune.skip.pattern", at).is_some());
        let skip = raw.given();
        if skip == Conditions::default() {
            self.report(
                Diagnostic::error("`prune.skip` names no value")
                    .at(span, "would leave every point out")
                    .help("write for example `skip = [{ method = \"random\", sparsity = 0.7 }]`"),
            );
            return None;
        }
        (sparsity && pattern).then_some(At { value: skip, span })
    }

    /// A skip that leaves nothing out is likely a slip.
    fn idle_skips(&mut self, block: &PruneBlock, skips: &[At<Conditions>]) {
        let points = block.points();
        for At { value: skip, span } in skips {
            if !points.iter().any(|point| skip.hold(Point::KEY, point)) {
                self.report(
                    Diagnostic::warning("`prune.skip` leaves nothing out")
                        .at(span.clone(), "no point of this block has these values"),
                );
            }
        }
    }
}

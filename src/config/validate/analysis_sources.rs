//! The rules of `sources` in `[[analysis]]` blocks.

use std::path::Path;

use super::{Validator, value};
use crate::config::analysis::{AnalysisKind, SourceChoice, SourceFrom, point_name};
use crate::config::axis::At;
use crate::config::experiment::{Point, PruneBlock, same_sparsity};
use crate::config::raw::RawAnalysisSource;
use crate::config::source::WrittenPath;
use crate::diagnostic::{Diagnostic, Span};

/// What a block's sources are checked against.
pub(super) struct Surroundings<'a> {
    pub kind: AnalysisKind,
    pub prune: &'a [PruneBlock],
    pub without_model: bool,
    /// The header of the block.
    pub header: Span,
}

impl Surroundings<'_> {
    /// The points of the file that a source selects.
    fn points(&self, choice: &SourceChoice) -> Vec<Point> {
        let kept = |block: &PruneBlock, point: &Point| !block.skip.iter().any(|skip| skip.hold(Point::KEY, point));
        let all = self.prune.iter().flat_map(|block| {
            let points = block.points().into_iter();
            points.filter(move |point| kept(block, point))
        });
        all.filter(|point| choice.selects(point)).collect()
    }
}

impl SourceChoice {
    /// Whether it selects a prune point.
    pub fn selects(&self, point: &Point) -> bool {
        let &Point { method, scope, pattern, sparsity } = point;
        self.from == SourceFrom::Points
            && self.method.is_none_or(|wanted| wanted == method)
            && self.sparsity.is_none_or(|wanted| same_sparsity(wanted, sparsity))
            && self.scope.is_none_or(|wanted| Some(wanted) == scope)
            && self.pattern.is_none_or(|wanted| wanted == pattern)
    }
}

impl Validator<'_> {
    /// The sources of a block, and the names that its tables will have.
    pub(super) fn analysis_sources(
        &mut self,
        given: Option<Vec<At<RawAnalysisSource>>>,
        around: &Surroundings<'_>,
    ) -> (Vec<SourceChoice>, Vec<String>) {
        let given = given.unwrap_or_else(|| {
            let dense = (around.kind == AnalysisKind::ActivationSparsity).then_some(At { value: true, span: 0..0 });
            let span = around.header.clone();
            vec![At { value: RawAnalysisSource { dense, ..RawAnalysisSource::default() }, span }]
        });
        let (mut choices, mut names): (Vec<SourceChoice>, Vec<(String, Span)>) = Default::default();
        for At { value: raw, span } in given {
            let Some(choice) = self.analysis_source(raw, &span, around) else { continue };
            self.needs_of_source(&choice, &span, around);
            for name in self.names_of(&choice, &span, around) {
                match names.iter().find(|(known, _)| *known == name) {
                    // The points of a table without a name are told apart by what they differ in.
                    Some((_, first)) if choice.from != SourceFrom::Points || choice.name.is_some() => self.report(
                        Diagnostic::error(format!("two of `analysis.sources` are called `{name}`"))
                            .at(span.clone(), "the second")
                            .context(first.clone(), "the first")
                            .help("give one of them a `name`"),
                    ),
                    _ => names.push((name, span.clone())),
                }
            }
            choices.push(choice);
        }
        (choices, names.into_iter().map(|(name, _)| name).collect())
    }

    fn analysis_source(
        &mut self,
        raw: RawAnalysisSource,
        span: &Span,
        around: &Surroundings<'_>,
    ) -> Option<SourceChoice> {
        let RawAnalysisSource { name, method, sparsity, scope, pattern, dense, path, pt, inputs, masks } = raw;
        let dense = dense.filter(|at| at.value);
        let ways: Vec<(&str, Span)> = [
            ("dense", dense.map(|at| at.span)),
            ("path", path.as_ref().map(|at| at.span.clone())),
            ("pt", pt.as_ref().map(|at| at.span.clone())),
        ]
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)))
        .collect();
        if let [(first, place), (second, other), ..] = &*ways {
            self.report(
                Diagnostic::error(format!("a source of `analysis.sources` has both `{first}` and `{second}`"))
                    .at(other.clone(), "another source")
                    .context(place.clone(), "a source already")
                    .help("give each a table of its own"),
            );
            return None;
        }
        for (key, at) in [("inputs", &inputs), ("masks", &masks)] {
            if let (Some(at), None) = (at, &pt) {
                self.report(
                    Diagnostic::error(format!("`analysis.sources.{key}` has no effect without `pt`"))
                        .at(at.span.clone(), "not used")
                        .help("it goes with a folder of `.pt` matrices"),
                );
            }
        }
        let sparsity = sparsity.map(|at| self.sparsity("analysis.sources.sparsity", &at));
        let pattern = pattern.map(|at| self.pattern("analysis.sources.pattern", &at));
        let sparsity = sparsity.map_or(Some(None), |at| at.map(|at| Some(at.value)))?;
        let pattern = pattern.map_or(Some(None), |at| at.map(|at| Some(at.value)))?;
        let name = match name {
            Some(at) if at.value.trim().is_empty() => {
                self.report(Diagnostic::error("`analysis.sources.name` is empty").at(at.span, "expected a name"));
                None
            }
            name => value(name),
        };
        let folder = |text: At<String>| WrittenPath::new(&text.value).joined(self.folder).to_path_buf();
        let from = match (pt, path, ways.first()) {
            (Some(pt), ..) => {
                SourceFrom::Folder { path: folder(pt), inputs: inputs.map(folder), masks: masks.map(folder) }
            }
            (None, Some(path), _) => SourceFrom::Checkpoint(folder(path)),
            (None, None, Some(_)) => SourceFrom::Dense,
            (None, None, None) => SourceFrom::Points,
        };
        if around.without_model && matches!(from, SourceFrom::Points | SourceFrom::Dense) {
            self.report(
                Diagnostic::error("`[[analysis]]` needs a model")
                    .at(span.clone(), "there is no `[model]` section")
                    .help("add a `[model]`, or give every source a `path` or `pt`"),
            );
            return None;
        }
        Some(SourceChoice { name, from, method: value(method), sparsity, scope: value(scope), pattern })
    }

    /// What a kind needs of its sources.
    fn needs_of_source(&mut self, choice: &SourceChoice, span: &Span, around: &Surroundings<'_>) {
        if around.kind != AnalysisKind::ActivationSparsity {
            return;
        }
        let (problem, help) = match &choice.from {
            SourceFrom::Checkpoint(_) => (
                "no text runs through a checkpoint of `path`",
                "make it the file's model, `source = \"path:DIR\"`, with `method = \"given\"` in a `[[prune]]` block",
            ),
            SourceFrom::Folder { inputs: None, .. } => {
                ("no text runs through matrices of `pt`", "name a file with their inputs: `inputs = \"FILE\"`")
            }
            SourceFrom::Folder { inputs: Some(_), .. } | SourceFrom::Points | SourceFrom::Dense => return,
        };
        self.report(
            Diagnostic::error(format!("`activation-sparsity` needs inputs, and {problem}"))
                .at(span.clone(), "this source")
                .help(help),
        );
    }

    /// What tables call the matrices of a source.
    fn names_of(&mut self, choice: &SourceChoice, span: &Span, around: &Surroundings<'_>) -> Vec<String> {
        let of_folder = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        match &choice.from {
            SourceFrom::Points => {
                let points = around.points(choice);
                if points.is_empty() && !self.was_removed("prune") {
                    self.report(
                        Diagnostic::error("a source of `analysis.sources` is no prune point of this file")
                            .at(span.clone(), "no `[[prune]]` block has it")
                            .help("add it to a `[[prune]]` block, or analyse a folder: `{ path = \"DIR\" }`, `{ pt = \"DIR\" }`"),
                    );
                }
                if let (Some(name), [_, _, ..]) = (&choice.name, &*points) {
                    self.report(
                        Diagnostic::error(format!(
                            "`analysis.sources.name` `{name}` is of {} prune points",
                            points.len()
                        ))
                        .at(span.clone(), "selects several")
                        .help(
                            "add `method`, `sparsity`, `scope` or `pattern` to it until it is one, or leave `name` out",
                        ),
                    );
                }
                let name = |&Point { method, pattern, sparsity, .. }: &Point| {
                    point_name(method, pattern, method.uses("sparsity").then_some(sparsity))
                };
                points.iter().map(|point| choice.name.clone().unwrap_or_else(|| name(point))).collect()
            }
            SourceFrom::Dense => vec![choice.name.clone().unwrap_or_else(|| "dense".to_owned())],
            SourceFrom::Checkpoint(path) | SourceFrom::Folder { path, .. } => {
                vec![choice.label(of_folder(path).as_deref().unwrap_or("folder"))]
            }
        }
    }
}

//! From the file as written to the experiment: defaults, and the rules between keys that a schema
//! can't state. Collects every broken rule; builds an experiment only to be thrown away if one is.

mod analysis;
mod analysis_sources;
mod arena;
mod calibration;
mod count;
mod drawing;
mod expect;
mod kernel;
mod latency;
mod method;
mod pivot;
mod prune;
mod query;
mod tasks;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use crate::config::axis::{At, Axis};
use crate::config::experiment::{
    BackendChoice, BosAt, Data, Drawing, Dtype, Experiment, Metric, NmPattern, Origin, PatternError, PruneBlock,
    Variant,
};
use crate::config::joining::Joining;
use crate::config::raw::{RawData, RawDevice, RawExecute, RawExperiment, RawMeasure, RawModel};
use crate::config::source::{ModelSource, SourceError, SourceKind, TextSource};
use crate::diagnostic::{Diagnostic, Diagnostics, Found, Span};
use crate::keyword::backticked;

use count::Blocks;
use latency::RawLatency;

/// Builds the experiment, unless something that it needs is missing, and says what was found: with
/// an error among it, the experiment means nothing. `removed` are the paths at which something
/// wrong was already reported and taken out.
pub fn experiment(
    raw: RawExperiment,
    origin: &Origin,
    text: &str,
    removed: BTreeSet<String>,
) -> (Option<Experiment>, Found) {
    let folder = origin.file.parent().unwrap_or(Path::new(""));
    let mut validator = Validator { folder, removed, found: Found::default() };
    let experiment = validator.experiment(raw, origin, text);
    (experiment, validator.found)
}

/// What the rules need to know, and what they found.
struct Validator<'a> {
    /// The folder that paths in the file are relative to.
    folder: &'a Path,
    removed: BTreeSet<String>,
    found: Found,
}

/// The most letters of a name: some file systems take hardly more.
const MAX_NAME: usize = 128;
/// The name below `results/` that is not an experiment's.
const KEPT_RESULTS: &str = "reference";

/// The value of an optional key.
fn value<T>(key: Option<At<T>>) -> Option<T> {
    key.map(|at| at.value)
}

/// The values of an axis, without their places.
fn values<T>(axis: Vec<At<T>>) -> Vec<T> {
    axis.into_iter().map(|at| at.value).collect()
}

/// Where the blocks of a list begin.
fn headers<T>(blocks: &[At<T>]) -> Vec<Span> {
    blocks.iter().map(|block| block.span.clone()).collect()
}

/// The keys of a section; of an absent one, none.
fn section<T: Default>(section: Option<At<T>>) -> T {
    section.map(|at| at.value).unwrap_or_default()
}

impl Validator<'_> {
    fn experiment(&mut self, mut raw: RawExperiment, origin: &Origin, text: &str) -> Option<Experiment> {
        let times_kernels = raw.kernel.as_ref().is_some_and(|blocks| !blocks.is_empty()) || self.was_removed("kernel");
        let analyses = raw.analysis.take().unwrap_or_default();
        let other_work = times_kernels || !analyses.is_empty() || self.was_removed("analysis");
        let without_model = other_work && raw.model.is_none() && !self.was_removed("model");
        if without_model {
            self.without_model(&mut raw);
        }
        let name = self.name(raw.name);
        let seeds = self.axis("seed", raw.seed, &[0]);
        let dtype = raw.model.as_ref().and_then(|model| model.value.dtype.clone());
        let models = if without_model { Some(Vec::new()) } else { self.models(raw.model) };
        let RawDevice { backend, index, workers, threads } = section(raw.device);
        let backends = self.axis("device.backend", backend, &[BackendChoice::Auto]);
        self.dtype_on_backends(dtype.as_ref(), &backends);
        let kernel_blocks = raw.kernel.unwrap_or_default();
        let kernel_headers = headers(&kernel_blocks);
        let kernels = self.kernel_blocks(kernel_blocks, &backends);
        let data = self.data(section(raw.data));
        let prune_blocks = raw.prune.unwrap_or_default();
        let prune_headers = headers(&prune_blocks);
        let prune = self.prune_blocks(prune_blocks);
        let prunes = !prune_headers.is_empty() || self.was_removed("prune");
        let first_analysis = analyses.first().map(|block| block.span.clone());
        let analyses = self.analysis_blocks(analyses, &prune, without_model);
        if let Some(data) = &data {
            self.one_calibration_for_analyses(data, &analyses, first_analysis);
        }
        let RawExecute { variants, warmup, repeats } = section(raw.execute);
        self.variants_on_backends(variants.as_ref(), &backends);
        self.variants_against_dtype(variants.as_ref(), dtype.as_ref());
        self.variants_against_patterns(variants.as_ref(), &prune, &prune_headers);
        let variants = self.variants(variants, prunes, prune_headers.first().cloned());
        let RawMeasure { metrics, batch, prompt, generate } = section(raw.measure);
        let defaults = [Metric::Structure, Metric::Agreement];
        let metrics = values(self.axis("measure.metrics", metrics, &defaults));
        let latency = self.latency(RawLatency { warmup, repeats, batch, prompt, generate }, &metrics);
        let tasks = self.tasks(raw.tasks, &metrics);
        let expects = self.expects(raw.expect.unwrap_or_default(), &metrics, &tasks.names);
        let mut ids = Vec::new();
        let queries = self.queries(raw.query.unwrap_or_default(), &mut ids);
        let known = pivot::Known { metrics: &metrics, queries: &queries };
        let pivots = self.pivots(raw.table.unwrap_or_default(), &known, &mut ids);
        let pruned = variants.iter().filter(|variant| variant.needs_pruning()).count();
        let models_on_backends = (models.as_ref().map_or(0, Vec::len) as u64).saturating_mul(backends.len() as u64);
        let calibrations = data.as_ref().map_or(1, |data| data.calibrations.len());
        self.count_cells(&[
            Blocks::pruned(
                &prune,
                &prune_headers,
                (seeds.len(), calibrations),
                models_on_backends.saturating_mul(pruned as u64),
            ),
            Blocks::kernels(&kernels, &kernel_headers, seeds.len(), backends.len()),
        ]);
        Some(Experiment {
            name: name?,
            title: value(raw.title),
            path: origin.file.clone(),
            origin: origin.clone(),
            text: text.to_owned(),
            seeds: values(seeds),
            models: models?,
            dtype: value(dtype),
            backends: values(backends),
            device_index: value(index).unwrap_or(0),
            workers: value(workers).unwrap_or_default(),
            threads: value(threads).unwrap_or(0),
            data: data?,
            prune,
            kernels,
            analyses,
            variants,
            metrics,
            latency,
            tasks,
            expects,
            plot_width: value(section(raw.plots).width).unwrap_or_default(),
            queries,
            pivots,
            warnings: Diagnostics::default(),
        })
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Whether the path, or a part of the file that holds it, was taken out as wrong.
    fn was_removed(&self, path: &str) -> bool {
        let above = path.match_indices('.').map(|(at, _)| &path[..at]);
        above.chain([path]).any(|part| self.removed.contains(part))
    }

    /// Reports a required key that isn't there. `exact` has the number of the block.
    fn missing(&mut self, shown: &str, exact: &str, header: Option<Span>, help: &str) {
        if self.was_removed(exact) {
            return;
        }
        let diagnostic = Diagnostic::error(format!("missing key `{shown}`")).help(help);
        self.report(match header {
            Some(span) => diagnostic.at(span, "in this section"),
            None => diagnostic,
        });
    }

    /// The values of an axis, each once; the defaults where the key is absent.
    fn axis<T: Copy + PartialEq + Display>(&mut self, path: &str, axis: Option<Axis<T>>, default: &[T]) -> Vec<At<T>> {
        let Some(axis) = axis else {
            let at = |value: &T| At { value: *value, span: 0..0 };
            return default.iter().map(at).collect();
        };
        self.unique(path, axis.values)
    }

    /// The values without repetitions, of which it warns.
    fn unique<T: PartialEq + Display>(&mut self, path: &str, all: Vec<At<T>>) -> Vec<At<T>> {
        if !self.short_enough(path, &all) {
            return Vec::new();
        }
        let mut unique: Vec<At<T>> = Vec::with_capacity(all.len());
        // Equal values are written alike by Display, whose text can be hashed.
        let mut places: HashMap<String, usize> = HashMap::with_capacity(all.len());
        for at in all {
            let place = *places.entry(at.value.to_string()).or_insert(unique.len());
            match unique.get(place) {
                Some(earlier) if earlier.value == at.value => self.found.push(
                    Diagnostic::warning(format!("`{path}` has `{}` twice", at.value))
                        .at(at.span, "counted once")
                        .context(earlier.span.clone(), "first given here"),
                ),
                _ => unique.push(at),
            }
        }
        unique
    }

    fn name(&mut self, name: Option<At<String>>) -> Option<String> {
        let Some(At { value: name, span }) = name else {
            self.missing("name", "name", None, "write `name = \"NAME\"`: results go to `results/NAME/`");
            return None;
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let only_dots = name.chars().all(|c| c == '.');
        let foreign = name.chars().find(|c| !allowed(*c));
        if !only_dots && foreign.is_none() {
            return self.name_of_length(name, span.clone()).and_then(|name| self.name_of_its_own(name, span));
        }
        let suggestion: String = name.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
        let useful = suggestion.len() <= MAX_NAME && suggestion.chars().any(|c| c.is_ascii_alphanumeric());
        let not = foreign.map_or_else(String::new, |c| format!(", not `{}`", c.escape_debug()));
        self.report(
            Diagnostic::error(format!("`name` can't be a folder's name: `{}`", name.escape_debug()))
                .at(span, format!("expected the letters a to z and A to Z, digits, `.`, `_` and `-`{not}"))
                .maybe_help(useful.then(|| format!("write `name = \"{suggestion}\"`")))
                .maybe_help(foreign.filter(|c| c.is_alphabetic()).map(|_| "`title` takes any letters".to_owned())),
        );
        None
    }

    /// A name that file systems take, short enough for what is put after it.
    fn name_of_length(&mut self, name: String, span: Span) -> Option<String> {
        if name.len() <= MAX_NAME {
            return Some(name);
        }
        let title = format!("`name` has {} letters", name.len());
        self.report(Diagnostic::error(title).at(span, format!("expected at most {MAX_NAME}: it names a folder")));
        None
    }

    /// A name whose folder holds nothing else: `results/reference/` has the results that this repository keeps.
    fn name_of_its_own(&mut self, name: String, span: Span) -> Option<String> {
        // Some file systems don't tell capitals apart.
        if !name.eq_ignore_ascii_case(KEPT_RESULTS) {
            return Some(name);
        }
        self.report(
            Diagnostic::error(format!("`name` can't be `{name}`"))
                .at(span, format!("`results/{KEPT_RESULTS}/` is kept for the results of published experiments"))
                .help(format!("write another name, for example `name = \"{name}-1\"`")),
        );
        None
    }

    fn models(&mut self, model: Option<At<RawModel>>) -> Option<Vec<ModelSource>> {
        let header = model.as_ref().map(|model| model.span.clone());
        let Some(source) = model.and_then(|model| model.value.source) else {
            let help = "write `source = \"builtin:tiny-opt\"` under `[model]`, or \
                        `hf:ORG/NAME`, `path:DIR`, `synthetic:NAME`; only `[[kernel]]` blocks need no model";
            self.missing("model.source", "model.source", header, help);
            return None;
        };
        let given = source.values.len();
        let mut models = Vec::with_capacity(given);
        for At { value: text, span } in source.values {
            match text.parse::<ModelSource>() {
                Ok(model) => models.push(At { value: model.relative_to(self.folder), span }),
                Err(error) => self.bad_source("model.source", &error, &text, span),
            }
        }
        let complete = models.len() == given;
        let models = values(self.unique("model.source", models));
        complete.then_some(models)
    }

    fn data(&mut self, mut data: RawData) -> Option<Data> {
        let agreement = self.text("data.agreement", data.agreement.take(), "sample-texts");
        let perplexity = self.text("data.perplexity", data.perplexity.take(), "heldout");
        if let (Some(context), Some(stride)) = (&data.context, &data.perplexity_stride)
            && stride.value > context.value
        {
            self.report(
                Diagnostic::error("`data.perplexity_stride` is out of range")
                    .at(stride.span.clone(), format!("expected an integer from 1 to {}", context.value))
                    .context(context.span.clone(), "tokens of a window")
                    .help("a larger stride would leave tokens out"),
            );
        }
        let calibrations = self.calibrations(&mut data);
        let perplexity = perplexity?;
        let perplexity_drawing = self.drawing(&data, &perplexity);
        let given = (data.perplexity_join.as_ref(), data.perplexity_documents.as_ref());
        let mut perplexity_joining = self.joining("perplexity", &[&perplexity], given).remove(0);
        if perplexity_drawing == Drawing::Gptq && data.perplexity_documents.is_none() {
            perplexity_joining.documents = 0;
        }
        Some(Data {
            agreement: agreement?,
            perplexity,
            context: value(data.context),
            perplexity_windows: value(data.perplexity_windows)
                .filter(|windows| *windows > 0)
                .unwrap_or(perplexity_drawing.windows()),
            perplexity_stride: value(data.perplexity_stride),
            perplexity_bos: value(data.perplexity_bos).unwrap_or(BosAt::Start),
            perplexity_joining,
            perplexity_drawing,
            calibrations: calibrations?,
            calibration_bos: value(data.calibration_bos).unwrap_or(false),
        })
    }

    /// How the documents of each text become one, as given or as the published loaders have it.
    fn joining(
        &mut self,
        text: &str,
        sources: &[&TextSource],
        (join, documents): (Option<&At<String>>, Option<&At<usize>>),
    ) -> Vec<Joining> {
        if let Some(source) = sources.first()
            && !sources.iter().any(|source| matches!(source, TextSource::Hub { .. }))
        {
            let spans = [("join", join.map(|at| &at.span)), ("documents", documents.map(|at| &at.span))];
            for (key, span) in spans.into_iter().filter_map(|(key, span)| Some((key, span?))) {
                self.report(
                    Diagnostic::warning(format!("`data.{text}_{key}` has no effect on `{source}`"))
                        .at(span.clone(), "not used")
                        .help("it is one text already: only datasets, `hf:ORG/NAME/CONFIG/SPLIT`, have documents"),
                );
            }
        }
        let of = |source: &&TextSource| {
            let published = Joining::published(source);
            Joining {
                join: join.map_or(published.join, |at| at.value.clone()),
                documents: documents.map_or(published.documents, |at| at.value),
            }
        };
        sources.iter().map(of).collect()
    }

    fn text(&mut self, path: &str, text: Option<At<String>>, builtin: &str) -> Option<TextSource> {
        let Some(At { value: text, span }) = text else {
            return Some(TextSource::Builtin(builtin.to_owned()));
        };
        match text.parse::<TextSource>() {
            Ok(source) => Some(source.relative_to(self.folder)),
            Err(error) => {
                self.bad_source(path, &error, &text, span);
                None
            }
        }
    }

    fn bad_source(&mut self, path: &str, error: &SourceError, text: &str, span: Span) {
        let local = self.folder.join(text);
        let hint = match error {
            SourceError::NoScheme { kind: SourceKind::Model, .. } if local.is_dir() => {
                Some(format!("did you mean `path:{text}`?"))
            }
            SourceError::NoScheme { kind: SourceKind::Text, .. } if local.is_file() => {
                Some(format!("did you mean `file:{text}`?"))
            }
            SourceError::NoScheme { .. }
            | SourceError::UnknownScheme { .. }
            | SourceError::UnknownName { .. }
            | SourceError::BadRepository { .. }
            | SourceError::BadDataset { .. }
            | SourceError::EmptyPath { .. } => error.hint(),
        };
        self.report(Diagnostic::error(format!("{error}, in `{path}`")).at(span, error.expected()).maybe_help(hint));
    }

    /// Half precision has kernels on the GPU only.
    fn dtype_on_backends(&mut self, dtype: Option<&At<Dtype>>, backends: &[At<BackendChoice>]) {
        let Some(dtype) = dtype.filter(|dtype| dtype.value != Dtype::F32) else {
            return;
        };
        for backend in backends {
            if matches!(backend.value, BackendChoice::NdArray | BackendChoice::Flex) {
                let name = backend.value;
                self.report(
                    Diagnostic::error(format!("`model.dtype` `{}` is not available on `{name}`", dtype.value))
                        .at(dtype.span.clone(), "expected `f32`: the CPU backends compute in f32")
                        .context(backend.span.clone(), "a CPU backend")
                        .help("write `dtype = \"f32\"`, leave `dtype` out, or use `backend = \"cuda\"`"),
                );
            }
        }
    }

    /// Every variant must have kernels on every backend.
    fn variants_on_backends(&mut self, variants: Option<&Axis<Variant>>, backends: &[At<BackendChoice>]) {
        for variant in variants.iter().flat_map(|axis| &axis.values) {
            for backend in backends.iter().filter(|at| !variant.value.runs_on(at.value)) {
                let name = backend.value;
                let known = Variant::ALL.iter().filter(|word| word.value.runs_on(name)).map(|word| word.name);
                self.report(
                    Diagnostic::error(format!("`execute.variants` `{}` is not available on `{name}`", variant.value))
                        .at(variant.span.clone(), format!("it has {}", backticked(&known.collect::<Vec<_>>())))
                        .context(backend.span.clone(), "the backend")
                        .help("take another variant, or another backend"),
                );
            }
        }
    }

    /// A format may lack a number format; what a checkpoint has is not known here.
    fn variants_against_dtype(&mut self, variants: Option<&Axis<Variant>>, dtype: Option<&At<Dtype>>) {
        let Some(dtype) = dtype else { return };
        for variant in variants.iter().flat_map(|axis| &axis.values).filter(|at| !at.value.takes(dtype.value)) {
            self.report(
                Diagnostic::error(format!("`execute.variants` `{}` takes no `{}`", variant.value, dtype.value))
                    .at(variant.span.clone(), "its kernels are of 16-bit numbers")
                    .context(dtype.span.clone(), "`model.dtype`")
                    .help("write `dtype = \"f16\"` or `\"bf16\"`, or take another variant"),
            );
        }
    }

    /// Every variant must be able to store what every block keeps.
    fn variants_against_patterns(&mut self, variants: Option<&Axis<Variant>>, blocks: &[PruneBlock], headers: &[Span]) {
        for variant in variants.iter().flat_map(|axis| &axis.values) {
            for (block, header) in blocks.iter().zip(headers) {
                // What `given` keeps is in the checkpoint.
                let chosen = block.methods.iter().any(|method| method.uses("sparsity"));
                let fits = |pattern: &&NmPattern| variant.value.holds(**pattern);
                let Some(pattern) = block.patterns.iter().find(|pattern| chosen && !fits(pattern)) else { continue };
                self.report(
                    Diagnostic::error(format!(
                        "`execute.variants` `{}` does not fit `prune.pattern` `{pattern}`",
                        variant.value
                    ))
                    .at(variant.span.clone(), "it holds at most two of every four weights")
                    .context(header.clone(), format!("keeps more: its pattern is `{pattern}`"))
                    .help("write `pattern = \"2:4\"` there, or run the variant in an experiment of its own"),
                );
            }
        }
    }

    /// `first_block` is the header of a `[[prune]]` block, if one was read.
    fn variants(&mut self, variants: Option<Axis<Variant>>, prunes: bool, first_block: Option<Span>) -> Vec<Variant> {
        let Some(given) = variants else {
            let all = Variant::DEFAULT.into_iter();
            return all.filter(|variant| prunes || !variant.needs_pruning()).collect();
        };
        let whole = given.span.clone();
        let given = self.unique("execute.variants", given.values);
        if !prunes {
            for At { value: variant, span } in given.iter().filter(|at| at.value.needs_pruning()) {
                self.found.push(
                    Diagnostic::error(format!("variant `{variant}` needs a pruned model"))
                        .at(span.clone(), "there is no `[[prune]]` block")
                        .help("add a `[[prune]]` block, or write `variants = [\"dense\"]`"),
                );
            }
        }
        let dense_only = given.iter().all(|at| !at.value.needs_pruning());
        let complete = !self.was_removed("execute.variants");
        if let (true, Some(header)) = (dense_only && complete, first_block) {
            self.report(
                Diagnostic::warning("`execute.variants` has no pruned variant")
                    .at(whole, "only the dense model is run")
                    .context(header, "so that no `[[prune]]` block is")
                    .help("add `masked` or `csr`, or take the `[[prune]]` blocks out"),
            );
        }
        values(given)
    }

    /// A value that is spelled as text.
    fn pattern(&mut self, path: &str, at: &At<String>) -> Option<At<NmPattern>> {
        match at.value.parse::<NmPattern>() {
            Ok(value) => Some(At { value, span: at.span.clone() }),
            Err(error) => {
                let expected = match error {
                    PatternError::Unknown(_) => "expected `unstructured` or `N:M`, as in `2:4`: 2 of 4 kept",
                    PatternError::OutOfRange { .. } => "N of every M weights are kept",
                };
                let diagnostic = Diagnostic::error(format!("{error}, in `{path}`"));
                self.report(diagnostic.at(at.span.clone(), expected));
                None
            }
        }
    }

    /// A share of weights, in `[0, 1)`.
    fn sparsity(&mut self, path: &str, at: &At<f64>) -> Option<At<f64>> {
        let given = at.value;
        if (0.0..1.0).contains(&given) {
            // -0.0 and 0.0 are the same sparsity and must be spelled the same.
            return Some(At { value: given.abs(), span: at.span.clone() });
        }
        let help = if given == 1.0 {
            Some("1 would remove every weight".to_owned())
        } else if given > 1.0 && given < 100.0 {
            Some(format!("a fraction: did you mean {}?", percent(given)))
        } else {
            None
        };
        self.report(
            Diagnostic::error(format!("`{path}` is out of range"))
                .at(at.span.clone(), "expected a fraction, at least 0 and below 1")
                .maybe_help(help),
        );
        None
    }
}

/// A percentage as a fraction, without the noise of binary division: 33.3 gives 0.333.
pub(super) fn percent(percentage: f64) -> f64 {
    let rounded = format!("{:.8}", percentage / 100.0);
    f64::from_str(&rounded).unwrap_or(percentage / 100.0)
}

//! The rules of `[[analysis]]` blocks.

use std::num::NonZeroUsize;

use super::analysis_sources::Surroundings;
use super::{Validator, value, values};
use crate::config::analysis::*;
use crate::config::axis::{At, Axis};
use crate::config::experiment::PruneBlock;
use crate::config::raw::{RawAnalysis, RawThresholds};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::keyword::backticked;

/// The most pixels of a side of a picture.
const MOST_PIXELS: usize = 1024;

impl AnalysisKind {
    /// The keys that it uses, beside those of every kind.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Structure => &["head_dim", "column_block", "nm", "scores"],
            Self::MaskSimilarity => &["pairs", "metrics"],
            Self::Spy => &["order", "marginals", "pixels"],
            Self::HammingGradient => &["reference", "references", "candidates", "metric"],
            Self::Neighbours => &["reference", "references", "neighbours", "metric"],
            Self::Clustering => &[
                "reference",
                "references",
                "neighbours",
                "input",
                "algorithm",
                "linkage",
                "k",
                "n_init",
                "null",
                "tsne",
                "legacy_ratio",
            ],
            Self::BlockCoherence => &["block", "order"],
            Self::Groups => &["mode", "group_size", "samples", "reference", "method", "cdf", "save_permutation"],
            Self::ExhaustiveGroups => &["group_size", "method", "cdf", "save_permutation"],
            Self::Hierarchy => &["linkage", "cuts"],
            Self::ActivationSparsity => &["targets", "thresholds", "batch", "tokens"],
        }
    }
}

impl Validator<'_> {
    pub(super) fn analysis_blocks(
        &mut self,
        blocks: Vec<At<RawAnalysis>>,
        prune: &[PruneBlock],
        without_model: bool,
    ) -> Vec<AnalysisBlock> {
        let mut done: Vec<AnalysisBlock> = Vec::new();
        let mut ids: Vec<(String, Span)> = Vec::new();
        for (index, At { value: raw, span }) in blocks.into_iter().enumerate() {
            if let Some(At { value: id, span }) = raw.id.clone() {
                match ids.iter().find(|(known, _)| *known == id) {
                    Some((_, first)) => self.report(
                        Diagnostic::error(format!("two `[[analysis]]` blocks have the `id` `{id}`"))
                            .at(span, "the second")
                            .context(first.clone(), "the first"),
                    ),
                    None => ids.push((id, span)),
                }
            }
            let block = self.analysis_block(index, raw, span, prune, without_model, &done);
            done.extend(block);
        }
        done
    }

    fn analysis_block(
        &mut self,
        index: usize,
        mut raw: RawAnalysis,
        header: Span,
        prune: &[PruneBlock],
        without_model: bool,
        above: &[AnalysisBlock],
    ) -> Option<AnalysisBlock> {
        let exact = |key: &str| format!("analysis.{index}.{key}");
        if raw.id.is_none() {
            let help = "write for example `id = \"similarity\"`: it names the rows of tables";
            self.missing("analysis.id", &exact("id"), Some(header.clone()), help);
        }
        let Some(kind) = raw.kind.take() else {
            let help = "write for example `kind = \"structure\"`";
            self.missing("analysis.kind", &exact("kind"), Some(header), help);
            return None;
        };
        let id = self.analysis_id(raw.id.take());
        self.keys_against_kind(&raw, &kind);
        let around = Surroundings { kind: kind.value, prune, without_model, header };
        let (sources, names) = self.analysis_sources(raw.sources.take(), &around);
        let layers = raw.layers.take().map(|axis| self.layers(axis));
        let roles = raw.roles.take().map(|axis| values(self.unique("analysis.roles", axis.values)));
        let feature_axis = value(raw.feature_axis.take()).unwrap_or(FeatureAxis::In);
        let skip_constant = value(raw.skip_constant.take()).unwrap_or(true);
        let calibrates = prune.iter().flat_map(|block| &block.methods).any(|method| method.calibrates());
        let setting = Setting { calibrates, names: &names, above, feature_axis };
        let work = self.analysis_work(kind.value, raw, &setting)?;
        Some(AnalysisBlock { id: id?, work, sources, layers, roles, feature_axis, skip_constant })
    }

    fn analysis_id(&mut self, id: Option<At<String>>) -> Option<String> {
        let At { value: id, span } = id?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
            self.report(
                Diagnostic::error(format!("`analysis.id` can't be `{}`", id.escape_debug()))
                    .at(span, "expected at most 64 letters a to z and A to Z, digits, `.`, `_` and `-`"),
            );
            return None;
        }
        Some(id)
    }

    /// A key that the kind does not use says something that will not happen.
    fn keys_against_kind(&mut self, raw: &RawAnalysis, kind: &At<AnalysisKind>) {
        for (key, span) in given_keys(raw) {
            if kind.value.keys().contains(&key) {
                continue;
            }
            let users = AnalysisKind::ALL.iter().filter(|word| word.value.keys().contains(&key));
            let users: Vec<&str> = users.map(|word| word.name).collect();
            self.report(
                Diagnostic::error(format!("`analysis.{key}` has no effect on `{}`", kind.value))
                    .at(span, "not used")
                    .context(kind.span.clone(), "the kind")
                    .help(format!("leave `{key}` out: it is for {}", backticked(&users))),
            );
        }
    }

    fn layers(&mut self, axis: Axis<IntegerOrText>) -> Vec<LayerRange> {
        let mut ranges = Vec::new();
        for At { value, span } in axis.values {
            match value.to_string().parse() {
                Ok(range) => ranges.push(range),
                Err(()) => self.report(
                    Diagnostic::error(format!("`analysis.layers` has no layers `{value}`"))
                        .at(span, "expected a number from 0 on, a range such as `\"0-11\"`, or `\"all\"`"),
                ),
            }
        }
        ranges
    }

    fn analysis_work(&mut self, kind: AnalysisKind, raw: RawAnalysis, setting: &Setting<'_>) -> Option<Work> {
        Some(match kind {
            AnalysisKind::Structure => Work::Structure {
                head_dim: value(raw.head_dim).map(NonZeroUsize::get),
                column_block: value(raw.column_block).map_or(128, NonZeroUsize::get),
                nm: self.nm_pairs(raw.nm)?,
                scores: value(raw.scores).unwrap_or(setting.calibrates),
            },
            AnalysisKind::MaskSimilarity => {
                let all: Vec<SimilarityFigure> = SimilarityFigure::ALL.iter().map(|word| word.value).collect();
                let metrics = values(self.axis("analysis.metrics", raw.metrics, &all));
                Work::MaskSimilarity { metrics, pairs: self.pairs(raw.pairs, setting)? }
            }
            AnalysisKind::Spy => Work::Spy {
                order: self.orders(raw.order, setting)?,
                marginals: value(raw.marginals).unwrap_or(true),
                pixels: self.pixels(raw.pixels)?,
            },
            AnalysisKind::HammingGradient => {
                let references = self.references(raw.reference, raw.references, References::Given(vec![0]), 1)?;
                let candidates = raw.candidates.map(|at| (at.value, at.span));
                let (mode, n) = match candidates {
                    None => (CandidateMode::All, None),
                    Some((table, span)) => {
                        let mode = value(table.mode).unwrap_or(CandidateMode::All);
                        let n = value(table.n).map(NonZeroUsize::get);
                        if (mode == CandidateMode::All) != n.is_none() {
                            let title = format!(
                                "`analysis.candidates` of mode `{mode}` {}",
                                match n {
                                    Some(_) => "takes no `n`",
                                    None => "needs `n`: how many there are",
                                }
                            );
                            self.report(Diagnostic::error(title).at(span, "this table"));
                            return None;
                        }
                        (mode, n)
                    }
                };
                let metric = value(raw.metric).unwrap_or(Nearness::Hamming);
                Work::HammingGradient { references, candidates: mode, n: n.unwrap_or(0), metric }
            }
            AnalysisKind::Neighbours => {
                let references = self.references(raw.reference, raw.references, References::Random(10), 10)?;
                let n = value(raw.neighbours).unwrap_or(8);
                Work::Neighbours { references, n, metric: value(raw.metric).unwrap_or(Nearness::Hamming) }
            }
            AnalysisKind::Clustering => Work::Clustering(self.clusters(raw)?),
            AnalysisKind::BlockCoherence => Work::BlockCoherence {
                block: self.sizes_of("analysis.block", raw.block, &[4, 8, 16]),
                order: self.orders(raw.order, setting)?,
            },
            AnalysisKind::Groups => {
                let mode = value(raw.mode.clone()).unwrap_or(GroupMode::Sampled);
                Work::Groups(self.groups(raw, mode)?)
            }
            AnalysisKind::ExhaustiveGroups => Work::Groups(self.groups(raw, GroupMode::Partition)?),
            AnalysisKind::Hierarchy => Work::Hierarchy {
                linkage: value(raw.linkage).unwrap_or(TreeLinkage::Average),
                cuts: self.sizes_of("analysis.cuts", raw.cuts, &[10, 50, 100, 500, 1000, 2000]),
            },
            AnalysisKind::ActivationSparsity => self.activation(raw)?,
        })
    }

    fn nm_pairs(&mut self, axis: Option<Axis<NmPair>>) -> Option<Vec<[usize; 2]>> {
        let Some(axis) = axis else { return Some(vec![[2, 4], [4, 8]]) };
        let pairs = self.unique("analysis.nm", axis.values);
        let before = self.found.errors();
        for At { value: NmPair([n, m]), span } in &pairs {
            if n >= m || *m > 64 {
                let title = format!("`analysis.nm` has `[{n}, {m}]`");
                self.report(Diagnostic::error(title).at(span.clone(), "expected 1 <= N < M <= 64: N of M are kept"));
            }
        }
        (self.found.errors() == before).then(|| pairs.into_iter().map(|at| at.value.0).collect())
    }

    fn pairs(&mut self, axis: Option<Axis<NamePair>>, setting: &Setting<'_>) -> Option<Option<Vec<[String; 2]>>> {
        let Some(axis) = axis else { return Some(None) };
        let before = self.found.errors();
        for At { value: NamePair(names), span } in &axis.values {
            for name in names {
                let known = |known: &String| known == name || name.starts_with(&format!("{known}-"));
                if !setting.names.iter().any(known) {
                    let meant = nearest(name, setting.names.iter().map(String::as_str));
                    self.report(
                        Diagnostic::error(format!("`analysis.pairs` names the source `{name}`, which there is not"))
                            .at(span.clone(), format!("the sources are {}", backticked(setting.names)))
                            .maybe_help(meant.map(|meant| format!("did you mean `{meant}`?"))),
                    );
                }
            }
            if names[0] == names[1] {
                let title = format!("`analysis.pairs` compares `{}` with itself", names[0]);
                self.report(Diagnostic::error(title).at(span.clone(), "expected two sources"));
            }
        }
        let pairs = axis.values.into_iter().map(|at| at.value.0).collect();
        (self.found.errors() == before).then_some(Some(pairs))
    }

    fn orders(&mut self, axis: Option<Axis<String>>, setting: &Setting<'_>) -> Option<Vec<Order>> {
        let Some(axis) = axis else { return Some(vec![Order::Identity]) };
        let orders = self.unique("analysis.order", axis.values);
        let orders: Vec<Option<Order>> = orders.iter().map(|at| self.order(at, setting)).collect();
        orders.into_iter().collect()
    }

    fn order(&mut self, at: &At<String>, setting: &Setting<'_>) -> Option<Order> {
        let expected = "expected `identity`, `density`, or `cluster:ID` or `groups:ID` of an analysis above";
        let (sort, id) = match at.value.split_once(':') {
            None if at.value == "identity" => return Some(Order::Identity),
            None if at.value == "density" => return Some(Order::Density),
            Some((sort @ ("cluster" | "groups"), id)) => (sort, id),
            _ => {
                let title = format!("unknown order `{}` of `analysis.order`", at.value);
                self.report(Diagnostic::error(title).at(at.span.clone(), expected));
                return None;
            }
        };
        let problem = match setting.above.iter().find(|block| block.id == id) {
            None => format!("there is no analysis `{id}` above"),
            Some(block) if block.feature_axis != setting.feature_axis => {
                format!("the `feature_axis` of `{id}` is `{}`", block.feature_axis)
            }
            Some(AnalysisBlock { work, skip_constant, .. }) => match (sort, work) {
                ("cluster", Work::Clustering(work)) => {
                    let (id, work, skip_constant) = (id.to_owned(), work.clone(), *skip_constant);
                    return Some(Order::Cluster { id, work, skip_constant });
                }
                ("groups", Work::Groups(work)) if work.mode == GroupMode::Partition => {
                    return Some(Order::Groups { id: id.to_owned(), work: work.clone() });
                }
                ("groups", Work::Groups(_)) => format!("the groups of `{id}` are sampled, not a partition"),
                (_, work) => format!("`{id}` is of kind `{}`", work.kind()),
            },
        };
        self.report(
            Diagnostic::error(format!("`analysis.order` `{}` can't be used: {problem}", at.value))
                .at(at.span.clone(), expected),
        );
        None
    }

    fn pixels(&mut self, key: Option<At<NonZeroUsize>>) -> Option<usize> {
        let Some(At { value, span }) = key else { return Some(512) };
        if value.get() > MOST_PIXELS {
            let expected = format!("expected an integer from 1 to {MOST_PIXELS}");
            self.report(Diagnostic::error("`analysis.pixels` is out of range").at(span, expected));
            return None;
        }
        Some(value.get())
    }

    /// References: given ones, drawn ones, or all.
    fn references(
        &mut self,
        reference: Option<Axis<IntegerOrText>>,
        count: Option<At<IntegerOrText>>,
        default: References,
        drawn: usize,
    ) -> Option<References> {
        let mut given = Vec::new();
        let mut random = None;
        for At { value, span } in reference.iter().flat_map(|axis| &axis.values) {
            match value {
                IntegerOrText::Integer(index) => given.push(usize::try_from(*index).unwrap_or(usize::MAX)),
                IntegerOrText::Text(text) if text == "random" => random = Some(span.clone()),
                IntegerOrText::Text(text) => {
                    let title = format!("`analysis.reference` can't be `{text}`");
                    self.report(
                        Diagnostic::error(title).at(span.clone(), "expected a feature's index or `\"random\"`"),
                    );
                    return None;
                }
            }
        }
        let all_given = reference.as_ref().map(|axis| axis.span.clone()).filter(|_| !given.is_empty());
        if let (Some(span), Some(other)) = (&all_given, random.clone().or_else(|| Some(count.as_ref()?.span.clone()))) {
            self.report(
                Diagnostic::error("`analysis.reference` names features, and others are to be drawn")
                    .at(other, "drawn")
                    .context(span.clone(), "named"),
            );
            return None;
        }
        given.dedup();
        match count {
            None if !given.is_empty() => Some(References::Given(given)),
            None if random.is_some() => Some(References::Random(drawn)),
            None => Some(default),
            Some(At { value: IntegerOrText::Integer(0), span }) => {
                self.report(
                    Diagnostic::error("`analysis.references` is out of range")
                        .at(span, "expected at least 1, or `\"all\"`"),
                );
                None
            }
            Some(At { value: IntegerOrText::Integer(count), .. }) => {
                Some(References::Random(usize::try_from(count).unwrap_or(usize::MAX)))
            }
            Some(At { value: IntegerOrText::Text(text), .. }) if text == "all" => Some(References::All),
            Some(At { value, span }) => {
                let title = format!("`analysis.references` can't be `{value}`");
                self.report(Diagnostic::error(title).at(span, "expected an integer of at least 1, or `\"all\"`"));
                None
            }
        }
    }

    fn clusters(&mut self, raw: RawAnalysis) -> Option<ClusterWork> {
        let algorithm = value(raw.algorithm).unwrap_or(ClusterAlgorithm::KMeans);
        let input = value(raw.input.clone()).unwrap_or(ClusterInput::Mask);
        if let (Some(at), true) = (&raw.input, input != ClusterInput::Mask && algorithm != ClusterAlgorithm::KMeans) {
            self.report(
                Diagnostic::error(format!("`analysis.input` `{input}` is for `kmeans`"))
                    .at(at.span.clone(), format!("`{algorithm}` looks at distances of masks"))
                    .help("leave `input` out, or take `algorithm = \"kmeans\"`"),
            );
        }
        let neighbours = raw.neighbours.as_ref().map_or(128, |at| at.value);
        let references = if neighbours == 0 {
            let keys = [raw.reference.as_ref().map(|axis| &axis.span), raw.references.as_ref().map(|at| &at.span)];
            if let Some(span) = keys.into_iter().flatten().next() {
                self.report(
                    Diagnostic::error("`analysis.reference` has no effect where all features are clustered")
                        .at(span.clone(), "not used")
                        .help("leave it out, or set `neighbours` to the size of a neighbourhood"),
                );
            }
            References::Given(Vec::new())
        } else {
            self.references(raw.reference, raw.references, References::Random(10), 10)?
        };
        if let Some(at) = raw.neighbours.as_ref().filter(|at| at.value == 1) {
            let expected = "expected 0 for all features, or at least 2";
            self.report(Diagnostic::error("`analysis.neighbours` is out of range").at(at.span.clone(), expected));
        }
        let too_many = |at: &&At<NonZeroUsize>| neighbours > 0 && at.value.get() > neighbours;
        if let Some(at) = raw.k.iter().flat_map(|axis| &axis.values).find(too_many) {
            let title = format!("`analysis.k` has {} clusters of {neighbours} features", at.value);
            self.report(
                Diagnostic::error(title)
                    .at(at.span.clone(), format!("expected at most {neighbours}"))
                    .help("`neighbours` is how many features are clustered, the reference among them; 0 for all"),
            );
        }
        let null = raw.null.map(|at| at.value).unwrap_or_default();
        let tsne = match raw.tsne {
            None => None,
            Some(at) => Some(self.at_least("analysis.tsne.perplexity", at.value.perplexity, 1.0)?.unwrap_or(30.0)),
        };
        let k: Vec<usize> = match raw.k {
            None => [4, 8, 16].into_iter().filter(|&k| neighbours == 0 || k <= neighbours).collect(),
            k => self.sizes_of("analysis.k", k, &[]),
        };
        Some(ClusterWork {
            neighbours,
            references,
            input,
            algorithm,
            linkage: value(raw.linkage).unwrap_or(TreeLinkage::Average),
            k,
            n_init: value(raw.n_init).map_or(10, NonZeroUsize::get),
            null_repeats: value(null.repeats).unwrap_or(20),
            tsne,
            legacy_ratio: value(raw.legacy_ratio).unwrap_or(true),
        })
    }

    fn groups(&mut self, raw: RawAnalysis, mode: GroupMode) -> Option<GroupWork> {
        let wrong = match mode {
            GroupMode::Sampled => [("method", raw.method.as_ref().map(|at| &at.span)), ("", None)],
            GroupMode::Partition => [
                ("samples", raw.samples.as_ref().map(|at| &at.span)),
                ("reference", raw.reference.as_ref().map(|axis| &axis.span)),
            ],
        };
        for (key, span) in wrong.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            self.report(
                Diagnostic::error(format!("`analysis.{key}` has no effect on `mode = \"{mode}\"`"))
                    .at(span.clone(), "not used")
                    .help(format!("leave `{key}` out")),
            );
        }
        let samples = value(raw.samples).map_or(64, NonZeroUsize::get);
        let references = match mode {
            GroupMode::Sampled => self.references(raw.reference, None, References::Random(samples), samples)?,
            GroupMode::Partition => References::Given(Vec::new()),
        };
        Some(GroupWork {
            mode,
            group_size: value(raw.group_size).map_or(8, NonZeroUsize::get),
            references,
            method: value(raw.method).unwrap_or(PartitionMethod::Greedy),
            cdf: value(raw.cdf).unwrap_or(false),
            save_permutation: value(raw.save_permutation).unwrap_or(true),
        })
    }

    fn activation(&mut self, raw: RawAnalysis) -> Option<Work> {
        if let (Some(targets), Some(thresholds)) = (&raw.targets, &raw.thresholds) {
            self.report(
                Diagnostic::error("`analysis.targets` and `analysis.thresholds` exclude each other")
                    .at(thresholds.span.clone(), "thresholds that are given")
                    .context(targets.span.clone(), "thresholds that follow from shares")
                    .help("give each an `[[analysis]]` block of its own"),
            );
        }
        let mut thresholds = Vec::new();
        if let Some(At { value: RawThresholds { q, k, v, o, gate, up, down }, span }) = raw.thresholds {
            let given = [
                (Role::Q, q),
                (Role::K, k),
                (Role::V, v),
                (Role::O, o),
                (Role::Gate, gate),
                (Role::Up, up),
                (Role::Down, down),
            ];
            for (role, key) in given {
                let threshold = self.at_least(&format!("analysis.thresholds.{role}"), key, 0.0)?;
                thresholds.extend(threshold.map(|threshold| RoleThreshold { role, threshold }));
            }
            if thresholds.is_empty() {
                self.report(
                    Diagnostic::error("`analysis.thresholds` is empty").at(span, "expected a role and its threshold"),
                );
            }
        }
        let mut targets = Vec::new();
        if thresholds.is_empty() {
            let given = self.axis("analysis.targets", raw.targets, &[0.25, 0.5, 0.9]);
            targets = given.iter().filter_map(|at| self.share(at)).collect();
        }
        let batch = self.sizes_of("analysis.batch", raw.batch, &[1, 8, 32]);
        Some(Work::ActivationSparsity {
            targets,
            thresholds,
            batch,
            tokens: value(raw.tokens).map_or(4096, NonZeroUsize::get),
        })
    }

    /// A share of inputs, which may be all of them.
    fn share(&mut self, at: &At<f64>) -> Option<f64> {
        if at.value == 1.0 { Some(1.0) } else { self.sparsity("analysis.targets", at).map(|at| at.value) }
    }

    fn sizes_of(&mut self, path: &str, axis: Option<Axis<NonZeroUsize>>, default: &[usize]) -> Vec<usize> {
        match axis {
            None => default.to_vec(),
            Some(axis) => self.unique(path, axis.values).into_iter().map(|at| at.value.get()).collect(),
        }
    }

    /// A finite number of at least `bound`; nothing inside where it is not given.
    fn at_least(&mut self, path: &str, key: Option<At<f64>>, bound: f64) -> Option<Option<f64>> {
        let Some(At { value, span }) = key else { return Some(None) };
        if value < bound {
            let expected = format!("expected a number of at least {bound}");
            self.report(Diagnostic::error(format!("`{path}` is out of range")).at(span, expected));
            return None;
        }
        Some(Some(value))
    }
}

/// What settings of a kind may depend on.
struct Setting<'a> {
    /// Whether a method of the file looks at inputs.
    calibrates: bool,
    /// What the sources are called.
    names: &'a [String],
    /// The blocks before this one.
    above: &'a [AnalysisBlock],
    feature_axis: FeatureAxis,
}

/// The keys of single kinds that are given, and where.
fn given_keys(raw: &RawAnalysis) -> Vec<(&'static str, Span)> {
    fn one<T>(key: &Option<At<T>>) -> Option<Span> {
        key.as_ref().map(|at| at.span.clone())
    }
    fn axis<T>(key: &Option<Axis<T>>) -> Option<Span> {
        key.as_ref().map(|axis| axis.span.clone())
    }
    let keys = [
        ("head_dim", one(&raw.head_dim)),
        ("column_block", one(&raw.column_block)),
        ("nm", axis(&raw.nm)),
        ("scores", one(&raw.scores)),
        ("pairs", axis(&raw.pairs)),
        ("metrics", axis(&raw.metrics)),
        ("order", axis(&raw.order)),
        ("marginals", one(&raw.marginals)),
        ("pixels", one(&raw.pixels)),
        ("reference", axis(&raw.reference)),
        ("references", one(&raw.references)),
        ("candidates", one(&raw.candidates)),
        ("metric", one(&raw.metric)),
        ("neighbours", one(&raw.neighbours)),
        ("input", one(&raw.input)),
        ("algorithm", one(&raw.algorithm)),
        ("linkage", one(&raw.linkage)),
        ("k", axis(&raw.k)),
        ("n_init", one(&raw.n_init)),
        ("null", one(&raw.null)),
        ("tsne", one(&raw.tsne)),
        ("legacy_ratio", one(&raw.legacy_ratio)),
        ("block", axis(&raw.block)),
        ("mode", one(&raw.mode)),
        ("group_size", one(&raw.group_size)),
        ("samples", one(&raw.samples)),
        ("method", one(&raw.method)),
        ("cdf", one(&raw.cdf)),
        ("save_permutation", one(&raw.save_permutation)),
        ("cuts", axis(&raw.cuts)),
        ("targets", axis(&raw.targets)),
        ("thresholds", one(&raw.thresholds)),
        ("batch", axis(&raw.batch)),
        ("tokens", one(&raw.tokens)),
    ];
    keys.into_iter().filter_map(|(key, span)| Some((key, span?))).collect()
}

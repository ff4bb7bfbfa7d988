//! A cell's matrices → its numbers: a function for every kind, each making the rows of its tables.

use super::activations::sparsity_rows;
use super::clusters::clusters;
use super::features::{Looked, linkage, metric};
use super::matrix::Matrix;
use super::sheet::{Sheet, row};
use crate::analysis::{
    Axis, Hierarchy, NeighbourRow, Profile, WeightPair, block_coherence, candidates, density_profile, distance_cdf,
    draw, features, gradient, group_rows, group_summary, hierarchy_rows, member_rows, nearest_first, neighbours,
    nm_conformance, partition, random_partition, sampled, similarity, spy, structure, summarise,
};
use crate::config::analysis::*;
use crate::plan::AnalysisCell;
use crate::record::{AnalysisNumbers, Entry};

/// The most pixels of a side of a gradient's picture.
const GRADIENT_PIXELS: usize = 512;

/// The numbers of a cell whose matrices these are, one for every source.
pub(super) fn numbers(cell: &AnalysisCell, matrices: &[Matrix]) -> AnalysisNumbers {
    let mut sheet = Sheet::default();
    sheet.0.matrices = matrices.iter().map(Matrix::info).collect();
    let looked = Looked::new(cell, matrices);
    for (source, matrix) in matrices.iter().enumerate() {
        match &cell.work {
            Work::Structure { head_dim, column_block, nm, .. } => {
                structures(&looked, source, *head_dim, *column_block, nm, &mut sheet);
            }
            Work::MaskSimilarity { metrics, pairs } => {
                similarities(&looked, source, metrics, pairs.as_deref(), &mut sheet)
            }
            Work::Spy { order, marginals, pixels } => pictures(&looked, source, order, *marginals, *pixels, &mut sheet),
            Work::HammingGradient { references, candidates, n, metric } => {
                gradients(&looked, source, references, (*candidates, *n), *metric, &mut sheet);
            }
            Work::Neighbours { references, n, metric } => nearest(&looked, source, references, *n, *metric, &mut sheet),
            Work::Clustering(work) => clusters(&looked, source, work, &mut sheet),
            Work::BlockCoherence { block, order } => coherence(&looked, source, block, order, &mut sheet),
            Work::Groups(work) => groups(&looked, source, work, &mut sheet),
            Work::Hierarchy { linkage: how, cuts } => tree(&looked, source, *how, cuts, &mut sheet),
            Work::ActivationSparsity { targets, thresholds, batch, .. } => {
                sparsity_rows(cell, matrix, source, (targets, thresholds, batch), &mut sheet);
            }
        }
    }
    sheet.0
}

fn structures(
    looked: &Looked<'_>,
    source: usize,
    head_dim: Option<usize>,
    column_block: usize,
    nm: &[[usize; 2]],
    sheet: &mut Sheet,
) {
    let (matrix, of) = (&looked.matrices[source], &looked.cell.sources[source]);
    let found = structure(&matrix.pattern, Some(&matrix.weights), matrix.value_bytes, of.total);
    let group = looked.cell.role.map(|role| match role {
        Role::Q | Role::K | Role::V | Role::O => "attention_linear",
        Role::Gate | Role::Up | Role::Down => "mlp_linear",
    });
    let (row_density, col_density) = (found.row_density, found.col_density);
    sheet.push(
        "structure",
        source,
        row![
            group,
            found.nnz,
            found.total,
            found.sparsity,
            found.kept_zeros,
            found.param_frac,
            found.flops_per_token_dense,
            found.flops_per_token_sparse,
            found.bytes_dense,
            found.bytes_csr,
            found.bytes_csr_i32,
            found.bytes_csr_i64,
            found.bytes_bitmask,
            found.bytes_bitmask_with_offsets,
            row_density.mean,
            row_density.sd,
            row_density.min,
            row_density.max,
            col_density.mean,
            col_density.sd,
            col_density.min,
            col_density.max,
            found.dead_rows,
            found.dead_cols,
            found.full_rows,
            found.full_cols,
            matrix.mask_source(),
        ],
    );
    let head_dim = head_dim.or(matrix.head_dim);
    let head = match looked.cell.role {
        Some(Role::Q | Role::K | Role::V) => head_dim.map(|width| Profile::Head(Axis::Out, width)),
        Some(Role::O) => head_dim.map(|width| Profile::Head(Axis::In, width)),
        Some(Role::Gate | Role::Up | Role::Down) | None => None,
    };
    let profiles = [
        ("row", Some(Profile::Row)),
        ("col", Some(Profile::Col)),
        ("head", head),
        ("colblock", Some(Profile::ColBlock(column_block))),
    ];
    for (axis, profile) in profiles.into_iter().filter_map(|(axis, profile)| Some((axis, profile?))) {
        // A row or a column has no part that could be missing.
        let parts = matches!(profile, Profile::Head(..) | Profile::ColBlock(_));
        for line in density_profile(&matrix.pattern, profile) {
            let complete = parts.then_some(line.complete);
            sheet.push(
                "density_profile",
                source,
                row![axis, line.index, line.count, line.size, line.density, complete],
            );
        }
    }
    for &[n, m] in nm {
        let found = nm_conformance(&matrix.pattern, n, m);
        let histogram: Vec<String> = found.kept_histogram.iter().map(ToString::to_string).collect();
        sheet.push(
            "nm_conformance",
            source,
            row![
                found.n,
                found.m,
                found.groups,
                found.conforming,
                found.conforming_fraction,
                found.exact_fraction,
                found.max_kept,
                found.remainder_columns,
                found.remainder_kept,
                histogram.join(" "),
            ],
        );
    }
    for line in features(&matrix.pattern, &matrix.weights, matrix.norms.as_deref(), looked.axes[source]) {
        sheet.push(
            "features",
            source,
            row![line.feature, line.density, line.l2_norm, line.wanda_score, line.is_dead, line.is_full,],
        );
    }
}

fn similarities(
    looked: &Looked<'_>,
    source: usize,
    metrics: &[SimilarityFigure],
    pairs: Option<&[[String; 2]]>,
    sheet: &mut Sheet,
) {
    let sources = &looked.cell.sources;
    let a = &sources[source];
    for (other, b) in sources.iter().enumerate() {
        let wanted = match pairs {
            None => other > source && a.name != b.name,
            Some(pairs) => pairs.iter().any(|[x, y]| *x == a.name && *y == b.name),
        };
        // What depends on no seed is compared once, in a cell of its own.
        if !wanted || (looked.cell.seed.is_some() && a.seed.is_none() && b.seed.is_none()) {
            continue;
        }
        let [x, y] = [source, other].map(|index| &looked.matrices[index]);
        if x.shape() != y.shape() || looked.axes[source] != looked.axes[other] {
            sheet.note(format!("`{}` and `{}` have other shapes or features: not compared", a.name, b.name));
            continue;
        }
        let weights = WeightPair { a: &x.weights, b: &y.weights, axis: looked.axes[source] };
        let rows = similarity(&looked.masks[source], &looked.masks[other], Some(weights));
        for line in &rows {
            sheet.push(
                "mask_similarity",
                source,
                row![
                    b.name.as_str(),
                    b.seed,
                    line.feature,
                    line.density_a,
                    line.density_b,
                    line.jaccard,
                    line.jaccard_chance,
                    line.hamming_count,
                    line.hamming,
                    line.hamming_chance,
                    line.kappa,
                    line.cosine,
                    line.mask_cosine,
                ],
            );
        }
        let asked = |name: &str| metrics.iter().any(|metric| metric.name() == name);
        for line in summarise(&rows).iter().filter(|line| asked(line.metric.name())) {
            sheet.push(
                "mask_similarity_summary",
                source,
                row![
                    b.name.as_str(),
                    b.seed,
                    line.metric.name(),
                    line.n_features,
                    line.n_undefined,
                    line.mean,
                    line.sd,
                    line.p5,
                    line.p50,
                    line.p95,
                    line.chance,
                ],
            );
        }
    }
}

fn pictures(looked: &Looked<'_>, source: usize, orders: &[Order], marginals: bool, pixels: usize, sheet: &mut Sheet) {
    let matrix = &looked.matrices[source];
    for wanted in orders {
        let (order, name) = looked.order(source, wanted);
        let (rows, cols) = match looked.axes[source] {
            Axis::In => (None, Some(&*order)),
            Axis::Out => (Some(&*order), None),
        };
        let found = spy(&matrix.pattern, rows, cols, pixels);
        let [out, inp] = matrix.shape();
        let of = [rows.map_or(out, <[usize]>::len), cols.map_or(inp, <[usize]>::len)];
        let density = matrix.pattern.kept() as f64 / (out * inp) as f64;
        sheet.push("spy", source, row![name.as_str(), found.width, found.height, of[0], of[1], density, marginals]);
        sheet.picture(source, name, &found, of, false, marginals);
    }
}

/// The values of a neighbour behind what tells which it is.
fn neighbour(line: &NeighbourRow) -> Vec<Entry> {
    row![
        line.rank,
        line.feature,
        line.hamming_count,
        line.hamming,
        line.expected,
        line.kappa,
        line.jaccard,
        line.density
    ]
}

fn gradients(
    looked: &Looked<'_>,
    source: usize,
    wanted: &References,
    (mode, n): (CandidateMode, usize),
    near: Nearness,
    sheet: &mut Sheet,
) {
    let (cell, mask) = (looked.cell, &looked.masks[source]);
    for reference in looked.references(source, &cell.analysis, wanted) {
        constant_reference(looked, source, reference, sheet);
        let all = candidates(mask, reference, cell.skip_constant);
        let chosen = match mode {
            CandidateMode::All => all,
            CandidateMode::Nearest => nearest_first(mask, reference, &all, metric(near)).into_iter().take(n).collect(),
            CandidateMode::Random => {
                draw(&all, n, looked.seed(&cell.analysis, &["candidates", &reference.to_string()]))
            }
        };
        let found = gradient(mask, reference, &chosen, metric(near));
        for line in &found.rows {
            sheet.push("gradient", source, [row![reference], neighbour(line)].concat());
        }
        sheet.push(
            "gradient_summary",
            source,
            row![
                mode.name(),
                near.name(),
                reference,
                found.n_candidates,
                found.hamming_min,
                found.hamming_max,
                found.hamming_mean,
                mask.length(),
                found.reference_density,
                found.subset_sparsity,
                found.tied_neighbours,
            ],
        );
        let order: Vec<usize> = found.rows.iter().map(|line| line.feature).collect();
        let features = mask.select(&order);
        let upright = crate::sparse::Pattern::from_rows(order.len(), mask.length(), |at, words| {
            words.copy_from_slice(features.row(at));
        });
        let drawn = spy(&upright, None, None, GRADIENT_PIXELS);
        sheet.picture(source, format!("reference:{reference}"), &drawn, [order.len(), mask.length()], true, true);
        histogram(looked, source, reference, sheet);
    }
}

/// A reference that keeps nothing or everything has neighbours by density alone.
fn constant_reference(looked: &Looked<'_>, source: usize, reference: usize, sheet: &mut Sheet) {
    if looked.masks[source].is_constant(reference) {
        let name = &looked.cell.sources[source].name;
        sheet.note(format!("reference {reference} of `{name}` keeps nothing or everything"));
    }
}

/// How far all other features are from a reference, in at most 64 steps.
fn histogram(looked: &Looked<'_>, source: usize, reference: usize, sheet: &mut Sheet) {
    const STEPS: usize = 64;
    let mask = &looked.masks[source];
    let others = candidates(mask, reference, looked.cell.skip_constant);
    let distances: Vec<f64> = neighbours(mask, reference, &others, metric(Nearness::Hamming), usize::MAX)
        .iter()
        .map(|line| line.hamming)
        .collect();
    let (Some(&low), Some(&high)) = (distances.first(), distances.last()) else { return };
    let width = ((high - low) / STEPS as f64).max(1.0 / mask.length() as f64);
    let mut counts = vec![0usize; STEPS + 1];
    distances.iter().for_each(|distance| counts[(((distance - low) / width) as usize).min(STEPS)] += 1);
    for (step, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        let from = low + step as f64 * width;
        sheet.push("distance_histogram", source, row![reference, from, from + width, count]);
    }
}

fn nearest(looked: &Looked<'_>, source: usize, wanted: &References, n: usize, near: Nearness, sheet: &mut Sheet) {
    let (cell, mask) = (looked.cell, &looked.masks[source]);
    for reference in looked.references(source, &cell.analysis, wanted) {
        constant_reference(looked, source, reference, sheet);
        let others = candidates(mask, reference, cell.skip_constant);
        for line in neighbours(mask, reference, &others, metric(near), n) {
            let front = row![near.name(), reference, mask.is_constant(reference)];
            sheet.push("neighbours", source, [front, neighbour(&line)].concat());
        }
        histogram(looked, source, reference, sheet);
    }
}

fn coherence(looked: &Looked<'_>, source: usize, blocks: &[usize], orders: &[Order], sheet: &mut Sheet) {
    let (mask, dead_rows) = (&looked.masks[source], looked.dead_positions(source));
    for wanted in orders {
        let (order, name) = looked.order(source, wanted);
        for &block in blocks {
            let (rows, summary) = block_coherence(mask, &order, block);
            for line in rows {
                sheet.push(
                    "block_coherence",
                    source,
                    row![
                        name.as_str(),
                        block,
                        line.block_index,
                        line.size,
                        line.rows,
                        line.all_zero_rows,
                        line.coherence,
                        line.null,
                        line.lift,
                        line.null_sd,
                        dead_rows,
                    ],
                );
            }
            sheet.push(
                "block_coherence_summary",
                source,
                row![
                    name.as_str(),
                    block,
                    summary.blocks,
                    summary.coherence_mean,
                    summary.null_mean,
                    summary.lift,
                    summary.skippable_fraction,
                    summary.null_skippable_fraction,
                    summary.coherence_mean_complete,
                    dead_rows,
                ],
            );
        }
    }
}

fn groups(looked: &Looked<'_>, source: usize, work: &GroupWork, sheet: &mut Sheet) {
    let (cell, mask, size) = (looked.cell, &looked.masks[source], work.group_size);
    let (found, grouping) = match work.mode {
        GroupMode::Sampled => {
            let seeds = looked.references(source, &cell.analysis, &work.references);
            (sampled(mask, &seeds, size, cell.skip_constant), None)
        }
        GroupMode::Partition => {
            let made = partition(mask, size, looked.partition(&cell.analysis, work));
            (made.unwrap_or_default(), Some(work.method.name()))
        }
    };
    let front = row![work.mode.name(), grouping, size];
    let rows = group_rows(mask, &found, size);
    for line in &rows {
        let values = row![
            line.group_index,
            line.seed_feature,
            line.size,
            line.complete,
            line.mean_pairwise_hamming,
            line.all_zero_rows,
            line.all_one_rows,
            line.distinct_patterns,
            line.repeated_patterns,
            line.pattern_entropy,
            line.density,
            line.null_zero_rows,
            line.null_one_rows,
            line.null_distinct_patterns,
            line.null_pattern_entropy,
            line.upstream_mean_with_diagonal,
        ];
        sheet.push("groups", source, [front.clone(), values].concat());
    }
    if work.save_permutation {
        for line in member_rows(&found) {
            let values = row![line.group_index, line.position, line.feature];
            sheet.push("group_members", source, [front.clone(), values].concat());
        }
    }
    if work.cdf {
        for line in distance_cdf(mask, &found) {
            let index = line.group_index.map_or(Entry::Int(-1), Entry::from);
            sheet.push("distance_cdf", source, [front.clone(), vec![index], row![line.hamming, line.cdf]].concat());
        }
    }
    let (all, random) = (group_summary(&rows, mask.length()), random_partition(mask, size));
    let lift = if all.null_zero_fraction > 0.0 { all.zero_fraction / all.null_zero_fraction } else { f64::NAN };
    let values = row![
        all.groups,
        all.rows_total,
        all.zero_fraction,
        all.one_fraction,
        all.null_zero_fraction,
        all.null_one_fraction,
        lift,
        all.mean_distance,
        random.mean_distance,
        random.zero_rows,
        random.one_rows,
        looked.dead_positions(source),
    ];
    sheet.push("group_summary", source, [front, values].concat());
}

fn tree(looked: &Looked<'_>, source: usize, how: TreeLinkage, cuts: &[usize], sheet: &mut Sheet) {
    let all = &looked.masks[source];
    let mask = if looked.cell.skip_constant { all.select(&all.varying()) } else { all.clone() };
    if mask.features() == 0 {
        return sheet.note(format!("`{}` has no feature that varies", looked.cell.sources[source].name));
    }
    let tree = Hierarchy::of(&mask, linkage(how));
    for line in hierarchy_rows(&mask, &tree, cuts) {
        sheet.push(
            "hierarchy",
            source,
            row![
                how.name(),
                line.n_clusters,
                line.within,
                line.between,
                line.separation,
                line.n_singletons,
                line.largest,
            ],
        );
    }
}

//! The rows of clusterings.

use super::features::Looked;
use super::sheet::{Sheet, row};
use crate::analysis::{Embedding, embedding};
use crate::config::analysis::ClusterWork;

/// The most features that are embedded in the plane: the time grows with their square.
const MOST_EMBEDDED: usize = 4096;

/// Clusters the features of a source: the neighbourhood of every reference, or all, for every number of clusters.
pub(super) fn clusters(looked: &Looked<'_>, source: usize, work: &ClusterWork, sheet: &mut Sheet) {
    let (cell, mask) = (looked.cell, &looked.masks[source]);
    let dead_rows = looked.dead_positions(source);
    let all = looked.neighbourhoods(source, &cell.analysis, work, cell.skip_constant);
    if all.is_empty() {
        sheet.note(format!("`{}` has no feature that can be a reference", cell.sources[source].name));
    }
    for (at, (reference, features)) in all.into_iter().enumerate() {
        // One picture is enough to look at.
        let few = features.len() <= MOST_EMBEDDED;
        if work.tsne.is_some() && at == 0 && !few {
            sheet.note(format!("no embedding of {} features: at most {MOST_EMBEDDED} are embedded", features.len()));
        }
        let plane = work.tsne.filter(|_| at == 0 && few).map(|perplexity| {
            embedding(&mask.select(&features), perplexity, looked.seed(&cell.analysis, &["embedding"]))
        });
        for &k in &work.k {
            one(looked, source, work, (reference, &features, k), plane.as_ref(), dead_rows, sheet);
        }
    }
}

fn one(
    looked: &Looked<'_>,
    source: usize,
    work: &ClusterWork,
    (reference, features, k): (Option<usize>, &[usize], usize),
    plane: Option<&Embedding>,
    dead_rows: usize,
    sheet: &mut Sheet,
) {
    let found = looked.clusters(source, &looked.cell.analysis, work, features, reference, k);
    if found.features.is_empty() {
        let name = &looked.cell.sources[source].name;
        sheet.note(format!("`{name}` has only {} features to make {k} clusters of", features.len()));
    }
    let (line, figures) = (&found.row, &found.row.figures);
    let legacy = |number: f64| work.legacy_ratio.then_some(number);
    sheet.push(
        "clustering",
        source,
        row![
            reference,
            k,
            work.algorithm.name(),
            work.input.name(),
            line.n_features,
            figures.within,
            figures.between,
            figures.separation,
            figures.expected_within,
            figures.expected_between,
            figures.density_separation,
            figures.silhouette,
            figures.n_singletons,
            figures.n_nonempty,
            figures.largest_fraction,
            line.inertia,
            line.n_iter,
            line.null.mean,
            line.null.sd,
            line.null.z,
            legacy(figures.legacy_within),
            legacy(figures.legacy_ratio),
            dead_rows,
        ],
    );
    for feature in &found.features {
        let [x, y] = [0, 1].map(|axis| plane.map(|plane| plane.points[feature.feature][axis]));
        sheet.push(
            "clusters",
            source,
            row![reference, k, features[feature.feature], feature.cluster, feature.silhouette, x, y],
        );
    }
    for pair in &found.pairs {
        sheet.push(
            "cluster_pairs",
            source,
            row![reference, k, pair.cluster_a, pair.cluster_b, pair.pairs, pair.mean_hamming,],
        );
    }
}

//! What is drawn for a cell: references, orders and clusters of features, the same for all sources where they are compared.

use super::matrix::{Matrix, axis_of};
use crate::analysis::{
    Algorithm, Axis, ClusterSettings, Clustering, Linkage, Mask, Metric, Partition, Points, clustering, draw, order,
    partition, references, sub_seed,
};
use crate::config::analysis::*;
use crate::plan::AnalysisCell;

/// The matrices of a cell with their features.
pub(super) struct Looked<'a> {
    pub cell: &'a AnalysisCell,
    pub matrices: &'a [Matrix],
    pub axes: Vec<Axis>,
    pub masks: Vec<Mask>,
}

impl<'a> Looked<'a> {
    pub fn new(cell: &'a AnalysisCell, matrices: &'a [Matrix]) -> Self {
        let axes: Vec<Axis> = cell.sources.iter().map(|source| axis_of(cell, source)).collect();
        let masks = matrices.iter().zip(&axes).map(|(matrix, &axis)| Mask::of(&matrix.pattern, axis)).collect();
        Self { cell, matrices, axes, masks }
    }

    /// The seed of a draw. The source is not in it: what is drawn is the same for all that are compared.
    pub fn seed(&self, analysis: &str, what: &[&str]) -> u64 {
        let seed = self.cell.seed.unwrap_or(0).to_string();
        let layer = self.cell.layer.map(|layer| layer.to_string()).unwrap_or_default();
        let module = self.cell.sources.first().map_or("", |source| source.module.as_str());
        let place = self.cell.role.map_or(module, |role| role.name());
        let fields: Vec<&str> = [&[seed.as_str(), analysis, &layer, place], what].concat();
        sub_seed(&fields)
    }

    /// The references of a source.
    pub fn references(&self, source: usize, analysis: &str, wanted: &References) -> Vec<usize> {
        let mask = &self.masks[source];
        let count = match wanted {
            References::Given(list) => return list.clone(),
            References::Random(count) => *count,
            References::All => usize::MAX,
        };
        // Only masks with as many features can share references.
        let same: Vec<&Mask> = self.masks.iter().filter(|other| other.features() == mask.features()).collect();
        let seed = self.seed(analysis, &["references"]);
        if self.cell.skip_constant {
            references(&same, count, seed)
        } else {
            draw(&(0..mask.features()).collect::<Vec<_>>(), count, seed)
        }
    }

    /// Features in an order, and what tables call it.
    pub fn order(&self, source: usize, wanted: &Order) -> (Vec<usize>, String) {
        let mask = &self.masks[source];
        let order = match wanted {
            Order::Identity => order::identity(mask),
            Order::Density => order::by_density(mask),
            Order::Groups { id, work } => {
                partition(mask, work.group_size, self.partition(id, work)).unwrap_or_default().concat()
            }
            Order::Cluster { id, work, skip_constant } => {
                let first = self.neighbourhoods(source, id, work, *skip_constant).into_iter().next();
                let (reference, features) = first.unwrap_or_default();
                let k = work.k.iter().copied().max().unwrap_or(1);
                // Whether chance would do as well is the other analysis's question.
                let work = ClusterWork { null_repeats: 0, ..work.clone() };
                let found = self.clusters(source, id, &work, &features, reference, k);
                let mut labelled: Vec<(usize, usize)> = found.labels().into_iter().zip(features).collect();
                labelled.sort_unstable();
                labelled.into_iter().map(|(_, feature)| feature).collect()
            }
        };
        (order, wanted.to_string())
    }

    /// Positions at which no feature keeps anything: dead rows where features are columns. They raise every lift.
    pub fn dead_positions(&self, source: usize) -> usize {
        let other = match self.axes[source] {
            Axis::In => Axis::Out,
            Axis::Out => Axis::In,
        };
        let mask = Mask::of(&self.matrices[source].pattern, other);
        (0..mask.features()).filter(|&position| mask.is_dead(position)).count()
    }

    /// How a partition is made.
    pub fn partition(&self, analysis: &str, work: &GroupWork) -> Partition {
        match work.method {
            PartitionMethod::Greedy => Partition::Greedy,
            PartitionMethod::Density => Partition::Density,
            PartitionMethod::Identity => Partition::Identity,
            PartitionMethod::Random => Partition::Random(self.seed(analysis, &["partition"])),
        }
    }

    /// The features that are clustered: of every reference, or all of them once.
    pub fn neighbourhoods(
        &self,
        source: usize,
        analysis: &str,
        work: &ClusterWork,
        skip_constant: bool,
    ) -> Vec<(Option<usize>, Vec<usize>)> {
        let mask = &self.masks[source];
        if work.neighbours == 0 {
            let all = if skip_constant { mask.varying() } else { (0..mask.features()).collect() };
            return vec![(None, all)];
        }
        let references = self.references(source, analysis, &work.references).into_iter();
        let near = |reference| crate::analysis::neighbourhood(mask, reference, work.neighbours, skip_constant);
        references.map(|reference| (Some(reference), near(reference))).collect()
    }

    /// Clusters some features.
    pub fn clusters(
        &self,
        source: usize,
        analysis: &str,
        work: &ClusterWork,
        features: &[usize],
        reference: Option<usize>,
        k: usize,
    ) -> Clustering {
        let mask = self.masks[source].select(features);
        let rows;
        let points = match work.input {
            ClusterInput::Mask => Points::Mask,
            ClusterInput::Weights | ClusterInput::Sign => {
                let (all, length) = (self.matrices[source].by_feature(self.axes[source]), mask.length());
                rows = features.iter().flat_map(|&f| all[f * length..][..length].to_vec()).collect::<Vec<f32>>();
                if work.input == ClusterInput::Sign { Points::Sign(&rows) } else { Points::Weights(&rows) }
            }
        };
        let algorithm = match work.algorithm {
            ClusterAlgorithm::KMeans => Algorithm::KMeans { points, starts: work.n_init },
            ClusterAlgorithm::KMedoids => Algorithm::KMedoids,
            ClusterAlgorithm::Agglomerative => Algorithm::Agglomerative(linkage(work.linkage)),
        };
        let reference = reference.map_or_else(|| "all".to_owned(), |reference| reference.to_string());
        let seed = self.seed(analysis, &["clusters", &reference, &k.to_string()]);
        clustering(&mask, &ClusterSettings { algorithm, k, null_repeats: work.null_repeats, seed })
    }
}

/// How far two clusters are apart.
pub(super) fn linkage(linkage: TreeLinkage) -> Linkage {
    match linkage {
        TreeLinkage::Average => Linkage::Average,
        TreeLinkage::Ward => Linkage::Ward,
    }
}

/// What nearness is measured by.
pub(super) fn metric(metric: Nearness) -> Metric {
    match metric {
        Nearness::Hamming => Metric::Hamming,
        Nearness::Jaccard => Metric::Jaccard,
        Nearness::Kappa => Metric::Kappa,
    }
}
